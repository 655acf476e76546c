"""Jupyter notebooks: Markdown cells as Markdown, code cells as code, short text outputs."""

from __future__ import annotations

import json
import re
from typing import Any

from kogata.ask.documents.builder import Builder
from kogata.ask.documents.formats.markdown import add_markdown
from kogata.ask.documents.model import Refused
from kogata.ask.documents.source import Source

_LONGEST_OUTPUT = 4000
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def read(source: Source, out: Builder) -> None:
    """Add the cells of a notebook."""
    try:
        book = json.loads(source.text(out))
    except json.JSONDecodeError as error:
        raise Refused("corrupt", f"It is not a notebook: its JSON is damaged (line {error.lineno}).") from None
    if not isinstance(book, dict):
        raise Refused("corrupt", "It is not a notebook.")
    metadata = book.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.get("title"), str):
        out.title = metadata["title"]
    for cell in _cells(book):
        text = _joined(cell.get("source", cell.get("input", "")))
        if cell.get("cell_type") == "markdown":
            add_markdown(text, out)
        elif cell.get("cell_type") == "heading":
            level = cell.get("level")
            out.heading(level if isinstance(level, int) else 1, text)
        else:
            out.add("code", text)
            for output in _dicts(cell.get("outputs")):
                _output(output, out)


def _cells(book: dict[str, Any]) -> list[dict[str, Any]]:
    cells = book.get("cells")
    if cells is None:  # format 3 and before: worksheets
        cells = [cell for sheet in _dicts(book.get("worksheets")) for cell in _dicts(sheet.get("cells"))]
    if not isinstance(cells, list):
        raise Refused("corrupt", "It is not a notebook: it has no cells.")
    return _dicts(cells)


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _joined(value: Any) -> str:
    if isinstance(value, list):
        return "".join(part for part in value if isinstance(part, str))
    return value if isinstance(value, str) else ""


def _output(output: dict[str, Any], out: Builder) -> None:
    data = output.get("data")
    text = _joined(output.get("text"))
    if isinstance(data, dict) and not any(kind.startswith("image/") for kind in data):  # "<Figure size 640x480 …>"
        text = text or _joined(data.get("text/plain"))
    text = _COLOURS.sub("", text)
    if len(text) > _LONGEST_OUTPUT:
        out.note(f"Outputs of cells longer than {_LONGEST_OUTPUT:,} characters were left out.")
    else:
        out.add("code", text)
