"""Which documents a search may come from."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable
from dataclasses import dataclass

from kogata.errors import BadInput


@dataclass(frozen=True, slots=True)
class Filter:
    """Which documents a search may come from; empty means all.

    Attributes:
        paths: Files or folders (absolute, relative to here, or a trailing part such as ``notes/2024``), or globs.
        kinds: Keys of :func:`kogata.ask.documents.kinds`.
    """

    paths: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.paths or self.kinds)


def matcher(where: Filter, present: set[str]) -> Callable[[bytes, str], bool]:
    """A function (path, kind) -> bool for a filter.

    Args:
        where: The filter.
        present: The kinds that are in the index, for the error message.

    Raises:
        BadInput: A kind that does not exist.
    """
    from kogata.ask.documents import kinds

    known = kinds()
    for kind in where.kinds:
        if kind not in known:
            here = ", ".join(sorted(present & set(known))) or "nothing yet"
            raise BadInput(
                f"There is no document type {kind!r}; this index holds: {here}.",
                hint="Types are: " + ", ".join(sorted(known)) + ".",
            )
    tests = [_path_test(pattern) for pattern in where.paths]

    def matches(path: bytes, kind: str) -> bool:
        if where.kinds and kind not in where.kinds:
            return False
        text = os.fsdecode(path)
        return not tests or any(test(text) for test in tests)

    return matches


def _path_test(pattern: str) -> Callable[[str], bool]:
    if not pattern:
        raise BadInput("An empty path was given as a filter.")
    if any(sign in pattern for sign in "*?["):
        # A glob may match the whole path or any trailing part of it.
        found = re.compile(fnmatch.translate(pattern)).match
        tail = re.compile(fnmatch.translate("*/" + pattern.lstrip("/"))).match
        return lambda path: bool(found(path) or tail(path))
    absolute = os.path.abspath(os.path.expanduser(pattern))
    inside = absolute.rstrip("/") + "/"
    part = "/" + os.path.normpath(pattern).strip("/") + "/"
    return lambda path: path == absolute or path.startswith(inside) or part in path + "/"
