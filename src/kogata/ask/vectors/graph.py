"""Above a million rows: usearch's HNSW graph over the prefix takes the scan's place (optional extra `ann`).

The graph is a file beside its segment, `<segment>.<its CRC-32>.hnsw`: it can be deleted at any time, is built by the
writer after everything else (minutes for a million rows), and is used by whoever finds it intact (the folder compares
it with its CRC once, as it does with segments). It holds the prefix as int8 (the 4-bit codes, centred), keyed by row,
and is memory-mapped, not loaded.
"""

from __future__ import annotations

import importlib.util
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kogata.ask.vectors.segment import Segment
from kogata.ops.score import unpack_codes

MIN_ROWS = 1_000_000
CONNECTIVITY, EXPANSION_ADD = 16, 128
SHORTLIST = 1024  # rows taken from the graph, which is also how far it is explored: time grows with it, misses fall
SHORTLIST_PER_RESULT = 8
SUFFIX = ".hnsw"
BUILD_ROWS = 65_536
READ_BYTES = 1 << 24


def segment_name(file_name: str) -> str:
    """The segment that a file of the folder belongs to: its own name, or what a graph's name starts with."""
    return file_name.split(".seg.")[0] + ".seg" if file_name.endswith(SUFFIX) else file_name


def installed() -> bool:
    return importlib.util.find_spec("usearch") is not None


def wanted(segment: Segment) -> bool:
    return segment.header.n > MIN_ROWS and segment.prefix is not None and installed()


def new_index(prefix: int) -> Any:
    from usearch.index import Index

    return Index(
        ndim=prefix,
        metric="ip",
        dtype="i8",
        connectivity=CONNECTIVITY,
        expansion_add=EXPANSION_ADD,
        expansion_search=SHORTLIST,
    )


def build(segment: Segment) -> None:
    """Write the segment's graph if it is wanted and there is none intact. Temporary file, rename; a crash leaves no
    graph.
    """
    if not wanted(segment) or segment.graph is not None:
        return
    index = new_index(segment.header.prefix)
    for block in range(0, len(segment.codes_BG64), BUILD_ROWS // 16):
        packed = segment.codes_BG64[block : block + BUILD_ROWS // 16]
        rows = min(len(packed) * 16, segment.header.n - block * 16)
        index.add(np.arange(block * 16, block * 16 + rows), centred(unpack_codes(packed, rows)))
    temporary = segment.path.with_name(f".{segment.path.name}{SUFFIX}.tmp")
    try:
        index.save(str(temporary))
        for stale in segment.path.parent.glob(f"{segment.path.name}.*{SUFFIX}"):
            stale.unlink()
        temporary.replace(segment.path.with_name(f"{segment.path.name}.{file_crc(temporary):08x}{SUFFIX}"))
    finally:
        temporary.unlink(missing_ok=True)


def centred(codes_nP: NDArray[np.uint8]) -> NDArray[np.int8]:
    """Codes 0..15 as the middles of their steps, -15..15."""
    return 2 * codes_nP.astype(np.int8) - np.int8(15)


def file_of(segment: Segment) -> Path | None:
    """The segment's graph file, intact or not; None where there is none or none is wanted."""
    return next(segment.path.parent.glob(f"{segment.path.name}.*{SUFFIX}"), None) if wanted(segment) else None


def intact(path: Path) -> bool:
    """Whether a graph file holds the bytes that its name promises."""
    try:
        return f"{file_crc(path):08x}" == path.name.split(".")[-2]
    except OSError:
        return False


@lru_cache(maxsize=16)
def opened(path: Path) -> Any | None:
    """The mapped graph, or None where usearch cannot read it (another version of it, say)."""
    from usearch.index import Index

    try:
        return Index.restore(str(path), view=True)
    except (OSError, RuntimeError, ValueError):
        return None


def file_crc(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while piece := file.read(READ_BYTES):
            crc = zlib.crc32(piece, crc)
    return crc


def search(
    segment: Segment, q_D: NDArray[np.float32], k: int, mask: NDArray[np.bool_] | None
) -> NDArray[np.int64] | None:
    """The rows that the graph gives as the shortlist, ascending; None where the scan must do it: no graph, or a
    filter (mask, bool [n]) that leaves too few of the graph's rows."""
    if segment.prefix is None or segment.graph is None or (mask is not None and mask.mean() < 0.5):
        return None
    index = opened(segment.graph)
    if index is None:
        return None
    rows = np.sort(
        index.search(segment.prefix.weights(q_D), max(SHORTLIST, SHORTLIST_PER_RESULT * k)).keys.astype(np.int64)
    )
    kept = rows if mask is None else rows[mask[rows]]
    return kept if len(kept) >= k else None
