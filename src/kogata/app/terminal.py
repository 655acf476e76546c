"""Text on a terminal: safe, as wide as it really is, broken where a reader would break it.

Documents, file names and queries are strangers' text: nothing of them reaches the terminal that could move the cursor,
change colours or reorder what is read. Widths are in terminal cells (kanji and kana take two).

Legend: a *piece* is ``(text, style)``; a *flow* is a list of pieces that are wrapped together as one paragraph.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import IO, Any

Piece = tuple[str, str]

_STYLES = {
    "": "",
    "bold": "1",
    "dim": "2",
    "hit": "1;33",
    "path": "36",
    "number": "1;32",
    "good": "32",
    "warn": "33",
    "error": "1;31",
}

# Controls (C0, DEL, C1), bidirectional marks and overrides, line separators, soft hyphens, lone surrogates.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
_BLANKS = re.compile("[ \t\r\n\x0b\x0c\x85\u2028\u2029]+")
_MAX_COLUMNS = 100  # longer lines are hard to read, however wide the window

# Japanese line breaking (JIS X 4051, the strict classes in short): what may not begin and what may not end a line.
_NOT_FIRST = frozenset(
    "、。，．・：；？！゛゜ヽヾゝゞ々ー’”）〕］｝〉》」』】°′″℃％‰ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮヵヶ,.:;?!)]}…‥"
)
_NOT_LAST = frozenset("‘“（〔［｛〈《「『【￥＄£([{")


def safe(text: str) -> str:
    """The text with everything a terminal would act on made visible or dropped; blanks and newlines become one line.

    A C0 control is shown as its picture (``␛``, ``␀``), other controls, marks and lone surrogates as ``�`` or nothing.
    """
    return _UNSAFE.sub(_show, _BLANKS.sub(" ", text))


def _show(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    return "\ufffd" if 0x80 <= code < 0xA0 or 0xD800 <= code < 0xE000 else ""


def safe_line(text: str) -> str:
    """Like :func:`safe`, blanks as they are: for a message that is one line already."""
    return _UNSAFE.sub(_show, text)


def safe_lines(text: str) -> str:
    """Like :func:`safe_line`, with newlines and tabs as they are: for a text of several lines."""
    return "".join(part if part in ("\n", "\t") else safe_line(part) for part in re.split("([\n\t])", text))


def safe_path(path: str | bytes) -> str:
    """A path on one line: control characters as pictures (a newline is ``␊``), bytes that are no UTF-8 as ``�``."""
    text = os.fsdecode(path)
    return _UNSAFE.sub(_show, text)


def cells(text: str) -> int:
    """Columns the text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(_cell(char) for char in text)


def _cell(char: str) -> int:
    if char.isascii():
        return 1
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def shorten(text: str, columns: int, *, keep: str = "start") -> str:
    """Cut to ``columns`` with an ellipsis, keeping the ``"start"`` or, for paths, the ``"end"``."""
    if cells(text) <= columns:
        return text
    kept, left = [], max(columns - 1, 0)
    for char in text if keep == "start" else reversed(text):
        left -= _cell(char)
        if left < 0:
            break
        kept.append(char)
    return "".join(kept) + "…" if keep == "start" else "…" + "".join(reversed(kept))


def pad(text: str, columns: int, *, right: bool = False) -> str:
    """Fill with spaces to ``columns`` cells."""
    space = " " * max(0, columns - cells(text))
    return space + text if right else text + space


def wrap(text: str, columns: int) -> list[tuple[int, int]]:
    """Break one line of text into lines of at most ``columns`` cells: ``[(start, end), …]`` without the blanks between.

    Breaks after spaces and between Japanese characters (not before a full stop or closing bracket, not after an opening
    one); a word longer than a line is cut.
    """
    columns = max(columns, 2)
    lines: list[tuple[int, int]] = []
    start, used, last_break = 0, 0, 0
    for i, char in enumerate(text):
        if i > start and _may_break(text[i - 1], char):
            last_break = i
        used += _cell(char)
        if used > columns and char != " " and i > start:
            cut = last_break if last_break > start else i
            lines.append((start, start + len(text[start:cut].rstrip(" "))))
            start = cut
            while start < i and text[start] == " ":
                start += 1
            used = cells(text[start : i + 1])
    if start < len(text) or not lines:
        lines.append((start, start + len(text[start:].rstrip(" "))))
    return lines


def _may_break(before: str, after: str) -> bool:
    if before == " ":
        return after != " "
    if after == " ":
        return False
    if _cell(before) == 2 or _cell(after) == 2:
        return after not in _NOT_FIRST and before not in _NOT_LAST
    return False


def _flatten(pieces: Iterable[Piece]) -> list[Piece]:
    """Characters with their styles: safe, blanks collapsed, and no space where a Japanese line was broken."""
    chars: list[Piece] = []
    for text, style in pieces:
        for char in _BLANKS.sub(lambda match: "\n" if match.group().count("\n") == 1 else " ", text):
            if char in " \n":
                if chars and chars[-1][0] not in " \n":
                    chars.append((char, style))
                continue
            shown = _UNSAFE.sub(_show, char)
            if shown and len(chars) > 1 and chars[-1][0] == "\n" and _cell(chars[-2][0]) == 2 == _cell(shown):
                chars.pop()
            if shown:
                chars.append((shown, style))
    while chars and chars[-1][0] in " \n":
        chars.pop()
    return [(" " if char == "\n" else char, style) for char, style in chars]


class Screen:
    """Where lines go: a terminal (wrapped, coloured unless ``NO_COLOR`` or ``TERM=dumb``) or a pipe (one line each)."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = sys.stdout if stream is None else stream
        self.is_terminal = _isatty(self._stream)
        self._colour = self.is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        width = shutil.get_terminal_size().columns
        self.columns: int | None = max(20, min(width, _MAX_COLUMNS)) if self.is_terminal else None

    def style(self, text: str, style: str) -> str:
        """The text in a style, where there are styles. The text must be safe already."""
        code = _STYLES[style]
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour and code and text else text

    def line(self, *pieces: Piece | str) -> None:
        """One line as it is: pieces must be safe and fit."""
        self.write("".join(p if isinstance(p, str) else self.style(*p) for p in pieces) + "\n")

    def flow(self, pieces: Sequence[Piece], *, first: str = "", indent: str = "") -> None:
        """A paragraph, wrapped on a terminal. ``first`` opens its first line, ``indent`` the others."""
        for line in self.lines(pieces, first=first, indent=indent):
            self.write(line + "\n")

    def lines(self, pieces: Sequence[Piece], *, first: str = "", indent: str = "") -> Iterator[str]:
        """The lines of a paragraph, as :meth:`flow` prints them."""
        chars = _flatten(pieces)
        text = "".join(char for char, _ in chars)
        room = len(text) * 2 + 2 if self.columns is None else self.columns - max(cells(first), cells(indent))
        for number, (start, end) in enumerate(wrap(text, room)):
            runs = groupby(chars[start:end], key=lambda char: char[1])
            body = "".join(self.style("".join(char for char, _ in run), style) for style, run in runs)
            yield (first if number == 0 else indent) + body

    def write(self, text: str) -> None:
        """Text as it is."""
        self._stream.write(text)

    def flush(self) -> None:
        """What was written reaches the reader."""
        self._stream.flush()


def _isatty(stream: IO[str]) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def print_json(value: Any, stream: IO[str] | None = None) -> None:
    """One JSON object on a line of its own: Japanese as it is where the stream is UTF-8, controls always escaped."""
    stream = sys.stdout if stream is None else stream
    utf8 = (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "") == "utf8"
    text = json.dumps(value, ensure_ascii=not utf8, allow_nan=False)
    text = _UNSAFE.sub(
        lambda match: f"\\u{ord(match.group()):04x}", text
    )  # what json leaves: DEL, C1, lone surrogates, …
    stream.write(text + "\n")


def human_bytes(number: float) -> str:
    """``1536`` -> ``"1.5 kB"`` in units of 1000, as disks and file managers count."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            return f"{number:.0f} {unit}" if unit == "bytes" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1000
    raise AssertionError


def human_time(seconds: float) -> str:
    """``451`` -> ``"0:07:31"``."""
    whole = max(0, round(seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def human_took(seconds: float) -> str:
    """``0.42`` -> ``"0.4 s"``, ``451`` -> ``"0:07:31"``."""
    return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s" if seconds < 59.5 else human_time(seconds)


def count(number: int, noun: str, plural: str | None = None) -> str:
    """``1204, "file"`` -> ``"1,204 files"``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
