"""Word documents: headings by style, lists, tables, notes at the end; ruby, headers and comments left out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kogata.ask.documents.builder import Builder
from kogata.ask.documents.formats.package import Package
from kogata.ask.documents.model import Refused
from kogata.ask.documents.source import Source

if TYPE_CHECKING:
    from lxml.etree import _Element

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_M = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_STRICT = b"http://purl.oclc.org/ooxml/wordprocessingml/main"
_MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
_HEADING = re.compile(
    r"(?:heading|見出し|überschrift|titre|título|titolo|заголовок|标题|標題|제목|kop|rubrik|nagłówek|otsikko|nadpis|cím)"
    r"\s*([1-9])",
    re.I,
)
_TITLE = re.compile(r"(?:title|表題|標題|titel|titre|título|titolo)$", re.I)
_CONTENTS = re.compile(r"(?:toc|目次|verzeichnis|contents heading|index heading)\b", re.I)
# Below these nothing is part of the words: pronunciation, deleted text, the second rendering of the same drawing.
_SKIPPED = frozenset(
    (f"{_W}rt", f"{_W}del", f"{_W}moveFrom", f"{_MC}Fallback", f"{_W}pPr", f"{_W}rPr", f"{_W}instrText")
)


def read(source: Source, out: Builder) -> None:
    """Add the body of a .docx file and its notes."""
    package = Package(source.data, source.limits)
    main = next((part for kind, part in package.related("").values() if kind == "officeDocument"), "word/document.xml")
    root = package.xml(main)
    body = root.find(f"{_W}body") if root is not None else None
    if body is None:
        if _STRICT in (package.read(main) or b""):
            raise Refused("unsupported", "It is in the 'Strict' variant of docx; save it as an ordinary docx.")
        raise Refused("corrupt", "Its main part is missing.")
    out.title = package.title()
    related = dict(package.related(main).values())
    reader = _Reader(out, _Styles(package.xml(related.get("styles", "word/styles.xml"))))
    reader.blocks(body)
    out.leave(0)
    for kind in ("footnotes", "endnotes"):
        notes = package.xml(related[kind]) if kind in related else None
        for note in notes if notes is not None else ():
            if note.get(f"{_W}type") in (None, "normal"):
                reader.blocks(note)


class _Styles:
    """What paragraph styles mean: heading levels and lists, also by inheritance."""

    def __init__(self, root: _Element | None) -> None:
        self._styles = {s.get(f"{_W}styleId", ""): s for s in root.iter(f"{_W}style")} if root is not None else {}
        self._levels: dict[str, int | None] = {}

    def name(self, style_id: str) -> str:
        """The style's name as the writer gave it."""
        style = self._styles.get(style_id)
        name = style.find(f"{_W}name") if style is not None else None
        return (name.get(f"{_W}val") or "") if name is not None else style_id

    def level(self, style_id: str) -> int | None:
        """Heading level of a style (0 is a title), or None."""
        if style_id not in self._levels:
            self._levels[style_id] = self._level(style_id)
        return self._levels[style_id]

    def _level(self, style_id: str) -> int | None:
        for style in self._chain(style_id):
            name = self.name(style.get(f"{_W}styleId", ""))
            if match := _HEADING.match(name):
                return int(match[1])
            if _TITLE.match(name):
                return 0
            outline = style.find(f"{_W}pPr/{_W}outlineLvl")
            if outline is not None:
                level = int(outline.get(f"{_W}val", "9"))
                return level + 1 if level < 9 else None
        return None

    def is_list(self, style_id: str) -> bool:
        """Whether the style numbers or bullets its paragraphs."""
        return any(style.find(f"{_W}pPr/{_W}numPr") is not None for style in self._chain(style_id))

    def _chain(self, style_id: str) -> Iterator[_Element]:
        seen: set[str] = set()
        while style_id in self._styles and style_id not in seen:
            seen.add(style_id)
            style = self._styles[style_id]
            yield style
            based = style.find(f"{_W}basedOn")
            style_id = based.get(f"{_W}val", "") if based is not None else ""


class _Reader:
    def __init__(self, out: Builder, styles: _Styles) -> None:
        self._out = out
        self._styles = styles

    def blocks(self, parent: _Element) -> None:
        for child in parent:
            if child.tag == f"{_W}p":
                self._paragraph(child)
            elif child.tag == f"{_W}tbl":
                self._table(child)
            elif child.tag == f"{_W}sdt":
                gallery = child.find(f".//{_W}docPartGallery")
                if gallery is None or gallery.get(f"{_W}val") != "Table of Contents":
                    content = child.find(f"{_W}sdtContent")
                    if content is not None:
                        self.blocks(content)
            elif child.tag in (f"{_W}ins", f"{_W}moveTo", f"{_W}customXml", f"{_W}smartTag"):
                self.blocks(child)

    def _paragraph(self, paragraph: _Element) -> None:
        boxes: list[_Element] = []
        text = _words(paragraph, boxes)
        style_id, level, depth = self._properties(paragraph)
        if _CONTENTS.match(self._styles.name(style_id)):
            return
        if level is not None and len(text) <= 300:
            self._out.heading(level, text)
        elif depth is not None:
            self._out.add("list", "  " * depth + f"- {text.strip()}" if text.strip() else "")
        else:
            self._out.paragraph(text)
        for box in boxes:
            self.blocks(box)

    def _properties(self, paragraph: _Element) -> tuple[str, int | None, int | None]:
        """Style, heading level, and depth in lists (0 is the outermost)."""
        properties = paragraph.find(f"{_W}pPr")
        style = properties.find(f"{_W}pStyle") if properties is not None else None
        style_id = style.get(f"{_W}val", "") if style is not None else ""
        level = self._styles.level(style_id)
        if properties is not None and level is None:
            outline = properties.find(f"{_W}outlineLvl")
            if outline is not None and int(outline.get(f"{_W}val", "9")) < 9:
                level = int(outline.get(f"{_W}val", "9")) + 1
        number = properties.find(f"{_W}numPr") if properties is not None else None
        if number is None:
            return style_id, level, 0 if self._styles.is_list(style_id) else None
        values = {child.tag: child.get(f"{_W}val", "") for child in number}
        depth = values.get(f"{_W}ilvl", "0")
        return (
            style_id,
            level,
            None if values.get(f"{_W}numId") == "0" else min(int(depth) if depth.isdigit() else 0, 8),
        )

    def _table(self, table: _Element) -> None:
        rows = [[_cell(cell) for cell in row.iter(f"{_W}tc")] for row in _rows(table)]
        if len(rows) == 1 and len(rows[0]) == 1:  # a frame around text
            self.blocks(next(table.iter(f"{_W}tc")))
        else:
            self._out.table(rows)


def _rows(table: _Element) -> Iterator[_Element]:
    for child in table:
        if child.tag == f"{_W}tr":
            yield child
        elif child.tag == f"{_W}sdt":
            yield from child.iter(f"{_W}tr")


def _cell(cell: _Element) -> str:
    return " ".join(_words(paragraph, []) for paragraph in cell.iter(f"{_W}p"))


def _words(paragraph: _Element, boxes: list[_Element]) -> str:
    """The paragraph's text; text boxes anchored in it are put into ``boxes``."""
    parts: list[str] = []
    stack = list(reversed(paragraph))
    while stack:
        node = stack.pop()
        tag = node.tag
        if tag in _SKIPPED:
            continue
        if tag == f"{_W}txbxContent":
            boxes.append(node)
        elif tag in (f"{_W}t", f"{_M}t"):
            parts.append(node.text or "")
        elif tag == f"{_W}tab":
            parts.append(" ")
        elif tag in (f"{_W}br", f"{_W}cr"):
            parts.append("\n" if node.get(f"{_W}type") in (None, "textWrapping") else " ")
        elif tag == f"{_W}noBreakHyphen":
            parts.append("-")
        elif tag == f"{_W}r" and _is_hidden(node):
            continue
        else:
            stack.extend(reversed(node))
    return "".join(parts)


def _is_hidden(run: _Element) -> bool:
    vanish = run.find(f"{_W}rPr/{_W}vanish")
    return vanish is not None and vanish.get(f"{_W}val") not in ("0", "false", "off")
