"""Presentations: slide by slide, the title as heading, text, tables, diagrams, speaker's notes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kogata.ask.documents.builder import Builder
from kogata.ask.documents.formats.package import Package
from kogata.ask.documents.model import Refused
from kogata.ask.documents.source import Source

if TYPE_CHECKING:
    from lxml.etree import _Element

_A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_P = "{http://schemas.openxmlformats.org/presentationml/2006/main}"
_R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
_MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
_TITLES = ("title", "ctrTitle")
_FURNITURE = ("sldNum", "dt", "ftr", "hdr", "sldImg")


def read(source: Source, out: Builder) -> None:
    """Add the slides of a .pptx file."""
    package = Package(source.data, source.limits)
    kinds = package.related("").values()
    main = next((part for kind, part in kinds if kind == "officeDocument"), "ppt/presentation.xml")
    root = package.xml(main)
    if root is None:
        raise Refused("corrupt", "Its main part is missing.")
    out.title = package.title()
    if out.title.lower() in ("powerpoint presentation", "powerpoint プレゼンテーション"):
        out.title = ""
    related = package.related(main)
    parts = [related.get(slide.get(f"{_R}id", ""), ("", ""))[1] for slide in root.iter(f"{_P}sldId")]
    out.n_pages = len(parts)
    for number, part in enumerate(parts, start=1):
        out.page = number
        out.leave(1)
        _slide(package, part, out)


def _slide(package: Package, part: str, out: Builder) -> None:
    slide = package.xml(part)
    if slide is None:
        out.note("A slide is missing in the file.")
        return
    shapes = list(_shapes(slide))
    # The title is the heading of all the slide, wherever it stands among the shapes.
    for shape in [s for s in shapes if _role(s) in _TITLES] + [s for s in shapes if _role(s) not in _TITLES]:
        _shape(shape, out)
    for kind, other in package.related(part).values():
        if kind == "diagramData" and (diagram := package.xml(other)) is not None:
            for point in diagram.iter(f"{_A}p"):
                out.add("list", _bullet(_words(point)))
        elif kind == "notesSlide" and (notes := package.xml(other)) is not None:
            for shape in _shapes(notes):
                if _role(shape) == "body":
                    _shape(shape, out)


def _shapes(parent: _Element) -> Iterator[_Element]:
    """Shapes and tables in drawing order; of alternatives the first."""
    stack = list(reversed(parent))
    while stack:
        node = stack.pop()
        if node.tag in (f"{_P}sp", f"{_P}graphicFrame"):
            yield node
        elif node.tag != f"{_MC}Fallback":
            stack.extend(reversed(node))


def _role(shape: _Element) -> str:
    place = shape.find(f"{_P}nvSpPr/{_P}nvPr/{_P}ph")
    return place.get("type", "obj") if place is not None else ""


def _shape(shape: _Element, out: Builder) -> None:
    role = _role(shape)
    if role in _FURNITURE:
        return
    for table in shape.iter(f"{_A}tbl"):
        out.table([[_text(cell) for cell in row.iter(f"{_A}tc")] for row in table.iter(f"{_A}tr")])
        return
    if role in _TITLES:
        out.heading(1, _text(shape))
        return
    paragraphs = [(p, _words(p)) for p in shape.iter(f"{_A}p")]
    lines = [words for _, words in paragraphs if words.strip()]
    if len(lines) == 1:
        out.paragraph(lines[0])
        return
    for paragraph, words in paragraphs:
        properties = paragraph.find(f"{_A}pPr")
        level = int(properties.get("lvl", "0")) if properties is not None else 0
        out.add("list", _bullet(words, min(level, 8)))


def _bullet(words: str, level: int = 0) -> str:
    return "  " * level + f"- {words.strip()}" if words.strip() else ""


def _text(node: _Element) -> str:
    return " ".join(_words(p) for p in node.iter(f"{_A}p"))


def _words(paragraph: _Element) -> str:
    parts = []
    for node in paragraph.iter(f"{_A}t", f"{_A}br", f"{_A}tab"):
        parts.append(node.text or "" if node.tag == f"{_A}t" else " ")
    return "".join(parts)
