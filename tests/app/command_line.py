"""A command line to type at, and a folder to index."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TIDES = """\
# Tides

The tide gauge in the harbour is read every ten minutes by the harbour office.
High water comes twice a day and is about fifty minutes later every day.

## Instruments

The gauge was calibrated in May 2021 by Maria Lindqvist.
A second gauge stands on the pier, and its readings are kept for comparison.
"""

LEASE = """\
# Lease of the boat house

The lease of the boat house ends on 30 June 2027.
The rent is 240 euros a month, payable in advance.
"""

CHOUI = """\
# 潮位の観測

潮位とは、基準面から測った海面の高さである。満潮は一日に二回起こる。
検潮所は港の東側にあり、観測は昭和三十二年に始まった。
"""

BREAD = """\
# Bread

Mix flour, water and salt, and let the dough rest overnight in a cool place.
Bake it in a hot oven for forty minutes until the crust is dark.
"""


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Run = Callable[..., Result]


def write_folder(folder: Path) -> Path:
    """A folder of four documents and a file that is none."""
    folder.mkdir()
    (folder / "tides.md").write_text(TIDES, encoding="utf-8")
    (folder / "lease.txt").write_text(LEASE, encoding="utf-8")
    (folder / "潮位.md").write_text(CHOUI, encoding="utf-8")
    (folder / "bread.md").write_text(BREAD, encoding="utf-8")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7\n" + bytes(range(256)) * 4)
    return folder
