"""Forms: whatever is written within one fits it, wherever it may end; and forms that nobody should compile."""

from __future__ import annotations

import json
import re
import runpy
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kogata.errors import BadInput, ModelError
from kogata.run import grammar, trial
from kogata.run.decoder import Decoder
from kogata.run.engine import Engine
from kogata.run.grammar import Constraint, Grammars
from kogata.run.sampling import SamplingParams
from kogata.text.hf_text import HfTextTokenizer
from kogata.weights import DecoderCheckpoint, load_decoder
from kogata.weights.packed import pack_decoder

TINY = runpy.run_path(str(Path(__file__).parents[1] / "text" / "tiny_tokenizers.py"))
PADDED = 77
KINDS = {
    "gpt2": (TINY["byte_level"]("gpt2"), "<|endoftext|>"),
    "llama3": (TINY["byte_level"]("llama3"), "<|eot_id|>"),
    "qwen": (TINY["byte_level"]("qwen"), "<|im_end|>"),
    "llama2": (TINY["sentencepiece"]("llama2"), "</s>"),
    "first": (TINY["sentencepiece"]("first"), "</s>"),
    "gemma": (TINY["sentencepiece"]("gemma"), "<eos>"),
}


class Writer:
    """Writes whatever is allowed, at random."""

    def __init__(self, kind: str) -> None:
        source, end = KINDS[kind]
        self.tokenizer = HfTextTokenizer(source)
        self.vocab_size = self.tokenizer.vocab_size + PADDED
        stop = self.tokenizer.id_of(end)
        assert stop is not None
        self.stop = stop
        self.grammars = Grammars(self.tokenizer, self.vocab_size, [stop])

    def allowed(self, constraint: Constraint) -> Any:
        mask_W = np.zeros(-(-self.vocab_size // 32), np.uint32)
        constraint.fill(mask_W)
        bits_W32 = (mask_W[:, None] >> np.arange(32, dtype=np.uint32)) & 1
        return np.flatnonzero(bits_W32.reshape(-1))

    def write(self, constraint: Constraint, seed: int, most: int = 300) -> bytes | None:
        """A text, or None where it does not end."""
        draw = np.random.default_rng(seed)
        text = b""
        for _ in range(most):
            ids = self.allowed(constraint)
            assert not set(ids.tolist()) & (self.tokenizer.special_ids - {self.stop})
            assert ids.max() < self.tokenizer.vocab_size
            if self.stop in ids and (constraint.over or draw.random() < 0.3):
                return text
            ids = ids[ids != self.stop]
            if not len(ids):
                return text
            ends = [id_ for id_ in ids if self.tokenizer.token_bytes(int(id_))[:1] in b'"}]']
            id_ = int(draw.choice(ends if ends and draw.random() < 0.5 else ids))
            constraint.accept(id_)
            text += self.tokenizer.token_bytes(id_)
        return None


@pytest.fixture(scope="module")
def writers() -> dict[str, Writer]:
    return {kind: Writer(kind) for kind in KINDS}


PERSON = {
    "type": "object",
    "properties": {
        "名前": {"type": "string", "maxLength": 8},
        "kind": {"enum": ["A", "AB", "潮位", 'a"b', None, 3]},
        "age": {"type": "integer", "minimum": 3, "maximum": 1000},
        "born": {"type": "string", "format": "date"},
        "tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]{2,4}$"}, "minItems": 1, "maxItems": 3},
        "child": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
    },
    "required": ["名前", "kind", "age", "born", "tags", "child"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_tokenizer_writes_what_validates(writers: dict[str, Writer], kind: str) -> None:
    writer = writers[kind]
    constraint = writer.grammars.json_schema(PERSON)
    texts = [writer.write(constraint.fork(), seed, 600) for seed in range(8)]
    whole = [json.loads(text) for text in texts if text is not None]
    assert len(whole) >= 4
    print(kind, whole[0])
    for made in whole:
        jsonschema.Draft202012Validator(PERSON, format_checker=jsonschema.FormatChecker()).validate(made)


words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=6) | st.sampled_from(
    ["潮位", 'a"b', "c\\d", "é"]
)
bounds = st.tuples(st.integers(-1000, 1000), st.integers(1, 500)).map(lambda pair: (pair[0], pair[0] + pair[1]))
leaves = st.one_of(
    st.sampled_from([{"type": kind} for kind in ("string", "integer", "number", "boolean", "null")]),
    st.tuples(st.integers(0, 5), st.integers(0, 6)).map(
        lambda pair: {"type": "string", "minLength": pair[0], "maxLength": sum(pair)}
    ),
    st.tuples(st.sampled_from(["integer", "number"]), bounds).map(
        lambda given: {"type": given[0], "minimum": given[1][0], "exclusiveMaximum": given[1][1]}
    ),
    bounds.map(lambda pair: {"type": "number", "exclusiveMinimum": pair[0] / 8, "maximum": pair[1] / 8}),
    st.tuples(
        bounds, st.sampled_from(["minimum", "exclusiveMinimum"]), st.sampled_from(["maximum", "exclusiveMaximum"])
    ).map(lambda given: {"type": "number", given[1]: given[0][0] // 300, given[2]: given[0][1] / 300}),
    st.integers(1, 50).map(lambda n: {"type": "integer", "multipleOf": n}),
    st.lists(words | st.integers(-99, 99) | st.none() | st.booleans(), min_size=1, max_size=4).map(
        lambda values: {"enum": values}
    ),
    st.sampled_from(["date", "uuid", "ipv4", "ipv6", "email"]).map(lambda name: {"type": "string", "format": name}),
    st.sampled_from(["^a+b$", "[0-9]{2}", "^[ぁ-ん]{1,3}$", "x|yy"]).map(lambda p: {"type": "string", "pattern": p}),
    st.just({"$ref": "#/$defs/list"}),
    st.just({}),
)


def objects(given: tuple[dict[str, Any], list[bool], Any, int]) -> dict[str, Any]:
    properties, required, additional, least = given
    named = [key for key, is_required in zip(properties, required, strict=False) if is_required]
    made = {"type": "object", "properties": properties, "required": named, "additionalProperties": additional}
    return made | ({"minProperties": least} if least else {})


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    flags = st.lists(st.booleans(), min_size=4, max_size=4)
    several = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        st.tuples(st.dictionaries(words, inner, max_size=4), flags, st.booleans() | inner, st.integers(0, 2)).map(
            objects
        ),
        st.tuples(inner, st.integers(0, 2), st.integers(0, 3)).map(
            lambda given: {"type": "array", "items": given[0], "minItems": given[1], "maxItems": sum(given[1:])}
        ),
        several.map(lambda items: {"type": "array", "prefixItems": items, "items": False}),
        several.map(lambda options: {"anyOf": options}),
        several.map(lambda options: {"oneOf": options}),
        several.map(lambda parts: {"allOf": parts}),
        st.tuples(st.sampled_from(["^a", "^b.*c$", "[0-9]"]), inner).map(
            lambda given: {"type": "object", "patternProperties": {given[0]: given[1]}, "additionalProperties": False}
        ),
    )


LIST = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"$ref": "#/$defs/list"}}]}


def test_whatever_is_written_validates(writers: dict[str, Writer]) -> None:
    counts = {"valid": 0, "refused": 0, "without end": 0}

    @settings(deadline=None, max_examples=150, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
    @given(st.recursive(leaves, nested, max_leaves=7), st.integers(0, 2**31), st.sampled_from(["llama2", "llama3"]))
    def check(schema: dict[str, Any], seed: int, kind: str) -> None:
        schema = {**schema, "$defs": {"list": LIST}}
        try:
            constraint = writers[kind].grammars.json_schema(schema)
        except BadInput:
            counts["refused"] += 1  # nothing satisfies it, or it is not known whether
            return
        text = writers[kind].write(constraint, seed)
        if text is None:
            counts["without end"] += 1
            return
        jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(json.loads(text))
        counts["valid"] += 1

    with patch.object(grammar, "try_out", lambda text: None):  # these are harmless, and a process each takes time
        check()
    print(counts)
    assert counts["valid"] > counts["refused"] + counts["without end"]


PATTERNS = [r"\d{3}-[a-zé]{2,5}/x", "a\nb|c", r"(?i)yes|no", "[ぁ-ん]+", r"(?:[a-zé]+,){2}\S", '"[^"]*"', "^abc$", ""]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("kind", ["llama2", "gpt2"])
def test_whatever_is_written_matches(writers: dict[str, Writer], kind: str, pattern: str) -> None:
    constraint = writers[kind].grammars.regex(pattern)
    for seed in range(4):
        text = writers[kind].write(constraint.fork(), seed)
        print(repr(pattern), text)
        assert text is None or re.fullmatch(pattern, text.decode())
    assert writers[kind].write(writers[kind].grammars.regex(r"\d+"), 1).decode().isascii()  # type: ignore[union-attr]


def test_it_ends_where_it_may_and_nowhere_else(writers: dict[str, Writer]) -> None:
    writer = writers["qwen"]
    constraint = writer.grammars.regex("ab?")
    assert writer.stop not in writer.allowed(constraint)
    assert not constraint.over
    constraint.accept(writer.tokenizer.encode("a").item())
    assert writer.stop in writer.allowed(constraint)
    assert not constraint.over
    constraint.accept(writer.tokenizer.encode("b").item())
    assert writer.allowed(constraint).tolist() == [writer.stop]
    assert constraint.over


def test_forks_go_their_own_ways(writers: dict[str, Writer]) -> None:
    writer = writers["llama3"]
    first = writer.grammars.json_object()
    first.accept(writer.tokenizer.encode("{").item())
    other = first.fork()
    inside = writer.allowed(other).tolist()
    first.accept(writer.tokenizer.encode("}").item())
    assert first.over
    assert not other.over
    assert writer.allowed(other).tolist() == inside
    texts = [writer.write(other.fork(), 7) for _ in range(3)]
    assert texts[0] == texts[1] == texts[2]


def test_white_space_ends(writers: dict[str, Writer]) -> None:
    for kind in ("llama3", "llama2"):
        writer = writers[kind]
        constraint = writer.grammars.json_schema(PERSON)
        constraint.accept(
            next(id_ for id_ in writer.allowed(constraint) if writer.tokenizer.token_bytes(int(id_)) == b"{")
        )
        written = b""
        while blank := [id_ for id_ in writer.allowed(constraint) if writer.tokenizer.token_bytes(int(id_)).isspace()]:
            longest = max(blank, key=lambda id_: b"\n" in writer.tokenizer.token_bytes(int(id_)))
            constraint.accept(int(longest))
            written += writer.tokenizer.token_bytes(int(longest))
        print(kind, written)
        assert 1 <= len(written) <= 26


def test_a_token_that_may_not_come_is_an_error_afterwards(writers: dict[str, Writer]) -> None:
    constraint = writers["gpt2"].grammars.json_object()
    constraint.accept(writers["gpt2"].tokenizer.encode("x")[0])
    assert not constraint.over
    with pytest.raises(BadInput, match="held to its form"):
        writers["gpt2"].allowed(constraint)


def test_a_model_needs_an_end() -> None:
    with pytest.raises(ModelError, match="no token that ends"):
        Grammars(HfTextTokenizer(KINDS["gpt2"][0]), 1000, [])


def chain(n: int, step: Callable[[dict[str, str]], Any]) -> dict[str, Any]:
    rest = {str(i): step({"$ref": f"#/$defs/{i + 1}"}) for i in range(n)}
    return {"$ref": "#/$defs/0", "$defs": {**rest, str(n): {"type": "object"}}}


def merged(inner: dict[str, str]) -> dict[str, Any]:
    more = [{"properties": {name: {"minLength": 1}}} for name in ("q", "r")]
    return {"type": "object", "properties": {key: {"allOf": [inner, one]} for key, one in zip("ab", more, strict=True)}}


REFUSED: dict[str, tuple[Any, str]] = {
    "large": ({"description": "x" * 10**6}, "1,000,019 characters"),
    "deep": (json.loads('{"items":' * 150 + "{}" + "}" * 150), "151 levels deep"),
    "deepest": ([], "must be an object"),
    "number": ({"minimum": float("nan")}, "no JSON"),
    "surrogate": ({"const": "\ud800"}, "no JSON"),
    "no text": ({"$ref": "#"}, "no text can satisfy it"),
    "false": (False, "must be an object"),
    "type": ({"type": "strin"}, "Invalid type: strin"),
    "unknown": ({"uniqueItems": True}, "uniqueItems"),
    "format": ({"type": "string", "format": "colour"}, "Unknown format"),
    "file": ({"$ref": "file:///etc/passwd"}, "not present"),
    "twice": ({"type": "object", "minProperties": 3, "required": ["a"]}, "minProperties"),
    "above": ({"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}, "exclusiveMinimum cannot be"),
    "below": ({"type": "number", "exclusiveMaximum": -1, "minimum": -1.5}, "exclusiveMaximum cannot be"),
    "either": ({"oneOf": [{"minimum": 3}, {"minimum": 4}]}, "oneOf constraints are not supported"),
    "doubling": (chain(60, merged), "too complex"),
    "overlapping": (
        {"allOf": [{"type": "string", "pattern": f".*a.{{{n}}}b.*"} for n in range(1, 60)]},
        "too complex",
    ),
    "patterns": ({"patternProperties": {f"^x{n:04}$": {} for n in range(2800)}}, "too complex"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_forms_that_are_refused(writers: dict[str, Writer], name: str) -> None:
    schema, why = REFUSED[name]
    began = time.monotonic()
    with pytest.raises(BadInput, match=re.escape(why)) as refusal:
        writers["llama3"].grammars.json_schema(schema)
    print(f"{time.monotonic() - began:.2f} s", refusal.value)
    assert "\n" not in str(refusal.value)
    assert time.monotonic() - began < 10  # of them one of processor time; the machine may be busy


@pytest.mark.parametrize(
    ("pattern", "why"),
    [("(", "unclosed group"), (r"(?!a)b", "look-around"), (r"(a)\1", "backreferences"), ("x" * 10_001, "10,001"),
     ("\ud800", "surrogate"), (r"[^\s\S]", "no text can satisfy it"), ("(" * 400 + ")" * 400, "nested"),
     ("a{4294967296}", "invalid")],
)  # fmt: skip
def test_expressions_that_are_refused(writers: dict[str, Writer], pattern: str, why: str) -> None:
    with pytest.raises(BadInput, match=re.escape(why)) as refusal:
        writers["llama3"].grammars.regex(pattern)
    print(refusal.value)
    assert "\n" not in str(refusal.value)


LARGE: dict[str, Callable[[Grammars], Constraint]] = {
    "references": lambda forms: forms.json_schema(chain(2000, lambda inner: {"items": inner})),
    "properties": lambda forms: forms.json_schema({"properties": {f"k{n}": {"type": "null"} for n in range(3000)}}),
    "members": lambda forms: forms.json_schema({"enum": list(range(10_000))}),
    "repeated": lambda forms: forms.regex("((a{1000}){1000}){1000}"),
    "choices": lambda forms: forms.regex("(a|b)*a(a|b){60}"),
    "optional": lambda forms: forms.regex("((a?){100}){100}"),
    "stars": lambda forms: forms.regex("(a*)*" * 1000),
}


@pytest.mark.parametrize("name", LARGE)
def test_large_forms_are_followed_or_end_with_an_error(writers: dict[str, Writer], name: str) -> None:
    """In a thread with little stack, where a recursion that is not bounded would end the process."""
    writer = writers["llama3"]
    said: list[str] = []

    def work() -> None:
        try:
            constraint = LARGE[name](writer.grammars)
            slowest = 0.0
            for _ in range(120):
                began = time.thread_time()
                ids = writer.allowed(constraint)
                if constraint.over:
                    break
                constraint.accept(int(ids[ids != writer.stop][0]))
                slowest = max(slowest, time.thread_time() - began)
            said.append(f"slowest step {slowest * 1e3:.1f} ms")
            assert slowest < 0.5
        except BadInput as error:
            said.append(str(error))

    usual = threading.stack_size(512 << 10)
    thread = threading.Thread(target=work)
    thread.start()
    threading.stack_size(usual)
    thread.join()
    print(name, said)
    assert len(said) == 1


def test_a_form_is_tried_once() -> None:
    trial.try_out.cache_clear()
    text = json.dumps({"grammars": [{"lark_grammar": 'start: "tried"'}]})
    for _ in range(3):
        trial.try_out(text)
    assert trial.try_out.cache_info().misses == 1


def test_answers_are_held(tiny_decoder: Callable[..., tuple[Path, Any]]) -> None:
    """By the engine, a model of random weights: the same answers alone and beside others, and all of them valid."""
    directory, _ = tiny_decoder("bitnet", hidden_size=64, max_position_embeddings=512)
    checkpoint = load_decoder(directory)
    assert isinstance(checkpoint, DecoderCheckpoint)
    decoder = Decoder(pack_decoder(checkpoint))
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer", "minimum": -20, "maximum": 500}, "b": {"enum": ["x", "潮"]}},
        "required": ["a", "b"], "additionalProperties": False,
    }  # fmt: skip
    stop = max(checkpoint.tokenizer.special_ids)
    forms = Grammars(checkpoint.tokenizer, decoder.config.vocab_size, [stop])

    def texts(seeds: range, free: int) -> list[str]:
        engine = Engine(decoder, checkpoint.tokenizer, [stop], n_tokens=8192)
        held = forms.json_schema(schema)
        answers = [
            engine.submit([5, 6, 7], SamplingParams(seed=seed, max_tokens=300), constraint=held)[0] for seed in seeds
        ]
        for seed in range(free):
            engine.submit([1, 2], SamplingParams(seed=seed, max_tokens=50))
        said = dict.fromkeys(seeds, "")
        for answer, piece in engine.run(answers):
            said[answer.seed] += piece.text
        assert all(answer.finish == "stop" for answer in answers)
        return list(said.values())

    together = texts(range(6), 3)
    print(together)
    for text in together:
        jsonschema.validate(json.loads(text), schema)
    assert len(set(together)) > 1
    assert [texts(range(seed, seed + 1), 0)[0] for seed in range(6)] == together
