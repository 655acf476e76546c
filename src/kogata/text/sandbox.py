"""Jinja templates that nobody here wrote, over text that nobody here wrote: bounded, and with marks on the text.

Jinja's sandbox keeps a template away from Python's insides, but not from memory and time. Here every operation that
makes something or runs Python passes a :class:`Gate`: operators, calls, filters, literals, slices, each printed piece,
each turn of a loop, each call of a macro. It counts what is made, looks at the clock, and keeps the marks of
:mod:`~kogata.text.marked` on what came from outside. What could grow far beyond its operands (``*``, ``join``,
``replace``, formats, printing nested lists) is counted before it is done. So memory is bounded by the count, and time
by the clock, since no single operation is long. It is all plain Python: any number of threads may render at once.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, MappingView, ValuesView
from datetime import datetime
from functools import cache
from string import Formatter
from typing import Any

from jinja2 import Environment, TemplateError, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.filters import FILTERS
from jinja2.parser import Parser
from jinja2.runtime import BlockReference, Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer
from markupsafe import escape

from kogata.text.marked import Marked, is_marked, join, mark, replace

LARGEST_SOURCE = 131_072  # characters; published templates have at most some 20,000
_LARGEST_INTEGER = 1024  # bits
_ITEM = 16  # what an item of a list counts, in characters

# Filters that only pass on what they are given, one item after the other.
_PASSING = {"abs", "count", "d", "default", "first", "float", "int", "items", "last", "length", "list", "map", "reject"}
_PASSING |= {"rejectattr", "reverse", "select", "selectattr"}
# Filters whose work grows with all there is inside their operands: that choose among these,
_CHOOSING = {"dictsort", "max", "min", "round", "sort", "sum", "unique", "wordcount"}
# that move characters about, marks and all,
_MOVING = {"capitalize", "join", "lower", "replace", "safe", "string", "trim", "upper"}
# and that make new text.
_MAKING = {"e", "escape", "format", "indent", "title", "tojson"}
_COMPARING = {
    "eq",
    "==",
    "equalto",
    "ne",
    "!=",
    "lt",
    "<",
    "lessthan",
    "le",
    "<=",
    "gt",
    ">",
    "greaterthan",
    "ge",
    ">=",
}
_COMPARING |= {"in"}
_STRING_METHODS = {"capitalize", "casefold", "count", "endswith", "find", "format", "index", "isalnum", "isalpha"}
_STRING_METHODS |= {"isascii", "isdecimal", "isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "join"}
_STRING_METHODS |= {"lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex"}
_STRING_METHODS |= {"rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase"}
_STRING_METHODS |= {"title", "upper"}
_CONTAINER_METHODS = {"copy", "count", "get", "index", "items", "keys", "values"}


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


class _Context(Context):
    gate: Gate

    def derived(self, locals: dict[str, Any] | None = None) -> Context:
        made = super().derived(locals)
        assert isinstance(made, _Context)
        made.gate = self.gate
        return made


class _Namespace(Namespace):
    def __repr__(self) -> str:
        return "namespace()"  # what is inside may hold the namespace itself

    def __init__(*args: Any, **kwargs: Any) -> None:  # a template's namespace may hold a `self`
        self, *rest = args
        held = dict(*rest, **kwargs)
        if any(name.startswith("_") for name in held):
            raise SecurityError("A namespace may not hold names that begin with an underscore.")
        Namespace.__init__(self, held)


class _Generation(Extension):
    """``{% generation %}`` marks what a model said, for training; here it is only its text."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _Sandbox(ImmutableSandboxedEnvironment):
    context_class = _Context
    concat = staticmethod(join)
    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        gate = _gate(context)
        if any(isinstance(value, int) and value.bit_length() > _LARGEST_INTEGER for value in (left, right)):
            raise LimitExceeded("it computes with a number that is too large")
        if operator == "%" and isinstance(left, str):
            _check_format(gate, _percent_specs(left), left, right)
        elif operator == "**" and isinstance(left, int) and left.bit_length() * abs(right) > _LARGEST_INTEGER:
            raise LimitExceeded("it computes a number that is too large")
        elif operator == "*" and not (_is_number(left) and _is_number(right)):
            times = next((value for value in (left, right) if isinstance(value, int)), 1)
            gate.count(gate.count_inside(left, right) * max(times, 0))
        elif operator == "+" and isinstance(left, tuple):
            gate.count_inside(left, right)
        made = gate.made(super().call_binop(context, operator, left, right))
        # Strings that know their marks do by themselves all that text can but this.
        return _with_marks(made, (left, right)) if operator == "%" else made

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        gate = _gate(__context)
        gate.count(1)
        # The sandbox wraps "".format.
        method = getattr(__obj, "__wrapped__", __obj)
        owner = None if isinstance(method, (Macro, Undefined, type)) else getattr(method, "__self__", None)
        if isinstance(owner, str):
            if method.__name__ not in _STRING_METHODS:
                raise SecurityError(f"Strings have no method {method.__name__!r} here.")
            if method.__name__ == "join":
                parts: list[str] = list(*args)
                gate.count(sum(len(part) for part in parts) + len(owner) * len(parts))
                return join(parts, owner)
            if method.__name__ == "replace":
                return _replace(gate, owner, *args)
            elif method.__name__ == "format":
                specs = [spec for _, name, spec, _ in Formatter().parse(owner) if name is not None]
                _check_format(gate, specs, owner, (args, kwargs))
        elif isinstance(owner, (Mapping, list, tuple)):
            if method.__name__ not in _CONTAINER_METHODS:
                raise SecurityError(f"Lists and dictionaries have no method {method.__name__!r} here.")
            if method.__name__ in ("count", "index"):
                gate.count_inside(owner, args)
        elif not (
            isinstance(owner, LoopContext)
            or isinstance(__obj, (Macro, LoopContext, BlockReference, Undefined))
            or any(__obj is known for known in __self.globals.values())
        ):
            raise SecurityError(f"{__obj!r} cannot be called here.")
        made = gate.made(super().call(__context, __obj, *args, **kwargs))
        if isinstance(owner, str):
            if not isinstance(owner, Marked):
                made = _with_marks(made, (args, kwargs))
            if isinstance(made, (list, tuple)):
                gate.count(sum(map(len, made)))
        return made


class _Gated(NodeTransformer):
    """Leads every operation that Jinja does by itself past the gate too."""

    def visit_Output(self, node: nodes.Output) -> nodes.Node:
        node = self.generic_visit(node)  # type: ignore[assignment]
        # What is printed passes `finalize`, except for the template's own text.
        node.nodes = [
            nodes.Const(part.data, lineno=part.lineno) if isinstance(part, nodes.TemplateData) else part
            for part in node.nodes
        ]
        return node

    def _counted_body(self, node: Any) -> nodes.Node:
        node = self.generic_visit(node)
        node.body.insert(0, nodes.Output([nodes.Const("")], lineno=node.lineno))
        return node  # type: ignore[no-any-return]

    visit_For = visit_Macro = visit_CallBlock = _counted_body

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        parts = nodes.List(self.generic_visit(node).nodes, lineno=node.lineno)  # type: ignore[attr-defined]
        return _filtered(parts, "join")

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        node = self.generic_visit(node)  # type: ignore[assignment]
        for operand in node.ops:
            operand.expr = _filtered(operand.expr, " compared")
        node.expr = _filtered(node.expr, " compared")
        return node

    def _literal(self, node: Any) -> nodes.Node:
        node = self.generic_visit(node)
        return node if getattr(node, "ctx", "load") != "load" else _filtered(node, " kept")

    visit_List = visit_Tuple = visit_Dict = _literal

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        node = self.generic_visit(node)  # type: ignore[assignment]
        return _filtered(node, " cut") if isinstance(node.arg, nodes.Slice) else node

    def visit_ScopedEvalContextModifier(self, node: nodes.Node) -> nodes.Node:
        raise TemplateError("autoescape is not available")

    visit_EvalContextModifier = visit_ScopedEvalContextModifier

    def visit_Include(self, node: nodes.Node) -> nodes.Node:
        raise TemplateError("it needs other templates")

    visit_Import = visit_FromImport = visit_Extends = visit_Include


def _filtered(node: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def compile_template(source: str) -> Callable[[Mapping[str, Any], Gate], str]:
    """A function that renders the template with variables, within a gate.

    Raises:
        jinja2.TemplateError: It is no template.
        SyntaxError, RecursionError, MemoryError, ValueError: It is one that Python cannot compile.
    """
    sandbox = _sandbox()
    tree = _Gated().visit(sandbox.parse(source))
    template = sandbox.template_class.from_code(sandbox, sandbox.compile(tree), sandbox.make_globals(None))

    def render(variables: Mapping[str, Any], gate: Gate) -> str:
        context = template.new_context(dict(variables))
        assert isinstance(context, _Context)
        context.gate = gate
        return join(template.root_render_func(context))

    return render


@cache
def _sandbox() -> Environment:
    # As transformers sets it up: published templates count on it.
    sandbox = _Sandbox(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols", _Generation],
        finalize=_printed,
        optimized=False,  # what is computed while compiling passes no gate
    )
    ours: dict[str, Callable[..., Any]] = {
        "e": _escape,
        "escape": _escape,
        "format": _format,
        "indent": _indent,
        "join": _join,
        "replace": _replace,
        "round": _round,
        "safe": lambda text: text,  # nothing is ever escaped
        "sum": _sum,
        "tojson": _tojson,
    }
    sandbox.filters = {
        **{name: _gated(FILTERS[name], deep=False) for name in _PASSING},
        **{name: _gated(ours.get(name) or FILTERS[name]) for name in _CHOOSING},
        **{name: _gated(ours.get(name) or FILTERS[name], text=name != "join") for name in _MOVING},
        **{name: _gated(ours.get(name) or FILTERS[name], text=name != "tojson", new=True) for name in _MAKING},
        # No template can name these.
        " compared": _compared,
        " cut": pass_context(lambda context, value: _gate(context).made(value)),
        " kept": _kept,
    }
    sandbox.tests |= {name: _gated(TESTS[name]) for name in _COMPARING}
    sandbox.globals = {
        "range": sandbox.globals["range"],  # the sandbox's own, at most 100,000
        "dict": _dict,
        "namespace": _Namespace,
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
    }
    return sandbox


def _gate(context: Context) -> Gate:
    assert isinstance(context, _Context)
    return context.gate


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
        gate = _gate(context)
        if deep:
            if isinstance(value, Iterator):
                value = list(value)
            gate.count_inside(value, args, kwargs)
        if text and not isinstance(value, str):
            value = _printed(context, value)
        passed = {"context": context, "eval_context": context.eval_ctx, "environment": context.environment}
        first = [gate] if wanted == "gate" else [passed[wanted]] if wanted else []
        made = gate.made(function(*first, value, *args, **kwargs))
        return _with_marks(made, (value, args, kwargs)) if new else made

    return gated


def _with_marks(made: Any, operands: Any) -> Any:
    return mark(made) if is_marked(operands) else made


@pass_context
def _printed(context: Context, value: Any) -> str:
    gate = _gate(context)
    if isinstance(value, str):
        gate.count(len(value) + 1)
        return value
    gate.count_inside(value)
    text = str(value)
    gate.count(len(text))
    marked: str = mark(text) if is_marked(value) else text
    return marked


@pass_context
def _compared(context: Context, value: Any) -> Any:
    if isinstance(value, (list, tuple, Mapping, MappingView)):
        _gate(context).count_inside(value)
    return value


@pass_context
def _kept(context: Context, value: Any) -> Any:
    _gate(context).count_inside(value)
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
    parts = [value if isinstance(value, str) else _printed(context, value) for value in values]
    _gate(context).count(sum(map(len, parts)) + len(d) * len(parts))
    return join(parts, d if isinstance(d, str) else str(d))


@_needs_gate
def _replace(gate: Gate, text: str, old: str, new: str, count: int | None = None) -> str:
    gate.count(len(text) + text.count(old) * len(new))
    return replace(text, old, new, -1 if count is None else count)


@_needs_gate
def _format(gate: Gate, text: str, *args: Any, **kwargs: Any) -> str:
    _check_format(gate, _percent_specs(text), text, (args, kwargs))
    formatted: str = text % (kwargs or args)
    return formatted


def _percent_specs(text: str) -> list[str | None]:
    return re.findall(r"%(?:\([^)%]*\))?([^a-zA-Z%]*)", text)


def _check_format(gate: Gate, specs: list[str | None], text: str, values: Any) -> None:
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


def _dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    return dict(*args, **kwargs)


def _raise_exception(message: str) -> None:
    raise TemplateError(str(message))


def _strftime_now(format: str) -> str:
    if len(format) > 200:
        raise LimitExceeded("its time format is too long")
    return datetime.now().strftime(format)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))
