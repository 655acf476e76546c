"""The short form of a vector that a search scans first: its leading principal components at 4 bits.

No embedder needs to be trained for it. A plain prefix of the raw dimensions of an ordinary model is a poor shortlist;
the leading principal components of the collection itself are the best linear one (they minimise the squared error of
inner products between vectors of that collection), so they are learnt when a segment is written and stored in it.
They are then turned by a fixed random rotation, which spreads variance evenly over the kept dimensions: with one step
size for all, 4-bit codes lose almost nothing. A constant added to a vector's codes moves all inner products of one
query alike, so neither the mean nor the code's offset is needed to rank. Figures: docs/LOG.md and
bench/search_speed.py.

Shapes: n rows, D dimensions, P prefix dimensions (a multiple of 8), R = min(P, D) of which are used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DIMENSIONS = 192  # 96 bytes a row
SAMPLE_ROWS = 32_768  # what the components are learnt from; more changes no figure
STEP = 0.3  # of a standard deviation: 16 levels reach 2.4 deviations to both sides
ROTATION_SEED = 1


@dataclass(frozen=True)
class Prefix:
    """A learnt projection. basis_PD: f32, rows beyond R are zeros; centre_P: the projected mean; step: width of one
    code.
    """

    basis_PD: NDArray[np.float32]
    centre_P: NDArray[np.float32]
    step: float

    def codes(self, vectors_nD: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Codes 0..15 of the vectors, uint8 [n, P]. The centre is the middle of a step, so that rounding noise of
        vectors that are all alike decides nothing."""
        projected_nP = vectors_nD.astype(np.float32) @ self.basis_PD.T - self.centre_P
        codes_nP: NDArray[np.uint8] = np.clip(np.rint(projected_nP / self.step) + 8, 0, 15).astype(np.uint8)
        return codes_nP

    def weights(self, q_D: NDArray[np.float32]) -> NDArray[np.int8]:
        """The query's int8 weights [P]: sums of weight times code order rows as inner products of the projections
        do.
        """
        projected_P = self.basis_PD @ q_D
        largest = float(np.abs(projected_P).max())
        if largest == 0:
            return np.zeros(len(projected_P), np.int8)
        weights_P: NDArray[np.int8] = np.rint(projected_P * (127 / largest)).astype(np.int8)
        return weights_P


def learn(sample_nD: NDArray[np.floating], dimensions: int = DIMENSIONS) -> Prefix:
    """The projection for vectors like the sample; the same sample gives the same projection."""
    sample_nD = np.asarray(sample_nD, np.float32)
    n, d = sample_nD.shape
    used = min(dimensions, d)
    mean_D = sample_nD.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred_nD = sample_nD - mean_D
    _, components_DD = np.linalg.eigh((centred_nD.T @ centred_nD).astype(np.float64) / max(1, n))
    rotation_RR, _ = np.linalg.qr(np.random.default_rng(ROTATION_SEED).standard_normal((used, used)))
    basis_PD = np.zeros((-(-dimensions // 8) * 8, d), np.float32)
    basis_PD[:used] = rotation_RR @ components_DD[:, ::-1][:, :used].T
    deviation = float((centred_nD @ basis_PD[:used].T).std())
    return Prefix(basis_PD, basis_PD @ mean_D, STEP * deviation if deviation > 0 else 1.0)
