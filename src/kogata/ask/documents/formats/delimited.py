"""CSV and TSV: the delimiter found out, rows as a table."""

from __future__ import annotations

import csv
from io import StringIO

from kogata.ask.documents.builder import Builder
from kogata.ask.documents.formats.grid import add_grid
from kogata.ask.documents.source import Source


def read(source: Source, out: Builder) -> None:
    """Add the rows of a delimited file."""
    text = source.text(out).replace("\0", "")
    csv.field_size_limit(max(len(text), 1 << 17))
    delimiter = "\t" if source.suffix in (".tsv", ".tab") else _delimiter(text)
    add_grid(csv.reader(StringIO(text, newline=""), delimiter=delimiter), out)


def _delimiter(text: str) -> str:
    """The mark that gives the first lines the same number of columns, more than one."""
    sample = text[:65536]
    lines = sample.splitlines()[:50]
    best, best_score = ",", 0.0
    for mark in ",\t;|":
        widths = [len(row) for row in csv.reader(lines, delimiter=mark) if row]
        if not widths:
            continue
        usual = max(set(widths), key=widths.count)
        score = widths.count(usual) / len(widths) * (usual > 1)
        if score > best_score:
            best, best_score = mark, score
    return best
