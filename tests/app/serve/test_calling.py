"""Calls in what a model writes: what chat templates make of calls reads back as the same, however it is cut."""

from __future__ import annotations

import json
import runpy
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import llguidance
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kogata.app.serve.calling import Calls, form_of_calls
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


def test_text_is_passed_on_at_once_and_a_call_in_the_middle_is_taken_out() -> None:
    found = Calls(TOOLS)
    assert found.push("It will rain") == "It will rain"
    assert found.push(", I think. <tool_") == ", I think."
    assert found.push('call>{"name": "stop"}</tool_call>\nThen') == "\nThen"
    assert found.calls == [Called("stop", "{}")]
    assert found.push(" <tool_call>") + found.push('{"name": "stop", "arguments": {}}') + found.flush() == ""
    assert found.calls == [Called("stop", "{}")] * 2


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


def holds(form: Mapping[str, Any], text: str) -> bool:
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
