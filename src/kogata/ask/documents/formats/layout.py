"""Pieces of lines to paragraphs in reading order: columns, lines, tables, paragraphs.

Columns come from one cut at a time: the x where the fewest pieces cross and both sides hold running text; pieces that
cross it (a title, a wide figure's caption) part the page into bands. Everything is in points, y upwards; vertical pages
arrive turned (see :mod:`glyphs`).
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from dataclasses import dataclass
from statistics import median

from kogata.ask.documents.formats.glyphs import Piece
from kogata.ask.documents.formats.plain import join_lines

_SENTENCE_END = re.compile(r"""[.!?:。！？：][)\]"'”’」』）]*$""")
BULLET = re.compile(r"(?:[•‣◦▪●○■□◆◇・*–—-]|\(?(?:\d{1,3}|[a-z])[.)]|[①-⑳])(?:\s|$|(?<=[•‣◦▪●○■□◆◇・①-⑳]))")

_HANGS = re.compile(BULLET.pattern + r"|\d{1,3} ")
_MARK = re.compile(r"[•‣◦▪●○■□◆◇・*–—-]|\(?(?:\d{1,3}|[a-z])[.)]?|[①-⑳]")


@dataclass(slots=True)
class Line:
    """A line of a column: its cells (more than one where gaps are wide), box, glyph size, whether it had ruby."""

    cells: list[str]
    x0: float
    y0: float
    x1: float
    y1: float
    size: float
    has_ruby: bool = False

    @property
    def text(self) -> str:
        """The whole line."""
        return " ".join(self.cells)


@dataclass(slots=True)
class Paragraph:
    """A paragraph or a table on a page.

    Attributes:
        lines: Of the page.
        is_table: Rows of cells.
        is_open: It reaches the end of its last line without ending a sentence: what comes next may belong to it.
    """

    lines: list[Line]
    is_table: bool = False
    is_open: bool = False

    @property
    def size(self) -> float:
        """Glyph height."""
        return median(line.size for line in self.lines)

    @property
    def text(self) -> str:
        """Lines joined; one row a line for a table."""
        if self.is_table:
            return "\n".join(" | ".join(line.cells) for line in self.lines)
        return join_lines([line.text for line in self.lines])


def read_order(pieces: list[Piece], depth: int = 0) -> list[list[Piece]]:
    """Regions (columns and bands) in reading order, each a list of pieces."""
    if len(pieces) < 6 or depth > 3:
        return [pieces] if pieces else []
    cut = _gutter(pieces)
    if cut is None:
        return [pieces]
    regions: list[list[Piece]] = []
    left: list[Piece] = []
    right: list[Piece] = []
    crossing: list[Piece] = []

    def close_band() -> None:
        for side in (left, right):
            regions.extend(read_order(list(side), depth + 1))
            side.clear()

    for piece in sorted(pieces, key=lambda p: -p.middle):
        if piece.x1 <= cut or piece.x0 >= cut:
            if crossing:
                regions.extend([crossing])
                crossing = []
            (left if piece.x1 <= cut else right).append(piece)
        else:
            # A piece beside the crossing one and no lower is still part of the band above it.
            if left or right:
                close_band()
            crossing.append(piece)
    close_band()
    if crossing:
        regions.append(crossing)
    return regions


def _gutter(pieces: list[Piece]) -> float | None:
    """The x of a column gap with running text on both sides, or None."""
    x0, x1 = min(p.x0 for p in pieces), max(p.x1 for p in pieces)
    size = median(p.size for p in pieces)
    total = sum(len(p.text) for p in pieces)
    if x1 - x0 < 12 * size:
        return None
    best, best_crossing = None, 0.15 * total
    # Just beyond some piece's right end is where a gap can begin.
    for edge in sorted({round(p.x1, 0) + 0.5 for p in pieces}):
        if not x0 + 0.15 * (x1 - x0) < edge < x1 - 0.15 * (x1 - x0):
            continue
        crossing = sum(len(p.text) for p in pieces if p.x0 < edge < p.x1)
        if crossing < best_crossing and _reads_as_columns(pieces, edge, size, total):
            best, best_crossing = edge, crossing
            if crossing == 0:
                break
    return best


def _reads_as_columns(pieces: list[Piece], edge: float, size: float, total: int) -> bool:
    left = [p for p in pieces if p.x1 <= edge]
    right = [p for p in pieces if p.x0 >= edge]
    if len(left) < 3 or len(right) < 3:
        return False
    # The gap between what faces each other across the cut is wider than a word space.
    if min(p.x0 for p in right) - edge < 0.1 * size and median(p.x0 for p in right) - edge < 0.8 * size:
        return False
    for side in (left, right):
        if sum(len(p.text) for p in side) < 0.15 * total:
            return False
        width = max(p.x1 for p in side) - min(p.x0 for p in side)
        # Running text fills its column; the cells of a table do not.
        if width < 6 * size or median(p.x1 - p.x0 for p in side) < 0.6 * width:
            return False
    return True


def lines_of(pieces: list[Piece]) -> list[Line]:
    """The lines of a region, from the top."""
    rows: list[list[Piece]] = []
    for piece in sorted(pieces, key=lambda p: -p.middle):
        if rows and _same_line(rows[-1], piece):
            rows[-1].append(piece)
        else:
            rows.append([piece])
    return [_line(sorted(row, key=lambda p: p.x0)) for row in rows]


def _same_line(row: list[Piece], piece: Piece) -> bool:
    biggest = max(row, key=lambda p: p.size)
    overlap = min(biggest.y1, piece.y1) - max(biggest.y0, piece.y0)
    return overlap > 0.5 * min(biggest.y1 - biggest.y0, piece.y1 - piece.y0)


def _line(row: list[Piece]) -> Line:
    # By characters, so that a superscript or a drop cap does not set the size of its line.
    size = max(Counter({p.size: 0 for p in row}).keys(), key=lambda s: sum(len(p.text) for p in row if p.size == s))
    row = [p for i, p in enumerate(row) if not (i and _is_footnote_mark(p, row[i - 1]))]
    cells = [row[0].text]
    for before, piece in itertools.pairwise(row):
        gap = piece.x0 - before.x1
        if len(cells) == 1 and gap < 4 * size and _MARK.fullmatch(cells[0]):
            cells[0] += " " + piece.text  # the bullet or number of an item, not a cell
        elif gap > 1.4 * size:
            cells.append(piece.text)
        elif gap > 0.12 * size and not (_wide(cells[-1][-1:]) and _wide(piece.text[:1])):
            cells[-1] += " " + piece.text
        else:
            cells[-1] += piece.text
    return Line(
        cells, row[0].x0, min(p.y0 for p in row), max(p.x1 for p in row), max(p.y1 for p in row), size,
        has_ruby=any(p.has_ruby for p in row),
    )  # fmt: skip


def _is_footnote_mark(piece: Piece, before: Piece) -> bool:
    """A small raised number behind a sentence: an exponent stands behind a letter or digit."""
    return (
        piece.size < 0.75 * before.size
        and piece.middle > before.middle
        and piece.text.strip("*†‡()[]").isdigit()
        and before.text[-1] in ".,;:!?。、」』)）”’\"'"
    )


def _wide(text: str) -> bool:
    return bool(text) and ("\u2e80" <= text <= "\u9fff" or "\uff00" <= text <= "\uffef")


def paragraphs_of(lines: list[Line]) -> list[Paragraph]:
    """Group a region's lines by indents, gaps, sizes and bullets."""
    if not lines:
        return []
    left, right = min(line.x0 for line in lines), max(line.x1 for line in lines)
    steps = [a.y0 - b.y0 for a, b in itertools.pairwise(lines) if a.y0 > b.y0]
    # On a sparse page most steps lead from one paragraph to the next.
    leading = min(median(steps), 1.8 * median(line.size for line in lines)) if steps else lines[0].size * 1.3
    paragraphs: list[Paragraph] = []
    for index, line in enumerate(lines):
        is_row = len(line.cells) > 1
        current = paragraphs[-1] if paragraphs else None
        if current is None or _starts(current, lines[index - 1], line, is_row, left, right, leading):
            paragraphs.append(Paragraph([line], is_table=is_row))
        else:
            current.lines.append(line)
    for paragraph in paragraphs:
        if paragraph.is_table and len(paragraph.lines) == 1:  # one wide gap is an accident of setting, not a table
            paragraph.is_table = False
        last = paragraph.lines[-1]
        paragraph.is_open = (
            not paragraph.is_table and last.x1 > right - 2 * last.size and not _SENTENCE_END.search(last.text)
        )
    return paragraphs


def _starts(
    current: Paragraph, before: Line, line: Line, is_row: bool, left: float, right: float, leading: float
) -> bool:
    if is_row != current.is_table:
        return True
    step = before.y0 - line.y0
    if is_row:  # cells have padding, and may hold several lines
        return step > 3 * max(leading, line.size)
    is_cut = before.x1 > right - 1.5 * line.size and not _SENTENCE_END.search(before.text)
    # Ruby pushes lines apart, and a line that is full in the middle of a sentence goes on below.
    widest = 2.2 if line.has_ruby else 1.7 if is_cut else 1.3
    if step > widest * max(leading, 1.15 * line.size) and step > 1.25 * line.size:
        return True
    if abs(line.size - before.size) > 0.09 * max(line.size, before.size):
        return True
    if BULLET.match(line.text):
        return True
    indent = 0.7 * line.size
    if line.x0 > before.x0 + indent:
        # Deeper than the line above: a new paragraph, unless it is the body of a hanging indent (bullets, references).
        is_hanging = bool(_HANGS.match(before.text)) or (
            before.x1 > right - 2 * line.size and before.x0 <= left + indent
        )
        return not (len(current.lines) == 1 and is_hanging)
    if line.x0 < before.x0 - indent and len(current.lines) > 1:
        return True
    # The line above stopped although the next word would have fitted.
    room = right - before.x1
    first_word = line.text.split(" ", 1)[0]
    need = (line.x1 - line.x0) * min(1.0, (len(first_word) + 1) / max(len(line.text), 1))
    if _wide(line.text[:1]):
        need = 2 * line.size
    return room > need + line.size and bool(_SENTENCE_END.search(before.text))
