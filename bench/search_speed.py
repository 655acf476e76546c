"""Dense search over one and the same vectors: latency of a single query and recall@10, one thread.

    python bench/million.py             # first, once: the vectors
    python bench/search_speed.py        # --sizes 10000 1000000, --model minilm, --no-hnsw

Sides, all in one process and in turn, query by query:
    f32 exact    our scan of float32 rows in memory; what the others are measured against
    f16 exact    our scan of a mapped segment's float16 rows (`search(..., exact=True)`)
    adaptive     what `kogata search` does: 4-bit prefix scan, shortlist scored in float16
    graph        what takes the scan's place above a million rows where usearch is installed: its HNSW over the prefix
                 (measured from a million on), shortlist scored in float16
    numpy        rows @ query, then argpartition
    usearch f16, usearch i8    HNSW with usearch's own defaults; building time and file size are stated
Queries are sentences that are not among the rows. Recall is against exact float32 search at full dimension by numpy.
The floor of a side is the bytes it must read divided by the memory bandwidth measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

import million
from _facts import require_native, write
from kogata.ask.vectors import SegmentFolder, SegmentRecord, VectorSet, graph, prefix, search
from kogata.ops import dispatch, measure
from kogata.ops.score import topk

K = 10
SLOW_QUERIES = 100  # for sides that take tens of milliseconds; the others get every query
BUILD_ROWS = 100_000

Search = Callable[[NDArray[np.float32]], NDArray[np.int64]]


def latencies(
    sides: Mapping[str, Callable[[int], object]], n_queries: Mapping[str, int]
) -> dict[str, dict[str, float]]:
    """p50, p99 and mean milliseconds of each side, called with query numbers, in turn; one round is thrown away first.

    Sides with fewer queries than others take part in the first rounds only. Any other kind of search fits in.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for query in range(-2, max(n_queries.values())):
        for name, side in sides.items():
            if query < n_queries[name]:
                begin = time.perf_counter()
                side(max(0, query))
                seconds[name].append(time.perf_counter() - begin)
    table = {}
    for name, measured in seconds.items():
        ms = 1e3 * np.array(measured[2:])
        table[name] = {"p50": float(np.median(ms)), "p99": float(np.quantile(ms, 0.99)), "mean": float(ms.mean())}
    return table


def exact(rows_ND: NDArray[np.float32], queries_QD: NDArray[np.float32]) -> NDArray[np.int64]:
    """The true K nearest rows of every query by numpy, int64 [Q, K]."""
    scores_QK = np.empty((len(queries_QD), 0), np.float32)
    index_QK = np.empty((len(queries_QD), 0), np.int64)
    for start in range(0, len(rows_ND), 50_000):
        block_QB = queries_QD @ rows_ND[start : start + 50_000].T
        best = np.argpartition(block_QB, -min(K, block_QB.shape[1]))[:, -K:]
        scores_QK = np.concatenate([scores_QK, np.take_along_axis(block_QB, best, 1)], axis=1)
        index_QK = np.concatenate([index_QK, best + start], axis=1)
    return np.take_along_axis(index_QK, np.argsort(-scores_QK, axis=1, kind="stable")[:, :K], 1)


def recall(side: Search, queries_QD: NDArray[np.float32], truth_QK: NDArray[np.int64]) -> float:
    found = [len(np.intersect1d(side(query), true)) for query, true in zip(queries_QD, truth_QK, strict=True)]
    return float(np.sum(found) / truth_QK.size)


def segments(home: Path, rows_ND: NDArray[np.float32]) -> tuple[VectorSet, VectorSet | None, dict[str, float]]:
    """The rows as one segment, kept for the next run: scanned, and by its graph where it is large enough; and the
    seconds it took to write and to build (0 when they were there).
    """
    folder = SegmentFolder(home, f"bench {len(rows_ND)}", rows_ND.shape[1])
    manifest = home / "manifest.json"
    seconds = 0.0
    if not manifest.exists():
        begin = time.perf_counter()
        records, _ = folder.append([], np.arange(len(rows_ND)), rows_ND, np.empty(0, np.int64))
        seconds = time.perf_counter() - begin
        million.write_atomically(manifest, json.dumps([asdict(record) for record in records]).encode())
    records = [SegmentRecord(**record) for record in json.loads(manifest.read_text())]
    none, no_tail = np.empty(0, np.int64), np.empty((0, rows_ND.shape[1]), np.float16)
    scanned = VectorSet([replace(one, graph=None) for one in folder.open(records)], none, no_tail, none)
    if len(rows_ND) < graph.MIN_ROWS or not graph.installed():
        return scanned, None, {"write_s": seconds}
    graph.MIN_ROWS = len(rows_ND) - 1
    begin = time.perf_counter()
    folder.build_graphs(records)
    building = time.perf_counter() - begin
    return scanned, VectorSet(folder.open(records), none, no_tail, none), {"write_s": seconds, "graph_s": building}


def hnsw(home: Path, rows_ND: NDArray[np.float32], dtype: str) -> tuple[Any, dict[str, float]]:
    """usearch's HNSW over the rows, built by one thread, kept for the next run; an interrupted build goes on."""
    from usearch.index import Index

    home.mkdir(parents=True, exist_ok=True)
    path, facts_path = home / f"{dtype}.usearch", home / f"{dtype}.json"
    index = Index(ndim=rows_ND.shape[1], metric="ip", dtype=dtype)
    facts = json.loads(facts_path.read_text()) if facts_path.exists() else {"rows": 0, "build_s": 0.0}
    if facts["rows"]:
        index.load(str(path))
    for start in range(facts["rows"], len(rows_ND), BUILD_ROWS):
        begin = time.perf_counter()
        block = rows_ND[start : start + BUILD_ROWS]
        index.add(np.arange(start, start + len(block)), block, threads=1)
        facts = {"rows": start + len(block), "build_s": facts["build_s"] + time.perf_counter() - begin}
        index.save(str(path.with_suffix(".tmp")))
        path.with_suffix(".tmp").replace(path)
        million.write_atomically(facts_path, json.dumps(facts).encode())
        print(f"usearch {dtype}: {facts['rows']:,} rows, {facts['build_s']:.0f} s", flush=True)
    return index, {"build_s": facts["build_s"], "file_mb": path.stat().st_size / 1e6}


def measure_size(
    rows_ND: NDArray[np.float32], queries_QD: NDArray[np.float32], home: Path, kinds: Sequence[str]
) -> dict[str, Any]:
    n, d = rows_ND.shape
    # What is kept between runs is named after the rows it was made of.
    key = f"{n}-{zlib.crc32(np.ascontiguousarray(rows_ND[:: max(1, n // 1000)])):08x}"
    vector_set, by_graph, made = segments(home / f"segments-{key}", rows_ND)

    def numpy_search(query_D: NDArray[np.float32]) -> NDArray[np.int64]:
        scores_N = rows_ND @ query_D
        best = np.argpartition(scores_N, n - K)[n - K :]
        return best[np.argsort(-scores_N[best])]

    searches: dict[str, Search] = {
        "f32 exact": lambda query_D: topk(query_D[None], rows_ND, K)[1][0],
        "f16 exact": lambda query_D: vector_set.search(query_D, K, exact=True)[1],
        "adaptive": lambda query_D: vector_set.search(query_D, K)[1],
        "numpy": numpy_search,
    }
    if by_graph is not None:
        searches["graph"] = lambda query_D: by_graph.search(query_D, K)[1]
    built = {}
    for dtype in kinds:
        index, built[f"usearch {dtype}"] = hnsw(home / f"hnsw-{key}", rows_ND, dtype)
        searches[f"usearch {dtype}"] = lambda query_D, index=index: index.search(query_D, K, threads=1).keys.astype(
            np.int64
        )
    slow = {"f32 exact", "f16 exact", "numpy"} if n > 100_000 else set()
    counts = {name: min(len(queries_QD), SLOW_QUERIES) if name in slow else len(queries_QD) for name in searches}
    calls = {name: (lambda i, one=one: one(queries_QD[i])) for name, one in searches.items()}
    table = latencies(calls, counts)
    truth_QK = exact(rows_ND, queries_QD)
    adaptive_bytes = n * prefix.DIMENSIONS // 2 + search.SHORTLIST * d * 2 if n > search.EXACT_ROWS else n * d * 2
    read_bytes = {"f32 exact": n * d * 4, "f16 exact": n * d * 2, "adaptive": adaptive_bytes, "numpy": n * d * 4}
    bandwidth = measure.bandwidth()
    for name, row in table.items():
        row["recall@10"] = recall(searches[name], queries_QD[: counts[name]], truth_QK[: counts[name]])
        row["times_f32_exact"] = table["f32 exact"]["p50"] / row["p50"]
        if name in read_bytes:
            row["floor_ms"] = read_bytes[name] / bandwidth / 1e6
            row["measured_over_floor"] = row["p50"] / row["floor_ms"]
        row.update(built.get(name, {}))
    print(f"\n{n:,} x {d}, {len(queries_QD):,} queries, {bandwidth:.1f} GB/s")
    print(f"{'':14}{'p50 ms':>9}{'p99 ms':>9}{'recall@10':>11}{'x f32':>8}{'of floor':>10}")
    for name, row in table.items():
        of_floor = f"{row['measured_over_floor']:.2f}" if "measured_over_floor" in row else ""
        speed = f"{row['p50']:9.3f}{row['p99']:9.3f}{row['recall@10']:11.4f}{row['times_f32_exact']:8.1f}{of_floor:>10}"
        print(f"{name:14}{speed}", *(f"{key} {value:.0f}" for key, value in built.get(name, {}).items()))
    return {
        "n": n,
        "dimensions": d,
        "queries": len(queries_QD),
        "bandwidth_gbs": bandwidth,
        **made,
        "sides": table,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--model", default="minilm", help="whose vectors of bench/million.py")
    parser.add_argument(
        "--no-hnsw", action="store_true", help="leave usearch out (a million rows take it many minutes)"
    )
    arguments = parser.parse_args()
    require_native()
    dispatch.set_threads(1)
    threadpool_limits(1)  # numpy's matrix products
    all_ND, queries_QD = million.vectors(arguments.model), million.queries(arguments.model)
    results = []
    for size in arguments.sizes:
        if size > len(all_ND):
            print(f"Only {len(all_ND):,} vectors are there yet: {size:,} becomes {len(all_ND):,}.")
        # Evenly spaced over the books, so that a small set has as many subjects as the large one.
        rows_ND = all_ND[:: max(1, len(all_ND) // size)][:size]
        home = million.shards(arguments.model)
        results.append(
            measure_size(np.ascontiguousarray(rows_ND), queries_QD, home, [] if arguments.no_hnsw else ["f16", "i8"])
        )
    settings = {"prefix": prefix.DIMENSIONS, "shortlist": search.SHORTLIST, "exact_rows": search.EXACT_ROWS}
    print("\nwrote", write("search_speed", {"model": arguments.model, "settings": settings, "sizes": results}))


if __name__ == "__main__":
    main()
