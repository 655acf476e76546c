"""The folder of segments beside an index file: open, append with merging, verify, remove what no manifest names.

The manifest is the store's (its SQLite table `segments`, one SegmentRecord a row), written in the transaction that
also records the vectors. So a crash at any point leaves the previous state: files that no committed manifest names
are removed by the next writer.

Who calls what: readers `open` the records of their SQLite snapshot. The one writer calls `append` or `rebuild`,
commits the records it gets back together with the tombstones that remain, then calls `remove_unlisted`. A reader
whose file was removed between its snapshot and `open` gets DamagedIndexError and reads the index file's own copies.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kogata.ask.vectors import graph
from kogata.ask.vectors.merge import Source, merged, sample
from kogata.ask.vectors.prefix import learn
from kogata.ask.vectors.search import EXACT_ROWS
from kogata.ask.vectors.segment import Segment, SegmentRecord, write_segment
from kogata.errors import BadInput

REBUILD_ROWS = 1 << 18  # rows held in memory at a time while rebuilding: 200 MB at 384 dimensions
SPOT_PIECES = 2  # pieces of an already verified file that an open compares again
VERIFIED = "verified.json"


@dataclass(frozen=True)
class SegmentFolder:
    """embedder: the identity of the model whose vectors these are; dimensions: their length D."""

    path: Path
    embedder: str
    dimensions: int

    def open(self, records: Iterable[SegmentRecord], *, verify: bool = False) -> tuple[Segment, ...]:
        """Map the segments that the manifest names. Raises DamagedIndexError for any that is missing or not intact.

        Every byte is compared with its checksum the first time a file is opened after it was written or touched
        (size, times and inode are remembered in verified.json); afterwards an open compares two random MiB, unless
        `verify` asks for all: the writer does, so that decay on disk is found at the next `kogata index`.
        """
        known = self._verified()
        segments = []
        for record in records:
            segment = Segment.open(self.path / record.name, record)
            if (segment.header.embedder, segment.header.dimensions) != (self.embedder, self.dimensions):
                raise BadInput(f"The vector segment {record.name} was made by another embedder.")
            stamp = stamp_of(segment.path)
            if verify or known.get(record.name) != stamp:
                segment.verify()
                known[record.name] = stamp
                self._remember(known)
            elif len(segment.checksums):
                segment.verify(random.sample(range(len(segment.checksums)), min(SPOT_PIECES, len(segment.checksums))))
            segments.append(replace(segment, graph=self._graph(segment, known, verify)))
        return tuple(segments)

    def _graph(self, segment: Segment, known: dict[str, list[int]], verify: bool) -> Path | None:
        """The segment's graph if it is intact, compared byte by byte as seldom as the segment itself."""
        path = graph.file_of(segment)
        if path is None:
            return None
        try:
            stamp = stamp_of(path)
        except FileNotFoundError:  # the writer has just replaced it
            return None
        if verify or known.get(path.name) != stamp:
            if not graph.intact(path):
                return None
            known[path.name] = stamp
            self._remember(known)
        return path

    def append(
        self,
        records: Sequence[SegmentRecord],
        ids: NDArray[np.int64],
        vectors: NDArray[np.floating],
        deleted: NDArray[np.int64],
    ) -> tuple[list[SegmentRecord], NDArray[np.int64]]:
        """Write new rows (any order; float32 or float16 [m, D]) as a segment, merging smaller neighbours into it.

        Returns the new manifest and the tombstones still needed: those of rows in segments that were left alone. Ids
        are never used twice by a store, so a tombstone cannot hit a later row. A segment is taken in while it has
        fewer than twice the rows gathered so far (each row is copied about log2(n) times in all), or when over half
        of it is deleted. With no new rows it only compacts; m = 0 and nothing to compact returns the manifest as it
        was.
        """
        order = np.argsort(ids, kind="stable")
        fresh = Source(np.ascontiguousarray(ids[order], np.int64), np.ascontiguousarray(vectors[order], np.float16))
        if np.any(np.diff(fresh.ids) <= 0):
            raise BadInput("A chunk was given to the vector segments twice.")
        generation = max((record.generation for record in records), default=0) + 1
        return self._append(records, fresh, np.unique(np.asarray(deleted, np.int64)), generation)

    def rebuild(
        self, records: Sequence[SegmentRecord], rows: Iterable[tuple[NDArray[np.int64], NDArray[np.floating]]]
    ) -> list[SegmentRecord]:
        """All segments anew from blocks of (ids, vectors) of the live rows, as the store reads them. `records`: the
        old manifest.
        """
        generation = max((record.generation for record in records), default=0)
        made: list[SegmentRecord] = []
        for ids, vectors in gathered(rows, REBUILD_ROWS):
            generation += 1
            order = np.argsort(ids, kind="stable")
            made, _ = self._append(made, Source(ids[order], vectors[order]), np.empty(0, np.int64), generation)
        return made

    def remove_unlisted(self, records: Iterable[SegmentRecord]) -> None:
        """Delete files that the committed manifest does not name. Readers that have them mapped keep their mapping."""
        named = {record.name for record in records}
        for path in self.path.glob("*"):
            if path.name != VERIFIED and graph.segment_name(path.name) not in named:
                try:
                    path.unlink()
                except (
                    FileNotFoundError,
                    PermissionError,
                ):  # Windows refuses while a reader has it mapped: the next time, then
                    continue

    def build_graphs(self, records: Iterable[SegmentRecord]) -> None:
        """Make the HNSW graph of each segment large enough to profit (see graph.py), where usearch is installed."""
        for segment in self.open(records):
            graph.build(segment)

    def _append(
        self, records: Sequence[SegmentRecord], fresh: Source, deleted: NDArray[np.int64], generation: int
    ) -> tuple[list[SegmentRecord], NDArray[np.int64]]:
        rows = len(fresh.ids)
        sources = [fresh] if rows else []
        kept: list[SegmentRecord] = []
        left = [np.empty(0, np.int64)]
        for segment in sorted(self.open(records), key=lambda one: one.record.generation, reverse=True):
            dead_n = np.isin(segment.ids_n, deleted)
            alive = len(dead_n) - int(dead_n.sum())
            if segment.record.n < 2 * rows or 2 * alive < segment.record.n:
                sources.append(Source(segment.ids_n[~dead_n], segment.full_nD, np.flatnonzero(~dead_n)))
                rows += alive
            else:
                kept.insert(0, segment.record)
                left.append(segment.ids_n[dead_n])
        if rows:
            kept.append(self._write(generation, sources))
        return kept, np.concatenate(left)

    def _write(self, generation: int, sources: list[Source]) -> SegmentRecord:
        self.path.mkdir(parents=True, exist_ok=True)
        n = sum(len(source.ids) for source in sources)
        return write_segment(
            self.path,
            generation=generation,
            embedder=self.embedder,
            dimensions=self.dimensions,
            n=n,
            prefix=learn(sample(sources)) if n > EXACT_ROWS else None,
            blocks=merged(sources),
        )

    def _verified(self) -> dict[str, list[int]]:
        try:
            known = json.loads((self.path / VERIFIED).read_text())
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}

    def _remember(self, known: dict[str, list[int]]) -> None:
        """A convenience: where the folder cannot be written, files are simply compared again at the next open."""
        present = {name: stamp for name, stamp in known.items() if (self.path / name).exists()}
        temporary = self.path / f".{VERIFIED}.{os.getpid()}.{time.monotonic_ns()}"
        try:
            temporary.write_text(json.dumps(present))
            temporary.replace(self.path / VERIFIED)
        except OSError:
            temporary.unlink(missing_ok=True)


def gathered(
    rows: Iterable[tuple[NDArray[np.int64], NDArray[np.floating]]], size: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
    """The same rows in blocks of at least `size` but the last."""
    held: list[tuple[NDArray[np.int64], NDArray[np.float16]]] = []
    for ids, vectors in rows:
        if len(ids):
            held.append((np.asarray(ids, np.int64), np.asarray(vectors, np.float16)))
        if sum(len(block[0]) for block in held) >= size:
            yield np.concatenate([block[0] for block in held]), np.concatenate([block[1] for block in held])
            held = []
    if held:
        yield np.concatenate([block[0] for block in held]), np.concatenate([block[1] for block in held])


def stamp_of(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
