"""How far a training run is, and how it is asked to stop."""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO


@contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """Tells whether Ctrl-C was pressed (or SIGTERM came): the step that runs is finished first."""
    came: list[int] = []
    former = {number: signal.signal(number, lambda n, _: came.append(n)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


class ProgressLine:
    """One line, redrawn on a terminal; a line a minute elsewhere."""

    def __init__(self, tokens: int, stream: IO[str]) -> None:
        self._tokens, self._stream = tokens, stream
        self._history: deque[tuple[float, int]] = deque(maxlen=50)
        self._loss: float | None = None
        self._said = 0.0

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream.isatty():
            self._stream.write("\n")

    def draw(self, seen: int, loss: float) -> None:
        now = time.monotonic()
        self._history.append((now, seen))
        self._loss = loss if self._loss is None else 0.95 * self._loss + 0.05 * loss
        if now - self._said < (0.2 if self._stream.isatty() else 60) or len(self._history) < 2:
            return
        self._said = now
        speed = (seen - self._history[0][1]) / (now - self._history[0][0])
        left = time.strftime("%H:%M:%S", time.gmtime((self._tokens - seen) / speed))
        line = (
            f"{seen / 1e6:.2f} of {self._tokens / 1e6:.1f} M tokens   loss {self._loss:.3f}   "
            f"{speed:,.0f} tokens/s   {left} left"
        )
        self.say(line, "\r" if self._stream.isatty() else "\n")

    def say(self, line: str, end: str = "\n") -> None:
        clear = "\r\x1b[K" if self._stream.isatty() else ""
        self._stream.write(clear + line + end)
        self._stream.flush()
