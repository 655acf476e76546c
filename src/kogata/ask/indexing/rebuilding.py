"""All vectors made anew, for another embedder, while the old ones stay in use until the last moment.

The new ones grow in a table of their own, batch by batch, so a rebuild that was stopped goes on where it was. One
transaction at the end puts them in the old ones' place.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from kogata.ask.indexing.report import Progress, ProgressEvent, Report, Stopwatch
from kogata.ask.store import schema
from kogata.ask.store.manifest import refresh_segments
from kogata.ask.store.rows import EmbedderInfo
from kogata.ask.store.writer import COVERED, Waiting, Writer

if TYPE_CHECKING:
    from kogata.run.encoder import Encoder

BATCH = 64

_TABLES = """
CREATE TABLE IF NOT EXISTS vectors_next (
    seq    INTEGER PRIMARY KEY AUTOINCREMENT,
    chunk  INTEGER NOT NULL UNIQUE REFERENCES chunks(id) ON DELETE CASCADE,
    vector BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS coverage_next (
    chunk    INTEGER PRIMARY KEY REFERENCES chunks(id) ON DELETE CASCADE,
    coverage REAL NOT NULL
);
"""


def rebuild(writer: Writer, embedder: Encoder, source: str, progress: Progress | None) -> Report:
    """Embed every passage with ``embedder``, then make its vectors the index's. The caller holds the lock."""
    tell = progress or (lambda event: None)
    watch = Stopwatch()
    info = EmbedderInfo(embedder.identity, embedder.name, embedder.dimensions, source)
    with schema.plain_errors(writer.path):
        _begin(writer, info)
        (total,) = writer.db.execute("SELECT count(*) FROM chunks").fetchone()
        (done,) = writer.db.execute("SELECT count(*) FROM coverage_next").fetchone()
        embedded = 0
        while batch := _next_batch(writer):
            with watch.stage("tokenise"):
                coverage = [embedder.tokenizer.coverage(row.text) for row in batch]
            covered = [row for row, share in zip(batch, coverage, strict=True) if share >= COVERED]
            with watch.stage("embed"):
                texts = [row.passage for row in covered]
                vectors = embedder.encode_document(texts, long_texts="window").astype("<f2") if texts else ()
            with watch.stage("vectors"), writer.transaction() as db:
                pairs = zip(batch, coverage, strict=True)
                db.executemany("INSERT INTO coverage_next VALUES (?, ?)", [(row.chunk, share) for row, share in pairs])
                db.executemany(
                    "INSERT INTO vectors_next (chunk, vector) VALUES (?, ?)",
                    [(row.chunk, vector.tobytes()) for row, vector in zip(covered, vectors, strict=True)],
                )
            embedded += len(covered)
            done += len(batch)
            tell(ProgressEvent("meaning", done, total))
        _switch(writer, info)
    with watch.stage("segments"):
        refresh_segments(writer)
    with watch.stage("tidy"):
        writer.tidy(merge=False)
    tell(ProgressEvent("done", done, total))
    return Report(embedded=embedded, waiting=writer.n_waiting(), seconds=dict(watch.seconds))


def _begin(writer: Writer, info: EmbedderInfo) -> None:
    """Go on with a stopped rebuild for the same embedder; drop the remains of one for another."""
    with writer.transaction() as db:
        row = db.execute("SELECT value FROM meta WHERE key = 'rebuilding'").fetchone()
        if row is not None and EmbedderInfo(**json.loads(row[0])).identity != info.identity:
            db.execute("DROP TABLE IF EXISTS vectors_next")
            db.execute("DROP TABLE IF EXISTS coverage_next")
        schema.run_script(db, _TABLES)
        db.execute("INSERT OR REPLACE INTO meta VALUES ('rebuilding', ?)", (json.dumps(asdict(info)),))


def _next_batch(writer: Writer) -> Sequence[Waiting]:
    (last,) = writer.db.execute("SELECT coalesce(max(chunk), 0) FROM coverage_next").fetchone()
    return writer.passages("c.id > ?", (last,), BATCH)


def _switch(writer: Writer, info: EmbedderInfo) -> None:
    with writer.transaction() as db:
        db.execute("DROP TABLE vectors")
        db.execute("ALTER TABLE vectors_next RENAME TO vectors")
        db.execute(
            "UPDATE chunks SET coverage = next.coverage, meaning = iif(next.coverage < ?, 0, 2) "
            "FROM coverage_next next WHERE next.chunk = chunks.id",
            (COVERED,),
        )
        db.execute("DROP TABLE coverage_next")
        db.execute("DELETE FROM segments")
        db.execute("DELETE FROM tombstones")
        db.execute("DELETE FROM meta WHERE key IN ('rebuilding', 'covered')")
        db.execute("INSERT OR REPLACE INTO meta VALUES ('embedder', ?)", (json.dumps(asdict(info)),))
        writer.bump()
