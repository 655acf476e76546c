"""What happens between a client and the model: leaving, failing, waiting. In one process, so that steps are counted."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from kogata.app.http import written
from kogata.app.http.application import application
from kogata.app.http.context import Context
from kogata.app.http.guard import Limits, Rules
from kogata.app.serve.link import EngineGone, Parts
from kogata.app.serve.messages import Done, Writer
from kogata.app.serve.parts import Event, Piece, Reading, Taken, Usage, decode_events, encode_events
from kogata.app.serve.writing import MOST_WAITING, Writing
from kogata.errors import BadInput, Busy, KogataError

SECONDS = 30


@pytest.fixture(scope="module")
def writing() -> Iterator[Writing]:
    made = Writing(Writer("tiny", context=512), None)
    yield made
    made.close()


@pytest.fixture
def steps(writing: Writing, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each step has added in all."""
    counted: list[int] = []
    step = writing._engine.step

    def counting() -> None:
        step()
        counted.append(sum(len(answer.ids) for answer in writing._engine._running))

    monkeypatch.setattr(writing._engine, "step", counting)
    return counted


def complete(
    writing: Writing, tell: Callable[[list[Event]], None], prompts: Any = ("Once",), **sampling: Any
) -> Future[bytes]:
    return writing.complete(
        lambda body: tell(decode_events(body)), prompts=prompts, sampling={"max_tokens": 400, **sampling}, echo=False,
        prompt_logprobs=None, held=None, salt=b"",
    )  # fmt: skip


def test_what_fails_behind_a_step_ends_its_call_alone(writing: Writing, capfd: pytest.CaptureFixture[str]) -> None:
    def broken(events: list[Event]) -> None:
        if any(isinstance(event, Piece) for event in events):
            raise RuntimeError("a defect")

    bad, good = complete(writing, broken), complete(writing, lambda events: None, max_tokens=30, ignore_eos=True)
    with pytest.raises(RuntimeError, match="a defect"):
        bad.result(SECONDS)
    assert good.result(SECONDS)
    assert complete(writing, lambda events: None, max_tokens=2).result(SECONDS), "the thread lives on"
    assert writing._engine.idle
    assert "a defect" in capfd.readouterr().err


def test_a_step_that_fails_before_anything_is_in_it_ends_what_waits(
    writing: Writing, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def failing() -> None:
        raise RuntimeError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr(writing._engine, "step", failing)
        with pytest.raises(RuntimeError, match="a defect"):
            complete(writing, lambda events: None).result(SECONDS)
    assert complete(writing, lambda events: None, max_tokens=2).result(SECONDS)
    assert capfd.readouterr().err.count("Traceback") == 1


def test_who_leaves_is_dropped_before_the_next_step(writing: Writing, steps: list[int]) -> None:
    came = 0
    left_at = -1
    left = threading.Event()

    def tell(events: list[Event]) -> None:
        nonlocal came, left_at
        came += sum(event.tokens for event in events if isinstance(event, Piece))
        if came == 5 and left_at < 0:
            left_at = len(steps)
            assert future.cancel()
            left.set()

    future = complete(writing, tell, ignore_eos=True)
    assert left.wait(SECONDS)
    with pytest.raises(CancelledError):
        future.result()
    other = complete(writing, lambda events: None, max_tokens=1)  # waits until the step that was going on is over
    other.result(SECONDS)
    print(f"left in step {left_at}; {len(steps)} steps were made, the last of them for the other")
    assert len(steps) == left_at + 1
    assert came == 5
    assert writing._engine.idle


def test_who_leaves_while_the_prompt_is_read_is_dropped(writing: Writing, steps: list[int]) -> None:
    first, blocked = threading.Event(), threading.Event()

    def tell(events: list[Event]) -> None:
        if isinstance(events[0], Taken):
            first.set()
            assert blocked.wait(SECONDS)

    future = complete(writing, tell, prompts=("word " * 300,), max_tokens=100)
    assert first.wait(SECONDS)
    future.cancel()
    blocked.set()
    complete(writing, lambda events: None, max_tokens=1).result(SECONDS)
    assert len(steps) == 1
    assert writing._engine.idle


def test_a_step_that_fails_ends_what_was_in_it_and_the_next_is_fine(
    writing: Writing, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    step = writing._engine.step
    failed: list[bool] = []

    def failing() -> None:
        step()
        if not failed:
            failed.append(True)
            raise MemoryError("no memory")

    monkeypatch.setattr(writing._engine, "step", failing)
    with pytest.raises(MemoryError):
        complete(writing, lambda events: None).result(SECONDS)
    assert writing._engine.idle
    said: list[Event] = []
    complete(writing, said.extend, max_tokens=3, ignore_eos=True).result(SECONDS)
    assert sum(event.tokens for event in said if isinstance(event, Piece)) == 3
    assert "no memory" in capfd.readouterr().err


def test_the_queue_has_an_end(writing: Writing, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked, in_step = threading.Event(), threading.Event()
    step = writing._engine.step

    def waiting() -> None:
        in_step.set()
        assert blocked.wait(SECONDS)
        step()

    monkeypatch.setattr(writing._engine, "step", waiting)
    first = complete(writing, lambda events: None, max_tokens=1)
    assert in_step.wait(SECONDS)
    many = [complete(writing, lambda events: None, max_tokens=1, n=MOST_WAITING // 4) for _ in range(5)]
    blocked.set()
    done = [one.exception(SECONDS) for one in (first, *many)]
    print([type(one).__name__ for one in done])
    assert [isinstance(one, Busy) for one in done].count(True) in (1, 2)
    assert all(one is None or isinstance(one, Busy) for one in done)
    with pytest.raises(BadInput, match=str(MOST_WAITING)):
        complete(writing, lambda events: None, prompts=("a", "b"), n=MOST_WAITING)


class StandIn:
    """In place of the engine: says what a test tells it to, in its time."""

    ready, restarts = True, 0

    def __init__(self, script: list[Any]) -> None:
        self.script = script
        self.asked: dict[str, Any] = {}
        self.cancelled = False

    async def call(self, method: str) -> bytes:
        assert method == "models"
        embedder = {"id": "e", "dimensions": 4, "max_length": 8}
        return json.dumps(
            {"embedder": embedder, "writer": {"id": "w", "max_length": 64, "fingerprint": "f", "chat": True}}
        ).encode()

    def stream(self, method: str, **asked: Any) -> Parts:
        self.asked = {"method": method, **asked}

        def cancel() -> None:
            self.cancelled = True

        parts = Parts(cancel)

        async def play() -> None:
            for one in self.script:
                if isinstance(one, float):
                    await asyncio.sleep(one)
                else:
                    parts.put(encode_events([one]) if isinstance(one, Event) else one)

        self.playing = asyncio.ensure_future(play())
        return parts


END = Done(1, encode_events(Usage(3, 2, 1)))  # type: ignore[arg-type]


def asked(script: list[Any], rules: Rules | None = None, **body: Any) -> tuple[httpx.Response, StandIn]:
    link = StandIn(script)
    app = application(Context(link, Path()), rules or Rules(), lambda record: None)  # type: ignore[arg-type]
    key = {"authorization": f"Bearer {body.pop('key')}"} if "key" in body else {}

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            messages = [{"role": "user", "content": "Hi"}]
            return await client.post("/v1/chat/completions", json={"messages": messages, **body}, headers=key)

    return asyncio.run(ask()), link


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written, "COMMENT_SECONDS", 0.05)
    monkeypatch.setattr(written, "FIRST_SECONDS", 0.1)


def test_a_long_prefill_is_kept_alive_by_comments() -> None:
    script = [Taken([8192]), 0.3, Reading(512, 8192), 0.3, Piece(0, "Hello", 1, finish="stop"), END]
    answer, _ = asked(script, stream=True)
    blocks = answer.text.split("\n\n")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert blocks.count(": waiting") >= 2
    assert blocks.count(": prefill 512/8192") >= 3
    assert blocks.index(": prefill 512/8192") < next(n for n, block in enumerate(blocks) if "Hello" in block)
    assert blocks[-2:] == ["data: [DONE]", ""]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status"),
    [(BadInput("Too long."), 400), (Busy("Many wait."), 429), (EngineGone("Gone."), 503)],
)
def test_what_fails_before_the_first_text_is_an_ordinary_error(stream: bool, error: KogataError, status: int) -> None:
    answer, _ = asked([Taken([3]), error], stream=stream)
    assert (answer.status_code, "retry-after" in answer.headers) == (status, status != 400)
    assert answer.json()["error"]["message"] == str(error)


def test_what_fails_later_ends_the_stream_with_an_error() -> None:
    answer, _ = asked([Taken([3]), Piece(0, "Hel", 1), 0.02, EngineGone("Gone.")], stream=True)
    assert answer.status_code == 200
    last = answer.text.split("\n\n")[-2]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "engine_unavailable"
    assert "[DONE]" not in answer.text


@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_that_falls_silent_is_given_up(stream: bool) -> None:
    rules = Rules(limits=replace(Limits(), silence=0.2))
    answer, link = asked([Taken([3]), 5.0, END], rules, stream=stream)
    assert "timeout" in answer.text
    assert answer.status_code == (200 if stream else 504)
    assert link.cancelled


def test_an_answer_may_take_longer_than_others() -> None:
    rules = Rules(limits=replace(Limits(), seconds=0.1, silence=0.3))
    answer, _ = asked([Taken([3]), *[0.1, Reading(1, 3)] * 4, Piece(0, "Hi", 1, finish="stop"), END], rules)
    assert (answer.status_code, answer.json()["choices"][0]["message"]["content"]) == (200, "Hi")
    assert answer.json()["usage"]["prompt_tokens_details"] == {"cached_tokens": 2}


def test_two_keys_share_no_prefix() -> None:
    rules = Rules(keys=frozenset({"first-key", "second-key"}))
    script = [Taken([3]), Piece(0, "Hi", 1, finish="stop"), END]
    salts = [asked(script, rules, key=key)[1].asked["salt"] for key in ("first-key", "second-key", "first-key")]
    assert salts[0] == salts[2] != salts[1]
    assert all(len(salt) == 32 for salt in salts)
    assert asked(script)[1].asked["salt"] == b""
