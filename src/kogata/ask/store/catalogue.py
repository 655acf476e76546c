"""The documents of an index: whether each is searchable, by words, by meaning, or why not."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from kogata.ask.store.schema import shown
from kogata.errors import BadInput

if TYPE_CHECKING:
    from kogata.ask.store.reader import Store

State = Literal["meaning", "waiting", "words", "skipped"]

_COLUMNS = (
    "d.id, d.path, d.title, d.kind, d.size, d.mtime_ns, d.code, d.reason, d.encoding, d.n_pages, "
    "d.n_chars, d.n_chunks, f.path, "
    "(SELECT count(*) FROM chunks c WHERE c.document = d.id AND c.meaning = 2), "
    "EXISTS (SELECT 1 FROM chunks c WHERE c.document = d.id AND c.meaning = 1)"
)
_IS = {
    "skipped": "d.code IS NOT NULL",
    "waiting": "d.code IS NULL AND EXISTS (SELECT 1 FROM chunks c WHERE c.document = d.id AND c.meaning = 1)",
    "words": "d.code IS NULL AND NOT EXISTS (SELECT 1 FROM chunks c WHERE c.document = d.id AND c.meaning > 0)",
    "meaning": "d.code IS NULL AND NOT EXISTS (SELECT 1 FROM chunks c WHERE c.document = d.id AND c.meaning = 1) "
    "AND EXISTS (SELECT 1 FROM chunks c WHERE c.document = d.id AND c.meaning = 2)",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One file that is known.

    Attributes:
        id: Of the document; never used again for another one.
        path, folder: The file, and the known folder it is in, as the system spells them.
        title: Its title, or empty.
        kind: Its type, a key of :func:`kogata.ask.documents.kinds`.
        size: Bytes.
        modified: Seconds since 1970.
        state: "meaning": every passage is found by words and by meaning, or some are and the embedder does not know
            the script of the others; "waiting": by words now, meaning is still to come for some; "words": by words
            only; "skipped": not searchable.
        passages, vectors: How many passages it has, and how many of them are found by meaning.
        code, reason: Why it is skipped; with another state, ``reason`` is a remark.
        encoding: Of a text file.
        n_pages: Where the format has pages.
        n_chars: Length of the stored text.
    """

    id: int
    path: bytes
    folder: bytes
    title: str
    kind: str
    size: int
    modified: float
    state: State
    passages: int
    vectors: int
    code: str | None
    reason: str | None
    encoding: str | None
    n_pages: int | None
    n_chars: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, with the file's name beside its path."""
        paths = {"path": shown(self.path), "name": shown(os.path.basename(self.path)), "folder": shown(self.folder)}
        return {**asdict(self), **paths}


def read_entries(
    store: Store, *, containing: str = "", state: str = "", folder: str = "", offset: int = 0, limit: int = 100
) -> tuple[int, list[Entry]]:
    """Known files in the order of their paths: (how many there are, those of this page).

    Args:
        store: The index.
        containing: Only those with this in their path or title, without regard to case.
        state: Only those in this state.
        folder: Only those of this known folder.
        offset, limit: Which part of them; a limit of -1 is none.

    Raises:
        BadInput: There is no such state.
    """
    if state and state not in get_args(State):
        raise BadInput(f"There is no state {state!r}; accepted: {', '.join(get_args(State))}.")
    values: list[str | bytes] = []
    conditions = ["1"]
    if state:
        conditions.append(f"({_IS[state]})")
    if folder:
        conditions.append("f.path = ?")
        values.append(os.fsencode(folder))
    if containing:
        pattern = "%" + containing.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
        conditions.append("(CAST(d.path AS TEXT) LIKE ? ESCAPE '\\' OR d.title LIKE ? ESCAPE '\\')")
        values += [pattern, pattern]
    tables = f"FROM documents d JOIN folders f ON f.id = d.folder WHERE {' AND '.join(conditions)}"
    with store.snapshot():
        (total,) = store.db.execute(f"SELECT count(*) {tables}", values).fetchone()
        rows = store.db.execute(
            f"SELECT {_COLUMNS} {tables} ORDER BY d.path LIMIT ? OFFSET ?", [*values, limit, offset]
        ).fetchall()
    return total, [_entry(row) for row in rows]


def read_entry(store: Store, id_: int) -> Entry | None:
    """One known file; None where there is none of this id."""
    with store.snapshot():
        query = f"SELECT {_COLUMNS} FROM documents d JOIN folders f ON f.id = d.folder WHERE d.id = ?"
        row = store.db.execute(query, (id_,)).fetchone()
    return None if row is None else _entry(row)


def _entry(row: Sequence[Any]) -> Entry:
    id_, path, title, kind, size, mtime_ns, code, reason, encoding, n_pages, n_chars, n_chunks, folder, n, waits = row
    state: State = "skipped" if code is not None else "waiting" if waits else "meaning" if n else "words"
    return Entry(
        id=id_, path=path, folder=folder, title=title, kind=kind, size=size, modified=mtime_ns / 1e9, state=state,
        passages=n_chunks, vectors=n, code=code, reason=reason, encoding=encoding, n_pages=n_pages, n_chars=n_chars,
    )  # fmt: skip
