"""The part of a passage that shows why it was found, with the query's words marked."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Collection

from kogata.ask.words.terms import Term, find, terms

WIDTH = 240
"""Columns of a terminal that a snippet fills at most; kanji and kana take two."""

_SPACE = re.compile(r"\s+")
_BORDER = re.compile(r"(?<=[.!?])\s+|(?<=[。！？\n])|\n")
_MORE = "…"


def make_snippet(text: str, wanted: Collection[str], width: int = WIDTH) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Return (snippet, spans in it that match a wanted term).

    The stretch with the most different terms, from the start of a sentence where one is near. Never cut inside a word
    or between a letter and its marks; runs of white space are one space; "…" stands where something was left out.
    """
    text = _SPACE.sub(" ", "".join(c if c.isprintable() or c.isspace() else " " for c in text)).strip()
    start, end = _best_window(text, wanted, width)
    snippet = (_MORE if start else "") + text[start:end].strip() + (_MORE if end < len(text) else "")
    return snippet, tuple(find(snippet, wanted))


def after_headings(text: str, heading: Collection[str]) -> str:
    """A passage without the headings that it begins with; the whole of it where it has nothing else."""
    known = {" ".join(part.split()) for part in heading}
    lines = text.splitlines(keepends=True)
    first = 0
    while first < len(lines) and (not lines[first].strip() or " ".join(lines[first].split()) in known):
        first += 1
    return "".join(lines[first:]) or text


def _best_window(text: str, wanted: Collection[str], width: int) -> tuple[int, int]:
    columns = _columns(text)
    if columns[-1] <= width:
        return 0, len(text)
    hits = [term for term in terms(text) if term.term in wanted]
    anchor = _densest(hits, columns, width)
    start = _back_to_border(text, anchor, columns, width // 4)
    end = _fit(columns, start, width - 2)  # room for the two ellipses
    if end < len(text):
        end = max(_word_border(text, end, -1), min(start + 1, len(text)))
    elif start:
        # The window reaches the end of the passage: show as much before it as fits.
        start = max(0, bisect_left(columns, columns[-1] - width + 2))
        start = _word_border(text, start, 1)
    return start, end


def _densest(hits: list[Term], columns: list[int], width: int) -> int:
    """Where the stretch of at most three quarters of the width with the most different terms starts."""
    best, best_count, first = 0, 0, 0
    inside: dict[str, int] = {}
    for hit in hits:
        inside[hit.term] = inside.get(hit.term, 0) + 1
        while columns[hit.end] - columns[hits[first].start] > width * 3 // 4 and hits[first] is not hit:
            gone = hits[first].term
            inside[gone] -= 1
            if not inside[gone]:
                del inside[gone]
            first += 1
        if len(inside) > best_count:
            best, best_count = hits[first].start, len(inside)
    return best


def _back_to_border(text: str, anchor: int, columns: list[int], reach: int) -> int:
    """The start of the anchor's sentence if it is within reach columns, else a word border a little before it."""
    earliest = bisect_left(columns, columns[anchor] - reach) if columns[anchor] > reach else 0
    if earliest == 0:
        return 0
    borders = [border.end() for border in _BORDER.finditer(text, earliest, anchor)]
    return borders[0] if borders else _word_border(text, max(earliest, anchor - reach // 2), 1)


def _columns(text: str) -> list[int]:
    """Columns before each character, and in all."""
    columns = [0]
    for character in text:
        if unicodedata.combining(character):
            step = 0
        else:
            step = 2 if unicodedata.east_asian_width(character) in "WF" else 1
        columns.append(columns[-1] + step)
    return columns


def _fit(columns: list[int], start: int, width: int) -> int:
    return bisect_right(columns, columns[start] + width) - 1


def _word_border(text: str, position: int, step: int) -> int:
    """The next place in the direction of `step` where a cut splits no word and no character from its marks."""
    original = position
    while 0 < position < len(text) and not _may_cut(text[position - 1], text[position]):
        position += step
        if abs(position - original) > 60:  # one endless word: only marks are kept together
            position = original
            while 0 < position < len(text) and _joins(text[position - 1], text[position]):
                position += step
            break
    return position


def _may_cut(left: str, right: str) -> bool:
    if _joins(left, right):
        return False
    return not (_in_word(left) and _in_word(right))


def _in_word(character: str) -> bool:
    return character.isalnum() and unicodedata.east_asian_width(character) not in "WF"


def _joins(left: str, right: str) -> bool:
    """Whether the two belong to one displayed character: marks, variation selectors, joiners, emoji skin tones."""
    return (
        unicodedata.category(right) in ("Mn", "Me", "Mc")
        or "\u200d" in (left, right)
        or "\U0001f3fb" <= right <= "\U0001f3ff"
        or right in "ﾞﾟ"
    )
