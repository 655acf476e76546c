"""How paths, places and reasons are shown to people."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from kogata.app.terminal import Screen, cells, pad, safe, safe_line, safe_path, shorten

if TYPE_CHECKING:
    from kogata.ask.store.status import SkippedFile

# Codes of kogata.ask.documents, in words: refusals of the parsers, then what the search for files leaves out.
REASONS = {
    "binary": "not text",
    "changed": "changed while read",
    "corrupt": "damaged",
    "crashed": "crashed its reader",
    "empty": "nothing in it",
    "encrypted": "needs a password",
    "garbled": "text comes out as rubbish",
    "memory": "needed too much memory",
    "scanned": "scans without text",
    "timeout": "took too long",
    "too_large": "too large",
    "unreadable": "cannot be opened",
    "unsupported": "format not supported",
    "excluded": "excluded by --exclude",
    "hidden": "hidden",
    "ignored": "ignored by .gitignore",
    "left_out": "left out by default",
    "link": "link to elsewhere",
    "loop": "links in a circle",
    "special": "not a regular file",
}


def near(path: str | bytes) -> str:
    """A path as people say it here: relative inside the current folder, ``~`` inside home, else absolute. Safe."""
    text = os.fsdecode(path)
    try:
        here = os.getcwd()
    except OSError:  # the current folder was removed
        here = ""
    home = os.path.expanduser("~")
    if here and text.startswith(here.rstrip(os.sep) + os.sep):
        text = text[len(here.rstrip(os.sep)) + 1 :]
    elif text == home:
        text = "~"
    elif home not in ("~", os.sep) and text.startswith(home.rstrip(os.sep) + os.sep):
        text = os.path.join("~", text[len(home.rstrip(os.sep)) + 1 :])
    return safe_path(text)


def place(page: int | None, heading: Sequence[str]) -> str:
    """``page 8, "Methods > Decoding speed"``; empty where neither is known. Safe."""
    parts = []
    if page is not None:
        parts.append(f"page {page}")
    if heading:
        parts.append('"' + " > ".join(safe(part) for part in heading[-2:]) + '"')
    return ", ".join(parts)


def reasons(screen: Screen, skipped: Sequence[SkippedFile], *, files: bool, limit: int = 3) -> None:
    """What was not indexed and why: a line for each reason, and either some or all of its files."""
    by_code = {
        code: list(group) for code, group in groupby(sorted(skipped, key=lambda s: s.code), key=lambda s: s.code)
    }
    for code, group in sorted(by_code.items(), key=lambda item: -len(item[1])):
        title = REASONS.get(code, safe(code.replace("_", " ")))
        if files:
            screen.line((f"{title} ({len(group):,})", "bold"))
            for file in group:
                screen.flow([(near(file.path), "path"), (f": {file.reason}", "")], first="  ", indent="    ")
        else:
            names = ", ".join(safe_path(os.path.basename(os.fsdecode(file.path))) for file in group[:limit])
            more = ", …" if len(group) > limit else ""
            line = f"{len(group):6,}  {pad(title, 26)} "
            room = None if screen.columns is None else screen.columns - cells(line)
            if room is not None and room < 12:
                screen.line(f"{len(group):6,}  {title}")
                continue
            screen.line(line, (names + more if room is None else shorten(names + more, room), "dim"))


def left_out(counts: Mapping[str, int]) -> str:
    """``12 hidden, 3 ignored by .gitignore``; empty where nothing was left out."""
    return ", ".join(f"{number:,} {REASONS.get(code, safe(code))}" for code, number in counts.items())


def table(screen: Screen, rows: Iterable[tuple[str, str]], *, indent: str = "") -> None:
    """Names and values in two columns; under one another where the terminal is narrow."""
    rows = list(rows)
    left = max((cells(name) for name, _ in rows), default=0) + 2
    narrow = screen.columns is not None and screen.columns - left - len(indent) < 24
    for name, value in rows:
        if narrow:
            screen.line((indent + name, "bold"))
            screen.flow([(value, "")], first=indent + "  ", indent=indent + "  ")
        else:
            screen.flow([(value, "")], first=indent + screen.style(pad(name, left), "bold"), indent=indent + " " * left)


def columns(
    screen: Screen, rows: Sequence[Sequence[str]], *, right: Sequence[int], head: Sequence[str] = ()
) -> None:  # fmt: skip
    """Columns as wide as they need; the last one is wrapped."""
    rows = [[safe_line(cell) for cell in row] for row in ([head, *rows] if head else rows)]
    widths = [max(cells(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    for i, row in enumerate(rows):
        padded = [pad(cell, width, right=n in right) for n, (cell, width) in enumerate(zip(row, widths, strict=False))]
        begin = "  " + "  ".join(padded) + "  "
        style = "dim" if head and i == 0 else ""
        if row[-1]:
            screen.flow([(row[-1], style)], first=screen.style(begin, style), indent=" " * cells(begin))
        else:
            screen.line(begin.rstrip())
