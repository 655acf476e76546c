"""Writing the index: every public method is one transaction, so that a kill leaves it done or not begun.

V: vectors in a call, D: dimensions.
"""

from __future__ import annotations

import json
import re
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kogata.ask.paths import under
from kogata.ask.store import schema
from kogata.ask.store.rows import (
    HEADING_SEPARATOR,
    PART,
    EmbedderInfo,
    FolderRow,
    read_covered,
    read_documents,
    read_folders,
    read_text,
    split_heading,
)
from kogata.ask.words import fts

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from kogata.ask.documents import Chunk, Document
    from kogata.ask.store.rows import DocumentRow

COVERED = 0.8
"""Share of a text that the embedder's tokenizer must know for its vector to count."""

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class FileStat:
    """The state of a file that a row was read from."""

    path: bytes
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """A chunk that is to have a vector: its text, and what is to be embedded for it."""

    chunk: int
    text: str
    passage: str


def passage(title: str, heading: Sequence[str], text: str) -> str:
    """What is embedded for a chunk: its text, led by what it is about where the text does not say so itself."""
    lead = [title] if title else []
    if heading and heading[-1] != title:
        lead.append(heading[-1])
    head = text[: 200 + sum(map(len, lead))]
    missing = [name.strip()[:200] for name in lead if name.strip() and name.strip() not in head]
    return ". ".join([*missing, text])


MOST_LEVELS = 500
"""Every merge puts the word index one level higher (up to SQLite 3.41), and above 2,000 FTS5 takes it for damaged: an
index that is watched gets there in weeks, a server that people upload to and delete from in an hour."""


class Writer:
    """The index, for writing. The caller holds the :class:`~kogata.ask.store.lock.WriterLock`; one thread only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.db = schema.connect(path, write=True)
        try:
            with schema.plain_errors(path):
                row = self.db.execute("SELECT value FROM meta WHERE key = 'words'").fetchone()
                if row is None or row[0] != schema.words_fingerprint() or not schema.words_readable(self.db):
                    self._rebuild_words()
        except BaseException:
            self.db.close()
            raise

    def close(self) -> None:
        """Merge the write-ahead log into the file and close."""
        with suppress(sqlite3.Error):  # a full disk or a long reader: the log stays, and the next run merges it
            self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.db.close()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing; also on Ctrl-C."""
        with schema.plain_errors(self.path):
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield self.db
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise

    # --- folders

    def folders(self) -> list[FolderRow]:
        return read_folders(self.db)

    def add_folder(self, path: bytes, exclude: Sequence[str] | None) -> None:
        """Know a folder (or single file). ``exclude`` None: keep the patterns it has."""
        with self.transaction() as db:
            db.execute("INSERT OR IGNORE INTO folders (path) VALUES (?)", (path,))
            if exclude is not None:
                patterns = json.dumps(list(exclude), ensure_ascii=True)
                db.execute("UPDATE folders SET exclude = ? WHERE path = ?", (patterns, path))
            for (old,) in db.execute("SELECT path FROM forgotten").fetchall():
                if under(old, path):
                    db.execute("DELETE FROM forgotten WHERE path = ?", (old,))

    def set_folder(self, folder: int, *, missing: bool, left_out: Mapping[str, int]) -> None:
        """What a survey saw of a folder."""
        with self.transaction() as db:
            counts = json.dumps(dict(sorted(left_out.items())))
            db.execute("UPDATE folders SET missing = ?, left_out = ? WHERE id = ?", (missing, counts, folder))

    def forgotten(self) -> list[bytes]:
        return [path for (path,) in self.db.execute("SELECT path FROM forgotten")]

    def forget(self, path: bytes, documents: Sequence[int]) -> None:
        """Take a folder, or a path inside one, out of the index and leave it out of later runs."""
        with self.transaction() as db:
            self._drop(documents)
            gone = [row for row in read_folders(db) if under(row.path, path)]
            db.executemany("DELETE FROM folders WHERE id = ?", [(row.id,) for row in gone])
            if any(under(path, row.path) for row in read_folders(db)):
                db.execute("INSERT OR IGNORE INTO forgotten VALUES (?)", (path,))

    # --- documents

    def documents(self) -> list[DocumentRow]:
        return read_documents(self.db)

    def put(
        self, file: FileStat, folder: int, parser: int, document: Document, chunks: Sequence[Chunk],
        coverage: Sequence[float],
    ) -> None:  # fmt: skip
        """Store a parsed document and make it searchable by words, in place of what was stored for its path.

        Passages that did not change keep their vectors.

        Args:
            file: What was read.
            folder: Row of ``folders``.
            parser: Version of the parsers.
            document: The parsed document.
            chunks: Its passages.
            coverage: For each passage, the share of it that the embedder's tokenizer knows.
        """
        text = _SURROGATE.sub("\ufffd", document.text)
        title = _SURROGATE.sub("\ufffd", document.title)
        with self.transaction() as db:
            old = db.execute("SELECT id FROM documents WHERE path = ?", (file.path,)).fetchone()
            vectors: Mapping[str, bytes] = {}
            if old is not None:
                vectors = self._vectors_by_passage(old[0])
                self._drop([old[0]])
            cursor = db.execute(
                "INSERT INTO documents (path, folder, kind, size, mtime_ns, hash, parser, read_ns, reason, title, "
                "encoding, n_pages, n_chars, n_chunks) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    file.path, folder, document.kind, file.size, file.mtime_ns, bytes.fromhex(document.hash), parser,
                    time.time_ns(), " ".join(document.notes) or None, title, document.encoding, document.n_pages,
                    len(text), len(chunks),
                ),
            )  # fmt: skip
            id_ = cursor.lastrowid
            db.executemany(
                "INSERT INTO texts VALUES (?, ?, ?)",
                (
                    (id_, part, zlib.compress(text[start : start + PART].encode(), 6))
                    for part, start in enumerate(range(0, len(text), PART))
                ),
            )
            for chunk, share in zip(chunks, coverage, strict=True):
                heading = tuple(_SURROGATE.sub("\ufffd", name) for name in chunk.heading)
                body = text[chunk.start : chunk.end]
                vector = vectors.get(passage(title, heading, body))
                meaning = 0 if share < COVERED else 1 if vector is None else 2
                row = db.execute(
                    "INSERT INTO chunks (document, start, end, page, heading, n_tokens, coverage, meaning) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        id_, chunk.start, chunk.end, chunk.page, HEADING_SEPARATOR.join(heading), chunk.n_tokens,
                        share, meaning,
                    ),
                ).lastrowid  # fmt: skip
                self._insert_words(row, fts.index_fields(body, title, heading))
                if meaning == 2:
                    db.execute("INSERT INTO vectors (chunk, vector) VALUES (?, ?)", (row, vector))
            if vectors:
                self.bump()

    def refuse(
        self, file: FileStat, folder: int, parser: int, kind: str, code: str, reason: str, hash_: bytes | None = None
    ) -> None:
        """Note why a file is not searchable, in place of what was stored for its path."""
        with self.transaction() as db:
            old = db.execute("SELECT id FROM documents WHERE path = ?", (file.path,)).fetchone()
            if old is not None:
                self._drop([old[0]])
            db.execute(
                "INSERT INTO documents (path, folder, kind, size, mtime_ns, hash, parser, read_ns, code, reason) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    file.path, folder, kind, file.size, file.mtime_ns, hash_, parser, time.time_ns(), code,
                    _SURROGATE.sub("\ufffd", reason),
                ),
            )  # fmt: skip

    def touch(self, document: int, file: FileStat, folder: int) -> None:
        """The same content under another path, time or folder: text, words and vectors stay."""
        with self.transaction() as db:
            there = db.execute("SELECT id FROM documents WHERE path = ? AND id != ?", (file.path, document)).fetchone()
            if there is not None:
                self._drop([there[0]])
            db.execute(
                "UPDATE documents SET path = ?, size = ?, mtime_ns = ?, folder = ?, read_ns = ? WHERE id = ?",
                (file.path, file.size, file.mtime_ns, folder, time.time_ns(), document),
            )

    def remove(self, documents: Sequence[int]) -> None:
        """Take documents out, a few hundred in a transaction."""
        for start in range(0, len(documents), 256):
            with self.transaction():
                self._drop(documents[start : start + 256])

    def _drop(self, documents: Iterable[int]) -> None:
        covered = read_covered(self.db)
        any_vectors = False
        for id_ in documents:
            for chunk, fields in self._fields_of(id_):
                self._delete_words(chunk, fields)
            # A segment may still hold these; what is only in the tail goes with its row.
            cursor = self.db.execute(
                "INSERT OR IGNORE INTO tombstones SELECT v.chunk FROM vectors v JOIN chunks c ON c.id = v.chunk "
                "WHERE c.document = ? AND v.seq <= ?",
                (id_, covered),
            )
            any_vectors = any_vectors or cursor.rowcount > 0
            self.db.execute("DELETE FROM documents WHERE id = ?", (id_,))
        if any_vectors:
            self.bump()

    # --- words

    def _fields_of(self, document: int) -> Iterator[tuple[int, tuple[str, ...]]]:
        """(chunk id, what is in the word index for it), computed from the stored text."""
        row = self.db.execute("SELECT title, n_chars, n_chunks FROM documents WHERE id = ?", (document,)).fetchone()
        if row is None or not row[2]:
            return
        title, n_chars, _ = row
        text = read_text(self.db, document, 0, n_chars)
        chunks = self.db.execute("SELECT id, start, end, heading FROM chunks WHERE document = ?", (document,))
        for id_, start, end, heading in chunks.fetchall():
            yield id_, fts.index_fields(text[start:end], title, split_heading(heading))

    def _insert_words(self, chunk: int | None, fields: tuple[str, ...]) -> None:
        marks = ", ".join("?" * (1 + len(fields)))
        self.db.execute(f"INSERT INTO words (rowid, {', '.join(fts.COLUMNS)}) VALUES ({marks})", (chunk, *fields))

    def _delete_words(self, chunk: int, fields: tuple[str, ...]) -> None:
        marks = ", ".join("?" * (1 + len(fields)))
        self.db.execute(
            f"INSERT INTO words (words, rowid, {', '.join(fts.COLUMNS)}) VALUES ('delete', {marks})", (chunk, *fields)
        )

    def _rebuild_words(self) -> None:
        """Make the word index anew from the stored texts, in one transaction: searches see the old one until then."""
        with self.transaction() as db:
            schema.create_words(db)
            for (document,) in db.execute("SELECT id FROM documents WHERE n_chunks > 0").fetchall():
                for chunk, fields in self._fields_of(document):
                    self._insert_words(chunk, fields)

    # --- vectors

    def embedder(self) -> EmbedderInfo | None:
        row = self.db.execute("SELECT value FROM meta WHERE key = 'embedder'").fetchone()
        return EmbedderInfo(**json.loads(row[0])) if row else None

    def n_waiting(self) -> int:
        """Chunks whose vectors are still to be computed."""
        return int(self.db.execute("SELECT count(*) FROM chunks WHERE meaning = 1").fetchone()[0])

    def waiting(self, limit: int) -> list[Waiting]:
        """The next chunks to embed, oldest first."""
        return self.passages("c.meaning = 1", (), limit)

    def passages(self, condition: str, values: tuple[int, ...], limit: int) -> list[Waiting]:
        """Chunks ``c`` under a condition in SQL, by ascending id, with what is to be embedded for them."""
        rows = self.db.execute(
            "SELECT c.id, c.document, c.start, c.end, c.heading, d.title FROM chunks c "
            f"JOIN documents d ON d.id = c.document WHERE {condition} ORDER BY c.id LIMIT ?",
            (*values, limit),
        )
        waiting = []
        for id_, document, start, end, heading, title in rows.fetchall():
            text = read_text(self.db, document, start, end)
            waiting.append(Waiting(id_, text, passage(title, split_heading(heading), text)))
        return waiting

    def put_vectors(self, chunks: Sequence[int], vectors_VD: npt.NDArray[np.float32], embedder: EmbedderInfo) -> None:
        """Store normalised vectors; the first ones also set whose they are."""
        rows = vectors_VD.astype("<f2")
        with self.transaction() as db:
            db.execute("INSERT OR IGNORE INTO meta VALUES ('embedder', ?)", (json.dumps(asdict(embedder)),))
            db.executemany(
                "INSERT INTO vectors (chunk, vector) VALUES (?, ?)",
                ((chunk, row.tobytes()) for chunk, row in zip(chunks, rows, strict=True)),
            )
            db.executemany("UPDATE chunks SET meaning = 2 WHERE id = ?", ((chunk,) for chunk in chunks))
            self.bump()

    def _vectors_by_passage(self, document: int) -> dict[str, bytes]:
        rows = self.db.execute(
            "SELECT c.start, c.end, c.heading, d.title, v.vector FROM chunks c JOIN documents d ON d.id = c.document "
            "JOIN vectors v ON v.chunk = c.id WHERE c.document = ?",
            (document,),
        ).fetchall()
        return {
            passage(title, split_heading(heading), read_text(self.db, document, start, end)): vector
            for start, end, heading, title, vector in rows
        }

    def bump(self) -> None:
        """Tell readers that their picture of the vectors is out of date."""
        self.db.execute("INSERT INTO meta VALUES ('vectors', 1) ON CONFLICT (key) DO UPDATE SET value = value + 1")

    # --- room

    def n_documents(self) -> int:
        """How many documents are searchable."""
        return int(self.db.execute("SELECT count(*) FROM documents WHERE code IS NULL").fetchone()[0])

    def tidy(self, *, merge: bool) -> None:
        """Give freed pages back to the disk; with ``merge`` also make the word index one piece.

        Until its pieces are merged, what was taken out of FTS5 lies in it still, marked as such.
        """
        if merge and schema.word_levels(self.db) >= MOST_LEVELS:
            self._rebuild_words()
        elif merge:
            command = "optimize" if self.n_documents() else "delete-all"
            with self.transaction() as db:
                db.execute("INSERT INTO words (words) VALUES (?)", (command,))
        with schema.plain_errors(self.path):
            # Not execute(): the statement gives one empty row a page, and Python would stop at the first.
            self.db.executescript("PRAGMA incremental_vacuum")
            self.db.execute("PRAGMA optimize")
