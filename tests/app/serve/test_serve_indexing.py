"""The indexing of a server goes on, whatever happens to it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serve_process import until

import kogata.app.serve.indexing as indexing
from kogata.app.serve.engine import Engine
from kogata.app.serve.messages import Progress, Start
from kogata.ask.index import Index
from kogata.ask.indexing import watch as watching
from kogata.ask.indexing.report import Report
from kogata.errors import LockedError, StoreError


class FakeIndex:
    """An index that knows one folder and fails as it is told to.

    Args:
        folder: What it knows.
        failing: What each refresh raises, in turn, then nothing any more.
        unknown: What is raised when it is asked for its folders after the first refresh.
    """

    def __init__(self, folder: Path, failing: list[Exception], unknown: list[Exception]) -> None:
        self.path = folder  # it exists
        self.refreshed = 0
        self._failing = failing
        self._unknown = unknown

    def known(self) -> list[bytes]:
        if self.refreshed and self._unknown:
            raise self._unknown.pop()
        return [os.fsencode(self.path)]

    def refresh(self, *, progress: Any) -> Report:
        if self._failing:
            raise self._failing.pop(0)
        self.refreshed += 1
        return Report()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "RETRY_SECONDS", 0.02)
    monkeypatch.setattr(watching, "POLL_SECONDS", 0.1)


def _followed(index: FakeIndex, told: list[Progress]) -> Iterator[indexing.Indexing]:
    running = indexing.Indexing(index, told.append)  # type: ignore[arg-type]
    running.start(lambda: None)
    try:
        yield running
    finally:
        running.close()
    assert not running._thread.is_alive()


def test_after_an_error_of_any_kind_it_goes_on(tmp_path: Path) -> None:
    told: list[Progress] = []
    failing: list[Exception] = [
        LockedError("Another process is writing."),
        ValueError("of a parser"),
        OSError(24, "no more files"),
    ]
    index = FakeIndex(tmp_path, failing, [StoreError("The index cannot be read.")])
    for _ in _followed(index, told):
        until(lambda: index.refreshed >= 2, "it has refreshed again after all that", 10)
    said = [state.error for state in told if state.error]
    assert said == [
        f"Another process is writing. {indexing.WAITS}", "ValueError: of a parser", "[Errno 24] no more files",
        "The index cannot be read.",
    ]  # fmt: skip
    assert not any(state.running for state in told)
    assert told[-1].error is None


def test_without_events_it_looks_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise OSError(28, "the limit of watches is reached")
        yield

    monkeypatch.setattr("watchfiles.watch", refused)
    told: list[Progress] = []
    index = FakeIndex(tmp_path, [], [])
    for _ in _followed(index, told):
        until(lambda: index.refreshed >= 4, "it has looked several times", 10)
    assert [state.error for state in told if state.error] == []


def test_it_can_be_woken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "TICK_MS", 60_000)
    index = FakeIndex(tmp_path, [], [])
    for running in _followed(index, []):
        until(lambda: index.refreshed == 1, "the first refresh", 10)
        running.wake()
        until(lambda: index.refreshed == 2, "a second one", 5)


def test_what_is_served_is_known(tmp_path: Path) -> None:
    """The manual only where nothing else is, but then and when it is asked for; what vanished does not matter."""
    manual, docs, gone = tmp_path / "manual", tmp_path / "docs", tmp_path / "gone"
    manual.mkdir()
    docs.mkdir()

    def known(*paths: Path, first: bool = True) -> list[str]:
        engine = object.__new__(Engine)
        engine._start = Start(
            None,
            tuple(os.fsencode(path) for path in paths),
            str(manual),
            str(tmp_path / "up"),
            None,
            "auto",
            None,
            first,
        )
        with Index(tmp_path / "index.sqlite") as engine._index:
            engine._know()
            return sorted(os.path.basename(os.fsdecode(path)) for path in engine._index.known())

    assert known() == ["manual"]
    assert known(manual) == ["manual"]
    assert known(docs, first=False) == ["manual"]
    assert known(docs, gone) == ["docs"]
    assert known(gone) == ["docs"]


def test_changes_from_many_threads_are_counted(tmp_path: Path) -> None:
    running = indexing.Indexing(FakeIndex(tmp_path, [], []), lambda state: None)  # type: ignore[arg-type]
    threads = [threading.Thread(target=lambda: [running.change(lambda: None) for _ in range(200)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert running._urgent == 0
