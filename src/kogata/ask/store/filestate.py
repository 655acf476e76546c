"""For every file that is known: whether it is searchable, by words, by meaning, or why not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from kogata.ask.store.schema import plain_errors, shown

if TYPE_CHECKING:
    from kogata.ask.store.reader import Store

State = Literal["meaning", "waiting", "words", "skipped"]


@dataclass(frozen=True, slots=True)
class FileState:
    """One file.

    Attributes:
        path: The file, as the system spells it.
        kind: Its type, a key of :func:`kogata.ask.documents.kinds`.
        state: "meaning": every passage is found by words and by meaning, or some are and the embedder does not know the
            script of the others; "waiting": by words now, meaning is still to come for some; "words": by words only;
            "skipped": not searchable.
        passages: How many passages it has.
        vectors: How many of them are found by meaning.
        code, reason: Why it is skipped; with another state, ``reason`` is a remark.
    """

    path: bytes
    kind: str
    state: State
    passages: int
    vectors: int
    code: str | None
    reason: str | None

    def to_dict(self) -> dict[str, Any]:
        return {
            "path": shown(self.path), "kind": self.kind, "state": self.state, "passages": self.passages,
            "vectors": self.vectors, "code": self.code, "reason": self.reason,
        }  # fmt: skip


def read_files(store: Store) -> list[FileState]:
    """All known files in the order of their paths."""
    with plain_errors(store.path):
        rows = store.db.execute(
            "SELECT d.path, d.kind, d.code, d.reason, count(c.id), "
            "coalesce(sum(c.meaning = 2), 0), coalesce(sum(c.meaning = 1), 0) "
            "FROM documents d LEFT JOIN chunks c ON c.document = d.id GROUP BY d.id ORDER BY d.path"
        ).fetchall()
    return [
        FileState(path, kind, _state(code, vectors, waiting), passages, vectors, code, reason)
        for path, kind, code, reason, passages, vectors, waiting in rows
    ]


def _state(code: str | None, vectors: int, waiting: int) -> State:
    if code is not None:
        return "skipped"
    if waiting:
        return "waiting"
    return "meaning" if vectors else "words"
