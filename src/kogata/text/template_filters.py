"""The filters and tests of chat templates, each behind the gate.

They are those of Jinja that published templates use. What could make far more than it is given counts that first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, MappingView
from typing import Any

from jinja2 import pass_context
from jinja2.filters import FILTERS
from jinja2.runtime import Context, Undefined
from jinja2.tests import TESTS
from markupsafe import escape

from kogata.text.gate import Gate, LimitExceeded, gate_of
from kogata.text.marked import is_marked, join, mark, replace

# Filters that only pass on what they are given, one item after the other.
_PASSING = "abs count d default first float int items last length list map reject rejectattr reverse select selectattr"
# Filters whose work grows with all there is inside their operands: that choose among these,
_CHOOSING = "dictsort max min round sort sum unique wordcount"
# that move characters about, marks and all,
_MOVING = "capitalize join lower replace safe string trim upper"
# and that make new text.
_MAKING = "e escape format indent title tojson"
_COMPARING = "eq == equalto ne != lt < lessthan le <= gt > greaterthan ge >= in"


def template_filters() -> dict[str, Any]:
    """All filters by their names. Those that begin with a space are for the compiler: no template can name them."""
    ours: dict[str, Callable[..., Any]] = {
        "e": _escape,
        "escape": _escape,
        "format": _format,
        "indent": _indent,
        "join": _join,
        "replace": replaced,
        "round": _round,
        "safe": lambda text: text,  # nothing is ever escaped
        "sum": _sum,
        "tojson": _tojson,
    }
    known = FILTERS | ours
    return {
        **{name: _gated(known[name], deep=False) for name in _PASSING.split()},
        **{name: _gated(known[name]) for name in _CHOOSING.split()},
        **{name: _gated(known[name], text=name != "join") for name in _MOVING.split()},
        **{name: _gated(known[name], text=name != "tojson", new=True) for name in _MAKING.split()},
        " compared": _compared,
        " cut": pass_context(lambda context, value: gate_of(context).made(value)),
        " kept": _kept,
    }


def template_tests() -> dict[str, Any]:
    """All tests by their names."""
    return TESTS | {name: _gated(TESTS[name]) for name in _COMPARING.split()}


def _gated(function: Any, *, deep: bool = True, text: bool = False, new: bool = False) -> Callable[..., Any]:
    """A filter or test behind the gate.

    Args:
        function: As Jinja knows it.
        deep: Whether to count what is inside the operands before.
        text: Whether it takes text, and anything else as it would be printed.
        new: Whether it makes new text, which has no marks yet.
    """
    wanted = getattr(getattr(function, "jinja_pass_arg", None), "name", "")

    @pass_context
    def gated(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        gate = gate_of(context)
        if deep:
            if isinstance(value, Iterator):
                value = list(value)
            gate.count_inside(value, args, kwargs)
        if text and not isinstance(value, str):
            value = printed(context, value)
        passed = {"context": context, "eval_context": context.eval_ctx, "environment": context.environment}
        first = [gate] if wanted == "gate" else [passed[wanted]] if wanted else []
        made = gate.made(function(*first, value, *args, **kwargs))
        return with_marks(made, (value, args, kwargs)) if new else made

    return gated


def with_marks(made: Any, operands: Any) -> Any:
    """What was made, marked as a whole where any operand is."""
    return mark(made) if is_marked(operands) else made


@pass_context
def printed(context: Context, value: Any) -> str:
    """A value as it is printed: of anything but text and numbers, the template cannot have written what that shows."""
    gate = gate_of(context)
    if isinstance(value, str):
        gate.count(len(value) + 1)
        return value
    gate.count_inside(value)
    text = str(value)
    gate.count(len(text))
    marked: str = text if value is None or isinstance(value, (int, float, Undefined)) else mark(text)
    return marked


@pass_context
def _compared(context: Context, value: Any) -> Any:
    if isinstance(value, (list, tuple, Mapping, MappingView)):
        gate_of(context).count_inside(value)
    return value


@pass_context
def _kept(context: Context, value: Any) -> Any:
    gate_of(context).count_inside(value)
    return value


class _PassGate:
    name = "gate"


def _needs_gate(function: Callable[..., Any]) -> Callable[..., Any]:
    function.jinja_pass_arg = _PassGate  # type: ignore[attr-defined]
    return function


@pass_context
def _join(context: Context, values: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
    values = list(values)
    if attribute is not None:
        values = [context.environment.getitem(value, attribute) for value in values]
    parts = [value if isinstance(value, str) else printed(context, value) for value in values]
    gate_of(context).count(sum(map(len, parts)) + len(d) * len(parts))
    return join(parts, d if isinstance(d, str) else str(d))


@_needs_gate
def replaced(gate: Gate, text: str, old: str, new: str, count: int | None = None) -> str:
    """``text.replace``, which may make the text as often as it has characters."""
    gate.count(len(text) + text.count(old) * len(new))
    return replace(text, old, new, -1 if count is None else count)


@_needs_gate
def _format(gate: Gate, text: str, *args: Any, **kwargs: Any) -> str:
    check_format(gate, percent_specs(text), text, (args, kwargs))
    formatted: str = text % (kwargs or args)
    return formatted


def percent_specs(text: str) -> list[str | None]:
    """The widths and precisions in a format of the old kind."""
    return re.findall(r"%(?:\([^)%]*\))?([^a-zA-Z%]*)", text)


def check_format(gate: Gate, specs: list[str | None], text: str, values: Any) -> None:
    """Counts what a format makes at most, where each of its fields may show all of the values.

    Raises:
        LimitExceeded: It is too much, or a width is of four digits or given as a value.
    """
    for spec in specs:
        if spec and (re.search(r"\d{4}|[*{]", spec)):
            raise LimitExceeded("it formats to a width that is too large")
    gate.count(len(text) + len(specs) * (1000 + 4 * gate.count_inside(values)))


@_needs_gate
def _indent(gate: Gate, text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    gate.count((1 + text.count("\n")) * (width if isinstance(width, int) else len(width)))
    indented: str = FILTERS["indent"](text, width, first, blank)
    return indented


def _round(value: float, precision: int = 0, method: str = "common") -> float:
    if not -20 <= precision <= 20:
        raise LimitExceeded("it rounds to more digits than there are")
    rounded: float = FILTERS["round"](value, precision, method)
    return rounded


def _sum(values: list[Any], attribute: str | None = None, start: float = 0) -> float:
    numbers = [value[attribute] for value in values] if attribute else values
    if not all(map(_is_number, [*numbers, start])):
        raise TypeError("sum adds numbers only")
    return sum(numbers, start)


def _escape(text: str) -> str:
    return str(escape(text))


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own escapes HTML. As in transformers, options included.
    if (indent if isinstance(indent, int) else len(indent or "")) > 16:
        raise LimitExceeded("it indents too far")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))
