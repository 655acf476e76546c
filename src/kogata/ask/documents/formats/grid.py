"""Rows of a sheet or a delimited file as text that stands alone: every cell carries its column's name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice

from kogata.ask.documents.builder import Builder, squeeze

MOST_CELLS = 1_000_000
_ROWS_PER_BLOCK = 200
_MOST_ABOVE = 10  # lines above a header
_NUMBER = re.compile(r"[-+(]?[\d.,%$€¥£\s/:-]+\)?")


def add_grid(rows: Iterable[list[str]], out: Builder, *, budget: int = MOST_CELLS) -> int:
    """Add rows as table blocks; returns how many cells of the budget are left.

    A chunk of a long table does not hold its header row, so each row is written as "name: value | name: value".
    Rows of one cell above the header (a title, who exported it when) are lines of the text. Rows beyond the budget are
    left out, which the notes say.
    """
    source = (row for row in rows if any(cell.strip() for cell in row))
    head = list(islice(source, _MOST_ABOVE + 2))
    n_above = next((i for i, row in enumerate(head) if sum(bool(cell.strip()) for cell in row) > 1), 0)
    names = header(head[n_above : n_above + 2])
    lines = [_line(row, []) for row in head[:n_above]]
    n_rows = 0
    for row in chain(head[n_above + bool(names) :], source):
        if budget <= 0:
            out.note(f"Only the first {MOST_CELLS:,} cells were read (to row {n_rows:,}); the rest was left out.")
            break
        budget -= max(len(row), 1)
        n_rows += 1
        lines.append(_line(row, names))
        if len(lines) >= _ROWS_PER_BLOCK:
            out.add("table", "\n".join(lines))
            lines.clear()
    if names and n_rows == 0:
        lines.append(" | ".join(names))
    out.add("table", "\n".join(lines))
    return budget


def header(head: list[list[str]]) -> list[str]:
    """Names of the columns if the first row gives them, else []: all short, different words above something else."""
    if len(head) < 2:
        return []
    names = [squeeze(cell) for cell in head[0]]
    while names and not names[-1]:
        names.pop()
    words = [name for name in names if name]
    good = (
        len(words) >= 2 and len(words) >= 0.8 * len(names) and len(set(words)) == len(words)
        and all(len(name) <= 60 and not _NUMBER.fullmatch(name) for name in words)
        and max(map(len, words)) <= 40
    )  # fmt: skip
    return names if good else []


def _line(row: list[str], names: list[str]) -> str:
    return " | ".join(_cells(row, names))


def _cells(row: list[str], names: list[str]) -> Iterator[str]:
    for index, cell in enumerate(row):
        value = squeeze(cell)
        if not value:
            continue
        name = names[index] if index < len(names) else ""
        yield f"{name}: {value}" if name else value
