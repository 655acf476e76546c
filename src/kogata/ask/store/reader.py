"""Reading the index: documents, chunks, words and vectors. Writing is in writer.py.

A :class:`Store` may be used from several threads: each gets its own connection. Readers see the state of the last
commit, are never blocked by a running indexer and never block it.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kogata.ask.store import schema
from kogata.ask.store.filters import Filter, matcher
from kogata.ask.store.rows import (
    ChunkRow,
    DocumentRow,
    EmbedderInfo,
    FolderRow,
    read_documents,
    read_folders,
    read_text,
    split_heading,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from kogata.ask.vectors import VectorSet


class Store:
    """The index, for reading. Use :meth:`open`; close it, or use it as a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()
        self._open: list[sqlite3.Connection] = []
        self._guard = threading.Lock()
        self._vectors: tuple[int, VectorSet] | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str] | None = None) -> Store:
        """Open an existing index (None: the default place).

        Raises:
            StoreError: There is none, or it cannot be opened. Subclasses: DamagedIndexError, NewerIndexError.
        """
        store = cls(schema.resolve(path))
        store.db  # noqa: B018 - opens and checks
        return store

    @property
    def db(self) -> sqlite3.Connection:
        """This thread's connection."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = schema.connect(self.path, write=False)
            self._local.connection = connection
            with self._guard:
                self._open.append(connection)
        return connection

    def close(self) -> None:
        """Close every thread's connection."""
        with self._guard:
            for connection in self._open:
                connection.close()
            self._open.clear()
            self._vectors = None
        self._local = threading.local()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Everything read inside sees one state of the index, whatever is written meanwhile."""
        with schema.plain_errors(self.path):
            if self.db.in_transaction:
                yield
                return
            self.db.execute("BEGIN")
            try:
                yield
            finally:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")

    # --- what is in it

    def embedder(self) -> EmbedderInfo | None:
        """Whose vectors the index holds; None before the first ones."""
        value = self._meta("embedder")
        return EmbedderInfo(**json.loads(value)) if value else None

    def folders(self) -> list[FolderRow]:
        with schema.plain_errors(self.path):
            return read_folders(self.db)

    def documents(self, where: Filter | None = None) -> list[DocumentRow]:
        """Known files in the order of their paths, those that are not searchable included."""
        with schema.plain_errors(self.path):
            rows = read_documents(self.db)
        if where:
            matches = matcher(where, {row.kind for row in rows})
            rows = [row for row in rows if matches(row.path, row.kind)]
        return rows

    def waiting(self) -> int:
        """How many passages still wait for their vectors."""
        with schema.plain_errors(self.path):
            return int(self.db.execute("SELECT count(*) FROM chunks WHERE meaning = 1").fetchone()[0])

    def n_chunks(self) -> int:
        """How many passages are searchable."""
        with schema.plain_errors(self.path):
            return int(self.db.execute("SELECT coalesce(sum(n_chunks), 0) FROM documents").fetchone()[0])

    # --- passages

    def chunk_rows(self, ids: Sequence[int]) -> list[ChunkRow]:
        """The passages ``ids``, in that order; ids that are gone by now are left out."""
        found: dict[int, ChunkRow] = {}
        with self.snapshot():
            for id_ in ids:
                row = self.db.execute(
                    "SELECT c.document, d.path, d.kind, d.title, c.page, c.heading, c.start, c.end, c.coverage, "
                    "c.meaning FROM chunks c JOIN documents d ON d.id = c.document WHERE c.id = ?",
                    (int(id_),),
                ).fetchone()
                if row is None:
                    continue
                document, path, kind, title, page, heading, start, end, coverage, meaning = row
                text = read_text(self.db, document, start, end)
                found[int(id_)] = ChunkRow(
                    int(id_), document, path, kind, title, page, split_heading(heading), start, end, text,
                    coverage, meaning == 2,
                )  # fmt: skip
        return [found[int(id_)] for id_ in ids if int(id_) in found]

    def context(self, document_id: int, start: int, end: int) -> str:
        """Characters ``start`` to ``end`` of a document's text, cut to what there is."""
        with schema.plain_errors(self.path):
            return read_text(self.db, document_id, start, end)

    # --- finding

    def words(self, match: str, limit: int, where: Filter | None = None) -> list[tuple[int, float]]:
        """The passages that match an FTS5 expression best.

        In a large index only those are scored that can be among the best (:mod:`kogata.ask.words.pruning`).

        Args:
            match: From :func:`kogata.ask.words.fts.match_query`.
            limit: How many at most.
            where: Which documents count.

        Returns:
            (chunk id, BM25 score, higher is better), best first.
        """
        from kogata.ask.words import fts, pruning

        weights = ", ".join(map(str, fts.COLUMN_WEIGHTS))
        sql = f"SELECT words.rowid, -rank FROM words {{}} WHERE words MATCH ? AND rank MATCH 'bm25({weights})' {{}} "
        sql += "ORDER BY rank LIMIT ?"
        limit = min(int(limit), 2**62)
        with self.snapshot():
            n_passages = self._n_word_rows()
            times = Counter(fts.phrases_of(match))
            if n_passages > pruning.LARGE and (len(times) > 1 or where):
                rows = [self._rows_with(phrase) for phrase in times]
                allowed = self.allowed(where)
                ids = pruning.worth_scoring(rows, list(times.values()), n_passages, limit, allowed)
                # The + keeps SQLite from starting the full-text query anew for every row.
                return self.db.execute(
                    f"SELECT rowid, -bm25(words, {weights}) AS score FROM words WHERE words MATCH ? "
                    "AND +rowid IN (SELECT value FROM json_each(?)) ORDER BY score DESC, rowid LIMIT ?",
                    (match, json.dumps(ids.tolist()), limit),
                ).fetchall()
            if not where:
                return self.db.execute(sql.format("", ""), (match, limit)).fetchall()
            documents = json.dumps(self._document_ids(where))
            return self.db.execute(
                sql.format("JOIN chunks c ON c.id = words.rowid", "AND c.document IN (SELECT value FROM json_each(?))"),
                (match, documents, limit),
            ).fetchall()

    def _rows_with(self, phrase: str) -> npt.NDArray[np.int64]:
        """The passages that have a quoted phrase, ascending. As one string: four times as fast as row by row."""
        import numpy as np

        joined = self.db.execute("SELECT group_concat(rowid) FROM words WHERE words MATCH ?", (phrase,)).fetchone()[0]
        return np.fromstring(joined or "", dtype=np.int64, sep=",")

    def _n_word_rows(self) -> int:
        """How many passages the word index has: the first varint of FTS5's averages record, so nothing is counted."""
        row = self.db.execute("SELECT block FROM words_data WHERE id = 1").fetchone()
        n = 0
        for byte in row[0] if row else b"":
            n = n << 7 | byte & 0x7F
            if byte < 0x80:
                break
        return n

    def count_words(self, match: str) -> int:
        """How many passages match an FTS5 expression."""
        with schema.plain_errors(self.path):
            return int(self.db.execute("SELECT count(*) FROM words WHERE words MATCH ?", (match,)).fetchone()[0])

    def allowed(self, where: Filter | None) -> npt.NDArray[np.int64] | None:
        """Ids of the chunks a filter lets through, ascending; None when it lets everything through."""
        if not where:
            return None
        import numpy as np

        with self.snapshot():
            rows = self.db.execute(
                "SELECT id FROM chunks WHERE document IN (SELECT value FROM json_each(?)) ORDER BY id",
                (json.dumps(self._document_ids(where)),),
            )
            return np.fromiter((id_ for (id_,) in rows), dtype=np.int64)

    def vectors(self) -> VectorSet:
        """All vectors as of now, ready to be searched; kept until they change."""
        from kogata.ask.store.manifest import read_vectors

        with self.snapshot():
            version = int(self._meta("vectors") or 0)
            with self._guard:
                kept = self._vectors
            if kept is not None and kept[0] == version:
                return kept[1]
            vectors = read_vectors(self.db, self.path, self.embedder())
            with self._guard:
                self._vectors = (version, vectors)
            return vectors

    def _document_ids(self, where: Filter) -> list[int]:
        rows = self.db.execute("SELECT id, path, kind FROM documents WHERE code IS NULL").fetchall()
        matches = matcher(where, {kind for _, _, kind in rows})
        return [id_ for id_, path, kind in rows if matches(path, kind)]

    def _meta(self, key: str) -> str | None:
        with schema.plain_errors(self.path):
            row = self.db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]
