"""Workbooks: sheet by sheet, values as shown, each row with the names of its columns."""

from __future__ import annotations

import datetime
import re
import warnings
from collections.abc import Iterator
from io import BytesIO
from typing import Any

from kogata.ask.documents.builder import Builder
from kogata.ask.documents.formats.grid import MOST_CELLS, add_grid
from kogata.ask.documents.formats.package import Package
from kogata.ask.documents.source import Source

_DECIMALS = re.compile(r"\.(0+)%")


def read(source: Source, out: Builder) -> None:
    """Add the sheets of an .xlsx file."""
    package = Package(source.data, source.limits)  # checked before openpyxl unpacks anything
    out.title = package.title()
    import openpyxl

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # openpyxl warns of features it does not keep; nothing is written here
        book = openpyxl.load_workbook(BytesIO(source.data), read_only=True, data_only=True)
        try:
            sheets = book.worksheets
            out.n_pages = len(sheets)
            budget = MOST_CELLS
            for number, sheet in enumerate(sheets, start=1):
                out.page = number
                out.heading(1, sheet.title)
                sheet.reset_dimensions()  # a sheet may lie about its size
                budget = add_grid(_rows(sheet), out, budget=budget)
        finally:
            book.close()


def _rows(sheet: Any) -> Iterator[list[str]]:
    for row in sheet.iter_rows():
        values = [_percent(cell) or shown(cell.value) for cell in row]
        while values and not values[-1]:
            values.pop()
        yield values


def _percent(cell: Any) -> str:
    """A share as the sheet shows it (0.256 as 25.6%), or ''."""
    if not isinstance(cell.value, (int, float)) or "%" not in cell.number_format:
        return ""
    decimals = _DECIMALS.search(cell.number_format)
    return f"{cell.value:.{len(decimals[1]) if decimals else 0}%}"


def shown(value: object) -> str:
    """A cell's value as a person would write it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, datetime.datetime):
        midnight = value.time() == datetime.time()
        return value.date().isoformat() if midnight else value.isoformat(" ", "seconds")
    return str(value)
