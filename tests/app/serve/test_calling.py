"""Calls in what a model writes: what chat templates make of calls reads back as the same, however it is cut."""

from __future__ import annotations

import json
import runpy
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import llguidance
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kogata.app.serve.calling import CLOSE, OPEN, Calls, form_of_calls
from kogata.app.serve.parts import Called
from kogata.text.chat import ChatTemplate

TEMPLATES = runpy.run_path(str(Path(__file__).parents[2] / "text" / "chat_templates.py"))
TOOLS = ("weather", "stop")

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
calls = st.tuples(st.sampled_from(TOOLS), st.dictionaries(st.sampled_from(["city", "days", "場所"]), values))


def read(text: str, cuts: list[int]) -> tuple[str, list[tuple[str, Any]]]:
    """The text for people and the calls, of an answer that comes in pieces."""
    found = Calls(TOOLS)
    at = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    said = "".join(found.push(text[a:b]) for a, b in pairwise(at)) + found.flush()
    return said, [(call.name, json.loads(call.arguments)) for call in found.calls]


def by_definition(text: str) -> tuple[str, list[tuple[str, Any]]]:
    """The same of a whole answer: at each place where calls may begin, whether there is JSON that is some."""
    said, at = "", 0
    made: list[tuple[str, Any]] = []
    while at < len(text):
        passed = OPEN if text.startswith(OPEN, at) else text[at]
        if passed == OPEN:
            found, end = decoded(text, at + len(OPEN))
        else:
            found, end = decoded(text, at) if passed in "{[" and not said.strip() and not made else ([], 0)
        if found:
            said, made, at = said.rstrip(), made + found, end
        else:
            said, at = said + passed, at + len(passed)
    return said.rstrip() if made else said, made


def decoded(text: str, at: int) -> tuple[list[tuple[str, Any]], int]:
    """The calls that are there, and where they end."""
    try:
        value, end = json.JSONDecoder().raw_decode(text, at + len(text[at:]) - len(text[at:].lstrip(" \t\r\n")))
    except ValueError:
        return [], 0
    rest = text[end:].lstrip(" \t\r\n")
    told = [one if isinstance(one, dict) else {} for one in (value if isinstance(value, list) else [value])]
    made = [(one.get("name", ""), one.get("arguments", {})) for one in told]
    good = all(name in TOOLS and isinstance(arguments, dict) for name, arguments in made)
    ended = not rest or rest.startswith(CLOSE)
    return (made if good and ended else []), len(text) - len(rest.removeprefix(CLOSE))


def rendered(name: str, content: str, made: list[tuple[str, Any]]) -> str:
    """What the template writes for an assistant's message with these calls: what such a model was trained to write."""
    said: dict[str, Any] = {"role": "assistant", "content": content}
    said["tool_calls"] = [{"type": "function", "function": {"name": n, "arguments": a}} for n, a in made]
    whole = ChatTemplate(TEMPLATES[name]).render([{"role": "user", "content": "x"}, said], add_generation_prompt=False)
    before = {"QWEN": "</think>\n\n", "LLAMA": "<|start_header_id|>assistant<|end_header_id|>\n\n"}[name]
    return (
        whole.encode()
        .decode()
        .rpartition(before)[2]
        .removesuffix("\n")
        .removesuffix("<|im_end|>")
        .removesuffix("<|eot_id|>")
    )


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    made=st.lists(calls, min_size=1, max_size=3), cuts=st.lists(st.integers(0, 10**6), max_size=12), words=st.booleans()
)
def test_tagged_calls_read_back(made: list[tuple[str, Any]], cuts: list[int], words: bool) -> None:
    text = rendered("QWEN", "I look. <tool" if words else "", made)
    assert read(text, cuts) == ("I look. <tool" if words else "", made)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(made=calls, cuts=st.lists(st.integers(0, 10**6), max_size=12))
def test_an_answer_that_is_a_call_reads_back(made: tuple[str, Any], cuts: list[int]) -> None:
    assert read(rendered("LLAMA", "", [made]), cuts) == ("", [made])


@pytest.mark.parametrize(
    "text",
    [
        "", " \n", "Plain words.", "a <b> c\n", "{", '{"city": "Oslo"}', "[1] is a source.",
        '[{"name": "fly", "arguments": {}}]',
        '{"name": "weather", "arguments": "Oslo"}', '<tool_call>{"name": "fly", "arguments": {}}</tool_call>',
        "Now:\n<tool_call>not JSON</tool_call> and more", " <tool_call>",
        '<tool_call>{"name": "weather", "arg', "<tool_c", "[" * 5000,
        '{"name": ["weather"], "arguments": {}}', "[]", '[{"name": "weather", "arguments": {}}, 3]',
    ],
)  # fmt: skip
@pytest.mark.parametrize("cuts", [[], [1, 2, 3, 5, 8, 13, 21, 34]])
def test_what_is_no_call_stays_text(text: str, cuts: list[int]) -> None:
    assert read(text, cuts) == (text, [])


pieces = st.sampled_from(
    [
        OPEN, CLOSE, OPEN, CLOSE, '{"name": "stop"}', '[{"name": "stop"}, {"name": "weather", "arguments": {}}]',
        '{"name": "weather", "arguments": {"city": "', '"}}', '{"name": "fly"}', "[]", "{", "}", "[", "]", '"', "\\",
        '\\"', "</tool", "<tool", "call>", "_", "<", "Rain", "e", "海", " ", "\n", "\u3000", "7", ",", ":",
    ]
)  # fmt: skip
cuts = st.lists(st.integers(0, 10**6), max_size=12) | st.just(list(range(400)))


@settings(max_examples=1000, deadline=None)
@given(st.lists(pieces, max_size=24).map("".join), cuts)
def test_any_answer_is_read_as_defined_however_it_is_cut(text: str, cuts: list[int]) -> None:
    assert read(text, cuts) == by_definition(text), text


@pytest.mark.parametrize(
    ("text", "said", "made"),
    [
        ('<tool_call>{"name": "weather", "arguments": {"city": "a </tool_call> b"}}</tool_call> c', " c",
         [("weather", {"city": "a </tool_call> b"})]),
        ('<tool_call>{"name": "weather", "arguments": {"city": "\\"</tool_call>\\\\"}}</tool_call>', "",
         [("weather", {"city": '"</tool_call>\\'})]),
        ('{"name": "weather", "arguments": {"city": "<tool_call>{}</tool_call>"}}', "",
         [("weather", {"city": "<tool_call>{}</tool_call>"})]),
        ('Now: <tool_call>{"name": "stop</tool_call> 6" <tool_call>{"name": "stop"}</tool_call>\nThen',
         'Now: <tool_call>{"name": "stop</tool_call> 6"\nThen', [("stop", {})]),
        ('<tool_call>\n<tool_call>\n{"name": "stop"}\n</tool_call>', "<tool_call>", [("stop", {})]),
        ('{rain} <tool_call>{"name": "stop"}', "{rain}", [("stop", {})]),
        ('{"name": "stop"}</tool_call>', "", [("stop", {})]),
        ('<tool_call>{"name": "fly"}</tool_call> <tool_call>{"name": "stop"}</tool_call>',
         '<tool_call>{"name": "fly"}</tool_call>', [("stop", {})]),
    ],
)  # fmt: skip
def test_an_end_tag_in_a_string_is_none_and_a_broken_call_takes_no_other_along(
    text: str, said: str, made: list[tuple[str, Any]]
) -> None:
    for cuts in ([], list(range(len(text)))):
        assert read(text, cuts) == (said, made)


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "stop", "arguments": {"why": "' + "x" * 200_000 + '"}}</tool_call>',
        '{"name": "stop", "arguments": {"why": "' + "<tool_call>" * 20_000 + '"}}',
        "a" + " " * 200_000, "<tool_call>" * 20_000, '<tool_call>{"\\"' * 15_000, '<tool_call>{"' * 15_000,
        '<tool_call>{"</tool_call>' * 8_000, "[" * 200_000,
    ],
    ids=lambda text: text[:24],
)  # fmt: skip
def test_the_time_is_proportional_to_the_length(text: str) -> None:
    """Of answers that come one character at a time: none of it is read anew with each."""
    began = time.process_time()
    said, made = read(text, list(range(len(text))))
    seconds = time.process_time() - began
    assert (said == text) == (not made), (said[:100], len(said), len(made))
    assert seconds < 5, seconds


def test_text_is_passed_on_at_once_and_a_call_in_the_middle_is_taken_out() -> None:
    found = Calls(TOOLS)
    assert found.push("It will rain") == "It will rain"
    assert found.push(", I think. <tool_") == ", I think."
    assert found.push('call>{"name": "stop"}</tool_call>\nThen') == "\nThen"
    assert found.calls == [Called("stop", "{}")]
    assert found.push(" <tool_call>") + found.push('{"name": "stop", "arguments": {}}') + found.flush() == ""
    assert found.calls == [Called("stop", "{}")] * 2


@pytest.mark.parametrize("text", ["[1] is a source.", "{x} is a set.", "A <tool_call> tag", "<tool_call>{1} is none."])
def test_what_can_be_no_call_is_passed_on_before_the_end(text: str) -> None:
    assert Calls(TOOLS).push(text) == text


NODE = {
    "type": "object", "properties": {"next": {"$ref": "#"}, "label": {"$ref": "#/$defs/label"}},
    "additionalProperties": False, "$defs": {"label": {"type": "integer"}},
}  # fmt: skip
WORD = {
    "type": "object", "properties": {"label": {"$ref": "#/$defs/label"}, "near": {"$ref": "#/definitions/near"}},
    "required": ["label"], "additionalProperties": False, "$defs": {"label": {"enum": ["x", "y"]}},
    "definitions": {"near": {"type": "boolean"}},
}  # fmt: skip
FREE = None
SCHEMAS: dict[str, Mapping[str, Any] | None] = {"node": NODE, "word": WORD, "free": FREE}
labels = st.sampled_from([0, 7, "x", "z", None])
nodes = st.recursive(
    st.fixed_dictionaries({}, optional={"label": labels, "near": st.booleans()}),
    lambda inner: st.fixed_dictionaries({"next": inner}, optional={"label": labels, "name": st.just("node")}),
    max_leaves=3,
)


def holds(form: dict[str, Any], text: str) -> bool:
    grammar = llguidance.LLMatcher.grammar_from_json_schema(form)
    matcher = llguidance.LLMatcher(llguidance.LLTokenizer("byte"), grammar)
    assert not matcher.is_error(), matcher.get_error()
    raw = list(text.encode())
    return matcher.try_consume_tokens(raw) == len(raw) and matcher.is_accepting()


@given(st.lists(st.sampled_from(list(SCHEMAS)), min_size=1, unique=True), st.sampled_from(list(SCHEMAS)), nodes)
def test_each_tool_is_held_to_its_own_schema(offered: list[str], called: str, arguments: dict[str, Any]) -> None:
    """References begin at the tool's own schema, and what two tools define under one name stays apart."""
    tools = [{"function": {"name": name, "parameters": SCHEMAS[name]}} for name in offered]
    text = json.dumps({"name": called, "arguments": arguments})
    fits = jsonschema.Draft202012Validator(SCHEMAS[called] or {"type": "object"}).is_valid(arguments)
    expected = called in offered and fits
    assert holds(form_of_calls(tools, several=False), text) == expected, (offered, text)
    assert holds(form_of_calls(tools, several=True), f"[{text}, {text}]") == expected, (offered, text)
