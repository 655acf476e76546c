"""The engine's writer: one thread that indexes, watches and forgets, and tells how far it is.

An indexing run may take hours. What a person asks for meanwhile (forget this, know that) interrupts it at its next
step, is done, and the run goes on: stopping a run loses nothing.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

from kogata.app.serve.messages import Progress
from kogata.ask.indexing.report import Report
from kogata.ask.indexing.watch import watch
from kogata.errors import KogataError, LockedError

if TYPE_CHECKING:
    from kogata.ask.index import Index
    from kogata.ask.indexing.report import ProgressEvent

TELL_SECONDS = 0.2
"""Between two reports of progress within a phase."""

RETRY_SECONDS = 5.0
"""Before something that failed is tried again."""

WAIT_SECONDS = 10.0
"""How long a change that a person asked for waits for another process that writes."""

WAITS = "This server searches, and waits for its turn."
"""How an error ends that is none: another process indexes."""

T = TypeVar("T")


class _InterruptedRun(Exception):
    """Raised inside a run, from its progress callback, so that something urgent gets its turn."""


class Indexing:
    """Keeps an index current in a thread of its own.

    Args:
        index: The index.
        tell: Called with the state whenever it changes.
    """

    def __init__(self, index: Index, tell: Callable[[Progress], None]) -> None:
        self._index = index
        self._tell = tell
        self.state = Progress()
        self._told = 0.0
        self._turn = threading.Lock()
        self._urgent = 0
        self._counting = threading.Lock()
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="indexing", daemon=True)
        self._first: Callable[[], None] = lambda: None

    def start(self, first: Callable[[], None]) -> None:
        """Begin: do ``first`` (which makes folders known), bring all known folders up to date, follow changes."""
        self._first = first
        self._thread.start()

    def change(self, what: Callable[[], T]) -> T:
        """Do something that writes, at once: a run that is going on waits meanwhile.

        Raises:
            KogataError: As ``what``; LockedError after a while in which another process wrote.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        self._count(1)
        try:
            with self._turn:
                while True:
                    try:
                        return what()
                    except LockedError:
                        if time.monotonic() > deadline:
                            raise
                        time.sleep(0.2)
        finally:
            self._count(-1)

    def wake(self) -> None:
        """Look for changes now, without waiting for the system to tell of them."""
        self._wake.set()

    def close(self) -> None:
        """Stop at the next step; what is done is kept."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    # --- in the thread

    def _run(self) -> None:
        self._until_done(self._first)
        while not self._stop.is_set():
            try:
                for _ in watch(self._refresh, self._index.known, self._index.path, self._stop, self._wake):
                    pass
            except Exception as error:
                self._failed(error)

    def _refresh(self) -> Report:
        if not self._index.known():
            return Report()
        report = self._until_done(lambda: self._index.refresh(progress=self._progress)) or Report()
        self._set(replace(self.state, running=False, phase="done", runs=self.state.runs + 1))
        return report

    def _until_done(self, what: Callable[[], T]) -> T | None:
        """Do it, again if it was interrupted or failed; None where the end came first."""
        while not self._stop.is_set():
            if self._urgent:
                time.sleep(0.01)
                continue
            try:
                with self._turn:
                    done = what()
                if self.state.error:
                    self._set(replace(self.state, error=None))
                return done
            except _InterruptedRun:
                continue
            except Exception as error:
                self._failed(error)
        return None

    def _failed(self, error: Exception) -> None:
        """Say so, and wait a little: whatever it is, the indexing goes on."""
        text = str(error)
        if isinstance(error, LockedError):
            text = f"{error} {WAITS}"
        elif not isinstance(error, (KogataError, OSError)):
            text = f"{type(error).__name__}: {error}"
            if text != self.state.error:
                traceback.print_exception(error)
        self._set(replace(self.state, running=False, error=text))
        self._stop.wait(RETRY_SECONDS)

    def _count(self, more: int) -> None:
        with self._counting:
            self._urgent += more

    def _progress(self, event: ProgressEvent) -> None:
        if self._urgent or self._stop.is_set():
            raise _InterruptedRun
        now = time.monotonic()
        if event.phase != self.state.phase or now - self._told >= TELL_SECONDS:
            self._told = now
            waited = self.state.error is not None and self.state.error.endswith(WAITS)
            self._set(
                replace(
                    self.state, running=event.phase != "done", phase=event.phase, done=event.done, total=event.total,
                    bytes_done=event.bytes_done, bytes_total=event.bytes_total, path=event.path,
                    error=None if waited else self.state.error,
                )
            )  # fmt: skip

    def _set(self, state: Progress) -> None:
        self.state = state
        self._tell(state)
