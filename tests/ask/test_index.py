"""kogata.Index over real files: what a person sees of adding, refreshing, moving, forgetting and searching."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from standin import StandIn

import kogata
from kogata.ask import documents
from kogata.ask.indexing.report import ProgressEvent, Report
from kogata.ask.store.lock import WriterLock
from kogata.ask.store.writer import Writer
from kogata.errors import BadInput, EmbedderMismatch, LockedError, StoreError

TIDES = "# Tides\n\nThe moon pulls the sea, and gauges in the harbour measure it.\n"
BREAD = "# Bread\n\nFlour, water and salt become dough; yeast makes it rise.\n"
JAPANESE = "# 潮汐\n\n港の潮位は験潮場で測る。\n"


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    (folder / "sub").mkdir(parents=True)
    (folder / "tides.md").write_text(TIDES)
    (folder / "bread.txt").write_text(BREAD)
    (folder / "sub" / "潮.md").write_text(JAPANESE)
    for path in (*folder.rglob("*.md"), *folder.rglob("*.txt")):
        age(path)
    return folder


def age(path: Path) -> None:
    """Give a file a time well before now, as files that people index have."""
    os.utime(path, ns=(time.time_ns(), time.time_ns() - 3_600_000_000_000))


@pytest.fixture
def embedder() -> StandIn:
    return StandIn()


@pytest.fixture
def index(tmp_path: Path, embedder: StandIn) -> kogata.Index:
    return kogata.Index(tmp_path / "index.sqlite", model=embedder)


def counts(report: Report) -> dict[str, int]:
    names = ("added", "changed", "moved", "removed", "unchanged", "embedded")
    return {name: getattr(report, name) for name in names if getattr(report, name)}


def names(index: kogata.Index, query: str, **options: object) -> list[str]:
    options = {"mode": "words", **options}
    return [os.path.basename(os.fsdecode(hit.path)) for hit in index.search(query, **options).hits]


def test_add_search_and_status(index: kogata.Index, docs: Path) -> None:
    (docs / "empty.txt").touch()
    (docs / ".hidden.md").write_text("secret")
    (docs / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    events: list[ProgressEvent] = []
    report = index.add(docs, progress=events.append, workers=1)
    assert counts(report) == {"added": 3, "embedded": 3}
    assert report.skipped_by_code == {"empty": 1, "binary": 1}
    assert report.left_out == {"hidden": 1}
    assert names(index, "harbour gauge") == ["tides.md"]
    assert names(index, "潮位") == ["潮.md"]
    assert names(index, "secret") == []
    assert names(index, "dough yeast", mode="hybrid")[0] == "bread.txt"
    assert names(index, "yeast dough", mode="meaning")[0] == "bread.txt"
    phases = [event.phase for event in events]
    assert phases.index("counting") < phases.index("reading") < phases.index("meaning") < phases.index("done")
    reading = [event for event in events if event.phase == "reading"]
    assert [event.done for event in reading] == [1, 2, 3]
    assert reading[-1].bytes_done == reading[-1].bytes_total > 0
    status = index.status()
    assert (status.documents, status.chunks, status.vectors, status.waiting) == (3, 3, 3, 0)
    assert status.embedder is not None
    assert status.embedder.name == "standin"
    assert status.to_dict()["folders"][0]["left_out"] == {"hidden": 1}
    assert set(report.to_dict()["seconds"]) >= {"survey", "parse", "words", "embed", "segments"}


def test_unchanged_files_are_skipped_and_nothing_is_loaded(index: kogata.Index, docs: Path) -> None:
    index.add(docs, workers=1)

    class Untouchable(StandIn):
        @property
        def tokenizer(self) -> object:
            raise AssertionError("nothing changed, so no model is needed")

        @tokenizer.setter
        def tokenizer(self, _: object) -> None: ...

    again = kogata.Index(index.path, model=Untouchable())
    assert counts(again.refresh()) == {"unchanged": 3}
    os.utime(docs / "tides.md")  # touched, not changed
    assert counts(again.refresh()) == {"unchanged": 3}


def test_changed_vanished_and_new(index: kogata.Index, docs: Path) -> None:
    index.add(docs, workers=1)
    (docs / "tides.md").write_text(TIDES.replace("moon", "sun!"))  # the same size
    (docs / "bread.txt").unlink()
    (docs / "rice.txt").write_text("Rice is steamed.")
    assert counts(index.refresh()) == {"added": 1, "changed": 1, "removed": 1, "unchanged": 1, "embedded": 2}
    assert names(index, "sun") == ["tides.md"]
    assert names(index, "moon") == []
    assert names(index, "yeast") == []
    assert names(index, "dough yeast", mode="meaning", k=10).count("bread.txt") == 0


def test_a_change_within_the_clock_s_step_is_seen(index: kogata.Index, docs: Path) -> None:
    index.add(docs, workers=1)
    path = docs / "tides.md"
    now = time.time_ns()
    path.write_text(TIDES.replace("moon", "star"))
    os.utime(path, ns=(now, now))
    index.refresh()
    path.write_text(TIDES.replace("moon", "ship"))  # the same size and, by the clock's step, the same time
    os.utime(path, ns=(now, now))
    assert counts(index.refresh())["changed"] == 1
    assert names(index, "ship") == ["tides.md"]


def test_moved_files_keep_passages_and_vectors(index: kogata.Index, docs: Path, embedder: StandIn) -> None:
    index.add(docs, workers=1)
    before = {row.path: row.id for row in index.store.documents()}
    (docs / "new").mkdir()
    (docs / "tides.md").rename(docs / "new" / "about tides.md")
    (docs / "sub").rename(docs / "renamed")
    embedder.embedded = 0
    assert counts(index.refresh()) == {"moved": 2, "unchanged": 1}
    assert embedder.embedded == 0
    after = {row.path: row.id for row in index.store.documents()}
    assert after[os.fsencode(docs / "new" / "about tides.md")] == before[os.fsencode(docs / "tides.md")]
    assert names(index, "gauge harbour", mode="hybrid")[0] == "about tides.md"


def test_a_file_renamed_over_another(index: kogata.Index, docs: Path) -> None:
    index.add(docs, workers=1)
    (docs / "tides.md").rename(docs / "bread.txt")
    index.refresh()
    assert names(index, "harbour") == ["bread.txt"]
    assert names(index, "yeast") == []
    assert index.status().documents == 2


def test_an_edit_embeds_only_what_changed(index: kogata.Index, docs: Path, embedder: StandIn) -> None:
    sections = [f"## Part {n}\n\n" + " ".join(f"word{n}x{i}" for i in range(150)) + "\n\n" for n in range(6)]
    long = docs / "long.md"
    long.write_text("# Long\n\n" + "".join(sections))
    index.add(docs, workers=1)
    embedder.embedded = 0
    sections[3] = sections[3].replace("word3x7 ", "changed ")
    long.write_text("# Long\n\n" + "".join(sections))
    report = index.refresh()
    assert report.changed == 1
    assert report.chunks >= 6
    assert embedder.embedded == report.embedded == 1
    assert names(index, "changed") == ["long.md"]


def test_failed_files_are_tried_again_only_when_they_change(
    index: kogata.Index, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = docs / "bad.pdf"
    bad.write_bytes(b"%PDF-1.7\nthis is no pdf" * 100)
    age(bad)
    report = index.add(docs, workers=1)
    (skipped,) = report.skipped
    assert skipped.path == os.fsencode(bad)
    assert skipped.reason.endswith(".")
    read: list[str] = []
    index.refresh(progress=lambda event: read.append(event.path) if event.phase == "reading" else None)
    assert read == []
    monkeypatch.setattr(documents, "PARSERS", 2)
    index.refresh(progress=lambda event: read.append(event.path) if event.phase == "reading" else None)
    assert read == [str(bad)]
    bad.write_bytes(b"now it is plain text, whatever its name says\n" * 3)
    report = index.refresh()
    assert [file.path for file in report.skipped] in ([], [os.fsencode(bad)])
    bad.unlink()
    assert index.refresh().skipped == ()


def test_exclude_is_kept_and_can_be_replaced(index: kogata.Index, docs: Path) -> None:
    report = index.add(docs, exclude=["*.txt"], workers=1)
    assert (report.added, report.left_out) == (2, {"excluded": 1})
    assert counts(index.refresh()) == {"unchanged": 2}
    report = index.add(docs, exclude=["sub/"], workers=1)
    assert counts(report) == {"added": 1, "removed": 1, "unchanged": 1, "embedded": 1}
    assert counts(index.add(docs, exclude=[], workers=1))["added"] == 1


def test_a_missing_folder_is_kept_and_said(index: kogata.Index, docs: Path, tmp_path: Path) -> None:
    index.add(docs, workers=1)
    docs.rename(tmp_path / "away")
    report = index.refresh()
    assert report.missing == (os.fsencode(docs),)
    assert report.removed == 0
    assert names(index, "harbour") == ["tides.md"]
    assert index.status().folders[0].missing
    docs.mkdir()  # the empty place where a disk is mounted
    report = index.refresh()
    assert report.missing == (os.fsencode(docs),)
    assert names(index, "harbour") == ["tides.md"]
    docs.rmdir()
    (tmp_path / "away").rename(docs)
    assert counts(index.refresh()) == {"unchanged": 3}
    assert not index.status().folders[0].missing


def test_an_empty_folder_is_said(index: kogata.Index, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    report = index.add(empty)
    assert report.empty == (os.fsencode(empty),)
    assert names(index, "anything") == []


def test_forget(index: kogata.Index, docs: Path) -> None:
    index.add(docs, workers=1)
    assert index.forget(docs / "sub") == 1
    assert names(index, "潮位") == []
    assert counts(index.refresh()) == {"unchanged": 2}, "what was forgotten stays so"
    assert counts(index.add(docs / "sub", workers=1)) == {"added": 1, "embedded": 1}
    assert names(index, "潮位") == ["潮.md"]
    with pytest.raises(BadInput, match="knows nothing of /nowhere") as caught:
        index.forget("/nowhere")
    assert str(docs) in (caught.value.hint or "")
    assert index.forget([docs]) == 3
    status = index.status()
    assert (status.documents, status.chunks, status.vectors, status.folders) == (0, 0, 0, ())
    with pytest.raises(StoreError, match="no folder"):
        index.refresh()


def test_forgetting_gives_the_room_back(index: kogata.Index, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folder = tmp_path / "many"
    folder.mkdir()
    for n in range(20):
        (folder / f"{n}.txt").write_text(" ".join(f"w{i}" for i in rng.integers(0, 10**6, 2000)))
    index.add(folder, workers=1)
    before = index.path.stat().st_size
    index.forget(folder)
    assert index.path.stat().st_size < before / 4
    assert not list(Path(f"{index.path}.segments").glob("*.seg"))


def test_a_path_inside_a_known_folder_does_not_become_another(index: kogata.Index, docs: Path) -> None:
    index.add(docs, workers=1)
    index.add(docs / "tides.md", workers=1)
    assert [row.path for row in index.store.folders()] == [os.fsencode(docs)]


def test_overlapping_folders_hold_each_file_once(index: kogata.Index, docs: Path) -> None:
    index.add(docs / "sub", workers=1)
    report = index.add(docs, workers=1)
    assert report.added == 2
    assert index.status().documents == 3
    assert counts(index.refresh()) == {"unchanged": 3}
    assert index.forget(docs / "sub") == 1
    assert index.status().documents == 2


def test_bad_arguments(index: kogata.Index, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no file or folder /no/such"):
        index.add("/no/such")
    with pytest.raises(BadInput, match="No path"):
        index.add([])
    with pytest.raises(StoreError, match="no index at"):
        index.refresh()
    with pytest.raises(StoreError, match="no index at"):
        index.status()
    with pytest.raises(StoreError, match="no index at"):
        index.forget("x")
    with pytest.raises(StoreError, match="no index at"):
        index.search("x")
    assert not index.path.exists()


def test_odd_names(index: kogata.Index, docs: Path) -> None:
    odd = os.fsencode(docs) + b"/caf\xe9\nline.md"
    with open(odd, "wb") as file:
        file.write(b"# Odd\n\nzebra crossing\n")
    index.add(docs, workers=1)
    (hit,) = index.search("zebra", mode="words").hits
    assert hit.path == odd
    assert "\ufffd" in hit.to_dict()["path"]
    index.forget(odd)
    assert names(index, "zebra") == []


def test_words_only_where_the_script_is_not_known(index: kogata.Index, docs: Path, embedder: StandIn) -> None:
    (docs / "ogham.txt").write_text("ᚁᚂᚃᚄᚅ ᚆᚇᚈᚉ ᚊᚋᚌᚍ tree\n" * 3)
    report = index.add(docs, workers=1)
    assert (report.words_only, report.embedded) == (1, 3)
    status = index.status()
    assert (status.words_only, status.waiting, status.vectors) == (1, 0, 3)
    assert names(index, "tree") == ["ogham.txt"]


# --- embedders


def test_another_embedder_is_refused_and_rebuild_takes_it(index: kogata.Index, docs: Path) -> None:
    index.add(docs, workers=1)
    other = kogata.Index(index.path, model=StandIn("standin-2", "other"))
    (docs / "rice.txt").write_text("Rice is steamed.")
    with pytest.raises(EmbedderMismatch, match="embedder standin, and other"):
        other.refresh(workers=1)
    with pytest.raises(EmbedderMismatch):
        other.search("rice")
    assert names(other, "harbour") == ["tides.md"], "words need no embedder"
    report = other.rebuild()
    assert report.embedded == 3
    status = other.status()
    assert status.embedder is not None
    assert status.embedder.name == "other"
    assert counts(other.refresh(workers=1)) == {"added": 1, "unchanged": 3, "embedded": 1}
    assert names(other, "yeast dough", mode="meaning")[0] == "bread.txt"
    with pytest.raises(EmbedderMismatch):
        index.search("rice")


def test_a_stopped_rebuild_goes_on_and_the_old_vectors_serve_until_then(
    index: kogata.Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kogata.ask.indexing import rebuilding

    monkeypatch.setattr(rebuilding, "BATCH", 2)
    folder = tmp_path / "many"
    folder.mkdir()
    for n in range(9):
        (folder / f"{n}.txt").write_text(f"number{n} and text")
    index.add(folder, workers=1)

    class Stops(StandIn):
        def encode_document(self, texts: object, **options: object) -> np.ndarray:
            if self.embedded >= 4:
                raise KeyboardInterrupt
            return super().encode_document(texts, **options)

    with pytest.raises(KeyboardInterrupt):
        kogata.Index(index.path, model=Stops("standin-2", "other")).rebuild()
    assert names(index, "number5 and text", mode="meaning")[0] == "5.txt"
    (folder / "9.txt").write_text("number9 and text")
    (folder / "0.txt").unlink()
    index.refresh(workers=1)
    again = StandIn("standin-2", "other")
    other = kogata.Index(index.path, model=again)
    other.rebuild()
    assert again.embedded == 10 - 4
    assert other.status().vectors == 9
    for n in range(1, 10):
        assert names(other, f"number{n} and text", mode="meaning")[0] == f"{n}.txt"
    # A rebuild for a third one drops what was begun for the second.
    assert kogata.Index(index.path, model=StandIn("standin-3")).rebuild().embedded == 9


# --- two at once


def test_a_second_indexer_says_who_is_first(index: kogata.Index, docs: Path) -> None:
    with WriterLock(index.path), pytest.raises(LockedError, match=rf"process {os.getpid()}\), since 20\d\d-") as caught:
        index.add(docs)
    assert "Searching works" in (caught.value.hint or "")
    assert index.add(docs, workers=1).added == 3


def test_searches_run_while_indexing(index: kogata.Index, docs: Path) -> None:
    for n in range(30):
        (docs / f"n{n}.txt").write_text(f"kelp forest number {n}")
    seen: list[int] = []
    failures: list[BaseException] = []
    stop = threading.Event()

    def search() -> None:
        while not stop.is_set():
            try:
                seen.append(len(index.search("kelp", k=100, mode="hybrid").hits))
            except StoreError:
                if seen:
                    raise
            except BaseException as error:
                failures.append(error)
                return

    thread = threading.Thread(target=search)
    thread.start()
    index.add(docs, workers=1)
    stop.set()
    thread.join()
    assert failures == []
    assert seen == sorted(seen), "what was found once stays found"
    assert len(index.search("kelp", k=100, mode="words").hits) == 30


def test_watch_follows_edits_renames_and_deletes(index: kogata.Index, docs: Path) -> None:
    index.add(docs, workers=1)
    stop = threading.Event()
    reports: list[Report] = []
    thread = threading.Thread(target=lambda: reports.extend(index.watch(stop=stop)))
    thread.start()

    def until(query: str, expected: list[str]) -> None:
        end = time.monotonic() + 30
        while names(index, query) != expected:
            assert time.monotonic() < end, (query, names(index, query))
            time.sleep(0.05)

    try:
        time.sleep(0.5)
        (docs / "rice.txt").write_text("Steamed rice")
        until("rice", ["rice.txt"])
        (docs / "rice.txt").rename(docs / "gohan.txt")
        until("rice", ["gohan.txt"])
        temporary = docs / "new.tmp.txt"
        temporary.write_text("Fried rice")
        temporary.replace(docs / "gohan.txt")
        until("fried", ["gohan.txt"])
        (docs / "gohan.txt").unlink()
        until("rice", [])
        shutil.rmtree(docs / "sub")
        until("潮位", [])
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()
    assert reports[0].unchanged == 3


def test_context_manager_and_reuse(index: kogata.Index, docs: Path) -> None:
    with index:
        index.add(docs, workers=1)
        assert names(index, "harbour") == ["tides.md"]
    assert names(index, "harbour") == ["tides.md"]
    index.close()
    with Writer(index.path) as writer:
        assert writer.n_waiting() == 0


def test_another_model_is_refused_even_where_nothing_changed(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "tide.txt").write_text("The tide is high at noon.")
    with kogata.Index(tmp_path / "index.sqlite", model=StandIn()) as index:
        index.add(tmp_path / "docs")
    with kogata.Index(tmp_path / "index.sqlite", model=StandIn("standin-2")) as index:
        with pytest.raises(EmbedderMismatch, match="was asked for") as refused:
            index.refresh()
        assert refused.value.hint is not None
        assert "--rebuild --model" in refused.value.hint


def test_an_empty_path_is_not_the_current_folder(
    index: kogata.Index, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.add(docs)
    monkeypatch.chdir(docs)
    for call in (index.add, index.forget, index.know):
        with pytest.raises(BadInput, match="empty path"):
            call("")
    assert index.status().documents > 0


def test_forgetting_twice_counts_once(index: kogata.Index, docs: Path) -> None:
    n = index.add(docs).added
    assert index.forget([docs, docs, next(docs.iterdir())]) == n


def test_an_index_file_that_was_deleted_is_made_anew(index: kogata.Index, docs: Path) -> None:
    n = index.add(docs).added
    index.close()
    for file in index.path.parent.glob(index.path.name + "*"):
        if file.is_file():
            file.unlink()
    assert index.path.with_name(index.path.name + ".segments").exists()
    assert index.add(docs).added == n
    assert index.search("tide", mode="meaning").hits
