"""Which implementation every operation runs on: one table, native where the extension is there, else the fallback.

``KOGATA_ISA`` picks for a process: an instruction set the machine runs, or ``fallback``. Tests pick with :func:`use`.
The choice follows from the processor, never from a timing.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from types import ModuleType
from typing import Any

from kogata.errors import BadInput
from kogata.extension import extension

#: Table entry -> (folder of ops, function in its native.py and fallback.py).
_PLACES = {
    "layer_norm": ("elementwise", "layer_norm"),
    "rms_norm": ("elementwise", "rms_norm"),
    "embed": ("elementwise", "embed"),
    "pool": ("elementwise", "pool"),
    "pack": ("linear", "pack"),
    "linear": ("linear", "linear"),
    "take": ("linear", "take"),
    "encode_attention": ("attend", "encode_attention"),
    "rotate_and_write": ("attend", "rotate_and_write"),
    "attend_pages": ("attend", "attend_pages"),
    "merge": ("attend", "merge"),
    "score_topk": ("score", "topk"),
    "score_shortlist": ("score", "shortlist"),
    "sample": ("sample", "sample"),
}


@dataclass(frozen=True)
class Table:
    """One callable per operation; signatures are those of the family's native.py and fallback.py."""

    isa: str
    layer_norm: Callable[..., Any]
    rms_norm: Callable[..., Any]
    embed: Callable[..., Any]
    pool: Callable[..., Any]
    pack: Callable[..., Any]
    linear: Callable[..., Any]
    take: Callable[..., Any]
    encode_attention: Callable[..., Any]
    rotate_and_write: Callable[..., Any]
    attend_pages: Callable[..., Any]
    merge: Callable[..., Any]
    score_topk: Callable[..., Any]
    score_shortlist: Callable[..., Any]
    sample: Callable[..., Any]


_tables: dict[str, Table] = {}
_current: Table | None = None


def native_module() -> ModuleType | None:
    """The extension, or None where it was not built or cannot be loaded."""
    return extension()


def why_not_native() -> str | None:
    """Why the extension is not in use, in a sentence; None where it is."""
    if native_module() is None:
        return "the extension was not built (no C++ compiler when Kogata was installed); reinstall with one"
    if table().isa == "fallback":
        return "KOGATA_ISA is fallback"
    return None


def isas() -> list[str]:
    """What :func:`use` and ``KOGATA_ISA`` accept here, slowest first."""
    module = native_module()
    return ["fallback", *(module.supported_isas() if module is not None else [])]


def table() -> Table:
    """The table in force.

    Raises:
        BadInput: ``KOGATA_ISA`` names nothing this machine runs.
    """
    global _current
    if _current is None:
        name = os.environ.get("KOGATA_ISA") or isas()[-1]
        if name not in isas():
            raise BadInput(f"KOGATA_ISA is {name!r}; this machine runs {', '.join(isas())}.")
        _current = _select(name)
    return _current


@contextmanager
def use(name: str) -> Iterator[Table]:
    """Another table for a while, in the whole process: one of :func:`isas`, or ``native`` for the best of them.

    Raises:
        BadInput: ``name`` is none of them.
    """
    global _current
    before = table()
    chosen = isas()[-1] if name == "native" else name
    if chosen not in isas():
        raise BadInput(f"There are no kernels {name!r} here; accepted: native, {', '.join(isas())}.")
    _current = _select(chosen)
    try:
        yield _current
    finally:
        _current = _select(before.isa)


def _select(isa: str) -> Table:
    if isa != "fallback":
        module = native_module()
        assert module is not None
        module.select_isa(isa)
    if isa not in _tables:
        kind = "fallback" if isa == "fallback" else "native"
        # By name: a static import of a family from here would make every family depend on every other.
        entries = {
            entry: getattr(importlib.import_module(f"kogata.ops.{family}.{kind}"), function)
            for entry, (family, function) in _PLACES.items()
        }
        _tables[isa] = Table(isa=isa, **entries)
    return _tables[isa]


def describe() -> dict[str, dict[str, str]]:
    """For every operation, which implementation and instruction set it runs on."""
    isa = table().isa
    impl = "fallback" if isa == "fallback" else "native"
    return {field.name: {"impl": impl, "isa": isa} for field in fields(Table) if field.name != "isa"}


def bf16_dot() -> bool:
    """Whether bf16 products run on dot-product instructions (else the weights are widened, and f32 is as fast)."""
    module = native_module()
    return module is not None and table().isa != "fallback" and bool(module.bf16_dot())


def int8_dot() -> bool:
    """Whether int8 products run on dot-product instructions."""
    return table().isa in {"avxvnni", "avx512vnni", "avx512bf16", "neondot"}


class Recording:
    """What a thread calls within ``with``: it is done, and can then be repeated without the interpreter.

    Records :func:`kogata.ops.linear.linear` and ``take``, ``rms_norm``, ``rotate_and_write`` and ``attend_pages`` on
    the extension. A repetition reads and writes the same arrays, which are kept alive; what is in them may have changed
    and is checked again.
    """

    def __init__(self) -> None:
        module = native_module()
        assert module is not None
        self._calls = module.Recording()

    def __enter__(self) -> None:
        self._calls.begin()

    def __exit__(self, *raised: object) -> None:
        self._calls.end()

    def repeat(self) -> None:
        """Make all calls again.

        Raises:
            ValueError: What is in an array does not fit.
        """
        self._calls.repeat()


def threads() -> int:
    """Threads the kernels use: what affinity and the cgroup's quota allow, until :func:`set_threads`."""
    module = native_module()
    return int(module.threads()) if module is not None else 1


def set_threads(n: int) -> None:
    """Sets the kernels' threads for the whole process. The fallback leaves threads to numpy and ignores this.

    Raises:
        BadInput: ``n`` is not between 1 and 256.
    """
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= 256:
        raise BadInput(f"threads is {n!r}; it must be a whole number between 1 and 256.")
    module = native_module()
    if module is not None:
        module.set_threads(n)
