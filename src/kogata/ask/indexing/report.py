"""What an indexing run tells while it runs and when it is done."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from kogata.ask.store.schema import shown
from kogata.ask.store.status import SkippedFile

Phase = Literal["counting", "reading", "meaning", "done"]


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """How far a run is.

    Attributes:
        phase: "counting" files, "reading" them (words), computing "meaning" (vectors), "done".
        done: Files (counting, reading) or passages (meaning) so far.
        total: Of how many; 0 while counting.
        bytes_done: Bytes of the files read so far (reading).
        bytes_total: Of how many.
        path: The file just finished, for display.
    """

    phase: Phase
    done: int
    total: int
    bytes_done: int = 0
    bytes_total: int = 0
    path: str = ""


Progress = Callable[[ProgressEvent], None]


@dataclass(frozen=True, slots=True)
class Report:
    """What a run did.

    Attributes:
        added, changed, moved, removed, unchanged: Numbers of documents.
        skipped: Files under the folders of this run that are not searchable, old and new ones.
        missing: Folders that were not there; what was indexed from them is kept.
        empty: Folders in which there was nothing to index.
        left_out: How many files and folders were left out on purpose, by reason (see FolderStatus).
        chunks: Passages read in this run.
        embedded: Vectors computed in this run.
        words_only: Passages of this run that the embedder's tokenizer does not cover.
        waiting: Vectors still to be computed (0 unless the run was cut short).
        seconds: Wall time by stage.
    """

    added: int = 0
    changed: int = 0
    moved: int = 0
    removed: int = 0
    unchanged: int = 0
    skipped: tuple[SkippedFile, ...] = ()
    missing: tuple[bytes, ...] = ()
    empty: tuple[bytes, ...] = ()
    left_out: dict[str, int] = field(default_factory=dict)
    chunks: int = 0
    embedded: int = 0
    words_only: int = 0
    waiting: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def skipped_by_code(self) -> dict[str, int]:
        """How many files were skipped for each reason, most frequent first."""
        return dict(Counter(file.code for file in self.skipped).most_common())

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "added": self.added, "changed": self.changed, "moved": self.moved, "removed": self.removed,
            "unchanged": self.unchanged, "skipped": [file.to_dict() for file in self.skipped],
            "skipped_by_code": self.skipped_by_code, "missing": [shown(path) for path in self.missing],
            "empty": [shown(path) for path in self.empty], "left_out": self.left_out, "chunks": self.chunks,
            "embedded": self.embedded, "words_only": self.words_only, "waiting": self.waiting,
            "seconds": {stage: round(seconds, 3) for stage, seconds in self.seconds.items()},
        }  # fmt: skip


class Stopwatch:
    """Wall time by stage. A stage inside another counts for itself only, so that the times add up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner = [0.0]  # time of finished inner stages, for each open stage and the outside

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        self._inner.append(0.0)
        try:
            yield
        finally:
            whole = time.perf_counter() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + whole - self._inner.pop()
            self._inner[-1] += whole
