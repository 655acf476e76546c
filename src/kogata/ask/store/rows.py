"""What the tables hold, as Python sees it, and the small reads that readers and the writer share."""

from __future__ import annotations

import json
import sqlite3
import zlib
from dataclasses import dataclass

from kogata.errors import EmbedderMismatch, StoreError

PART = 32_768
"""Characters in one stored part of a text: a hit unpacks its neighbourhood, not its book."""

HEADING_SEPARATOR = "\x1f"


@dataclass(frozen=True, slots=True)
class EmbedderInfo:
    """Whose vectors the index holds.

    Attributes:
        identity: Hash of everything that decides a vector.
        name: For people.
        dimensions: Length of a vector.
        source: What to load it from: the ``model`` that was asked for when the first vectors were made.
    """

    identity: str
    name: str
    dimensions: int
    source: str = "default"


@dataclass(frozen=True, slots=True)
class FolderRow:
    """A folder (or single file) that ``kogata index`` was given."""

    id: int
    path: bytes
    exclude: tuple[str, ...]
    missing: bool
    left_out: dict[str, int]


@dataclass(frozen=True, slots=True)
class DocumentRow:
    """A file that is known: searchable when ``code`` is None."""

    id: int
    path: bytes
    folder_id: int
    kind: str
    size: int
    mtime_ns: int
    hash: bytes | None
    parser: int
    read_ns: int
    code: str | None
    reason: str | None
    title: str
    encoding: str | None
    n_pages: int | None
    n_chars: int
    n_chunks: int


@dataclass(frozen=True, slots=True)
class ChunkRow:
    """A passage: ``text`` is characters ``start`` to ``end`` of its document's text."""

    id: int
    document_id: int
    path: bytes
    kind: str
    title: str
    page: int | None
    heading: tuple[str, ...]
    start: int
    end: int
    text: str
    coverage: float
    has_vector: bool


def check_embedder(stored: EmbedderInfo | None, identity: str, name: str) -> None:
    """Refuse an embedder whose vectors cannot be compared with those in the index.

    Raises:
        EmbedderMismatch: The index holds vectors of another one.
    """
    if stored is None or stored.identity == identity:
        return
    versions = " in another version" if stored.name == name else ""
    raise EmbedderMismatch(
        f"This index was made with the embedder {stored.name}, and {name}{versions} was asked for; "
        "their vectors cannot be compared.",
        hint=f"Use --model {stored.source}, or make all vectors anew with the other one: "
        "`kogata index --rebuild --model …`.",
    )


def read_folders(db: sqlite3.Connection) -> list[FolderRow]:
    rows = db.execute("SELECT id, path, exclude, missing, left_out FROM folders ORDER BY path")
    return [
        FolderRow(id_, path, tuple(json.loads(exclude)), bool(missing), json.loads(left_out))
        for id_, path, exclude, missing, left_out in rows
    ]


def read_documents(db: sqlite3.Connection) -> list[DocumentRow]:
    columns = (
        "id, path, folder, kind, size, mtime_ns, hash, parser, read_ns, code, reason, title, encoding, n_pages, "
        "n_chars, n_chunks"
    )
    return [DocumentRow(*row) for row in db.execute(f"SELECT {columns} FROM documents ORDER BY path")]


def read_covered(db: sqlite3.Connection) -> int:
    """The last ``vectors.seq`` that is in a segment."""
    row = db.execute("SELECT value FROM meta WHERE key = 'covered'").fetchone()
    return int(row[0]) if row else 0


def read_text(db: sqlite3.Connection, document: int, start: int, end: int) -> str:
    """Characters ``start`` to ``end`` of a stored text."""
    start, end = max(start, 0), max(end, 0)
    if end <= start:
        return ""
    first = start // PART
    parts = db.execute(
        "SELECT body FROM texts WHERE document = ? AND part BETWEEN ? AND ? ORDER BY part",
        (document, first, (end - 1) // PART),
    )
    try:
        text = "".join(zlib.decompress(body).decode() for (body,) in parts)
    except (zlib.error, UnicodeDecodeError) as error:
        raise StoreError(
            f"The stored text of document {document} cannot be read: {error}.",
            hint="The index is damaged: move it away and index again.",
        ) from error
    return text[start - first * PART : end - first * PART]


def split_heading(heading: str) -> tuple[str, ...]:
    return tuple(heading.split(HEADING_SEPARATOR)) if heading else ()
