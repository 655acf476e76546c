"""A page's characters as pieces of lines.

PDF has no words or lines, only glyphs at places. Consecutive glyphs (in drawing order) that continue each other become
a piece: horizontally, or downwards for vertical Japanese. What the pieces mean is :mod:`layout`'s business.

Coordinates are PDF points, y upwards. For vertical text the page is turned by a quarter (x' = -y, y' = x), so that
columns read right to left become lines read from the top, and one algorithm serves both.
"""

from __future__ import annotations

import ctypes
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_KANA = re.compile(r"[ぁ-ゖァ-ヺー・\s]+")


@dataclass(slots=True)
class Piece:
    """Part of a line: its text, box (x0 < x1, y0 < y1) glyph height; ``parts``: characters while it grows."""

    text: str
    x0: float
    y0: float
    x1: float
    y1: float
    size: float
    vertical: bool = False
    has_ruby: bool = False
    parts: list[str] = field(default_factory=list)

    @property
    def middle(self) -> float:
        """Height of the centre line."""
        return (self.y0 + self.y1) / 2


@dataclass(frozen=True, slots=True)
class Glyphs:
    """What a page holds: pieces in drawing order, number of characters, and how many have no known meaning."""

    pieces: list[Piece]
    n_characters: int
    n_unknown: int


def read_glyphs(page_text: Any) -> Glyphs:
    """The pieces of a pypdfium2 text page."""
    pieces: list[Piece] = []
    current: Piece | None = None
    last = (0.0, 0.0, 0.0, 0.0)
    count = unknown = 0
    space = False
    for code, x0, y0, x1, y1 in _characters(page_text):
        if code in (0x20, 0x0A, 0x0D, 0xA0, 0x09, 0x3000):
            space = True
            continue
        count += 1
        if code == 2:  # PDFium's sign for a hyphen at the end of a line
            code = 0x2D
        if y1 - y0 < 0.1 * (x1 - x0):  # fonts it knows nothing of have no height
            y1 = y0 + (x1 - x0)
        character = chr(code) if code < 0xD800 or 0xDFFF < code < 0x110000 else "\ufffd"
        if code == 0 or code == 0xFFFD or 0xE000 <= code <= 0xF8FF or code < 0x20 or 0x7F <= code < 0xA0:
            unknown += 1
            if code < 0x20 or 0x7F <= code < 0xA0:
                space = False
                continue
            if 0xF000 <= code <= 0xF0FF:  # Symbol and Wingdings: a bullet in nine cases of ten
                character = "•"
        direction = _continues(current, last, x0, y0, x1, y1) if current is not None else 0
        if direction and current is not None:
            current.vertical = direction == 2
            if space and not _wide(current.parts[-1]) and not _wide(character):
                current.parts.append(" ")
            current.parts.append(character)
            current.x0, current.y0 = min(current.x0, x0), min(current.y0, y0)
            current.x1, current.y1 = max(current.x1, x1), max(current.y1, y1)
        else:
            current = Piece("", x0, y0, x1, y1, max(y1 - y0, 0.1), parts=[character])
            pieces.append(current)
        last, space = (x0, y0, x1, y1), False
    for piece in pieces:
        piece.text = "".join(piece.parts)
        piece.parts.clear()
        if piece.vertical:
            piece.size = piece.x1 - piece.x0
    return Glyphs(pieces, count, unknown)


def _characters(page_text: Any) -> Iterator[tuple[int, float, float, float, float]]:
    """(code point, box) of every character, box as the font's cell, not the ink; generated spaces have any box."""
    import pypdfium2.raw as pdfium

    raw = page_text.raw
    box = pdfium.FS_RECTF()
    pointer = ctypes.byref(box)
    unicode_of, box_of = pdfium.FPDFText_GetUnicode, pdfium.FPDFText_GetLooseCharBox
    high = 0
    for index in range(pdfium.FPDFText_CountChars(raw)):
        code = unicode_of(raw, index)
        if 0xD800 <= code < 0xDC00:
            high = code
            continue
        if high:
            code = 0x10000 + ((high - 0xD800) << 10) + (code - 0xDC00) if 0xDC00 <= code < 0xE000 else 0xFFFD
            high = 0
        box_of(raw, index, pointer)
        yield code, box.left, box.bottom, box.right, box.top


def _continues(
    piece: Piece, last: tuple[float, float, float, float], x0: float, y0: float, x1: float, y1: float
) -> int:
    """1 if the glyph goes on to the right of the last one, 2 if below it, 0 if it begins another piece."""
    left, bottom, right, top = last
    if (x0, y0, x1, y1) == last:  # the second letter of a ligature
        return 2 if piece.vertical else 1
    if len(piece.parts) == 1 or not piece.vertical:
        size, height = top - bottom, y1 - y0
        if (
            0.75 * size <= height <= 1.34 * size
            and abs((y0 + y1) - (bottom + top)) < 0.5 * size
            and -0.5 * size < x0 - right < 0.9 * size
            and x0 > left - 0.1 * size
        ):
            return 1
    if len(piece.parts) == 1 or piece.vertical:
        size, width = right - left, x1 - x0
        if (
            abs((x0 + x1) - (left + right)) < 0.6 * max(size, width)
            and -0.4 * size < bottom - y1 < 0.9 * max(size, width)
            and 0.4 * size <= width <= 2.5 * size
        ):
            return 2
    return 0


def _wide(character: str) -> bool:
    return "\u2e80" <= character[-1] <= "\u9fff" or "\uff00" <= character[-1] <= "\uffef"


def turned(piece: Piece) -> Piece:
    """The piece with the page turned so that vertical text runs to the right."""
    size = piece.size if piece.vertical else piece.y1 - piece.y0
    return Piece(piece.text, -piece.y1, piece.x0, -piece.y0, piece.x1, size)


def without_ruby(pieces: list[Piece]) -> tuple[list[Piece], int]:
    """Leave out small kana runs set right above bigger text; also says how many were left out."""
    small = [p for p in pieces if _KANA.fullmatch(p.text)]
    if not small:
        return pieces, 0
    bases = sorted(pieces, key=lambda p: p.y1)
    tops = [p.y1 for p in bases]
    reach = 0.6 * max(p.size for p in pieces)
    ruby: set[int] = set()
    for piece in small:
        for base in bases[bisect_left(tops, piece.y0 - reach) : bisect_right(tops, piece.y0 + reach)]:
            if (
                piece.size <= 0.65 * base.size
                and piece.x0 < base.x1 + 0.5 * piece.size
                and piece.x1 > base.x0 - 0.5 * piece.size
                and -0.45 * base.size < piece.y0 - base.y1 < 0.6 * base.size
                and piece.middle > base.middle
            ):
                ruby.add(id(piece))
                base.has_ruby = True
                break
    return [p for p in pieces if id(p) not in ruby], len(ruby)
