"""Org mode: outline, lists, tables, source blocks; drawers, properties and comments left out."""

from __future__ import annotations

import re

from kogata.ask.documents.builder import Builder, clean
from kogata.ask.documents.formats.plain import join_lines
from kogata.ask.documents.source import Source

_HEADING = re.compile(
    r"(\*+)\s+(?:(?:TODO|DONE|NEXT|WAITING|CANCELLED)\s+)?(?:\[#[A-Z]\]\s+)?(.*?)(?:\s+:[\w@#%:]+:)?\s*$"
)
_KEYWORD = re.compile(r"\s*#\+(\w+):?\s*(.*)$")
_LINK = re.compile(r"\[\[(?:[^\]]+)\]\[([^\]]+)\]\]|\[\[([^\]]+)\]\]")
_EMPHASIS = re.compile(r"(?<![\w])([*/_=~+])(\S(?:.*?\S)?)\1(?!\w)")
_LIST = re.compile(r"\s*(?:[-+]|\d+[.)])\s")
_PLANNING = re.compile(r"\s*(?:CLOSED|DEADLINE|SCHEDULED|CLOCK):")


def read(source: Source, out: Builder) -> None:
    """Add the blocks of an Org file."""
    lines: list[str] = []
    code: list[str] | None = None
    rows: list[list[str]] = []
    is_in_drawer = False

    def flush() -> None:
        nonlocal rows
        if rows:
            out.table(rows)
            rows = []
        if lines:
            if _LIST.match(lines[0]):
                out.add("list", _list(lines))
            else:
                out.paragraph(join_lines([_plain(line) for line in lines]))
            lines.clear()

    for line in clean(source.text(out)).split("\n"):
        keyword = _KEYWORD.match(line)
        if code is not None:
            if keyword and keyword[1].lower().startswith("end"):
                out.add("code", "\n".join(code))
                code = None
            else:
                code.append(line)
        elif is_in_drawer:
            is_in_drawer = line.strip().upper() != ":END:"
        elif heading := _HEADING.match(line):
            flush()
            out.heading(len(heading[1]), _plain(heading[2]))
        elif keyword:
            flush()
            name = keyword[1].lower()
            if name == "title":
                out.title = keyword[2]
            elif name in ("begin_src", "begin_example", "begin_export"):
                code = []
            elif name in ("caption", "description"):
                out.paragraph(_plain(keyword[2]))
        elif re.fullmatch(r"\s*:[\w-]+:\s*", line):
            is_in_drawer = True
        elif _PLANNING.match(line) or re.match(r"\s*#(?:\s|$)", line):
            continue
        elif line.lstrip().startswith("|"):
            if lines:
                flush()
            if not re.match(r"\s*\|[-+]+", line):
                rows.append([_plain(cell) for cell in line.strip().strip("|").split("|")])
        elif not line.strip():
            flush()
        else:
            if rows or (lines and _LIST.match(line) and not _LIST.match(lines[0])):
                flush()
            lines.append(line)
    flush()
    if code:
        out.add("code", "\n".join(code))


def _list(lines: list[str]) -> str:
    items: list[str] = []
    for line in lines:
        if _LIST.match(line) or not items:
            items.append(_plain(line))
        else:
            items[-1] = items[-1] + " " + _plain(line.strip())
    return "\n".join(items)


def _plain(text: str) -> str:
    text = _LINK.sub(lambda m: m[1] or m[2], text)
    return _EMPHASIS.sub(r"\2", text)
