"""A collection's passages in a real index: one text file each, through Index.add, kept between runs."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from _vectors import CACHE
from kogata import Encoder, Index
from kogata.ask.store.reader import Store


def passage_index(name: str, passages: Sequence[str], encoder: Encoder) -> tuple[Index, dict[int, int]]:
    """The open index, and the passage number of each chunk id. Several chunks of one passage share its number."""
    digest = hashlib.sha256("\0".join([encoder.identity, encoder.precision, *passages]).encode()).hexdigest()[:16]
    folder = CACHE / f"index-{name}-{digest}"
    done = folder / "done"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "texts").mkdir(parents=True)
        for number, passage in enumerate(passages):
            (folder / "texts" / f"{number}.txt").write_text(passage, encoding="utf-8")
        with Index(folder / "index.sqlite", model=encoder) as index:
            report = index.add([folder / "texts"])
        if report.added != len(passages) or report.waiting:
            raise RuntimeError(f"{name}: {report.added} of {len(passages)} passages were indexed: {report.to_dict()}")
        done.touch()
    index = Index(folder / "index.sqlite", model=encoder)
    return index, numbers(index.store)


def numbers(store: Store) -> dict[int, int]:
    """Passage number by chunk id."""
    rows = store.db.execute("SELECT c.id, d.path FROM chunks c JOIN documents d ON d.id = c.document")
    return {id_: int(Path(path.decode()).stem) for id_, path in rows}
