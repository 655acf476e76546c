"""Attention over a cache of pages: what decoding reads from memory and how near prefill comes to the arithmetic peak.

    python bench/attend_pages.py            # about a minute; --rounds 15 by default

The shape is that of a 2B model: 20 query heads over 5 KV heads of width 128, one layer at a time. Decode: one row at
depth 4K, 16K and 64K; a round goes over as many layers as make half a gigabyte, so that nothing is left in a cache.
Prefill: 512 rows at depth 0 and 16K. "of bandwidth" divides the bytes of the pages by the bandwidth, "of peak" the
multiply-adds of visible keys (counted as two) by the bf16 peak; ops/measure.py finds both in the same run. The int8
cache's products run on int8 dot products, whose peak is higher: the share of the bf16 peak says what one gains.
`write` is rotate_and_write of the same rows. Medians, kinds in turn; 1 and 2 threads.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

from _facts import alternate, require_native, write
from kogata.ops import dispatch, measure
from kogata.ops.attend import PageKind, attend_pages, new_pages, rotate_and_write

HEADS, KV_HEADS, WIDTH = 20, 5, 128
KINDS: tuple[PageKind, ...] = ("bf16", "int8", "f32")
POOL_BYTES = 1 << 29


class Layers:
    """A sequence of `depth` tokens and `rows` new ones in the pages of several layers, full of plausible values."""

    def __init__(self, kind: PageKind, depth: int, rows: int) -> None:
        self.kind, self.length, self.rows = kind, depth + rows, rows
        n_pages = -(-self.length // 64)
        one = new_pages(n_pages, 1, KV_HEADS, kind, WIDTH).nbytes
        self.pages = new_pages(n_pages, max(1, POOL_BYTES // one) if rows == 1 else 1, KV_HEADS, kind, WIDTH)
        rng = np.random.default_rng(0)
        self.table = np.arange(n_pages, dtype=np.int32)[None]
        self.qkv = rng.standard_normal((rows, (HEADS + 2 * KV_HEADS) * WIDTH), np.float32)
        self.out = np.empty((rows, HEADS * WIDTH), np.float32)
        self.cu, self.lengths = np.array([0, rows], np.int32), np.array([self.length], np.int32)
        self.cos = np.ones((self.length, WIDTH // 2), np.float32)
        self.sin = np.zeros_like(self.cos)
        keys = rng.standard_normal((self.length, self.qkv.shape[1]), np.float32)
        places = np.arange(self.length, dtype=np.int32)
        self._write(keys, places, self.pages[:, 0], np.array([0, self.length], np.int32))
        self.pages[:, 1:] = self.pages[:, :1]
        self.places = places[depth:]

    def _write(self, qkv: Any, places: Any, pages: Any, cu: Any) -> None:
        shape = (HEADS, KV_HEADS, WIDTH)
        rotate_and_write(qkv, places, self.cos, self.sin, pages, self.kind, self.table, cu, *shape)

    def attend(self) -> None:
        shape = (HEADS, KV_HEADS, WIDTH, WIDTH**-0.5, 0)
        for pages in self.pages.swapaxes(0, 1):
            attend_pages(self.qkv, pages, self.kind, self.table, self.cu, self.lengths, *shape, self.out)

    def write(self) -> None:
        for pages in self.pages.swapaxes(0, 1):
            self._write(self.qkv, self.places, pages, self.cu)

    @property
    def read_bytes(self) -> int:
        return int(self.pages.nbytes)

    @property
    def operations(self) -> float:
        keys = self.rows * (self.length - self.rows) + self.rows * (self.rows + 1) / 2
        return 4.0 * keys * HEADS * WIDTH * self.pages.shape[1]


def measured(threads: int, depth: int, rows: int, rounds: int) -> dict[str, dict[str, float]]:
    """For every kind: microseconds a layer, and the rate by bytes and by operations."""
    dispatch.set_threads(threads)
    layers = {kind: Layers(kind, depth, rows) for kind in KINDS}
    sides: dict[str, Callable[[], object]] = {kind: one.attend for kind, one in layers.items()}
    sides |= {f"{kind} write": one.write for kind, one in layers.items()}
    seconds = alternate(sides, rounds)
    return {
        kind: {
            "us": 1e6 * seconds[kind] / one.pages.shape[1],
            "write_us": 1e6 * seconds[f"{kind} write"] / one.pages.shape[1],
            "gb_per_s": one.read_bytes / seconds[kind] / 1e9,
            "gflop_per_s": one.operations / seconds[kind] / 1e9,
        }
        for kind, one in layers.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    require_native()
    results: dict[str, Any] = {}
    print(f"{'':34}{'us/layer':>10}{'write':>8}{'GB/s':>8}{'GFLOP/s':>9}{'share':>8}")
    for threads in (1, 2):
        dispatch.set_threads(threads)
        bandwidth, peak = measure.bandwidth(), measure.peaks()["bf16"]
        found: dict[str, Any] = {"bandwidth": bandwidth, "bf16_peak": peak}
        for depth, rows in ((4096, 1), (16384, 1), (65536, 1), (0, 512), (16384, 512)):
            rows_of = measured(threads, depth, rows, arguments.rounds if rows == 1 or depth == 0 else 3)
            for kind, row in rows_of.items():
                row["share"] = row["gb_per_s"] / bandwidth if rows == 1 else row["gflop_per_s"] / peak
                print(
                    f"{f'{threads} thr, {rows} rows at {depth}, {kind}':34}{row['us']:>10.0f}{row['write_us']:>8.1f}"
                    f"{row['gb_per_s']:>8.1f}{row['gflop_per_s']:>9.0f}{row['share']:>8.0%}"
                )
            found[f"{rows} rows at {depth}"] = rows_of
        print(f"{threads} threads: {bandwidth:.1f} GB/s, bf16 {peak:.0f} GFLOP/s")
        results[f"{threads} threads"] = found
    print(
        "share: of the bandwidth for one row, of the bf16 peak for 512; written",
        write("attend_pages", {"results": results}),
    )


if __name__ == "__main__":
    main()
