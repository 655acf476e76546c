"""The segments beside an index: which of them count is in the index file, so that it decides in one transaction.

n: rows of a block, D: dimensions.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kogata.ask.store import schema
from kogata.ask.store.rows import EmbedderInfo, read_covered
from kogata.ask.vectors import SegmentFolder, SegmentRecord, VectorSet
from kogata.errors import BadInput, DamagedIndexError

if TYPE_CHECKING:
    from kogata.ask.store.writer import Writer

BLOCK = 65_536
"""Rows read from the file at a time when segments are made anew."""

Rows = tuple[NDArray[np.int64], NDArray[np.float16]]


def folder_of(path: Path, embedder: EmbedderInfo) -> SegmentFolder:
    return SegmentFolder(schema.beside(path, ".segments"), embedder.identity, embedder.dimensions)


def read_vectors(db: sqlite3.Connection, path: Path, embedder: EmbedderInfo | None) -> VectorSet:
    """A searchable picture of all vectors: the segments that count, and the rows committed since.

    Where a segment is missing or damaged, the file's own copy is read instead: slower, and just as right. The next
    indexing run makes the segments anew.
    """
    none = np.empty(0, np.int64)
    if embedder is None:
        return VectorSet((), none, np.empty((0, 0), np.float16), none)
    try:
        segments = folder_of(path, embedder).open(records(db))
    except (DamagedIndexError, BadInput, OSError):
        return VectorSet((), *_joined(_rows_after(db, 0, embedder.dimensions), embedder.dimensions), none)
    deleted = np.fromiter((chunk for (chunk,) in db.execute("SELECT chunk FROM tombstones")), np.int64)
    tail = _joined(_rows_after(db, read_covered(db), embedder.dimensions), embedder.dimensions)
    return VectorSet(segments, *tail, deleted)


def refresh_segments(writer: Writer) -> None:
    """Bring new rows into segments, make damaged ones anew, and remove files that no longer count."""
    embedder = writer.embedder()
    if embedder is None:
        return
    with schema.plain_errors(writer.path):
        db, folder = writer.db, folder_of(writer.path, embedder)
        known = records(db)
        (last,) = db.execute("SELECT coalesce(max(seq), 0) FROM vectors").fetchone()
        deleted = np.fromiter((chunk for (chunk,) in db.execute("SELECT chunk FROM tombstones")), np.int64)
        try:
            folder.open(known, verify=True)
            ids, vectors = _joined(_rows_after(db, read_covered(db), embedder.dimensions), embedder.dimensions)
            new, left = folder.append(known, ids, vectors, deleted)
        except (DamagedIndexError, BadInput):
            new = folder.rebuild(known, _rows_after(db, 0, embedder.dimensions))
            left = np.empty(0, np.int64)
        except OSError as error:
            raise schema.full_disk(writer.path) from error
        if new != known or len(left) != len(deleted) or last > read_covered(db):
            with writer.transaction():
                db.execute("DELETE FROM segments")
                db.executemany(
                    "INSERT INTO segments VALUES (?, ?, ?, ?)",
                    [(record.name, record.generation, record.n, record.checksum) for record in new],
                )
                db.execute("DELETE FROM tombstones")
                db.executemany("INSERT INTO tombstones VALUES (?)", [(int(chunk),) for chunk in left])
                db.execute("INSERT OR REPLACE INTO meta VALUES ('covered', ?)", (last,))
                writer.bump()
        folder.remove_unlisted(new)
        folder.build_graphs(new)


def records(db: sqlite3.Connection) -> list[SegmentRecord]:
    rows = db.execute("SELECT name, generation, n, checksum FROM segments ORDER BY generation")
    return [SegmentRecord(*row) for row in rows]


def _rows_after(db: sqlite3.Connection, seq: int, dimensions: int) -> Iterator[Rows]:
    """(chunk ids, vectors f16 [n, D]) of the rows committed after ``seq``, in blocks."""
    cursor = db.execute("SELECT chunk, vector FROM vectors WHERE seq > ? ORDER BY seq", (seq,))
    while rows := cursor.fetchmany(BLOCK):
        ids = np.fromiter((chunk for chunk, _ in rows), np.int64, len(rows))
        flat = np.frombuffer(b"".join(vector for _, vector in rows), "<f2")
        if flat.size != len(rows) * dimensions:
            raise sqlite3.DatabaseError(f"vectors of {dimensions} numbers were expected")
        yield ids, flat.reshape(len(rows), dimensions)


def _joined(blocks: Iterator[Rows], dimensions: int) -> Rows:
    parts = list(blocks)
    if not parts:
        return np.empty(0, np.int64), np.empty((0, dimensions), np.float16)
    return np.concatenate([ids for ids, _ in parts]), np.concatenate([vectors for _, vectors in parts])
