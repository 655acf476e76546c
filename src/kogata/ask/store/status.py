"""What the index holds, for ``kogata status``."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kogata.ask.store import schema
from kogata.ask.store.schema import shown

if TYPE_CHECKING:
    from kogata.ask.store.reader import Store
    from kogata.ask.store.rows import EmbedderInfo


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file that is not searchable, and why."""

    path: bytes
    code: str
    reason: str

    def to_dict(self) -> dict[str, Any]:
        return {"path": shown(self.path), "code": self.code, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class FolderStatus:
    """A folder that is kept current: what is in the index from it.

    Attributes:
        missing: It was not there at the last run; its documents are kept.
        exclude: Patterns of what to leave out.
        left_out: How many files and folders were left out on purpose ("hidden", "ignored" by .gitignore, "excluded",
            "left_out": version control, caches, virtual environments), each folder counted once.
        documents, skipped: Searchable files, and those that are not, each of which ``Status.skipped`` explains.
        bytes: Size of the searchable files.
        unread: Files that a run found new or changed and has not come to: it was stopped, or is still at it.
    """

    path: bytes
    missing: bool
    exclude: tuple[str, ...]
    left_out: dict[str, int]
    documents: int
    skipped: int
    bytes: int
    unread: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "path": shown(self.path), "exclude": list(self.exclude)}


@dataclass(frozen=True, slots=True)
class Status:
    """What the index holds.

    Attributes:
        place: The index file.
        version: Schema version.
        bytes_index, bytes_segments: Sizes on disk; the segments can be made again from the file.
        embedder: Whose vectors it holds; None before the first.
        folders: Known folders.
        documents: Searchable documents.
        documents_words_only: Those of them that have passages without meaning for good (their script is not covered).
        bytes_documents: Size of the searchable files.
        chunks: Passages, all searchable by words.
        vectors: Passages that are searchable by meaning too.
        waiting: Passages whose vectors are still to be computed.
        words_only: Passages whose text the embedder's tokenizer does not cover.
        kinds: Searchable documents by type.
        skipped: Every file that is not searchable, and why.
    """

    place: str
    version: int
    bytes_index: int
    bytes_segments: int
    embedder: EmbedderInfo | None
    folders: tuple[FolderStatus, ...]
    documents: int
    documents_words_only: int
    bytes_documents: int
    chunks: int
    vectors: int
    waiting: int
    words_only: int
    kinds: dict[str, int]
    skipped: tuple[SkippedFile, ...]

    @property
    def unread(self) -> int:
        """Files that a run found new or changed and has not come to."""
        return sum(folder.unread for folder in self.folders)

    @property
    def skipped_by_code(self) -> dict[str, int]:
        """How many files were skipped for each reason, most frequent first."""
        return dict(Counter(file.code for file in self.skipped).most_common())

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "place": self.place, "version": self.version, "bytes_index": self.bytes_index,
            "bytes_segments": self.bytes_segments, "embedder": asdict(self.embedder) if self.embedder else None,
            "folders": [folder.to_dict() for folder in self.folders], "documents": self.documents,
            "documents_words_only": self.documents_words_only, "bytes_documents": self.bytes_documents,
            "chunks": self.chunks, "vectors": self.vectors, "waiting": self.waiting, "words_only": self.words_only,
            "unread": self.unread, "kinds": self.kinds, "skipped_by_code": self.skipped_by_code,
            "skipped": [file.to_dict() for file in self.skipped],
        }  # fmt: skip


def read_status(store: Store) -> Status:
    """Folders, counts, sizes, and what was not indexed and why, all of one moment."""
    with store.snapshot():
        return _read_status(store)


def _read_status(store: Store) -> Status:
    db = store.db
    by_meaning = dict(db.execute("SELECT meaning, count(*) FROM chunks GROUP BY meaning").fetchall())
    kinds = db.execute("SELECT kind, count(*) FROM documents WHERE code IS NULL GROUP BY kind ORDER BY 2 DESC, 1")
    documents, size = db.execute("SELECT count(*), coalesce(sum(size), 0) FROM documents WHERE code IS NULL").fetchone()
    (words_only,) = db.execute("SELECT count(DISTINCT document) FROM chunks WHERE meaning = 0").fetchone()
    skipped = db.execute("SELECT path, code, reason FROM documents WHERE code IS NOT NULL ORDER BY path")
    return Status(
        place=shown(store.path),
        version=schema.VERSION,
        bytes_index=sum(_size(schema.beside(store.path, suffix)) for suffix in ("", "-wal")),
        bytes_segments=_size(schema.beside(store.path, ".segments")),
        embedder=store.embedder(),
        folders=tuple(_folders(db, store)),
        documents=documents,
        documents_words_only=words_only,
        bytes_documents=size,
        chunks=sum(by_meaning.values()),
        vectors=by_meaning.get(2, 0),
        waiting=by_meaning.get(1, 0),
        words_only=by_meaning.get(0, 0),
        kinds=dict(kinds.fetchall()),
        skipped=tuple(SkippedFile(path, code, reason or "") for path, code, reason in skipped),
    )


def _folders(db: sqlite3.Connection, store: Store) -> list[FolderStatus]:
    counts = {
        folder: (documents, skipped, size)
        for folder, documents, skipped, size in db.execute(
            "SELECT folder, sum(code IS NULL), sum(code IS NOT NULL), sum(CASE WHEN code IS NULL THEN size ELSE 0 END) "
            "FROM documents GROUP BY folder"
        )
    }
    nothing = (0, 0, 0)
    unread = read_unread(db)
    return [
        FolderStatus(
            row.path, row.missing, row.exclude, row.left_out, *counts.get(row.id, nothing), unread.get(row.id, 0)
        )
        for row in store.folders()
    ]


def read_plan(db: sqlite3.Connection) -> dict[int, tuple[int, int]]:
    """Folder -> (files that its run is to read, when it began, in ns): noted by ``indexing/run.py`` until it has."""
    row = db.execute("SELECT value FROM meta WHERE key = 'reading'").fetchone()
    return {folder: (files, since) for folder, files, since in json.loads(row[0])} if row else {}


def read_unread(db: sqlite3.Connection) -> dict[int, int]:
    """Folder -> how many files its run has not come to, where it was stopped, however it was, or is still at it."""
    read = "SELECT count(*) FROM documents WHERE folder = ? AND read_ns >= ?"
    return {
        folder: max(0, files - db.execute(read, (folder, since)).fetchone()[0])
        for folder, (files, since) in read_plan(db).items()
    }


def _size(path: Path) -> int:
    try:
        if path.is_dir():
            return sum(entry.stat().st_size for entry in path.iterdir())
        return path.stat().st_size
    except OSError:
        return 0
