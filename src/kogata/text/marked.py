"""Strings that know which of their characters came from outside a template.

What a person or a document says must never become a control token, whatever a template does with it: trims it, cuts it
at ``</think>``, puts pieces of it side by side. So the marks travel with the characters. Operations that move
characters about keep each one's mark; all others give strings that count as from outside as a whole.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from typing import Any, SupportsIndex

from kogata.text.tokenizer import Spans


class Marked(str):
    """A string with stretches that came from outside; made without ``spans``, all of it did."""

    __slots__ = ("spans",)
    spans: Spans

    def __new__(cls, text: object = "", spans: Spans | None = None) -> Marked:
        made = super().__new__(cls, text)
        if spans is None:
            spans = ((0, len(made)),) if made else ()
        made.spans = spans
        return made

    def __str__(self) -> str:
        return self

    def __iter__(self) -> Iterator[str]:
        outside = bytearray(len(self))
        for start, end in self.spans:
            outside[start:end] = b"\1" * (end - start)
        plain = str.__str__(self)
        return (Marked(letter, _LETTER) if marked else letter for letter, marked in zip(plain, outside, strict=True))

    def __getitem__(self, at: SupportsIndex | slice) -> str:
        found = super().__getitem__(at)
        start, _, step = (at if isinstance(at, slice) else slice(at, None)).indices(len(self))
        if step != 1:
            return Marked(found)
        inside = []
        for a, b in self.spans[bisect_right(self.spans, start, key=itemgetter(1)) :]:
            if a >= start + len(found):
                break
            inside.append((max(a - start, 0), min(b - start, len(found))))
        return _marked(found, inside)

    def __add__(self, other: str) -> str:
        return join((self, other)) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: str) -> str:
        return join((other, self)) if isinstance(other, str) else NotImplemented

    def __mul__(self, times: SupportsIndex) -> str:
        return join([self] * times.__index__())

    __rmul__ = __mul__

    def __rmod__(self, other: str) -> str:
        return Marked(str.__mod__(other, self))

    def strip(self, chars: str | None = None) -> str:
        return self.rstrip(chars).lstrip(chars)

    def lstrip(self, chars: str | None = None) -> str:
        return self[len(self) - len(super().lstrip(chars)) :]

    def rstrip(self, chars: str | None = None) -> str:
        return self[: len(super().rstrip(chars))]

    def removeprefix(self, prefix: str) -> str:
        return self[len(self) - len(super().removeprefix(prefix)) :]

    def removesuffix(self, suffix: str) -> str:
        return self[: len(super().removesuffix(suffix))]

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._cut(super().split(sep, maxsplit), sep)

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._cut(super().rsplit(sep, maxsplit), sep)

    def partition(self, sep: str) -> tuple[str, str, str]:
        before, found, after = super().partition(sep)
        return self[: len(before)], self[len(before) : len(before) + len(found)], self[len(self) - len(after) :]

    def rpartition(self, sep: str) -> tuple[str, str, str]:
        before, found, after = super().rpartition(sep)
        return self[: len(before)], self[len(before) : len(before) + len(found)], self[len(self) - len(after) :]

    def replace(self, old: str, new: str, count: SupportsIndex = -1) -> str:
        return replace(self, old, new, count)

    def join(self, parts: Iterable[str]) -> str:
        return join(parts, self)

    def _cut(self, parts: list[str], sep: str | None) -> list[str]:
        if sep is None:
            return [Marked(part) for part in parts]
        found, at = [], 0
        for part in parts:
            found.append(self[at : at + len(part)])
            at += len(part) + len(sep)
        return found


_LETTER: Spans = ((0, 1),)


def _outside(name: str) -> Callable[..., Any]:
    plain = getattr(str, name)

    def method(self: Marked, *args: Any, **kwargs: Any) -> Any:
        made = plain(self, *args, **kwargs)
        if isinstance(made, str) and len(made) == len(self) and name in _EACH_CHARACTER:
            return _marked(made, self.spans)
        return mark(made)

    method.__name__ = name
    return method


_EACH_CHARACTER = {"capitalize", "casefold", "lower", "swapcase", "title", "upper"}
_AS_A_WHOLE = {"__format__", "__mod__", "center", "expandtabs", "format", "format_map", "ljust", "rjust", "splitlines"}
for _name in _EACH_CHARACTER | _AS_A_WHOLE | {"translate", "zfill"}:
    setattr(Marked, _name, _outside(_name))


def spans_of(text: str) -> Spans:
    """Where a string came from outside."""
    return text.spans if isinstance(text, Marked) else ()


def join(parts: Iterable[str], between: str = "") -> str:
    """``between.join(parts)``, each character with its mark."""
    parts = list(parts)
    if between:
        parts = [piece for part in parts for piece in (between, part)][1:]
    spans: list[tuple[int, int]] = []
    at = 0
    for part in parts:
        spans += [(at + start, at + end) for start, end in spans_of(part)]
        at += len(part)
    return _marked("".join(parts), spans)


def replace(text: str, old: str, new: str, count: SupportsIndex = -1) -> str:
    """``text.replace(old, new, count)``, each character with its mark."""
    if old:
        return join(text.split(old, count), new)
    replaced = str.replace(text, old, new, count)
    return Marked(replaced) if isinstance(text, Marked) or isinstance(new, Marked) else replaced


def mark(value: Any) -> Any:
    """A value of strings, lists, tuples and dictionaries, all strings that have no marks yet marked as from outside."""
    match value:
        case Marked():
            return value
        case str():
            return Marked(value)
        case list():
            return [mark(item) for item in value]
        case tuple():
            return tuple(mark(item) for item in value)
        case dict():
            return {mark(key): mark(item) for key, item in value.items()}
    return value


def is_marked(value: Any) -> bool:
    """Whether anything in a value came from outside, or may have: what cannot be looked into counts so."""
    match value:
        case Marked():
            return bool(value.spans)
        case None | str() | int() | float():
            return False
        case list() | tuple():
            return any(map(is_marked, value))
        case dict():
            return any(map(is_marked, value)) or any(map(is_marked, value.values()))
    return True


def _marked(text: str, spans: Iterable[tuple[int, int]]) -> str:
    joined: list[tuple[int, int]] = []
    for start, end in spans:
        if start >= end:
            continue
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return Marked(text, tuple(joined)) if joined else str.__str__(text)
