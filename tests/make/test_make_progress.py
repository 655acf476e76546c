"""The progress line, on a terminal and in a file; what the command line refuses."""

from __future__ import annotations

import io
import re
import sys
import time

import pytest

from kogata.make import pretrain
from kogata.make.progress import ProgressLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _drawn(stream, monkeypatch, steps):
    clock = iter(range(0, 10 * steps, 10))
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0 + next(clock))
    with ProgressLine(10_000_000, stream) as line:
        for step in range(1, steps + 1):
            line.draw(step * 20_000, 3.0)
    return stream.getvalue()


def test_speed_and_time_left_are_those_of_the_last_steps(monkeypatch):
    drawn = _drawn(Terminal(), monkeypatch, 100)
    last = drawn.rstrip("\n").rsplit("\x1b[K", 1)[1].strip("\r")
    # 20,000 tokens in 10 seconds; 8 M are left: 4,000 s.
    assert last == "2.00 of 10.0 M tokens   loss 3.000   2,000 tokens/s   01:06:40 left"
    assert drawn.endswith("\r\n")


def test_a_file_gets_a_line_a_minute(monkeypatch):
    lines = _drawn(io.StringIO(), monkeypatch, 100).splitlines()
    assert len(lines) == 17  # 990 seconds
    assert not any(re.search("[\r\x1b]", line) for line in lines)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--data", "{0}", "--out", "{0}/out"], "has no folder stories_en and no books_en"),
        (["--data", "{0}/data", "--out", "{0}/out", "--tokens", "7"], "--tokens must be at least 4096"),
        (["--data", "{0}/data", "--out", "{0}/out", "--minutes", "nan"], "--minutes above 0"),
    ],
)
def test_what_cannot_be_trained_is_said(tmp_path, monkeypatch, capsys, given, said):
    for name in ("stories_en", "books_en"):
        (tmp_path / "data" / name).mkdir(parents=True)
    monkeypatch.setattr(sys, "argv", ["pretrain", *(word.format(tmp_path) for word in given)])
    with pytest.raises(SystemExit) as left:
        pretrain.main()
    assert left.value.code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
