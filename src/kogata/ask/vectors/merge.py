"""Rows of several sources in ascending order of id, block by block: what a new segment is written from.

Shapes: m rows of a source that are taken, N rows that its array holds, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kogata.ask.vectors.prefix import SAMPLE_ROWS
from kogata.ask.vectors.segment import WRITE_ROWS, Block


@dataclass(frozen=True)
class Source:
    """ids int64 [m] ascending; vectors f16 [N, D]; rows int64 [m]: where in `vectors` each id's row is (None: in
    order).
    """

    ids: NDArray[np.int64]
    vectors: NDArray[np.float16]
    rows: NDArray[np.int64] | None = None

    def take(self, places: NDArray[np.int64]) -> NDArray[np.float16]:
        return self.vectors[places if self.rows is None else self.rows[places]]


def merged(sources: Sequence[Source]) -> Iterator[Block]:
    """All rows as blocks of WRITE_ROWS, ids ascending. Memory: the ids and one block."""
    ids = np.concatenate([source.ids for source in sources])
    owner = np.repeat(np.arange(len(sources)), [len(source.ids) for source in sources])
    place = np.concatenate([np.arange(len(source.ids)) for source in sources])
    order = np.argsort(ids, kind="stable")
    for start in range(0, len(order), WRITE_ROWS):
        chosen = order[start : start + WRITE_ROWS]
        vectors = np.empty((len(chosen), sources[0].vectors.shape[1]), np.float16)
        for number, source in enumerate(sources):
            mine = owner[chosen] == number
            vectors[mine] = source.take(place[chosen[mine]])
        yield Block(ids[chosen], vectors)


def sample(sources: Sequence[Source]) -> NDArray[np.float16]:
    """At most about SAMPLE_ROWS rows, evenly spaced over each source."""
    total = sum(len(source.ids) for source in sources)
    step = max(1, total // SAMPLE_ROWS)
    return np.concatenate([source.take(np.arange(0, len(source.ids), step)) for source in sources])
