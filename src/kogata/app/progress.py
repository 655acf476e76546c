"""How far something is: one line that is redrawn on a terminal, a line now and then elsewhere. On stderr."""

from __future__ import annotations

import shutil
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Protocol, Self

from kogata.app.terminal import cells, count, human_bytes, human_time

_REDRAW = 0.1  # seconds between two drawings
_SAY = 10.0  # seconds between two lines where nothing can be redrawn
_WINDOW = 30.0  # seconds the estimate looks back: files differ, so the whole run is a poor guide
_SHOW_ESTIMATE = 1.5  # seconds before there is anything to estimate from
_LONGEST_BAR = 40


class Step(Protocol):
    """How far a run is: what indexing here and the engine of a server both tell."""

    @property
    def phase(self) -> str | None: ...
    @property
    def done(self) -> int: ...
    @property
    def total(self) -> int: ...
    @property
    def bytes_done(self) -> int: ...
    @property
    def bytes_total(self) -> int: ...


class Pace:
    """How long a phase will take yet, at the pace of the last half minute."""

    def __init__(self) -> None:
        self._phase: str | None = None
        self._history: deque[tuple[float, float]] = deque()

    def seen(self, event: Step, now: float) -> None:
        """Take in how far a run is at a time, in seconds of a clock that never jumps."""
        if event.phase != self._phase:
            self._phase = event.phase
            self._history.clear()
        self._history.append((now, _share(event)))
        while self._history[0][0] < now - _WINDOW:
            self._history.popleft()

    def left(self) -> float | None:
        """Seconds left in this phase; None where that cannot be said yet."""
        if not self._history:
            return None
        (first, before), (last, now) = self._history[0], self._history[-1]
        if last - first < _SHOW_ESTIMATE or now <= before:
            return None
        return (1 - now) * (last - first) / (now - before)


class _Line:
    """A line on a terminal, or lines elsewhere; a context manager that leaves nothing half-drawn behind.

    Args:
        quiet: Say nothing unless on a terminal (for ``--json``).
        stream: Where to draw; stderr.
    """

    def __init__(self, *, quiet: bool = False, stream: IO[str] | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._redraws = self._stream.isatty()
        self._silent = quiet and not self._redraws
        self._drawn = 0.0
        self._on_screen = False
        self._pace = Pace()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    def clear(self) -> None:
        """Take the line away."""
        if self._on_screen:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._on_screen = False

    def _due(self, now: float, new: bool) -> bool:
        """Whether it is time for another drawing, or line."""
        due = new or now - self._drawn >= (_REDRAW if self._redraws else _SAY)
        if due:
            self._drawn = now
        return due

    def _put(self, line: str) -> None:
        """Draw a line, or say it."""
        if self._redraws:
            line = "\r" + line[: _columns()] + "\x1b[K"
        self._stream.write(line if self._redraws else line + "\n")
        self._stream.flush()
        self._on_screen = self._redraws


@dataclass(frozen=True)
class _Counted:
    """So much of a total, for :class:`Pace`."""

    done: int
    total: int
    phase: str | None = None
    bytes_done: int = 0
    bytes_total: int = 0


class Meter(_Line):
    """Callback with so much of a total: what is done, a bar, and the time that is left.

    Args:
        what: What is going on.
        shown: How an amount is written.
        quiet, stream: As of the other line.
    """

    def __init__(
        self, what: str, *, shown: Callable[[int], str] = "{:,}".format, quiet: bool = False,
        stream: IO[str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(quiet=quiet, stream=stream)
        self._what, self._shown = what, shown

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        event = _Counted(done, total)
        self._pace.seen(event, now)
        if self._silent or not self._due(now, new=done >= total):
            return
        left = self._pace.left()
        tail = "" if left is None else f"  {human_time(left)} left"
        line = f"{self._what}  {self._shown(done)} of {self._shown(total)}"
        room = _columns() - cells(line) - cells(tail) - 2
        if self._redraws and room >= 8:
            line += "  " + _bar(_share(event), min(room, _LONGEST_BAR))
        self._put(line + tail)


class ProgressLine(_Line):
    """Callback for :meth:`kogata.Index.add`."""

    def __init__(self, *, quiet: bool = False, stream: IO[str] | None = None) -> None:
        super().__init__(quiet=quiet, stream=stream)
        self._phase: str | None = ""
        self._words = self._meaning = 0.0
        self._files = 0

    def __call__(self, event: Step) -> None:
        if self._silent:
            return
        now = time.monotonic()
        new_phase = event.phase != self._phase
        if new_phase:
            self._phase = event.phase
        share = _share(event)
        self._pace.seen(event, now)
        if event.phase == "reading":
            self._words, self._files = share, event.total
        elif event.phase == "meaning":
            self._words, self._meaning = 1.0, share
        if event.phase == "done":
            self.clear()
        elif self._due(now, new_phase):
            self._put(self._drawing(event) if self._redraws else self._said(event, new_phase))

    def _drawing(self, event: Step) -> str:
        if event.phase == "counting":
            return f"Counting files  {event.done:,}"
        figures = f"words {self._words * 100:.0f} %  meaning {self._meaning * 100:.0f} %"
        left = self._pace.left()
        tail = "" if left is None else f"{human_time(left)} left"
        head = f"Indexing {count(self._files, 'file')}  "
        line = figures + ("  " + tail if tail else "")
        room = _columns() - cells(line) - 2
        if room - cells(head) >= 12:
            line, room = head + line, room - cells(head)
        if room >= 8:
            bar = _bar(_share(event), min(room, _LONGEST_BAR))
            line = line[: len(line) - len(tail)].rstrip() + "  " + bar + ("  " + tail if tail else "")
        return line

    def _said(self, event: Step, new_phase: bool) -> str:
        if event.phase == "counting":
            return "counting files" if new_phase else f"counting files: {event.done:,} so far"
        left = self._pace.left()
        tail = "" if left is None or new_phase else f", {human_time(left)} left"
        if event.phase == "reading":
            size = f" ({human_bytes(event.bytes_total)})" if event.bytes_total else ""
            return f"words: {event.done:,} of {count(event.total, 'file')}{size}{tail}"
        return f"meaning: {event.done:,} of {count(event.total, 'passage')}{tail}"


def _columns() -> int:
    return shutil.get_terminal_size().columns - 1  # the last one would wrap on some terminals


def _share(event: Step) -> float:
    """0 to 1; reading is counted in bytes, because one book takes as long as a thousand notes."""
    if event.phase == "reading" and event.bytes_total:
        return min(1.0, event.bytes_done / event.bytes_total)
    return min(1.0, event.done / event.total) if event.total else 0.0


def _bar(share: float, columns: int) -> str:
    halves = round(share * columns * 2)
    full, half = divmod(halves, 2)
    return "━" * full + "╸" * half + "─" * (columns - full - half)
