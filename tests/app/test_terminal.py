"""Text on a terminal: nothing dangerous passes, nothing is lost, lines fit and break well."""

from __future__ import annotations

import io
import json
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from kogata.app import terminal
from kogata.app.terminal import Screen, cells, pad, safe, safe_path, shorten, wrap

JAPANESE = "潮位とは、基準面から測った海面の高さである。「満潮」と『干潮』が一日に二回ずつ起こる（場所による）。"


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def tty(monkeypatch: pytest.MonkeyPatch) -> Tty:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Tty()


@given(st.text(st.characters(codec=None)))
def test_nothing_a_terminal_acts_on_passes(text: str) -> None:
    for shown in (safe(text), safe_path(text)):
        assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in shown)
        assert not re.search("[\u202a-\u202e\u2066-\u2069]", shown)
        shown.encode("utf-8")


@given(st.text())
def test_printable_text_is_kept(text: str) -> None:
    kept = [c for c in safe(text) if c.isalnum()]
    assert kept == [c for c in text if c.isalnum()]


def test_escape_sequences_become_pictures() -> None:
    assert safe("a\x1b[31mred\x1b]0;title\x07") == "a␛[31mred␛]0;title␇"
    assert safe("\x9b2J") == "\ufffd2J"
    assert safe_path(b"bad\xff\nname.txt") == "bad\ufffd␊name.txt"


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"])))
def test_width_agrees_with_rich(text: str) -> None:
    # rich's tables follow a newer Unicode than this Python's may: compare where both know the character.
    simple = "".join(c for c in text if c < "\U00010000" and unicodedata.east_asian_width(c) in ("W", "F", "Na", "H"))
    simple = "".join(c for c in simple if not "\u2600" <= c <= "\u27bf" and not "\u3099" <= c <= "\u309a")
    assert cells(simple) == sum(cell_len(c) for c in simple)


def test_widths_by_hand() -> None:
    assert cells("潮位") == 4
    assert cells("か\u3099") == 2  # a combining voiced mark takes no column
    assert cells("ｱｲｳ") == 3
    assert pad("潮", 4) + "|" == "潮  |"
    assert shorten("潮位の表", 5) == "潮位…"
    assert shorten("/long/path/name.pdf", 9, keep="end") == "…name.pdf"


@given(st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "Zs"])), st.integers(2, 60))
def test_wrapped_lines_fit_and_lose_only_blanks(text: str, columns: int) -> None:
    lines = [text[a:b] for a, b in wrap(text, columns)]
    assert all(cells(line) <= max(columns, 2) for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize("columns", range(6, 40))
def test_japanese_lines_begin_and_end_well(columns: int) -> None:
    lines = [JAPANESE[a:b] for a, b in wrap(JAPANESE, columns)]
    assert "".join(lines) == JAPANESE
    assert not any(line[0] in "、。」』）" for line in lines)
    assert not any(line[-1] in "「『（" for line in lines)


def test_words_are_not_cut_where_a_space_is_near() -> None:
    text = "Reads each document once and keeps everything."
    assert [text[a:b] for a, b in wrap(text, 20)] == ["Reads each document", "once and keeps", "everything."]


def test_a_paragraph_on_a_terminal(tty: Tty) -> None:
    Screen(tty).flow(
        [("Kogata keeps its ", ""), ("index", "hit"), (" in one SQLite file\nof yours.", "")], first="1  ", indent="   "
    )
    text = tty.getvalue()
    assert "\x1b[1;33mindex\x1b[0m" in text
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert plain == "1  Kogata keeps its index in one SQLite\n   file of yours.\n"


def test_a_hard_wrapped_japanese_paragraph_gets_no_spaces(tty: Tty) -> None:
    Screen(tty).flow([("海面の\n高さ and\nmore", "")])
    assert tty.getvalue() == "海面の高さ and more\n"


@pytest.mark.parametrize("variable", ["NO_COLOR", "TERM"])
def test_no_colour(tty: Tty, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "1" if variable == "NO_COLOR" else "dumb")
    Screen(tty).flow([("x", "hit")])
    assert tty.getvalue() == "x\n"


def test_a_pipe_gets_one_line_without_styles() -> None:
    out = io.StringIO()
    Screen(out).flow([("word " * 100, "hit")])
    assert out.getvalue() == ("word " * 100).strip() + "\n"


@given(
    st.recursive(st.text(st.characters(codec=None)), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
def test_json_is_one_safe_line_that_reads_back(value: object) -> None:
    out = io.StringIO()
    terminal.print_json(value, out)
    line = out.getvalue()
    assert line.count("\n") == 1
    assert not any(unicodedata.category(c) in ("Cc", "Cs") for c in line[:-1])
    line.encode("utf-8")
    assert json.loads(line) == value


def test_json_keeps_japanese_readable() -> None:
    out = io.StringIO()
    terminal.print_json({"text": "潮位\x9b\u202e"}, out)
    assert out.getvalue() == '{"text": "潮位\\u009b\\u202e"}\n'


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1536, "1.5 kB"), (24_684_092_000, "24.7 GB")]
)
def test_bytes_for_people(number: int, text: str) -> None:
    assert terminal.human_bytes(number) == text


def test_time_and_counts_for_people() -> None:
    assert terminal.human_time(451) == "0:07:31"
    assert terminal.human_time(36_000) == "10:00:00"
    assert [terminal.human_took(s) for s in (0.04, 9.94, 9.96, 59.6)] == ["0.0 s", "9.9 s", "10 s", "0:01:00"]
    assert terminal.count(1, "file") == "1 file"
    assert terminal.count(1204, "file") == "1,204 files"
    assert terminal.count(2, "folder, all", "folders") == "2 folders"
