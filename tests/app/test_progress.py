"""The progress line: it fits, it estimates, it goes away."""

from __future__ import annotations

import io
import re

import pytest

from kogata.app import progress
from kogata.app.progress import ProgressLine
from kogata.app.terminal import cells
from kogata.ask.indexing.report import ProgressEvent


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    return clock


def events() -> list[ProgressEvent]:
    found = [ProgressEvent("counting", n, 0) for n in (1, 500, 1204)]
    read = [ProgressEvent("reading", n, 1204, n * 1000, 1_204_000) for n in range(0, 1205, 100)]
    embedded = [ProgressEvent("meaning", n, 9000) for n in range(0, 9001, 500)]
    return [*found, *read, *embedded, ProgressEvent("done", 1204, 1204)]


def screens(text: str) -> list[str]:
    return [line.removesuffix("\x1b[K") for line in text.split("\r")[1:]]


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 200])
def test_every_drawing_fits_and_the_line_goes_away(columns: int, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    out = Tty()
    with ProgressLine(stream=out) as line:
        for event in events():
            clock.now += 1.0
            line(event)
    drawn = screens(out.getvalue())
    assert len(drawn) > 20
    assert all(cells(text) < columns for text in drawn)
    assert "\n" not in out.getvalue()
    assert drawn[-1] == ""


def test_what_a_person_reads(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    out = Tty()
    line = ProgressLine(stream=out)
    for event in events():
        clock.now += 1.0
        line(event)
    drawn = screens(out.getvalue())
    assert drawn[0] == "Counting files  1"
    half = next(text for text in drawn if "meaning 50 %" in text)
    assert re.fullmatch(r"Indexing 1,204 files  words 100 %  meaning 50 %  ━+╸?─+  0:00:09 left", half)
    assert abs(half.count("━") - half.count("─")) <= 1


def test_drawing_is_bounded(clock: Clock) -> None:
    out = Tty()
    line = ProgressLine(stream=out)
    for number in range(1000):
        clock.now += 0.001
        line(ProgressEvent("reading", number, 1000))
    assert out.getvalue().count("\r") <= 12


def test_an_interrupted_run_leaves_a_clean_line(clock: Clock) -> None:
    out = Tty()

    def interrupted() -> None:
        with ProgressLine(stream=out) as line:
            line(ProgressEvent("reading", 1, 2))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert out.getvalue().endswith("\r\x1b[K")


def test_lines_now_and_then_where_nothing_can_be_redrawn(clock: Clock) -> None:
    out = io.StringIO()
    line = ProgressLine(stream=out)
    for event in events():
        clock.now += 1.0
        line(event)
    lines = out.getvalue().splitlines()
    assert lines[0] == "counting files"
    assert lines[1] == "words: 0 of 1,204 files (1.2 MB)"
    assert any(re.fullmatch(r"meaning: [\d,]+ of 9,000 passages, 0:00:\d\d left", text) for text in lines)
    assert len(lines) <= 8
    assert "\x1b" not in out.getvalue()


def test_json_runs_are_silent_in_a_pipe() -> None:
    out = io.StringIO()
    line = ProgressLine(quiet=True, stream=out)
    for event in events():
        line(event)
    assert out.getvalue() == ""


def test_nothing_to_do_divides_by_nothing(clock: Clock) -> None:
    line = ProgressLine(stream=Tty())
    for phase in ("counting", "reading", "meaning", "done"):
        line(ProgressEvent(phase, 0, 0))
