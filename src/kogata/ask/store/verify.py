"""Checking a whole index for damage, without changing it: for ``kogata status --verify``."""

from __future__ import annotations

import zlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kogata.ask.store import schema
from kogata.errors import BadInput, DamagedIndexError

if TYPE_CHECKING:
    from kogata.ask.store.reader import Store

_MOST = 20  # findings of one kind; a damaged file has thousands


@dataclass(frozen=True, slots=True)
class Verification:
    """What a check found.

    Attributes:
        index: Damage in the index file, in sentences; empty when it is sound.
        mended: Damage in the word index and in the segments, which the next ``kogata index`` makes anew by itself.
    """

    index: tuple[str, ...]
    mended: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {name: list(found) for name, found in asdict(self).items()}


def verify(store: Store) -> Verification:
    """Compare every page, text and vector of the index with what it says of itself. Takes as long as reading it all.

    Raises:
        StoreError: The file cannot be read at all.
    """
    with schema.plain_errors(store.path), store.snapshot():
        return Verification(tuple(_index(store)), (*_words(store), *_segments(store)))


def _index(store: Store) -> list[str]:
    found = [str(line) for (line,) in store.db.execute(f"PRAGMA integrity_check({_MOST})") if line != "ok"]
    lost = store.db.execute("PRAGMA foreign_key_check").fetchmany(_MOST)
    found += [f"row {row} of {table} belongs to a row of {parent} that is gone" for table, row, parent, _ in lost]
    lengths: dict[int, int] = {}
    for document, part, body in store.db.execute("SELECT document, part, body FROM texts"):
        try:
            lengths[document] = lengths.get(document, 0) + len(zlib.decompress(body).decode())
        except (zlib.error, UnicodeDecodeError) as error:
            found.append(f"part {part} of the text of document {document} cannot be read: {error}")
    for document, length in store.db.execute("SELECT id, n_chars FROM documents WHERE code IS NULL"):
        if lengths.get(document, 0) != length:
            found.append(f"the text of document {document} has {lengths.get(document, 0):,} characters of {length:,}")
    return found[:_MOST]


def _words(store: Store) -> list[str]:
    return [] if schema.words_readable(store.db) else ["the word index cannot be read"]


def _segments(store: Store) -> list[str]:
    from kogata.ask.store.manifest import folder_of, records

    embedder = store.embedder()
    if embedder is None:
        return []
    folder, found = folder_of(store.path, embedder), []
    for record in records(store.db):
        try:
            folder.open([record], verify=True)
        except (DamagedIndexError, BadInput, OSError) as error:
            found.append(str(error))
    return found[:_MOST]
