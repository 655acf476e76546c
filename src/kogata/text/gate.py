"""What a template may make, and until when: counted wherever it does something."""

from __future__ import annotations

import time
from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import Any

from jinja2.runtime import Context

_ITEM = 16  # what an item of a list counts, in characters


class LimitExceeded(Exception):
    """The template makes too much, or takes too long."""


class Gate:
    """What one rendering may still make, in characters, and until when.

    Args:
        room: Characters that may be made in all.
        seconds: Processor time of this thread.
    """

    def __init__(self, room: int, seconds: float) -> None:
        self._room = room
        self._end = time.thread_time() + seconds

    def count(self, made: int) -> None:
        """Counts what is made, or about to be.

        Raises:
            LimitExceeded: It is too much, or too late.
        """
        self._room -= made
        if self._room < 0:
            raise LimitExceeded("it makes too much text")
        if time.thread_time() > self._end:
            raise LimitExceeded("it takes too long")

    def count_inside(self, *values: Any) -> int:
        """Counts everything inside the values, what stands there twice twice, and returns that."""
        size = 0
        todo: list[Iterator[Any]] = [iter(values)]
        while todo:
            value = next(todo[-1], todo)
            if value is todo:
                todo.pop()
                continue
            size += _ITEM
            if isinstance(value, str):
                size += len(value)
            elif isinstance(value, int):
                size += value.bit_length() // 3
            elif isinstance(value, Mapping):
                todo.append(iter([*value, *value.values()]))
            elif isinstance(value, (list, tuple, ItemsView, KeysView, ValuesView)):
                todo.append(iter(value))
            if size > self._room:
                break
        self.count(size)
        return size

    def made(self, value: Any) -> Any:
        """Counts a value just made, but not what was there before and is only in it."""
        if isinstance(value, str):
            self.count(len(value))
        elif isinstance(value, (list, tuple, dict)):
            self.count(_ITEM * len(value))
        else:
            self.count(1)
        return value


class GatedContext(Context):
    """A template's variables, and the gate of this rendering."""

    gate: Gate

    def derived(self, locals: dict[str, Any] | None = None) -> Context:
        made = super().derived(locals)
        assert isinstance(made, GatedContext)
        made.gate = self.gate
        return made


def gate_of(context: Context) -> Gate:
    """The gate of the rendering that a context belongs to."""
    assert isinstance(context, GatedContext)
    return context.gate
