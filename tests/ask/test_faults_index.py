"""Kills, full disks, damaged and changing files, no permission: what is committed stays, the next run completes."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from standin import StandIn

import kogata
from kogata.ask import documents
from kogata.ask.documents import Document, Limits, ParserPool, Refusal, reading
from kogata.ask.indexing.report import ProgressEvent
from kogata.ask.store import schema
from kogata.ask.store.reader import Store
from kogata.ask.store.status import read_status
from kogata.errors import DamagedIndexError, LockedError, StoreError

SCRIPT = Path(__file__).with_name("indexer_process.py")


def write_docs(folder: Path, n: int, words: int = 400) -> dict[bytes, str]:
    rng = random.Random(n)
    folder.mkdir(exist_ok=True)
    texts = {}
    for number in range(n):
        text = " ".join(f"w{rng.randrange(5000)}" for _ in range(words)) + f" 文書{number}の潮位\n"
        path = folder / f"{number}.txt"
        path.write_text(text)
        texts[os.fsencode(path)] = text.rstrip("\n")
    return texts


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    return tmp_path / "docs"


def start(path: Path, docs: Path, command: str = "add") -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(path), str(docs), command],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    # Not communicate(): it reads past what readline() has already buffered of a fast process.
    assert process.stdout is not None
    with process:
        said = "".join(line for line in process.stdout if line != ".\n")
    return process.returncode, said


def holds_only_whole_documents(path: Path, texts: dict[bytes, str]) -> int:
    """Every stored document is there with all its text, chunks, words and rows; returns how many there are."""
    if not path.exists() or not path.stat().st_size:
        return 0
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    if not db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        return 0
    db.execute("INSERT INTO words (words) VALUES ('integrity-check')")
    db.rollback()
    assert (
        db.execute("SELECT id FROM words_docsize ORDER BY id").fetchall()
        == db.execute("SELECT id FROM chunks ORDER BY id").fetchall()
    )
    assert (
        db.execute("SELECT count(*) FROM chunks WHERE meaning = 2").fetchone()
        == db.execute("SELECT count(*) FROM vectors").fetchone()
    )
    whole = db.execute(
        "SELECT d.n_chunks, count(c.id), min(c.start), max(c.end), d.n_chars FROM documents d JOIN chunks c "
        "ON c.document = d.id GROUP BY d.id"
    ).fetchall()
    n = db.execute("SELECT count(*) FROM documents WHERE code IS NULL").fetchone()[0]
    db.close()
    assert len(whole) == n
    for n_chunks, counted, first, last, n_chars in whole:
        assert n_chunks == counted
        assert first == 0
        assert last <= n_chars
    with Store.open(path) as store:
        for row in store.documents():
            assert store.context(row.id, 0, row.n_chars).rstrip("\n") == texts[row.path]
    return int(n)


def complete(path: Path, docs: Path, texts: dict[bytes, str], identity: str = "standin-1") -> None:
    """The next good run completes: all documents, words and vectors, as a fresh index would have them."""
    index = kogata.Index(path, model=StandIn(identity))
    index.add(docs, workers=1)
    status = index.status()
    assert (status.documents, status.waiting) == (len(texts), 0)
    assert status.vectors == status.chunks > 0
    holds_only_whole_documents(path, texts)
    vectors = index.store.vectors()
    assert vectors.n == status.vectors
    fresh = kogata.Index(path.with_name("fresh.sqlite"), model=StandIn(identity))
    fresh.add(docs, workers=1)
    for query in ("w17 w18", "潮位", "文書3"):
        assert found(index, query) == found(fresh, query)
    names = {name for (name,) in sqlite3.connect(path).execute("SELECT name FROM segments")}
    assert {file.name for file in schema.beside(path, ".segments").glob("*.seg")} == names


def found(index: kogata.Index, query: str) -> list[tuple[bytes, int, float]]:
    hits = index.search(query, k=50, mode="hybrid").hits
    return sorted((hit.path, hit.start, round(hit.score, 4)) for hit in hits)


def kill_at_random(tmp_path: Path, docs: Path, kills: int, how: int, command: str = "add") -> None:
    texts = write_docs(docs, 24)
    rng = random.Random(kills)
    path = tmp_path / "index.sqlite"
    timed = tmp_path / "timed.sqlite"
    identity = "standin-1"
    if command == "rebuild":
        assert finish(start(path, docs))[0] == 0
        assert finish(start(timed, docs))[0] == 0
        identity = "standin-2"
    whole = start(timed, docs, command)
    assert whole.stdout is not None
    with whole:
        n_events = len(whole.stdout.readlines())
    assert whole.returncode == 0
    before, cut_short = 0, 0
    for _ in range(kills):
        process = start(path, docs, command)
        assert process.stdout is not None
        for _ in range(rng.randrange(n_events)):
            process.stdout.readline()
        time.sleep(rng.uniform(0, 0.02))
        process.send_signal(how)
        status, _ = finish(process)
        cut_short += status != 0
        after = holds_only_whole_documents(path, texts)
        assert after >= before, "nothing that was committed is lost"
        before = after
        if after == len(texts) and command == "add" and status == 0:
            # Start over, so that every kill meets a run at work.
            kogata.Index(path, model=StandIn()).forget(docs)
            before = 0
    assert cut_short >= kills // 3
    if command == "rebuild":
        assert finish(start(path, docs, "rebuild"))[0] == 0
    complete(path, docs, texts, identity)


def test_kill_9_at_random_moments(tmp_path: Path, docs: Path) -> None:
    kill_at_random(tmp_path, docs, 8, signal.SIGKILL)


def test_ctrl_c_at_random_moments(tmp_path: Path, docs: Path) -> None:
    kill_at_random(tmp_path, docs, 5, signal.SIGINT)


@pytest.mark.slow
def test_kill_9_at_many_random_moments(tmp_path: Path, docs: Path) -> None:
    kill_at_random(tmp_path, docs, 60, signal.SIGKILL)


@pytest.mark.slow
def test_kill_9_during_rebuild(tmp_path: Path, docs: Path) -> None:
    kill_at_random(tmp_path, docs, 30, signal.SIGKILL, "rebuild")


def unread(index: kogata.Index) -> dict[bytes, int]:
    return {os.path.basename(folder.path): folder.unread for folder in index.status().folders}


def test_status_says_what_a_stopped_run_left_unread(tmp_path: Path) -> None:
    class Stop:
        """Ctrl-C behind so many files."""

        def __init__(self, after: int) -> None:
            self.after = after

        def __call__(self, event: ProgressEvent) -> None:
            if (event.phase, event.done) == ("reading", self.after):
                raise KeyboardInterrupt

    write_docs(tmp_path / "a", 6)
    write_docs(tmp_path / "b", 5)
    index = kogata.Index(tmp_path / "index.sqlite", model=StandIn())
    with pytest.raises(KeyboardInterrupt):
        index.add(tmp_path / "a", workers=1, progress=Stop(2))
    assert unread(index) == {b"a": 4}
    with pytest.raises(KeyboardInterrupt):
        index.add(tmp_path / "b", workers=1, progress=Stop(4))
    assert unread(index) == {b"a": 4, b"b": 1}, "of each folder by itself"
    (tmp_path / "a" / "5.txt").unlink()
    with pytest.raises(KeyboardInterrupt):
        index.refresh(workers=1, progress=Stop(1))
    assert index.status().unread == 11 - 1 - 6 - 1
    index.refresh(workers=1)
    assert (index.status().unread, index.status().documents) == (0, 10)
    assert index.status().to_dict()["unread"] == 0


def test_what_a_kill_left_unread(tmp_path: Path, docs: Path) -> None:
    texts = write_docs(docs, 9)
    path = tmp_path / "index.sqlite"
    assert finish(start(path, docs, "die_after=3"))[0] == -signal.SIGKILL
    with Store.open(path) as store:
        assert read_status(store).unread == 6
    complete(path, docs, texts)
    with Store.open(path) as store:
        assert read_status(store).unread == 0


def test_the_lock_names_its_holder_and_goes_with_it(tmp_path: Path, docs: Path) -> None:
    texts = write_docs(docs, 3)
    path = tmp_path / "index.sqlite"
    holder = start(path, docs, "hold")
    lock = schema.beside(path, ".lock")
    end = time.monotonic() + 20
    while not (lock.exists() and lock.stat().st_size):
        assert time.monotonic() < end
        time.sleep(0.02)
    with pytest.raises(LockedError, match=rf"indexer_process.py .*process {holder.pid}\)"):
        kogata.Index(path, model=StandIn()).add(docs)
    status, message = finish(start(path, docs))
    assert status == 1
    assert message.startswith("LockedError: Another process is writing")
    holder.kill()
    finish(holder)
    complete(path, docs, texts)


@pytest.mark.parametrize("limit", [40_000, 150_000, 400_000])
def test_full_disk(tmp_path: Path, docs: Path, limit: int) -> None:
    texts = write_docs(docs, 24, words=3000)
    path = tmp_path / "index.sqlite"
    status, message = finish(start(path, docs, f"limit={limit}"))
    assert status == 1, message
    assert message.startswith("StoreError: The disk is full or cannot be written"), message
    assert "it carries on" in message
    holds_only_whole_documents(path, texts)
    complete(path, docs, texts)


def test_sqlite_says_full(tmp_path: Path, docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = write_docs(docs, 24)
    path = tmp_path / "index.sqlite"
    configure = schema._configure

    def small(connection: sqlite3.Connection, *, write: bool) -> None:
        configure(connection, write=write)
        connection.execute("PRAGMA max_page_count = 60")

    monkeypatch.setattr(schema, "_configure", small)
    with pytest.raises(StoreError, match="disk is full"):
        kogata.Index(path, model=StandIn()).add(docs, workers=1)
    assert 0 < holds_only_whole_documents(path, texts) < 24
    monkeypatch.setattr(schema, "_configure", configure)
    complete(path, docs, texts)


# --- segments


def damage_delete(file: Path) -> None:
    file.unlink()


def damage_flip(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 16
    file.write_bytes(raw)


def damage_cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def damage_header(file: Path) -> None:
    file.write_bytes(b"\0" * 4096 + file.read_bytes()[4096:])


@pytest.mark.parametrize("damage", [damage_delete, damage_flip, damage_cut, damage_header])
def test_damaged_segments(tmp_path: Path, docs: Path, damage: object) -> None:
    texts = write_docs(docs, 6)
    path = tmp_path / "index.sqlite"
    kogata.Index(path, model=StandIn()).add(docs, workers=1)
    expected = found(kogata.Index(path, model=StandIn()), "w17 潮位")
    (segment,) = schema.beside(path, ".segments").glob("*.seg")
    damage(segment)  # type: ignore[operator]
    index = kogata.Index(path, model=StandIn())
    assert found(index, "w17 潮位") == expected, "searched from the file's own copy"
    assert index.refresh(workers=1).embedded == 0
    store = Store.open(path)
    assert store.vectors()._segments, "made anew"
    assert found(kogata.Index(path, model=StandIn()), "w17 潮位") == expected
    complete(path, docs, texts)


def test_segments_folder_lost(tmp_path: Path, docs: Path) -> None:
    import shutil

    texts = write_docs(docs, 6)
    path = tmp_path / "index.sqlite"
    index = kogata.Index(path, model=StandIn())
    index.add(docs, workers=1)
    expected = found(index, "w17 潮位")
    shutil.rmtree(schema.beside(path, ".segments"))
    assert found(kogata.Index(path, model=StandIn()), "w17 潮位") == expected
    complete(path, docs, texts)


# --- files


def test_a_truncated_index_says_what_to_do_and_a_new_one_works(tmp_path: Path, docs: Path) -> None:
    texts = write_docs(docs, 6)
    path = tmp_path / "index.sqlite"
    kogata.Index(path, model=StandIn()).add(docs, workers=1)
    os.truncate(path, path.stat().st_size // 2)
    index = kogata.Index(path, model=StandIn())
    for act in (index.status, index.refresh, lambda: index.search("w1"), lambda: index.add(docs)):
        with pytest.raises(DamagedIndexError) as caught:
            act()
        assert "index.sqlite.segments" in (caught.value.hint or "")
    path.rename(tmp_path / "broken.sqlite")
    schema.beside(path, ".segments").rename(tmp_path / "broken.segments")
    complete(path, docs, texts)


def test_damage_inside_the_file_is_an_error_not_a_crash(tmp_path: Path, docs: Path) -> None:
    """Random pages overwritten: every call returns or raises a StoreError."""
    write_docs(docs, 12)
    path = tmp_path / "index.sqlite"
    kogata.Index(path, model=StandIn()).add(docs, workers=1)
    sound = path.read_bytes()
    rng = random.Random(5)
    outcomes = set()
    for _ in range(25):
        raw = bytearray(sound)
        for _ in range(3):
            page = rng.randrange(1, len(raw) // 4096)
            raw[page * 4096 : page * 4096 + 64] = rng.randbytes(64)
        path.write_bytes(raw)
        with kogata.Index(path, model=StandIn()) as index:
            for act in (index.status, lambda index=index: index.search("w1 潮位"), index.refresh):
                try:
                    act()
                    outcomes.add("fine")
                except StoreError as error:
                    outcomes.add(type(error).__name__)
    assert outcomes <= {"fine", "DamagedIndexError", "StoreError"}
    assert "DamagedIndexError" in outcomes


class Changing(ParserPool):
    """Says of chosen files, so many times, that they changed while they were read."""

    times: dict[str, int] = {}  # noqa: RUF012

    def parse_many(self, files: object) -> Iterator[tuple[object, Document | Refusal]]:
        files = list(files)  # type: ignore[call-overload]
        paths = {key: os.path.basename(os.fsdecode(path)) for key, path in files}
        for key, outcome in super().parse_many(files):
            if self.times.get(paths[key], 0) > 0:
                self.times[paths[key]] -= 1
                outcome = Refusal("changed", "It changed while it was being read.")
            yield key, outcome


def test_a_file_that_changes_while_read_is_tried_once_more(
    tmp_path: Path, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_docs(docs, 3)
    monkeypatch.setattr(documents, "ParserPool", Changing)
    monkeypatch.setattr(Changing, "times", {"0.txt": 1, "1.txt": 2})
    index = kogata.Index(tmp_path / "index.sqlite", model=StandIn())
    report = index.add(docs, workers=1)
    assert report.added == 2
    assert [(os.path.basename(file.path), file.code) for file in report.skipped] == [(b"1.txt", "changed")]
    report = index.refresh(workers=1)
    assert (report.changed, report.skipped) == (1, ())
    # With an earlier version in the index, that is kept.
    (docs / "2.txt").write_text("anew and longer " * 50)
    monkeypatch.setattr(Changing, "times", {"2.txt": 2})
    report = index.refresh(workers=1)
    assert "earlier version is kept" in report.skipped[0].reason
    assert index.search("文書2の潮位", mode="words").hits[0].path.endswith(b"2.txt")
    report = index.refresh(workers=1)
    assert (report.changed, report.skipped) == (1, ())
    assert index.search("anew", mode="words").hits


class Here(ParserPool):
    """Parses in this process, where a test can reach into it."""

    def parse_many(self, files: object) -> Iterator[tuple[object, Document | Refusal]]:
        for key, path in files:  # type: ignore[attr-defined]
            yield key, reading.attempt(path, Limits())


def test_a_file_that_grows_all_the_time(tmp_path: Path, docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_docs(docs, 2)
    log = docs / "server.log"
    log.write_text("request served\n" * 1000)
    read_exactly = reading._read_exactly

    def meanwhile(file: io.FileIO, size: int) -> bytes:
        data = read_exactly(file, size)
        if os.path.samestat(os.fstat(file.fileno()), log.stat()):
            with log.open("a") as grown:
                grown.write("request served\n")
        return data

    monkeypatch.setattr(documents, "ParserPool", Here)
    monkeypatch.setattr(reading, "_read_exactly", meanwhile)
    report = kogata.Index(tmp_path / "index.sqlite", model=StandIn()).add(docs, workers=1)
    assert report.added == 2
    assert [(os.path.basename(file.path), file.code) for file in report.skipped] == [(b"server.log", "changed")]
    assert log.stat().st_size == 15 * 1002, "read twice"


def test_a_store_that_fails_for_one_file_goes_on(tmp_path: Path, docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_docs(docs, 3)
    chunk = documents.chunk

    def breaks(document: Document, count: object) -> object:
        if "文書1" in document.text:
            raise RecursionError("too deep")
        return chunk(document, count)  # type: ignore[arg-type]

    monkeypatch.setattr(documents, "chunk", breaks)
    report = kogata.Index(tmp_path / "index.sqlite", model=StandIn()).add(docs, workers=1)
    assert report.added == 2
    assert [os.path.basename(file.path) for file in report.skipped] == [b"1.txt"]


# --- permissions


@contextmanager
def as_nobody() -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_tmp() -> Iterator[Path]:
    """A temporary folder that everybody may enter (pytest's own lie in one that is private)."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        with as_nobody():
            is_open = os.path.exists(os.path.join(name, "."))
        if not is_open:
            pytest.skip(f"{tempfile.gettempdir()} is private")
        yield Path(name)


def test_no_permission(open_tmp: Path) -> None:
    docs = open_tmp / "docs"
    write_docs(docs, 3)
    shelf = open_tmp / "shelf"
    shelf.mkdir()
    path = shelf / "index.sqlite"
    index = kogata.Index(path, model=StandIn())
    index.add(docs, workers=1)
    expected = found(index, "w17 潮位")
    index.close()
    for suffix in ("-wal", "-shm"):
        schema.beside(path, suffix).unlink(missing_ok=True)
    shelf.chmod(0o555)
    path.chmod(0o444)
    with as_nobody():
        # Reading a shared index in a folder one may not write.
        reader = kogata.Index(path, model=StandIn())
        assert found(reader, "w17 潮位") == expected
        assert reader.status().documents == 3
        with pytest.raises(StoreError, match="cannot be written"):
            reader.refresh()
        reader.close()
    path.chmod(0o000)
    with as_nobody():
        for act in (reader.status, lambda: reader.search("x")):
            with pytest.raises(StoreError, match="Permission denied"):
                act()
        elsewhere = kogata.Index(shelf / "sub" / "index.sqlite", model=StandIn())
        with pytest.raises(StoreError, match="cannot be"):
            elsewhere.add(docs)


def test_lock_file_with_rubbish_in_it(tmp_path: Path, docs: Path) -> None:
    from kogata.ask.store.lock import WriterLock

    path = tmp_path / "index.sqlite"
    with WriterLock(path):
        schema.beside(path, ".lock").write_bytes(b"\xff{not json")
        with pytest.raises(LockedError, match="Another process is writing"):
            kogata.Index(path, model=StandIn()).add(tmp_path)
        schema.beside(path, ".lock").write_text(json.dumps({"pid": "x", "since": None, "command": 3}))
        with pytest.raises(LockedError, match="Another process is writing"):
            kogata.Index(path, model=StandIn()).add(tmp_path)


def test_vectors_of_another_length_are_damage(tmp_path: Path, docs: Path) -> None:
    write_docs(docs, 2)
    path = tmp_path / "index.sqlite"
    kogata.Index(path, model=StandIn()).add(docs, workers=1)
    db = sqlite3.connect(path)
    db.execute("UPDATE vectors SET vector = ?", (np.zeros(3, "<f2").tobytes(),))
    db.execute("UPDATE meta SET value = 0 WHERE key = 'covered'")
    db.commit()
    db.close()
    with pytest.raises(StoreError):
        kogata.Index(path, model=StandIn()).search("w17")


def locks_on(path: Path) -> list[str]:
    """This process's locks on a file, as Linux lists them."""
    own = f"{os.getpid()}"
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return sorted(" ".join(line[1:]) for line in lines if own in line and line[-3].endswith(f":{path.stat().st_ino}"))


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="/proc/locks is Linux's")
def test_another_processes_writes_are_seen_by_open_readers(tmp_path: Path, docs: Path) -> None:
    """Closing any descriptor of a file drops a process's locks on it: then another writer would reset the log that a
    reader here still reads from."""
    place = tmp_path / "index.sqlite"
    docs.mkdir()
    (docs / "tide.txt").write_text("The tide comes twice a day.")
    with kogata.Index(place, model=StandIn()) as index:
        index.add(docs)
        assert index.search("zebra", mode="words").hits == ()
        held = locks_on(place)
        assert held, "an open index holds a lock on its file"
        with kogata.Index(place, model=StandIn()) as second:  # opens the file again in this process
            assert second.search("zebra", mode="words").hits == ()
            assert locks_on(place) == held
        (docs / "zebra.txt").write_text("A zebra stood in the harbour.")
        subprocess.run([sys.executable, str(SCRIPT), str(place), str(docs), "add"], check=True, capture_output=True)
        assert [hit.path for hit in index.search("zebra", mode="words").hits] == [os.fsencode(docs / "zebra.txt")]


def test_an_index_inside_its_own_folder_is_no_document(docs: Path) -> None:
    place = docs / "index.sqlite"
    docs.mkdir()
    (docs / "tide.txt").write_text("The tide comes twice a day.")
    with kogata.Index(place, model=StandIn()) as index:
        index.add(docs)
        index.refresh()
        known = [row.path for row in index.store.documents()]
    assert not [path for path in known if path.startswith(os.fsencode(place))], known
