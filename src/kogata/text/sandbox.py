"""Jinja templates that nobody here wrote, over text that nobody here wrote: bounded, and with marks on the text.

Jinja's sandbox keeps a template away from Python's insides, but not from memory and time. Here every operation that
makes something or runs Python passes a :class:`~kogata.text.gate.Gate`: operators, calls, filters, literals, slices,
each printed piece, each turn of a loop, each call of a macro. It counts what is made and looks at the clock. What could
grow far beyond its operands (``*``, ``join``, ``replace``, formats, printing nested lists) is counted before it is
done. So memory is bounded by the count, and time by the clock, since no single operation is long. On the same way the
marks of :mod:`~kogata.text.marked` are kept on what came from outside. It is all plain Python: any number of threads
may render at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from string import Formatter
from typing import Any

from jinja2 import Environment, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import BlockReference, Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from kogata.text.gate import Gate, GatedContext, LimitExceeded, gate_of
from kogata.text.marked import Marked, join
from kogata.text.template_filters import (
    check_format,
    percent_specs,
    printed,
    replaced,
    template_filters,
    template_tests,
    with_marks,
)

LARGEST_SOURCE = 131_072  # characters; published templates have at most some 20,000
_LARGEST_INTEGER = 1024  # bits

# Of the methods of strings and containers those that make little, or that are counted below.
_STRING_METHODS = (
    "capitalize casefold count endswith find format index isalnum isalpha isascii isdecimal isdigit islower isnumeric"
    " isspace istitle isupper join lower lstrip partition removeprefix removesuffix replace rfind rindex rpartition"
    " rsplit rstrip split splitlines startswith strip swapcase title upper"
)
_CONTAINER_METHODS = "copy count get index items keys values"


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
    context_class = GatedContext
    concat = staticmethod(join)
    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        gate = gate_of(context)
        if any(isinstance(value, int) and value.bit_length() > _LARGEST_INTEGER for value in (left, right)):
            raise LimitExceeded("it computes with a number that is too large")
        if operator == "%" and isinstance(left, str):
            check_format(gate, percent_specs(left), left, right)
        elif operator == "**" and isinstance(left, int) and left.bit_length() * abs(right) > _LARGEST_INTEGER:
            raise LimitExceeded("it computes a number that is too large")
        elif operator == "*" and not (isinstance(left, (int, float)) and isinstance(right, (int, float))):
            times = next((value for value in (left, right) if isinstance(value, int)), 1)
            gate.count(gate.count_inside(left, right) * max(times, 0))
        elif operator == "+" and isinstance(left, tuple):
            gate.count_inside(left, right)
        made = gate.made(super().call_binop(context, operator, left, right))
        # Strings that know their marks do by themselves all that text can but this.
        return with_marks(made, (left, right)) if operator == "%" else made

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        gate = gate_of(__context)
        gate.count(1)
        # The sandbox wraps "".format.
        method = getattr(__obj, "__wrapped__", __obj)
        owner = None if isinstance(method, (Macro, Undefined, type)) else getattr(method, "__self__", None)
        if isinstance(owner, str):
            if method.__name__ not in _STRING_METHODS.split():
                raise SecurityError(f"Strings have no method {method.__name__!r} here.")
            if method.__name__ == "join":
                parts: list[str] = list(*args)
                gate.count(sum(len(part) for part in parts) + len(owner) * len(parts))
                return join(parts, owner)
            if method.__name__ == "replace":
                return replaced(gate, owner, *args)
            elif method.__name__ == "format":
                specs = [spec for _, name, spec, _ in Formatter().parse(owner) if name is not None]
                check_format(gate, specs, owner, (args, kwargs))
        elif isinstance(owner, (Mapping, list, tuple)):
            if method.__name__ not in _CONTAINER_METHODS.split():
                raise SecurityError(f"Lists and dictionaries have no method {method.__name__!r} here.")
            if method.__name__ in ("count", "index"):
                gate.count_inside(owner, args)
        elif isinstance(owner, LoopContext) or isinstance(__obj, (Macro, LoopContext, BlockReference, Undefined)):
            return gate.made(super().call(__context, __obj, *args, **kwargs))
        elif not any(__obj is known for known in __self.globals.values()):
            raise SecurityError(f"{__obj!r} cannot be called here.")
        made = gate.made(super().call(__context, __obj, *args, **kwargs))
        if isinstance(owner, str) and isinstance(made, (list, tuple)):
            gate.count(sum(map(len, made)))
        passes_on = isinstance(owner, (Marked, Mapping, list, tuple)) or not isinstance(made, (str, list, tuple))
        return made if passes_on else with_marks(made, (args, kwargs))


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
        assert isinstance(context, GatedContext)
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
        finalize=printed,
        optimized=False,  # what is computed while compiling passes no gate
    )
    sandbox.filters = template_filters()
    sandbox.tests = template_tests()
    sandbox.globals = {
        "range": sandbox.globals["range"],  # the sandbox's own, at most 100,000
        "dict": _dict,
        "namespace": _Namespace,
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
    }
    return sandbox


def _dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    return dict(*args, **kwargs)


def _raise_exception(message: str) -> None:
    raise TemplateError(str(message))


def _strftime_now(format: str) -> str:
    if len(format) > 200:
        raise LimitExceeded("its time format is too long")
    return datetime.now().strftime(format)
