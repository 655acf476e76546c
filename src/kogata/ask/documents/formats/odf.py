"""OpenDocument texts, sheets and presentations, zipped or flat."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kogata.ask.documents.builder import Builder
from kogata.ask.documents.formats.grid import MOST_CELLS, add_grid
from kogata.ask.documents.formats.package import Package, dc_title, parse_xml, words_of
from kogata.ask.documents.model import Refused
from kogata.ask.documents.source import Source

if TYPE_CHECKING:
    from lxml.etree import _Element

_NS = "urn:oasis:names:tc:opendocument:xmlns:"
_TEXT, _TABLE, _OFFICE, _DRAW = (
    f"{{{_NS}text:1.0}}",
    f"{{{_NS}table:1.0}}",
    f"{{{_NS}office:1.0}}",
    f"{{{_NS}drawing:1.0}}",
)
_PRESENTATION = f"{{{_NS}presentation:1.0}}"
_SKIPPED = frozenset((
    f"{_TEXT}ruby-text", f"{_TEXT}tracked-changes", f"{_OFFICE}annotation", f"{_OFFICE}annotation-end",
    f"{_TEXT}note-citation", f"{_TEXT}table-of-content", f"{_TEXT}alphabetical-index", f"{_TEXT}sequence-decls",
    f"{_OFFICE}forms", f"{_TEXT}hidden-text", f"{_TEXT}hidden-paragraph",
))  # fmt: skip
_SPACES = {f"{_TEXT}s": " ", f"{_TEXT}tab": " ", f"{_TEXT}line-break": "\n"}
_MOST_REPEATS = 1000


def read(source: Source, out: Builder) -> None:
    """Add the body of an OpenDocument file."""
    if source.data[:2] == b"PK":
        package = Package(source.data, source.limits)
        manifest = package.read("META-INF/manifest.xml") or b""
        if b"encryption-data" in manifest:
            raise Refused("encrypted", "It is protected by a password; save a copy without one.")
        root, meta = package.xml("content.xml"), package.xml("meta.xml")
    else:
        root = meta = parse_xml(source.data)
    body = root.find(f".//{_OFFICE}body") if root is not None else None
    if body is None or len(body) == 0:
        raise Refused("corrupt", "Its body is missing.")
    out.title = dc_title(meta)
    content = body[0]
    if content.tag == f"{_OFFICE}spreadsheet":
        _sheets(content, out)
    elif content.tag == f"{_OFFICE}presentation":
        _slides(content, out)
    else:
        reader = _Reader(out)
        reader.blocks(content)
        out.leave(0)
        for note in reader.notes:
            reader.blocks(note)


class _Reader:
    def __init__(self, out: Builder) -> None:
        self._out = out
        self.notes: list[_Element] = []

    def blocks(self, parent: _Element, depth: int = 0) -> None:
        for child in parent:
            tag = child.tag
            if tag in _SKIPPED:
                continue
            if tag == f"{_TEXT}h":
                level = child.get(f"{_TEXT}outline-level", "1")
                self._out.heading(int(level) if level.isdigit() else 1, self._words(child, []))
            elif tag == f"{_TEXT}p":
                self._paragraph(child, "")
            elif tag == f"{_TEXT}list":
                self._list(child, depth)
            elif tag == f"{_TABLE}table":
                self._out.table([[_cell(cell) for cell in row] for row in _rows(child)])
            elif depth < 50:
                self.blocks(child, depth)

    def _list(self, node: _Element, depth: int) -> None:
        for item in node:
            for child in item:
                if child.tag == f"{_TEXT}list" and depth < 50:
                    self._list(child, depth + 1)
                elif child.tag == f"{_TEXT}h":  # numbered headings are lists too
                    self.blocks(item)
                    break
                elif child.tag == f"{_TEXT}p":
                    self._paragraph(child, "  " * depth + "- ")

    def _paragraph(self, node: _Element, mark: str) -> None:
        boxes: list[_Element] = []
        words = self._words(node, boxes)
        if not mark:
            self._out.paragraph(words)
        elif words.strip():
            self._out.add("list", mark + words.strip())
        for box in boxes:
            self.blocks(box)

    def _words(self, node: _Element, boxes: list[_Element]) -> str:
        return _words(node, boxes, self.notes)


def _words(node: _Element, boxes: list[_Element], notes: list[_Element]) -> str:
    """An element's text; text boxes and footnotes in it are put into the two lists."""

    def instead(child: _Element) -> str | None:
        tag = child.tag
        if tag == f"{_TEXT}note":
            notes.extend(child.iter(f"{_TEXT}note-body"))
        elif tag == f"{_DRAW}text-box":
            boxes.append(child)
        elif tag not in _SKIPPED:
            return _SPACES.get(str(tag))
        return ""

    return words_of(node, instead)


def _cell(cell: _Element) -> str:
    return " ".join(_words(node, [], []) for node in cell.iter(f"{_TEXT}p", f"{_TEXT}h"))


def _rows(table: _Element) -> Iterator[list[_Element]]:
    for row in table.iter(f"{_TABLE}table-row"):
        yield [cell for cell in row if cell.tag in (f"{_TABLE}table-cell", f"{_TABLE}covered-table-cell")]


def _sheets(content: _Element, out: Builder) -> None:
    tables = list(content.iter(f"{_TABLE}table"))
    out.n_pages = len(tables)
    budget = MOST_CELLS
    for number, table in enumerate(tables, start=1):
        out.page = number
        out.heading(1, table.get(f"{_TABLE}name", f"Sheet {number}"))
        budget = add_grid(_sheet_rows(table), out, budget=budget)


def _sheet_rows(table: _Element) -> Iterator[list[str]]:
    for row in table.iter(f"{_TABLE}table-row"):
        values: list[str] = []
        for cell in row:
            value = _cell(cell) if cell.tag == f"{_TABLE}table-cell" else ""
            values += [value] * _repeats(cell, f"{_TABLE}number-columns-repeated")
        while values and not values[-1]:
            values.pop()
        for _ in range(_repeats(row, f"{_TABLE}number-rows-repeated") if values else 1):
            yield values


def _repeats(node: _Element, name: str) -> int:
    stated = node.get(name, "1")
    return min(int(stated), _MOST_REPEATS) if stated.isdigit() else 1


def _slides(content: _Element, out: Builder) -> None:
    pages = list(content.iter(f"{_DRAW}page"))
    out.n_pages = len(pages)
    for number, page in enumerate(pages, start=1):
        out.page = number
        out.leave(1)
        reader = _Reader(out)
        notes = list(page.iter(f"{_PRESENTATION}notes"))
        for note in notes:
            page.remove(note)
        frames = list(page)
        titles = [f for f in frames if f.get(f"{_PRESENTATION}class") == "title"]
        for frame in titles:
            out.heading(1, _cell(frame))
        for frame in frames:
            if frame not in titles and frame.get(f"{_PRESENTATION}class") not in ("page-number", "date-time", "footer"):
                reader.blocks(frame)
        for note in notes:
            for frame in note:
                if frame.get(f"{_PRESENTATION}class") == "notes":
                    reader.blocks(frame)
