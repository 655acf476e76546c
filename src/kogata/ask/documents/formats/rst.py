"""reStructuredText: headings by their underlines, directives resolved or left out, roles reduced to their words."""

from __future__ import annotations

import re

from kogata.ask.documents.builder import Builder, clean
from kogata.ask.documents.formats.plain import join_lines
from kogata.ask.documents.source import Source

_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1{2,}\s*$")
_DIRECTIVE = re.compile(r"(\s*)\.\.\s+([\w:+-]+?)::(?:\s+(.*))?$")
_EXPLICIT = re.compile(r"\s*\.\.(?:\s|$)")
_NOTE = re.compile(r"\s*\.\. \[[^\]]+\]\s+(.*)")
_FIELD = re.compile(r":[\w -]+:(?:\s|$)")
_LIST = re.compile(r"(\s*)(?:[-*+•]|\(?(?:\d+|#|[a-z])[.)])\s+")
_CODE_WORDS = """
    code code-block sourcecode literalinclude parsed-literal highlight doctest testcode prompt
"""
_CODE = frozenset(_CODE_WORDS.split())
_LEFT_OUT_WORDS = """
    image toctree include raw contents index only meta module currentmodule highlight sectionauthor role
    default-role literalinclude math tabularcolumns testsetup testcleanup automodule autoclass autofunction
"""
_LEFT_OUT = frozenset(_LEFT_OUT_WORDS.split())
_ADMONITION_WORDS = "attention caution danger error hint important note seealso tip todo warning"
_ADMONITIONS = frozenset(_ADMONITION_WORDS.split())
_ROLE = re.compile(r":[\w:+.-]+:`([^`]+)`")
_LINK = re.compile(r"`([^`<]+?)\s*<[^>`]+>`__?")
_TICKS = re.compile(r"``(.+?)``|`([^`]+)`_{0,2}")
_STRESS = re.compile(r"(?<![\w*])\*{1,2}(\S(?:.*?\S)?)\*{1,2}(?!\w)")
_GRID = re.compile(r"\s*\+[-=+]+\+\s*$")
_SIMPLE_TABLE = re.compile(r"\s*=+(?:\s+=+)+\s*$")


def read(source: Source, out: Builder) -> None:
    """Add the blocks of an rst file."""
    _Reader(clean(source.text(out)).expandtabs(8).split("\n"), out).run()


class _Reader:
    def __init__(self, lines: list[str], out: Builder) -> None:
        self._lines = lines
        self._out = out
        self._at = 0
        self._styles: list[str] = []
        self._paragraph: list[str] = []

    def run(self) -> None:
        lines = self._lines
        while self._at < len(lines):
            line = lines[self._at]
            if self._heading():
                continue
            if not line.strip():
                self._flush()
                self._at += 1
            elif _DIRECTIVE.match(line):
                self._flush()
                self._directive()
            elif note := _NOTE.match(line):
                self._flush()
                self._paragraph.append(note[1])
                self._at += 1
            elif _EXPLICIT.match(line):  # comments, targets, substitutions
                self._flush()
                self._at += 1
                self._indented(_indent(line))
            elif _GRID.match(line) or _SIMPLE_TABLE.match(line):
                self._flush()
                self._table()
            elif _LIST.match(line) and (not self._paragraph or _LIST.match(self._paragraph[0])):
                self._flush()
                self._paragraph.append(line)
                self._at += 1
            else:
                self._paragraph.append(line)
                self._at += 1
                if line.rstrip().endswith("::"):
                    self._literal(_indent(line))
        self._flush()

    def _heading(self) -> bool:
        lines, at = self._lines, self._at
        mark = _ADORNMENT.match(lines[at])
        if mark and at + 2 < len(lines) and lines[at + 2].rstrip() == lines[at].rstrip() and lines[at + 1].strip():
            style, text, used = mark[1] * 2, lines[at + 1], 3
        elif (
            at + 1 < len(lines)
            and lines[at].strip()
            and lines[at][0] != " "
            and not self._paragraph
            and (under := _ADORNMENT.match(lines[at + 1]))
            and len(lines[at + 1].rstrip()) >= min(len(lines[at].rstrip()), 4)
            and not mark
        ):
            style, text, used = under[1], lines[at], 2
        elif mark and not self._paragraph:  # a transition
            self._at += 1
            return True
        else:
            return False
        self._flush()
        if style not in self._styles:
            self._styles.append(style)
        self._out.heading(self._styles.index(style) + 1, _plain(text))
        self._at += used
        return True

    def _literal(self, indent: int) -> None:
        """What follows a paragraph that ends in '::'."""
        if self._at < len(self._lines) and not self._lines[self._at].strip():
            body = self._indented(indent)
            last = self._paragraph[-1].rstrip()
            self._paragraph[-1] = last[:-1] if last != "::" else ""
            self._flush()
            self._out.add("code", _dedented(body))

    def _directive(self) -> None:
        match = _DIRECTIVE.match(self._lines[self._at])
        assert match is not None
        name, argument = match[2].rpartition(":")[2].lower(), match[3] or ""
        self._at += 1
        body = self._indented(len(match[1]))
        while body and (not body[0].strip() or _FIELD.match(body[0].strip())):
            options = bool(body[0].strip())
            body.pop(0)
            if not options:
                break
        if name in _LEFT_OUT:
            return
        if name in _CODE:
            self._out.add("code", _dedented(body))
            return
        inner = _dedented(body).split("\n")
        if name in _ADMONITIONS:  # they have no argument: what stands on their line is the beginning of the text
            inner.insert(0, argument)
        elif name in ("list-table", "csv-table", "table", "figure", "rubric", "topic", "admonition") or argument:
            self._out.paragraph(_plain(argument))
        if any(line.strip() for line in inner):
            reader = _Reader(inner, self._out)
            reader._styles = [*self._styles]
            reader.run()

    def _indented(self, indent: int) -> list[str]:
        """The lines that follow and are indented deeper, blank ones among them too."""
        start = self._at
        while self._at < len(self._lines):
            line = self._lines[self._at]
            if line.strip() and _indent(line) <= indent:
                break
            self._at += 1
        body = self._lines[start : self._at]
        while body and not body[-1].strip():
            body.pop()
        return body

    def _table(self) -> None:
        rows: list[list[str]] = []
        first = self._lines[self._at]
        if _GRID.match(first):
            row: list[str] = []
            while self._at < len(self._lines) and self._lines[self._at].strip():
                line = self._lines[self._at].strip()
                if _GRID.match(line):
                    rows.append(row)
                    row = []
                else:
                    cells = [cell.strip() for cell in line.strip("|").split("|")]
                    row = [f"{a} {b}".strip() for a, b in zip(row, cells, strict=False)] if row else cells
                self._at += 1
            rows.append(row)
        else:
            columns = [(m.start(), m.end()) for m in re.finditer(r"=+", first)]
            self._at += 1
            borders = 1
            while self._at < len(self._lines) and borders < 3:
                line = self._lines[self._at]
                if _SIMPLE_TABLE.match(line):
                    borders += 1
                    follows = self._lines[self._at + 1] if self._at + 1 < len(self._lines) else ""
                    if borders == 2 and not follows.strip():  # a table without a header
                        self._at += 1
                        break
                elif line.strip() and not re.fullmatch(r"[\s-]+", line):
                    stops = [*(start for start, _ in columns[1:]), len(line)]
                    rows.append([line[s:e].strip() for (s, _), e in zip(columns, stops, strict=True)])
                self._at += 1
        self._out.table([[_plain(cell) for cell in row] for row in rows])

    def _flush(self) -> None:
        lines, self._paragraph = self._paragraph, []
        lines = [line for line in lines if line.strip()]
        if not lines:
            return
        item = _LIST.match(lines[0])
        text = _plain(join_lines(lines))
        if item:
            self._out.add("list", "  " * (len(item[1]) // 2) + text)
        else:
            self._out.paragraph(text)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _dedented(lines: list[str]) -> str:
    least = min((_indent(line) for line in lines if line.strip()), default=0)
    return "\n".join(line[least:] for line in lines)


def _plain(text: str) -> str:
    text = _ROLE.sub(lambda m: re.sub(r"\s*<[^>]*>$", "", m[1]).lstrip("~!"), text)
    text = _LINK.sub(r"\1", text)
    text = _TICKS.sub(lambda m: m[1] or m[2], text)
    text = re.sub(r"\|([^|\s][^|]*)\|", r"\1", text)
    return _STRESS.sub(r"\1", text).strip()
