"""Marked strings against the plainest way to keep marks: a list of (character, mark) pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from kogata.text.marked import Marked, is_marked, join, mark, replace, spans_of

Pairs = list[tuple[str, bool]]
letters = st.sampled_from(list("aAß<| \n"))
stretches = st.lists(st.tuples(st.text(letters, max_size=4), st.booleans()), max_size=5)
words = st.text(letters, min_size=1, max_size=2)


def made(stretches: list[tuple[str, bool]]) -> str:
    return join(Marked(text) if outside else text for text, outside in stretches)


def pairs(text: str) -> Pairs:
    outside = [False] * len(text)
    for start, end in spans_of(text):
        assert 0 <= start < end <= len(text)
        for at in range(start, end):
            assert not outside[at]
            outside[at] = True
    return list(zip(str.__str__(text), outside, strict=True))


def written(found: Pairs) -> str:
    return "".join(letter for letter, _ in found)


@given(stretches=stretches)
def test_joining(stretches: list[tuple[str, bool]]) -> None:
    expected = [(letter, outside) for text, outside in stretches for letter in text]
    text = made(stretches)
    assert pairs(text) == expected
    assert [pairs(letter)[0] for letter in text] == expected
    assert (type(text) is str) == (not any(outside for _, outside in expected))
    assert str(text) is text
    assert hash(text) == hash(written(expected))


@given(stretches=stretches, start=st.integers(-9, 9) | st.none(), stop=st.integers(-9, 9) | st.none())
def test_slices(stretches: list[tuple[str, bool]], start: int | None, stop: int | None) -> None:
    text = made(stretches)
    assert pairs(text[start:stop]) == pairs(text)[start:stop]
    for at in range(-len(text), len(text)):
        assert pairs(text[at]) == [pairs(text)[at]]
    assert text[::-1] == written(pairs(text)[::-1])
    assert list(map(pairs, reversed(text))) == [[pair] for pair in pairs(text)[::-1]]


def stripped(found: Pairs, chars: str | None, left: bool, right: bool) -> Pairs:
    found = list(found)
    goes: Callable[[str], bool] = (lambda letter: letter.isspace()) if chars is None else chars.__contains__
    while left and found and goes(found[0][0]):
        found.pop(0)
    while right and found and goes(found[-1][0]):
        found.pop()
    return found


@given(stretches=stretches, chars=st.none() | words)
def test_stripping(stretches: list[tuple[str, bool]], chars: str | None) -> None:
    text = made(stretches)
    assert pairs(text.strip(chars)) == stripped(pairs(text), chars, True, True)
    assert pairs(text.lstrip(chars)) == stripped(pairs(text), chars, True, False)
    assert pairs(text.rstrip(chars)) == stripped(pairs(text), chars, False, True)


@given(stretches=stretches, sep=words, most=st.integers(-1, 3), other=stretches)
@example(stretches=[("a<", True), ("|a", False)], sep="<|", most=-1, other=[("A", True), ("B", False)])
def test_cutting_and_replacing(stretches: list[tuple[str, bool]], sep: str, most: int, other: Any) -> None:
    text, new = made(stretches), made(other)
    expected: list[Pairs] = []
    rest = pairs(text)
    while (at := written(rest).find(sep)) >= 0 and (most < 0 or len(expected) < most):
        expected.append(rest[:at])
        rest = rest[at + len(sep) :]
    expected.append(rest)
    assert list(map(pairs, text.split(sep, most))) == expected
    between = pairs(new)
    joined = [pair for part in expected for pair in [*between, *part]][len(between) :]
    assert pairs(replace(text, sep, new, most)) == joined
    assert [pair for part in text.partition(sep) for pair in pairs(part)] == pairs(text)
    assert [pair for part in text.rpartition(sep) for pair in pairs(part)] == pairs(text)
    assert [str.__str__(part) for part in text.rsplit(sep, most)] == str.__str__(text).rsplit(sep, most)
    assert pairs(text.removeprefix(sep)) == (pairs(text)[len(sep) :] if text.startswith(sep) else pairs(text))
    assert pairs(text.removesuffix(sep)) == (pairs(text)[: -len(sep)] if text.endswith(sep) else pairs(text))


@given(one=stretches, two=stretches)
def test_adding(one: list[tuple[str, bool]], two: list[tuple[str, bool]]) -> None:
    a, b = made(one), made(two)
    assert pairs(a + b) == pairs(a) + pairs(b)
    assert pairs(a * 3) == pairs(3 * a) == pairs(a) * 3
    if a and isinstance(b, Marked):
        assert pairs(b.join([a, a])) == pairs(a) + pairs(b) + pairs(a)


@given(stretches=stretches)
def test_nothing_loses_its_marks(stretches: list[tuple[str, bool]]) -> None:
    """Every method of strings that gives strings: those not made for it mark the whole."""
    text = made([*stretches, ("x", True)])
    arguments: dict[str, tuple[Any, ...]] = {
        "center": (99,), "encode": (), "expandtabs": (), "format_map": ({},), "join": (["a", "b"],), "ljust": (99,),
        "partition": ("a",), "removeprefix": ("a",), "removesuffix": ("a",), "replace": ("x", "y" + text),
        "rjust": (99,), "rpartition": ("a",), "translate": ({97: "b"},), "zfill": (99,), "__mod__": ((),),
        "__format__": ("",), "__getitem__": (-1,), "__mul__": (2,), "__rmul__": (2,), "__add__": ("y",),
        "__rmod__": ("a%s",),
    }  # fmt: skip
    others = {"__class__", "__dir__", "__doc__", "__getnewargs__", "__new__", "__repr__", "maketrans"}
    for name in set(dir(str)) - others:
        try:
            found = getattr(text, name)(*arguments.get(name, ()))
        except (TypeError, ValueError, IndexError, KeyError):
            continue
        for value in found if isinstance(found, (list, tuple)) else [found]:
            if isinstance(value, str) and "x" in value.lower():
                assert is_marked(value), name
    assert is_marked(text.upper())
    assert str(text.lower()) == str.__str__(text).lower()
    same_size = text.replace("ß", "s")
    assert spans_of(same_size.upper()) == spans_of(same_size)


def test_values_inside_values() -> None:
    value = {"a": ["b", ("c", 1, None)], "d": True}
    assert not is_marked(value)
    marked = mark(value)
    assert marked == value
    assert all(is_marked(part) for part in (marked, *marked, marked["a"][0], marked["a"][1]))
    assert not is_marked([1, 2.5, None, {}, (), ""])


def test_marks_cost_linear_time() -> None:
    pieces = 20_000
    text = join([Marked("a"), "<"] * pieces)
    assert len(text.split("<")) == pieces + 1
    assert sum(map(is_marked, text)) == pieces
    assert len(spans_of(text.replace("<", "||"))) == pieces
