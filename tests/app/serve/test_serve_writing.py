"""Texts that a model writes, over HTTP: the same as without a server, whole and streamed, alone and in company."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
import pytest
from serve_process import Server, until

import kogata
from kogata.app.serve.messages import Writer
from kogata.app.serve.writing import Writing
from kogata.run.cache import PAGE, pool_bytes

PROMPT = "Once upon a time"
HI = [{"role": "user", "content": "What did the old man see?"}]


@pytest.fixture(scope="module")
def model() -> kogata.Model:
    return kogata.load("tiny")


@pytest.fixture
def openai(server: Server) -> Iterator[Any]:
    package = pytest.importorskip("openai")
    with package.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def metric(server: Server, name: str) -> float:
    lines = server.http.get("/metrics").text.splitlines()
    return float(next(line.split()[-1] for line in lines if line.startswith(name + " ")))


def test_chat_is_the_models(openai: Any, model: kogata.Model) -> None:
    expected = model.chat(HI, temperature=0, max_tokens=24)
    options: dict[str, Any] = {"model": "default", "messages": HI, "temperature": 0, "max_tokens": 24}
    whole = openai.chat.completions.create(**options)
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == (expected, "length")
    assert (whole.object, whole.model, whole.choices[0].message.role) == ("chat.completion", "tiny", "assistant")
    n_prompt = len(model.template.render_ids(HI, model.tokenizer))
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (n_prompt, 24)
    assert whole.usage.prompt_tokens_details.cached_tokens >= 0
    pieces = list(openai.chat.completions.create(**options, stream=True, stream_options={"include_usage": True}))
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces[:-1]) == expected
    assert pieces[0].choices[0].delta.role == "assistant"
    assert [piece.choices[0].finish_reason for piece in pieces[:-1]] == [None] * (len(pieces) - 2) + ["length"]
    assert (pieces[-1].choices, pieces[-1].usage.completion_tokens) == ([], 24)
    assert len({piece.id for piece in pieces}) == 1


def test_completions_are_the_models(openai: Any, model: kogata.Model) -> None:
    params: dict[str, Any] = {"temperature": 0.9, "top_p": 0.95, "seed": 7, "max_tokens": 20}
    expected = model.generate(PROMPT, **params)
    asked = params | {"model": "default", "prompt": PROMPT}
    assert openai.completions.create(**asked).choices[0].text == expected
    assert "".join(piece.choices[0].text for piece in openai.completions.create(**asked, stream=True)) == expected
    needle = expected[5:8]
    stopped = openai.completions.create(**asked, stop=[needle]).choices[0]
    assert (stopped.text, stopped.finish_reason) == (expected[: expected.index(needle)], "stop")
    assert len(openai.completions.create(model="tiny", prompt=PROMPT, temperature=0).choices[0].text.split()) <= 16
    extra = {"top_k": 1, "min_p": 0.1, "repetition_penalty": 1.1}
    other = openai.completions.create(**asked, extra_body=extra).choices[0].text
    assert other == model.generate(PROMPT, **params, **extra)


def test_several_prompts_and_choices_are_numbered_by_prompt(server: Server, model: kogata.Model) -> None:
    prompts = [PROMPT, "The old man"]
    body = {"prompt": prompts, "n": 2, "max_tokens": 6, "seed": 3, "stream": True}
    texts = [""] * 4
    for event in events(server.post("/v1/completions", body).text):
        for choice in event["choices"]:
            texts[choice["index"]] += choice["text"]
    whole = server.post("/v1/completions", body | {"stream": False}).json()
    assert [choice["text"] for choice in whole["choices"]] == texts
    assert [texts[0], texts[2]] == [model.generate(prompt, max_tokens=6, seed=3) for prompt in prompts]
    assert texts[0] != texts[1]
    assert whole["usage"]["prompt_tokens"] == sum(len(model.tokens(prompt)) for prompt in prompts)
    ids = [model.tokens(prompt).tolist() for prompt in prompts]
    again = server.post("/v1/completions", body | {"stream": False, "prompt": ids}).json()
    assert [choice["text"] for choice in again["choices"]] == texts


@pytest.mark.parametrize("max_tokens", [0, 1])
def test_echo_logs_the_prompt_as_evaluation_harnesses_read_it(
    server: Server, model: kogata.Model, max_tokens: int
) -> None:
    texts = ["Once upon a time there was a little girl.", "The sea was calm — 海."]
    prompts = [model.tokens(text).tolist() for text in texts]
    body = {
        "model": "tiny", "prompt": prompts, "temperature": 0, "max_tokens": max_tokens, "logprobs": 1, "seed": 1234,
        "echo": True,
    }  # fmt: skip
    answer = server.post("/v1/completions", body).json()
    for ids, choice in zip(prompts, sorted(answer["choices"], key=lambda one: one["index"]), strict=True):
        logits = model.logits(ids).astype(np.float64)
        expected = logits - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
        expected -= logits.max(1, keepdims=True)
        logged = choice["logprobs"]
        end = len(ids)
        got = np.array(logged["token_logprobs"][1:end])
        wanted = expected[np.arange(end - 1), ids[1:]]
        print("largest difference", np.abs(got - wanted).max())
        np.testing.assert_allclose(got, wanted, atol=1e-4)
        assert logged["token_logprobs"][0] is None
        assert logged["top_logprobs"][0] is None
        greedy = [top.argmax() == token for top, token in zip(expected[:-1], ids[1:], strict=True)]
        tops = zip(logged["token_logprobs"][1:end], logged["top_logprobs"][1:end], strict=True)
        assert [own == max(top.values()) for own, top in tops] == greedy
        assert [len(logged[name]) for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")] == [
            end + max_tokens
        ] * 4
        for token, begin, after in zip(
            logged["tokens"][1:], logged["text_offset"][1:], [*logged["text_offset"][2:], None], strict=True
        ):
            if not token.startswith("bytes:"):
                assert choice["text"][begin:after] == token
        assert choice["text"].startswith(model.tokenizer.decode(ids))
        assert choice["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 2 * max_tokens


def test_a_random_models_log_probabilities_are_those_of_transformers(tmp_path: Path, tiny_decoder: Any) -> None:
    import torch

    directory, oracle = tiny_decoder("llama", hidden_size=64)
    server = Server(tmp_path, "--writer", directory, "--quantize", "f32", "--kv", "f32")
    try:
        ids = np.random.default_rng(5).integers(0, 256, (3, 40)).tolist()
        body = {"prompt": ids, "echo": True, "logprobs": 20, "max_tokens": 1, "temperature": 0}
        answer = server.post("/v1/completions", body)
        assert answer.status_code == 200, answer.text
        with torch.no_grad():
            expected = torch.log_softmax(oracle(torch.tensor(ids)).logits.double(), -1).numpy()
        for n, choice in enumerate(answer.json()["choices"]):
            logged = choice["logprobs"]
            got = np.array(logged["token_logprobs"][1:])
            own = np.append(expected[n, np.arange(39), ids[n][1:]], expected[n, -1].max())
            print("largest difference", np.abs(got - own).max())
            np.testing.assert_allclose(got, own, atol=2e-5)
            top = np.array([sorted(one.values())[::-1][:10] for one in logged["top_logprobs"][1:]])
            np.testing.assert_allclose(top, np.sort(expected[n])[:, ::-1][:, :10], atol=2e-5)
        chat = server.post("/v1/chat/completions", {"messages": HI})  # it has no template
        assert (chat.status_code, "no chat template" in chat.json()["error"]["message"]) == (400, True)
    finally:
        assert server.stop() == 0


def test_chat_logs_tokens(openai: Any) -> None:
    asked: dict[str, Any] = {"model": "tiny", "messages": HI, "temperature": 0, "max_tokens": 5}
    choice = openai.chat.completions.create(**asked, logprobs=True, top_logprobs=3).choices[0]
    content = choice.logprobs.content
    assert "".join(token.token for token in content) == choice.message.content
    assert all(len(token.top_logprobs) == 3 and token.top_logprobs[0].logprob == token.logprob for token in content)
    assert all(bytes(token.bytes).decode() == token.token for token in content)
    pieces = openai.chat.completions.create(**asked, logprobs=True, top_logprobs=3, stream=True)
    logged = [token for piece in pieces if piece.choices[0].logprobs for token in piece.choices[0].logprobs.content]
    assert logged == content


def test_answers_are_held_to_a_form(openai: Any, server: Server) -> None:
    pydantic = pytest.importorskip("pydantic")
    made = pydantic.create_model("Person", age=(int, ...), kind=(Literal["cat", "dog"], ...))
    answer = openai.chat.completions.parse(
        model="tiny", messages=HI, response_format=made, temperature=1.0, seed=4, max_tokens=400
    ).choices[0]
    assert answer.finish_reason == "stop"
    assert isinstance(answer.message.parsed, made), answer.message.content
    body = {"messages": HI, "seed": 5, "max_tokens": 300, "response_format": {"type": "json_object"}}
    some = server.post("/v1/chat/completions", body).json()["choices"][0]
    assert some["finish_reason"] == "length" or isinstance(json.loads(some["message"]["content"]), dict)
    for name in ("regex", "guided_regex"):
        text = server.post("/v1/completions", {"prompt": PROMPT, name: r"[0-9]{3}-(ab|cd)", "seed": 1}).json()
        (choice,) = text["choices"]
        assert len(choice["text"]) == 6, choice
        assert choice["text"][:3].isdigit()
        assert choice["text"][3:] in ("-ab", "-cd")


def tool(name: str, **properties: Any) -> dict[str, Any]:
    parameters: dict[str, Any] = {"type": "object", "properties": properties, "required": list(properties)}
    parameters["additionalProperties"] = False  # else a model that knows nothing adds and adds
    return {"type": "function", "function": {"name": name, "description": "Does it.", "parameters": parameters}}


TOOLS = [
    tool("weather", city={"enum": ["Kyoto", "Oslo"]}, days={"$ref": "#/$defs/days"}), tool("stop"),
]  # fmt: skip
TOOLS[0]["function"]["parameters"]["$defs"] = {"days": {"type": "integer", "minimum": 1, "maximum": 9}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_tool_that_must_be_called_is_called(openai: Any, stream: bool, choice: Any) -> None:
    asked: dict[str, Any] = {
        "model": "tiny", "messages": HI, "tools": TOOLS, "tool_choice": choice, "parallel_tool_calls": False,
        "seed": 2, "max_tokens": 300,
    }  # fmt: skip
    if stream:
        with openai.chat.completions.stream(**asked) as streamed:
            answer = streamed.get_final_completion().choices[0]
    else:
        answer = openai.chat.completions.create(**asked).choices[0]
    (call,) = answer.message.tool_calls
    print(call.function.name, call.function.arguments)
    arguments = json.loads(call.function.arguments)
    if choice != "required" or call.function.name == "weather":
        assert call.function.name == "weather"
        assert arguments["city"] in ("Kyoto", "Oslo")
        assert 1 <= arguments["days"] <= 9
    assert (answer.finish_reason, call.type, bool(answer.message.content)) == ("tool_calls", "function", False)
    assert call.id.startswith("call_")
    told = {"role": "tool", "tool_call_id": call.id, "content": "Rain."}
    said = answer.message.model_dump(exclude_none=True, exclude={"parsed"})
    after = openai.chat.completions.create(model="tiny", messages=[*HI, said, told], max_tokens=2)
    assert after.choices[0].finish_reason in ("length", "stop")


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_the_model_chose_is_one(server: Server, stream: bool) -> None:
    """The tiny model has never seen a tool: the answer is held to a text with a call in it."""
    form = r'I look\.\n<tool_call>\{"name": "weather", "arguments": \{"city": "(Oslo|Kyoto)"\}\}</tool_call>'
    body = {"messages": HI, "tools": TOOLS, "regex": form, "max_tokens": 200, "seed": 1, "stream": stream}
    answer = server.post("/v1/chat/completions", body)
    if not stream:
        (choice,) = answer.json()["choices"]
        said, made = choice["message"]["content"], choice["message"]["tool_calls"]
    else:
        choices = [event["choices"][0] for event in events(answer.text)]
        said = "".join(one["delta"].get("content") or "" for one in choices)
        made = [call for one in choices for call in one["delta"].get("tool_calls", [])]
        choice = choices[-1]
    assert (said, choice["finish_reason"], len(made)) == ("I look.", "tool_calls", 1)
    assert made[0]["function"]["name"] == "weather"
    assert json.loads(made[0]["function"]["arguments"])["city"] in ("Oslo", "Kyoto")


def test_calls_of_streamed_answers_are_numbered_within_each(server: Server) -> None:
    call = r'<tool_call>\{"name": "stop", "arguments": \{"why": "a </tool_call> (b|c)"\}\}</tool_call>'
    body = {
        "messages": HI, "tools": TOOLS, "regex": f"{call}\n{call}", "max_tokens": 300, "n": 2, "seed": 1,
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    *found, last = events(server.post("/v1/chat/completions", body).text)
    assert (last["choices"], last["usage"]["completion_tokens"] > 0) == ([], True), last
    assert [event["usage"] for event in found] == [None] * len(found)
    choices = [event["choices"][0] for event in found]
    print(choices)
    made = [(one["index"], call) for one in choices for call in one["delta"].get("tool_calls", [])]
    assert sorted((index, call["index"]) for index, call in made) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert len({call["id"] for _, call in made}) == 4
    said = {json.loads(call["function"]["arguments"])["why"] for _, call in made}
    assert said <= {"a </tool_call> b", "a </tool_call> c"}, said
    assert not any(one["delta"].get("content") for one in choices)
    finishes = [(one["index"], one["finish_reason"]) for one in choices if one["finish_reason"]]
    assert sorted(finishes) == [(0, "tool_calls"), (1, "tool_calls")]


def test_a_call_that_breaks_off_is_text(server: Server) -> None:
    body = {"messages": HI, "tools": TOOLS, "tool_choice": "required", "max_tokens": 3, "seed": 1}
    (choice,) = server.post("/v1/chat/completions", body).json()["choices"]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"].startswith("[")
    assert "tool_calls" not in choice["message"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tool_choice": "required"}, "a tool, and `tools` has none"),
        ({"tool_choice": {"type": "function", "function": {"name": "fly"}}, "tools": TOOLS}, "the tool 'fly'"),
        ({"tool_choice": {"type": "function", "function": {"name": ""}}, "tools": TOOLS}, "tool_choice.function.name"),
        ({"tool_choice": "required", "tools": TOOLS, "regex": "a"}, "another form"),
        ({"tool_choice": "perhaps", "tools": TOOLS}, "perhaps"),
        ({"tool_choice": "none", "tools": [*TOOLS, tool("b"), tool("c"), tool("b")]}, "Two `tools` have the name 'b'."),
        ({"tool_choice": "required", "tools": [tool("a", b={"type": "colour"})]}, "colour"),
    ],
)
def test_tools_that_are_not_accepted(server: Server, change: Any, says: str) -> None:
    answer = server.post("/v1/chat/completions", {"messages": HI, **change})
    assert (answer.status_code, says in answer.json()["error"]["message"]) == (400, True), answer.text


@pytest.mark.parametrize("choice", ["none", "auto", "required"])
@pytest.mark.parametrize(
    "schema", [True, False, [], "object", 3, {"type": "string"}, {"type": ["object", "null"]}, {"type": None}], ids=repr
)
def test_arguments_that_are_no_object_are_refused(server: Server, choice: str, schema: Any) -> None:
    odd = {"type": "function", "function": {"name": "odd", "parameters": schema}}
    answer = server.post("/v1/chat/completions", {"messages": HI, "tools": [*TOOLS, odd], "tool_choice": choice})
    assert answer.status_code == 400, answer.text
    message = answer.json()["error"]["message"]
    assert message == "`parameters` of the tool 'odd' must be a JSON schema of the type `object`."


@pytest.mark.parametrize(
    "schema",
    [
        {"additionalProperties": False}, {"properties": {"a": {"const": 1}}, "additionalProperties": False},
        {"$ref": "#/$defs/a", "$defs": {"a": {"properties": {"a": {"const": 1}}, "additionalProperties": False}}},
        {"anyOf": [{"maxProperties": 0}, {"enum": [3, {}]}]},
    ],
    ids=repr,
)  # fmt: skip
def test_arguments_of_no_type_are_an_object(server: Server, schema: Any) -> None:
    name = 'an "odd" </tool_call>'
    tools = [{"type": "function", "function": {"name": name, "parameters": schema}}]
    body = {"messages": HI, "tools": tools, "tool_choice": "required", "parallel_tool_calls": False, "n": 4, "seed": 1}
    choices = server.post("/v1/chat/completions", body | {"max_tokens": 200}).json()["choices"]
    print(choices)
    called = [call["function"] for choice in choices for call in choice["message"]["tool_calls"]]
    assert [(one["name"], type(json.loads(one["arguments"]))) for one in called] == [(name, dict)] * 4


def test_sixteen_at_once_are_what_each_is_alone(server: Server) -> None:
    bodies = [
        {"prompt": f"{PROMPT} there were {n} " + "very " * n, "temperature": 0, "max_tokens": 24, "logprobs": 2}
        for n in range(16)
    ]

    def ask(body: Any) -> Any:
        return httpx.post(f"{server.url}/v1/completions", json=body, timeout=60).json()["choices"]

    with ThreadPoolExecutor(16) as threads:
        together = list(threads.map(ask, bodies))
    assert together == [ask(body) for body in bodies]


def test_two_hundred_at_once_are_answered_or_told_to_come_again(server: Server) -> None:
    def ask(n: int) -> tuple[int, bool]:
        body = {"prompt": f"{PROMPT} {n}", "max_tokens": 8, "n": 2}
        answer = httpx.post(f"{server.url}/v1/completions", json=body, timeout=60)
        return answer.status_code, "retry-after" in answer.headers

    with ThreadPoolExecutor(200) as threads:
        found = list(threads.map(ask, range(200)))
    print({kind: found.count(kind) for kind in set(found)})
    assert set(found) <= {(200, False), (429, True)}
    assert found.count((200, False)) >= 64
    until(lambda: metric(server, 'kogata_answers{state="running"}') == 0, "nothing is left of them")


def test_a_client_that_leaves_takes_its_answer_along(server: Server) -> None:
    running = 'kogata_answers{state="running"}'
    body = {"prompt": PROMPT, "max_tokens": 2000, "stream": True, "ignore_eos": True}
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=30) as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith("data: ")
        assert metric(server, running) == 1
    until(lambda: metric(server, running) == 0, "its answer is dropped", 2.0)
    written = metric(server, "kogata_generated_tokens_total")
    assert written < 10_000
    began = metric(server, "kogata_first_token_seconds_count")
    assert began > 0


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"max_tokens": -1}, "max_tokens"), ({"max_tokens": 2**63}, "max_tokens"), ({"max_tokens": 2**31 - 1}, None),
        ({"max_tokens": 0}, "max_tokens"), ({"max_tokens": 1.5}, "max_tokens"), ({"temperature": -0.1}, "temperature"),
        ({"temperature": 2.1}, "temperature"), ({"top_p": 1.1}, "top_p"), ({"top_k": -2}, "top_k"),
        ({"n": 0}, "n"), ({"n": 129}, "n"), ({"n": 2, "best_of": 3}, "best_of"), ({"seed": 2**64}, "seed"),
        ({"stop": ["x"] * 100_000}, "stop"), ({"stop": [""]}, "stop[0]"), ({"stop": "x" * 2000}, "stop"),
        ({"stop_token_ids": [10**9]}, None), ({"stop_token_ids": [-1]}, "stop_token_ids[0]"),
        ({"logit_bias": {"x": 1}}, None), ({"logit_bias": {"5": 101}}, None), ({"logit_bias": {"999999": 1}}, None),
        ({"temprature": 1}, "temprature"), ({"functions": []}, "functions"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "colour"}}}}, None),
        ({"response_format": {"type": "xml"}}, "response_format.type"), ({"regex": "("}, None),
        ({"regex": "a", "guided_regex": "b"}, "response_format"), ({"regex": "(?=a)b"}, None),
        ({"model": "gpt-9"}, "model"),
    ],
)  # fmt: skip
def test_what_is_not_accepted_is_said(server: Server, path: str, change: Any, param: str | None) -> None:
    body = {"messages": HI} if "chat" in path else {"prompt": PROMPT}
    answer = server.post(path, body | change)
    error = answer.json()["error"]
    assert answer.status_code == (404 if "model" in change else 400), error
    assert error["message"]
    if param is not None:
        assert error["param"] == param, error


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/v1/completions", b'{"prompt": "a", "temperature": NaN}', "JSON"),
        ("/v1/completions", b'{"prompt": "a", "temperature": 1e999}', ""),
        ("/v1/completions", b'{"prompt": []}', "prompt"), ("/v1/completions", b'{"prompt": ""}', ""),
        ("/v1/completions", b'{"prompt": [1, "a"]}', "mixture"),
        ("/v1/completions", b'{"prompt": [99999999]}', "token"),
        ("/v1/completions", b'{"prompt": [[1], []]}', "prompt"), ("/v1/completions", b"{}", "prompt"),
        ("/v1/completions", b'{"prompt": "a", "suffix": "b"}', "suffix"),
        ("/v1/chat/completions", b'{"messages": []}', "messages"),
        ("/v1/chat/completions", b'{"messages": [{"role": "robot", "content": "a"}]}', "robot"),
        ("/v1/chat/completions", b'{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": '
         b'{"url": "http://x"}}]}]}', "image_url"),
        ("/v1/chat/completions", b'{"messages": [{"role": "user", "content": "a"}], "top_logprobs": 2}', "logprobs"),
        ("/v1/chat/completions", b'{"messages": [{"role": "user", "content": "a"}], "chat_template_kwargs": '
         + b'{"a":' * 300 + b"1" + b"}" * 300 + b"}", "deep"),
        ("/v1/chat/completions", b'{"messages": [{"role": "assistant", "tool_calls": [{"id": "1", "function": '
         b'{"name": "f", "arguments": "["}}]}]}', "arguments"),
        ("/v1/tokenize", b"{}", "text"), ("/v1/detokenize", b'{"ids": [99999999]}', "token"),
    ],
)  # fmt: skip
def test_bodies_that_are_not_accepted(server: Server, path: str, body: bytes, said: str) -> None:
    answer = server.http.post(path, content=body, headers={"content-type": "application/json"})
    if body == b'{"prompt": ""}':  # the token that begins a text is a prompt
        assert answer.status_code == 200
        return
    assert answer.status_code == 400, answer.text
    assert said in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "form",
    [
        {"regex": "((a{1,200}){1,200}){1,200}b"}, {"regex": "(a|b)*a(a|b){400}c"},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {
            "$defs": {f"d{n}": {"anyOf": [{"type": "array", "items": {"$ref": f"#/$defs/d{n - 1}"}}] * 9}
                      for n in range(1, 60)} | {"d0": {"type": "null"}}, "$ref": "#/$defs/d59"}}}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"enum": ["x" * 90_000] * 2}}}},
    ],
)  # fmt: skip
def test_forms_that_are_bombs_take_bounded_time(server: Server, form: Any) -> None:
    began = time.monotonic()
    answer = server.post("/v1/completions", {"prompt": PROMPT, "max_tokens": 8, **form})
    assert answer.status_code in (200, 400), answer.text
    assert time.monotonic() - began < 10


def test_a_prompt_beyond_the_context_is_refused_with_the_numbers(server: Server) -> None:
    answer = server.post("/v1/completions", {"prompt": "word " * 5000})
    assert answer.status_code == 400
    assert "2,048" in answer.json()["error"]["message"]


def test_what_looks_like_a_control_token_is_text(server: Server, model: kogata.Model) -> None:
    special = next(iter(model.tokenizer.special_ids))
    spelt = model.tokenizer.token_bytes(special).decode()
    plain = server.post("/v1/tokenize", {"text": spelt, "add_special_tokens": False}).json()
    assert special not in plain["ids"]
    assert "".join(plain["pieces"]) == spelt
    found = server.post("/v1/tokenize", {"messages": [{"role": "user", "content": f"a {spelt} b"}]}).json()
    other = server.post("/v1/tokenize", {"messages": [{"role": "user", "content": "a b"}]}).json()
    count = [sum(id_ in model.tokenizer.special_ids for id_ in one["ids"]) for one in (found, other)]
    assert count[0] == count[1] > 0
    assert (found["count"], found["max_length"]) == (len(found["ids"]), 2048)
    back = server.post("/v1/detokenize", {"ids": plain["ids"]}).json()
    assert back == {"text": spelt}


def test_clients_send_more_than_is_used(server: Server) -> None:
    body = {
        "messages": [
            {"role": "developer", "content": "Be short."},
            {"role": "user", "content": [{"type": "text", "text": "Hello"}], "name": "mori"},
            {"role": "assistant", "content": "Yes?", "refusal": None, "annotations": [], "audio": None,
             "function_call": None, "tool_calls": None},
            {"role": "user", "content": "Who?"},
        ],
        "store": False, "metadata": {"a": "b"}, "service_tier": "auto", "user": "u", "safety_identifier": "s",
        "prompt_cache_key": "k", "modalities": ["text"], "reasoning_effort": "low", "stop": None, "n": 1,
        "max_completion_tokens": 4, "stream_options": None, "temperature": None, "logit_bias": {"5": -100},
    }  # fmt: skip
    answer = server.post("/v1/chat/completions", body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["completion_tokens"] <= 4


def test_an_answer_is_written_from_passages_that_come_first(server: Server) -> None:
    body = {"query": "What does the tide gauge measure?", "writer": True, "max_tokens": 20}
    whole = server.post("/v1/ask", body)
    assert whole.status_code == 200, whole.text
    earlier = [{"role": "user", "content": "What is a tide?"}, {"role": "assistant", "content": "The sea rises [1]."}]
    found = events(server.post("/v1/ask", body | {"stream": True}).text)
    assert [found[0]["type"], found[-1]["type"]] == ["sources", "answer"]
    assert {event["type"] for event in found[1:-1]} <= {"text", "reading"}
    assert [passage["number"] for passage in found[0]["passages"]] == [*range(1, len(found[0]["passages"]) + 1)]
    text = "".join(event["text"] for event in found[1:-1] if event["type"] == "text")
    last = found[-1]
    assert (last["text"], last["model"], last["found"]) == (text.strip(), "tiny", True)
    print(last["text"], last["notes"], last["usage"])
    assert last["usage"]["completion_tokens"] <= 20
    assert {**whole.json(), "confidence": 0, "hits": 0} == {
        **{name: value for name, value in last.items() if name != "type"}, "confidence": 0, "hits": 0,
        "usage": whole.json()["usage"],
    }  # fmt: skip
    again = server.post("/v1/ask", body | {"earlier": earlier}).json()
    assert again["usage"]["prompt_tokens"] > last["usage"]["prompt_tokens"]
    missing = server.post("/v1/ask", body | {"stream": True, "query": "zebra quantum xylophone"}).text
    assert [event["type"] for event in events(missing)][-1] == "answer"
    assert server.post("/v1/ask", {"query": "a", "stream": True}).status_code == 400


def test_langchain(server: Server, model: kogata.Model) -> None:
    langchain = pytest.importorskip("langchain_openai")
    chat = langchain.ChatOpenAI(
        base_url=f"{server.url}/v1", api_key="none", model="default", temperature=0, max_tokens=10
    )
    expected = model.chat(HI, temperature=0, max_tokens=10)
    assert chat.invoke(HI[0]["content"]).content == expected
    assert "".join(str(piece.content) for piece in chat.stream(HI[0]["content"])) == expected


def test_llm(server: Server, tmp_path: Path) -> None:
    pytest.importorskip("llm")
    command = [sys.executable, "-m", "llm", "openai", "endpoint", f"{server.url}/v1", "--model", "tiny", "Hello"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env={"LLM_USER_PATH": str(tmp_path)}
    )
    if "No such option" in done.stderr:
        pytest.skip("this llm only lists models of an endpoint")
    assert done.returncode == 0, done.stderr


def test_without_a_writer_it_is_said_how_to_get_one(tmp_path: Path) -> None:
    server = Server(tmp_path)
    try:
        for path, body in (("/v1/chat/completions", {"messages": HI}), ("/v1/completions", {"prompt": "a"})):
            answer = server.post(path, body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
            assert "--writer" in answer.json()["error"]["message"]
        assert len(server.http.get("/v1/models").json()["data"]) == 1
    finally:
        server.stop()


def test_an_engine_that_dies_ends_its_streams_with_an_error_and_comes_back(tmp_path: Path) -> None:
    keys = ("correct horse", "battery-staple")
    server = Server(tmp_path, "--writer", "tiny", environment={"KOGATA_API_KEY": ",".join(keys)})
    try:
        body = {"prompt": PROMPT, "max_tokens": 2000, "stream": True, "ignore_eos": True}
        assert server.post("/v1/completions", body).status_code == 401
        server.http.headers["authorization"] = f"Bearer {keys[1]}"
        headers = {"authorization": f"Bearer {keys[0]}"}
        with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=30, headers=headers) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("data: ")
            os.kill(server.engine(), signal.SIGKILL)
            last = [line for line in lines if line][-1]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "engine_unavailable"
        until(lambda: server.http.get("/health").status_code == 200, "the engine is back")
        body |= {"stream": False, "max_tokens": 2}
        assert server.post("/v1/completions", body).json()["usage"]["completion_tokens"] == 2
    finally:
        server.stop()


@pytest.mark.parametrize("how", [None, signal.SIGTERM, signal.SIGKILL])
def test_two_keys_never_share_a_prefix_and_one_does(tmp_path: Path, how: signal.Signals | None) -> None:
    """Nor after a restart, where prefixes are kept on disk, whichever way the server ended."""
    keys, kept = ("first-key-of-two", "second-key-of-two"), tmp_path / "kept"
    body = {"prompt": PROMPT * 60, "max_tokens": 3, "temperature": 0}

    def started() -> Server:
        options = ("--writer", "tiny", "--cache-dir", kept)
        return Server(tmp_path, *options, environment={"KOGATA_API_KEY": ",".join(keys)})

    def asked(key: str) -> tuple[str, int]:
        server.http.headers["authorization"] = f"Bearer {key}"
        found = server.post("/v1/completions", body).json()
        return found["choices"][0]["text"], found["usage"]["prompt_tokens_details"]["cached_tokens"]

    server = started()
    try:
        first = asked(keys[0])
        if how is not None:
            if how is signal.SIGKILL:
                until(lambda: len(list(kept.glob("*.page"))) >= 2, "its first pages are kept")
            server.stop(how)
            server = started()
        others, again = asked(keys[1]), asked(keys[0])
        assert (first[1], others[1]) == (0, 0)
        assert again[1] > 64
        assert first[0] == others[0] == again[0]
    finally:
        server.stop()


def events(text: str) -> list[Any]:
    """What a stream holds, its end left out."""
    found = [line.removeprefix("data: ") for line in text.split("\n\n") if line.startswith("data: ")]
    assert found[-1] == "[DONE]"
    return [json.loads(one) for one in found[:-1]]


def test_the_longest_text_is_what_memory_holds(model: kogata.Model) -> None:
    memory = model.packed.nbytes + pool_bytes(model.packed.config, "bf16", 3)
    writing = Writing(Writer("tiny", memory=memory), None)
    try:
        assert writing.describe()["max_length"] == 3 * PAGE
    finally:
        writing.close()
