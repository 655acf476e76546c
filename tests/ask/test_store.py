"""The index file: what is written is read back, replaced whole, and refused where it is not ours."""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogata.ask.documents import Chunk, Document
from kogata.ask.store import schema
from kogata.ask.store.filters import Filter
from kogata.ask.store.reader import Store
from kogata.ask.store.rows import PART, EmbedderInfo, check_embedder
from kogata.ask.store.status import read_status
from kogata.ask.store.verify import Verification, verify
from kogata.ask.store.writer import FileStat, Writer, passage
from kogata.ask.words import pruning
from kogata.ask.words.fts import match_query
from kogata.errors import BadInput, DamagedIndexError, EmbedderMismatch, NewerIndexError, StoreError

INFO = EmbedderInfo("id-1", "one", 4)


def document(text: str, title: str = "", kind: str = "txt") -> Document:
    return Document(text, title, kind, (), hash="00" * 16)


def put(
    writer: Writer, path: str | bytes, text: str, title: str = "", coverage: float = 1.0, step: int = 100,
    kind: str = "txt", heading: tuple[str, ...] = (),
) -> None:  # fmt: skip
    chunks = [Chunk(start, min(start + step, len(text)), None, heading, 10) for start in range(0, len(text), step)]
    (folder,) = [row.id for row in writer.folders()] or [None]
    if folder is None:
        writer.add_folder(b"/docs", None)
        folder = writer.folders()[0].id
    writer.put(FileStat(os.fsencode(path), len(text), 1), folder, 1, document(text, title, kind), chunks,
               [coverage] * len(chunks))  # fmt: skip


def words_of(store: Store, query: str, where: Filter | None = None) -> list[str]:
    match = match_query(query)
    assert match is not None
    return [row.text for row in store.chunk_rows([id_ for id_, _ in store.words(match, 10, where)])]


def fts_is_sound(path: Path) -> None:
    """FTS5's own check; the word index holds one row for each chunk and the terms of a fresh build."""
    db = sqlite3.connect(path)
    db.execute("INSERT INTO words (words) VALUES ('integrity-check')")
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert (
        db.execute("SELECT id FROM chunks ORDER BY id").fetchall()
        == db.execute("SELECT id FROM words_docsize ORDER BY id").fetchall()
    )
    db.execute("CREATE VIRTUAL TABLE temp.held USING fts5vocab(main, words, instance)")
    held = sorted(db.execute("SELECT term, doc, col, offset FROM held").fetchall())
    db.rollback()
    db.close()
    with Writer(path) as writer:
        writer._rebuild_words()
    db = sqlite3.connect(path)
    db.execute("CREATE VIRTUAL TABLE temp.fresh USING fts5vocab(main, words, instance)")
    assert sorted(db.execute("SELECT term, doc, col, offset FROM fresh").fetchall()) == held
    db.close()


def test_japanese_and_english_words_are_found(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    with Writer(path) as writer:
        put(writer, "/docs/a.txt", "港の潮位を測る。", "潮汐")
        put(writer, "/docs/b.txt", "Tides are measured by gauges in the harbour.")
    with Store.open(path) as store:
        assert words_of(store, "潮位") == ["港の潮位を測る。"]
        assert words_of(store, "潮") == ["港の潮位を測る。"]
        assert words_of(store, "潮汐") == ["港の潮位を測る。"]  # only in the title
        assert words_of(store, "measuring a gauge")[0].startswith("Tides")
        assert words_of(store, "水位計") == []
    fts_is_sound(path)


def test_replacing_a_document_leaves_nothing_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    with Writer(path) as writer:
        put(writer, "/docs/a.txt", "albatross " * 50, "Birds", heading=("Sea", "Wings"))
        put(writer, "/docs/b.txt", "bumblebee " * 50)
        first = {row.id for row in writer.documents()}
        put(writer, "/docs/a.txt", "cormorant " * 20, "Birds")
        assert len(writer.documents()) == 2
        assert {row.id for row in writer.documents()} - first, "ids are not used again"
    with Store.open(path) as store:
        assert words_of(store, "albatross wings") == []
        assert words_of(store, "cormorant")
        assert read_status(store).chunks == 5 + 2
    fts_is_sound(path)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.text(max_size=300), st.text(max_size=20)), max_size=12))
def test_any_sequence_of_replacements_equals_a_fresh_index(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, str, str]]
) -> None:
    path = tmp_path_factory.mktemp("any") / "index.sqlite"
    last: dict[int, str] = {}
    with Writer(path) as writer:
        writer.add_folder(b"/docs", None)
        for number, text, title in steps:
            put(writer, f"/docs/{number}", text, title, step=37, heading=(title[:3], title[3:]))
            last[number] = text
            if len(text) % 5 == 0:
                writer.remove([row.id for row in writer.documents() if row.path == b"/docs/%d" % number])
                del last[number]
    with Store.open(path) as store:
        rows = {row.path: row for row in store.documents()}
        assert set(rows) == {b"/docs/%d" % number for number in last}
        for number, text in last.items():
            clean = "".join("\ufffd" if "\ud800" <= letter <= "\udfff" else letter for letter in text)
            assert store.context(rows[b"/docs/%d" % number].id, 0, 10**9) == clean
    fts_is_sound(path)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 3 * PART), st.integers(-5, 3 * PART + 50), st.integers(-5, 3 * PART + 50))
def test_slices_of_a_stored_text_are_exact(
    tmp_path_factory: pytest.TempPathFactory, length: int, start: int, end: int
) -> None:
    text = "".join(chr(0x3042 + (i * i) % 80) for i in range(length))
    path = tmp_path_factory.mktemp("slices") / "index.sqlite"
    with Writer(path) as writer:
        put(writer, "/docs/a", text, step=10**6)
    with Store.open(path) as store:
        (row,) = store.documents()
        assert store.context(row.id, start, end) == text[max(start, 0) : max(end, 0)]


def test_paths_of_any_bytes(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"in\xff\ndex.sqlite")
    odd = b"/docs/caf\xe9\n.txt"
    with Writer(path) as writer:
        put(writer, odd, "the text")
    with Store.open(path) as store:
        (row,) = store.documents()
        assert row.path == odd
        assert "\ufffd" in schema.shown(odd)
        assert words_of(store, "text", Filter(paths=(os.fsdecode(odd),))) == ["the text"]


def test_a_large_index_gives_the_best_of_the_full_ranking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    names = np.array([f"w{'abcdefghij'[i % 10]}{'klmnopqrst'[i // 10 % 10]}{i // 100}x" for i in range(400)])
    common = 1 / np.arange(1, 401)
    path = tmp_path / "index.sqlite"

    def text(length: int) -> str:
        return " ".join(rng.choice(names, length, p=common / common.sum()))

    with Writer(path) as writer:
        for i in range(300):
            put(writer, f"/docs/{i}", text(250), step=150, kind=("md", "txt")[i % 2])
        for i in range(0, 300, 7):
            put(writer, f"/docs/{i}", text(30))  # rows taken out and put in again: ids have holes
    queries = [" ".join(rng.choice(names, n)) for n in (1, 2, 3, 8, 20) for _ in range(4)]
    queries += [f"{names[0]} {names[1]}", f"{names[0]} {names[0]} {names[5]}", "absent words", f"absent {names[300]}"]
    scored: list[int] = []
    worth_scoring = pruning.worth_scoring

    def counted(*arguments: Any) -> Any:
        chosen = worth_scoring(*arguments)
        scored.append(len(chosen))
        return chosen

    monkeypatch.setattr(pruning, "worth_scoring", counted)
    with Store.open(path) as store:
        rows = store.db.execute("SELECT count(*) FROM words_docsize").fetchone()[0]
        assert store._n_word_rows() == rows == store.n_chunks()
        for query in queries:
            match = match_query(query)
            assert match is not None
            for where in (None, Filter(kinds=("md",))):
                monkeypatch.setattr(pruning, "LARGE", 10**9)
                full = dict(store.words(match, 10**6, where))
                best = sorted(full.values(), reverse=True)[:10]
                monkeypatch.setattr(pruning, "LARGE", 0)
                found = store.words(match, 10, where)
                print(query[:40], where, len(full), "matched,", scored[-1:], "scored")
                assert [score for _, score in found] == pytest.approx(best)  # ties may come in another order
                assert all(full[id_] == pytest.approx(score) for id_, score in found)
        assert store.words('"absent" OR "words"', 10) == []
        assert sum(scored) < 0.5 * rows * len(scored)


def test_filters(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    with Writer(path) as writer:
        for name, kind in [("a/x.md", "md"), ("a/y.txt", "txt"), ("b/x.md", "md"), ("ab/x.md", "md")]:
            put(writer, f"/docs/{name}", f"tide {name}", kind=kind)
    with Store.open(path) as store:

        def hits(**filters: tuple[str, ...]) -> set[str]:
            where = Filter(**filters)
            found = set(words_of(store, "tide", where))
            allowed = store.allowed(where)
            assert allowed is not None
            assert {row.text for row in store.chunk_rows(allowed.tolist())} == found
            assert {f"tide {os.fsdecode(row.path)[6:]}" for row in store.documents(where)} == found
            return {text.removeprefix("tide ") for text in found}

        assert hits(paths=("/docs/a",)) == {"a/x.md", "a/y.txt"}
        assert hits(paths=("a",)) == {"a/x.md", "a/y.txt"}
        assert hits(paths=("x.md",)) == {"a/x.md", "b/x.md", "ab/x.md"}
        assert hits(paths=("*.txt", "/docs/b/")) == {"a/y.txt", "b/x.md"}
        assert hits(paths=("a/*.md",)) == {"a/x.md"}
        assert hits(kinds=("txt",)) == {"a/y.txt"}
        assert hits(paths=("b",), kinds=("txt",)) == set()
        assert store.allowed(None) is None
        assert store.allowed(Filter()) is None
        with pytest.raises(BadInput, match=r"no document type 'word'.*md, txt"):
            store.allowed(Filter(kinds=("word",)))


def test_vectors_survive_an_edit_where_the_passage_did_not_change(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    with Writer(path) as writer:
        put(writer, "/docs/a", "x" * 100 + "y" * 100 + "z" * 100, "T")
        waiting = writer.waiting(10)
        assert [row.passage for row in waiting] == ["T. " + letter * 100 for letter in "xyz"]
        writer.put_vectors([row.chunk for row in waiting], np.eye(3, 4, dtype=np.float32), INFO)
        assert writer.waiting(10) == []
        put(writer, "/docs/a", "x" * 100 + "w" * 100 + "z" * 100, "T")
        assert [row.passage for row in writer.waiting(10)] == ["T. " + "w" * 100]
        kept = writer.db.execute("SELECT c.start, v.vector FROM vectors v JOIN chunks c ON c.id = v.chunk").fetchall()
        for start, vector in kept:
            assert np.frombuffer(vector, "<f2").tolist() == np.eye(3, 4)[start // 100].tolist()
        assert {start for start, _ in kept} == {0, 200}
        # Another title is another passage: nothing is kept.
        put(writer, "/docs/a", "x" * 100 + "w" * 100 + "z" * 100, "U")
        assert len(writer.waiting(10)) == 3


def test_what_the_tokenizer_does_not_cover_gets_no_vector(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    with Writer(path) as writer:
        put(writer, "/docs/low", "a" * 50, coverage=0.79)
        put(writer, "/docs/high", "b" * 50, coverage=0.8)
        assert [row.passage for row in writer.waiting(10)] == ["b" * 50]
    with Store.open(path) as store:
        status = read_status(store)
        assert (status.chunks, status.waiting, status.words_only, status.documents_words_only) == (2, 1, 1, 1)
        assert store.waiting() == 1


def test_passage_names_what_the_text_does_not() -> None:
    assert passage("Tides", (), "Tides rise.") == "Tides rise."
    assert passage("Tides", ("Sea", "Causes"), "The moon pulls.") == "Tides. Causes. The moon pulls."
    assert passage("Tides", ("Tides",), "Causes") == "Tides. Causes"
    assert passage("", (), "Causes") == "Causes"
    assert len(passage("t" * 10_000, (), "text")) < 300


def test_status_counts_and_reasons(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    with Writer(path) as writer:
        put(writer, "/docs/a.md", "a" * 250, kind="md")
        folder = writer.folders()[0].id
        for name in ("b.pdf", "c.pdf"):
            writer.refuse(FileStat(b"/docs/" + name.encode(), 7, 1), folder, 1, "pdf", "encrypted", "It is locked.")
        writer.refuse(FileStat(b"/docs/d.bin", 7, 1), folder, 1, "", "binary", "It is a program.")
    with Store.open(path) as store:
        status = read_status(store)
    assert status.skipped_by_code == {"encrypted": 2, "binary": 1}
    assert [file.to_dict()["path"] for file in status.skipped] == ["/docs/b.pdf", "/docs/c.pdf", "/docs/d.bin"]
    assert status.kinds == {"md": 1}
    (folder_status,) = status.folders
    assert (folder_status.documents, folder_status.skipped, folder_status.bytes) == (1, 3, 250)
    assert status.bytes_index > 4096
    assert status.to_dict()["folders"][0]["path"] == "/docs"


def test_readers_see_commits_and_snapshots_do_not_move(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    with Writer(path) as writer:
        put(writer, "/docs/a", "one tide")
        with Store.open(path) as store:
            with store.snapshot():
                assert len(words_of(store, "tide")) == 1
                put(writer, "/docs/b", "two tides")
                assert len(words_of(store, "tide")) == 1
            assert len(words_of(store, "tide")) == 2
            seen: list[int] = []
            thread = threading.Thread(target=lambda: seen.append(len(words_of(store, "tide"))))
            thread.start()
            thread.join()
            assert seen == [2]


def test_another_embedder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    with Writer(path) as writer:
        put(writer, "/docs/a", "text")
        writer.put_vectors([writer.waiting(1)[0].chunk], np.ones((1, 4), np.float32) / 2, INFO)
    with Store.open(path) as store:
        assert store.embedder() == INFO
        check_embedder(store.embedder(), "id-1", "one")
        with pytest.raises(EmbedderMismatch, match="embedder one, and two") as caught:
            check_embedder(store.embedder(), "id-2", "two")
        assert "kogata index --rebuild" in (caught.value.hint or "")


# --- what is not an index of this version


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no index at") as caught:
        Store.open(tmp_path / "none.sqlite")
    assert "kogata index" in (caught.value.hint or "")
    assert not (tmp_path / "none.sqlite").exists()


def test_a_folder_is_not_an_index(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is a folder"):
        Store.open(tmp_path)


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOGATA_INDEX", str(tmp_path / "mine.sqlite"))
    assert schema.resolve(None) == tmp_path / "mine.sqlite"
    monkeypatch.delenv("KOGATA_INDEX")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert schema.resolve(None) == tmp_path / "data" / "kogata" / "index.sqlite"
    assert schema.resolve("x.kogata") == Path.cwd() / "x.kogata"


def make(path: Path) -> None:
    with Writer(path) as writer:
        for number in range(20):
            put(writer, f"/docs/{number}", f"tide number {number} " * 200)


def test_newer_version(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    make(path)
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 999")
    db.close()
    before = path.read_bytes()
    for opener in (Store.open, Writer):
        with pytest.raises(NewerIndexError, match=f"version 999.*up to {schema.VERSION}") as caught:
            opener(path)
        assert "Update Kogata" in (caught.value.hint or "")
    assert path.read_bytes() == before


@pytest.mark.parametrize("keep", [1, 50, 100, 4096, 5000, 0.5, 0.99])
def test_truncated(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "index.sqlite"
    make(path)
    size = path.stat().st_size
    os.truncate(path, int(keep if keep >= 1 else size * keep))
    for suffix in ("-wal", "-shm"):
        schema.beside(path, suffix).unlink(missing_ok=True)
    with pytest.raises(DamagedIndexError) as caught:
        Store.open(path)
    assert "documents are not touched" in (caught.value.hint or "")
    with pytest.raises(DamagedIndexError):
        Writer(path)


def test_not_sqlite_or_another_programs(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("These are notes, and a person passed them as --index by mistake. " * 50)
    other = tmp_path / "other.db"
    db = sqlite3.connect(other)
    db.execute("CREATE TABLE bookmarks (url)")
    db.close()
    for path, match in [(text, "is not an index"), (other, "of another program")]:
        before = path.read_bytes()
        for opener in (Store.open, Writer):
            with pytest.raises(DamagedIndexError, match=match):
                opener(path)
        assert path.read_bytes() == before


def test_emptied_file_with_segments_beside_it_is_said(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    path.touch()
    schema.beside(path, ".segments").mkdir()
    for opener in (Store.open, Writer):
        with pytest.raises(DamagedIndexError, match="lost its contents"):
            opener(path)


def test_read_only_folder(tmp_path: Path) -> None:
    """What a reader without write permission does; as root, an immutable open is what tells it apart."""
    folder = tmp_path / "shared"
    folder.mkdir()
    path = folder / "index.sqlite"
    make(path)
    path.chmod(0o444)
    folder.chmod(0o555)
    try:
        with Store.open(path) as store:
            assert words_of(store, "tide")
    finally:
        folder.chmod(0o755)


# --- migrations


def test_older_file_is_brought_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "index.sqlite"
    make(path)
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 2)

    def first(db: sqlite3.Connection) -> None:
        schema.run_script(db, "ALTER TABLE documents ADD COLUMN language TEXT;\nUPDATE documents SET language = 'en';")

    def second(db: sqlite3.Connection) -> None:
        db.execute("CREATE INDEX documents_language ON documents(language)")

    monkeypatch.setitem(schema.MIGRATIONS, schema.VERSION - 2, first)
    monkeypatch.setitem(schema.MIGRATIONS, schema.VERSION - 1, second)
    with Store.open(path) as store:  # a reader brings it up to date too
        assert store.db.execute("SELECT DISTINCT language FROM documents").fetchall() == [("en",)]
        assert store.db.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
        assert words_of(store, "tide")


def test_a_failing_migration_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "index.sqlite"
    make(path)
    version = schema.VERSION
    monkeypatch.setattr(schema, "VERSION", version + 2)

    def good(db: sqlite3.Connection) -> None:
        db.execute("ALTER TABLE documents ADD COLUMN language TEXT")

    def bad(db: sqlite3.Connection) -> None:
        db.execute("CREATE INDEX never ON documents(no_such_column)")

    monkeypatch.setitem(schema.MIGRATIONS, version, good)
    monkeypatch.setitem(schema.MIGRATIONS, version + 1, bad)
    with pytest.raises(StoreError):
        Writer(path)
    monkeypatch.setattr(schema, "VERSION", version)
    with Store.open(path) as store:
        columns = {row[1] for row in store.db.execute("PRAGMA table_info(documents)")}
        assert "language" not in columns
        assert words_of(store, "tide")


def test_another_rule_for_words_rebuilds_the_word_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kogata.ask.words import fts

    path = tmp_path / "index.sqlite"
    make(path)
    rule = fts.index_fields
    monkeypatch.setattr(fts, "index_fields", lambda *a: tuple(f"{field} zebra" for field in rule(*a)))
    with Writer(path) as writer:
        put(writer, "/docs/3", "replaced under the new rule")
    with Store.open(path) as store:
        assert len(store.words('"zebra"', 1000)) == read_status(store).chunks
    fts_is_sound(path)


def test_a_word_index_that_is_merged_again_and_again_is_made_anew_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each merge takes the word index a level higher, and FTS5 gives up above 2,000 of them."""
    path = tmp_path / "index.sqlite"
    monkeypatch.setattr("kogata.ask.store.writer.MOST_LEVELS", 5)
    with Writer(path) as writer:
        put(writer, "/docs/kept", "the tide is high")
        highest = 0
        for n in range(20):
            put(writer, "/docs/changing", f"harbour number{n}")
            writer.tidy(merge=True)
            highest = max(highest, schema.word_levels(writer.db))
    assert highest <= 5, highest
    fts_is_sound(path)
    with Store(path) as store:
        assert words_of(store, "tide") == ["the tide is high"]
        assert words_of(store, "number19") == ["harbour number19"]
        assert words_of(store, "number18") == []


def test_a_word_index_that_cannot_be_read_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    with Writer(path) as writer:
        put(writer, "/docs/kept", "the tide is high")
        assert schema.word_levels(writer.db) == 1
    with sqlite3.connect(path) as db:  # what 2,001 merges leave
        levels = bytes([0x8F, 0x51, 0, 1]) + bytes(2 * 2001)
        db.execute("UPDATE words_data SET block = ? WHERE id = 10", (bytes(4) + levels,))
        assert schema.word_levels(db) == 2001
    db.close()
    with Store(path) as store:
        with pytest.raises(DamagedIndexError):
            store.words('"tide"', 10)
        assert verify(store) == Verification((), ("the word index cannot be read",))
    with Writer(path):
        pass
    fts_is_sound(path)
    with Store(path) as store:
        assert words_of(store, "tide") == ["the tide is high"]
        assert verify(store) == Verification((), ())
