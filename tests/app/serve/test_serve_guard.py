"""Who may call, decided before any route: the guard around an application that always answers."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kogata.app.http.errors import from_kogata
from kogata.app.http.guard import Guard, Limits, Rules
from kogata.app.http.metrics import Metrics
from kogata.app.serve import command
from kogata.app.serve.command import Options
from kogata.app.serve.link import EngineFault, EngineGone
from kogata.errors import DamagedIndexError, EmbedderMismatch, KogataError, LockedError, ModelError, StoreError


class Answer:
    def __init__(self, messages: list[Any]) -> None:
        self.status: int = messages[0]["status"]
        self.headers = {name.lower().decode(): value.decode() for name, value in messages[0]["headers"]}
        self.body = b"".join(message.get("body", b"") for message in messages[1:])


def ask(
    rules: Rules, method: str = "GET", path: str = "/v1/status", body: list[bytes] | None = None, pause: float = 0.0,
    guard: Guard | None = None, **headers: str,
) -> Answer:  # fmt: skip
    """The answer to one request; the application reads its body."""
    given = {"host": "127.0.0.1:8420", **{name.replace("_", "-"): value for name, value in headers.items()}}
    pieces = list(body or [b""])
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.sleep(pause)
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": method, "path": path, "client": ("127.0.0.1", 1),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in given.items() if value],
    }  # fmt: skip
    asyncio.run((guard or Guard(_good, rules, Metrics(), lambda record: None))(scope, receive, send))
    return Answer(sent)


async def _good(scope: Any, receive: Any, send: Any) -> None:
    while (await receive())["more_body"]:
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200), ("127.0.0.1:8420", 200), ("localhost:1", 200), ("LOCALHOST", 200), ("[::1]:8420", 200),
        ("192.168.1.7:8420", 200), ("app.localhost", 200), ("box.lan", 200), ("Box.LAN:8420", 200),
        ("evil.example", 403), ("evil.example:8420", 403), ("127.0.0.1.evil.example", 403), ("localhost.evil.example",
        403),
        ("box.lan.evil.example", 403), ("", 403), ("127.0.0.1@evil.example", 403), ("evillocalhost", 403), ("[::1",
        403),
        ("127.0.0.1:8420:1", 403), ("box.lan.", 403), ("127.1", 403), ("0x7f000001", 403),
    ],
)  # fmt: skip
def test_only_known_hosts(host: str, status: int) -> None:
    assert ask(Rules(hosts=frozenset({"box.lan"})), host=host).status == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:8420", 200), ("", 200), ("https://mine.example", 200), ("http://evil.example", 403),
        ("null", 403),
        ("http://127.0.0.1:9999", 403), ("http://127.0.0.1", 403), ("http://127.0.0.1:8420.evil.example", 403),
        ("http://mine.example", 403), ("file://", 403), ("http://[", 403), ("chrome-extension://abc", 403),
    ],
)  # fmt: skip
def test_only_known_origins(origin: str, status: int) -> None:
    rules = Rules(origins=frozenset({"https://mine.example"}))
    assert ask(rules, "POST", origin=origin).status == status


def test_a_page_that_may_call_is_told_so_and_others_not() -> None:
    rules = Rules(keys=frozenset({"secret-key", "other-key"}), origins=frozenset({"https://mine.example"}))
    asked = ask(rules, "OPTIONS", origin="https://mine.example", access_control_request_method="POST")
    assert (asked.status, asked.headers["access-control-allow-origin"]) == (204, "https://mine.example")
    assert "authorization" in asked.headers["access-control-allow-headers"]
    refused = ask(rules, origin="https://mine.example")  # an error can be read by the page as well
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, "https://mine.example")
    other = ask(rules, "OPTIONS", origin="https://evil.example")
    assert other.status == 403
    assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ("Bearer secret-key", 200), ("bearer secret-key", 200), ("Bearer  secret-key ", 200), ("", 401), ("Bearer",
        401),
        ("Bearer ", 401), ("Bearer secret-ke", 401), ("Bearer secret-key2", 401), ("Basic secret-key", 401),
        ("Bearer sécret", 401), ("secret-key", 401),
    ],
)  # fmt: skip
def test_the_key(given: str, status: int) -> None:
    answer = ask(Rules(keys=frozenset({"secret-key", "other-key"})), authorization=given)
    assert answer.status == status
    assert ("www-authenticate" in answer.headers) == (status == 401)


@pytest.mark.parametrize(
    ("path", "status"),
    [("/health", 200), ("/", 200), ("/static/app.js", 200), ("/metrics", 401), ("/openapi.json", 401), ("/v1/models",
     401),
     ("//health", 401), ("/health/", 401)],
)  # fmt: skip
def test_what_is_open_without_the_key(path: str, status: int) -> None:
    assert ask(Rules(keys=frozenset({"secret-key", "other-key"})), path=path).status == status


def test_limits_on_headers_and_bodies() -> None:
    rules = Rules(limits=Limits(body=10, upload=20, headers=5, header_bytes=200))
    assert ask(rules, **{f"x{n}": "1" for n in range(5)}).status == 431
    assert ask(rules, x="y" * 200).status == 431
    assert ask(rules, "POST", content_length="11").status == 413
    assert ask(rules, "POST", body=[b"12345", b"67890", b"1"]).status == 413
    assert ask(rules, "POST", body=[b"12345", b"67890"]).status == 200
    assert ask(rules, "POST", "/v1/documents", body=[b"12345678901"]).status == 200
    assert ask(rules, "POST", "/v1/documents", content_length="21").status == 413


def test_a_body_that_stops_arriving() -> None:
    answer = ask(Rules(limits=Limits(body_seconds=0.05)), "POST", body=[b"a", b"b"], pause=0.2)
    assert answer.status == 408
    assert b"0 seconds" in answer.body


def test_a_method_that_nobody_knows_makes_no_counter_of_its_own() -> None:
    metrics = Metrics()
    guard = Guard(_good, Rules(), metrics, lambda record: None)
    for method in ("GET", "BREW", "X" * 1000):
        assert ask(Rules(), method, guard=guard).status == 200
    text = metrics.text().decode()
    assert "BREW" not in text
    assert 'kogata_requests_total{method="other",route="other",status="200"} 2.0' in text


@pytest.mark.parametrize(
    ("error", "status", "code", "again"),
    [
        (EngineGone("Gone."), 503, "engine_unavailable", True), (LockedError("Busy."), 409, "index_locked", True),
        (StoreError("None yet."), 503, "index_unavailable", True),
        (DamagedIndexError("Damaged."), 500, "index_unavailable", False),
        (EmbedderMismatch("Other."), 500, "index_unavailable", False),
        (ModelError("No model."), 500, "index_unavailable", False),
        (EngineFault("KeyError: /home/mori/secret"), 500, "internal_error", False),
    ],
)  # fmt: skip
def test_only_what_passes_is_worth_another_try(error: KogataError, status: int, code: str, again: bool) -> None:
    answer = from_kogata(error)
    assert (answer.status, answer.code, answer.retry_after is not None) == (status, code, again)
    assert "secret" not in answer.message


def test_a_body_that_trickles() -> None:
    """Each piece comes in time, and all of them never would."""
    answer = ask(Rules(limits=Limits(body_seconds=0.2)), "POST", body=[b"a"] * 200, pause=0.02)
    assert (answer.status, b"too slowly" in answer.body) == (408, True)
    good = ask(Rules(limits=Limits(body_seconds=0.2)), "POST", body=[b"a" * 2000] * 40, pause=0.02)
    assert good.status == 200  # it takes as long, and brings 80 kB


def test_bodies_in_memory_together_are_bounded_and_let_go() -> None:
    guard = Guard(_good, Rules(limits=Limits(bodies=20)), Metrics(), lambda record: None)
    for _ in range(3):
        assert ask(Rules(), "POST", body=[b"x" * 10, b"x" * 10], guard=guard).status == 200
    refused = ask(Rules(), "POST", body=[b"x" * 10, b"x" * 11], guard=guard)
    assert (refused.status, refused.headers["retry-after"]) == (429, "1")
    assert ask(Rules(), "POST", "/v1/documents", body=[b"x" * 30], guard=guard).status == 200
    assert ask(Rules(), "POST", body=[b"x" * 20], guard=guard).status == 200


def test_requests_beyond_the_limit_are_told_when_to_come_again() -> None:
    rules = Rules(limits=Limits(in_flight=0))
    answer = ask(rules)
    assert (answer.status, answer.headers["retry-after"]) == (429, "1")
    assert ask(rules, path="/health").status == 200


def test_every_answer_carries_an_id_and_is_not_framed_or_sniffed() -> None:
    for answer in (ask(Rules()), ask(Rules(), host="evil.example")):
        assert len(answer.headers["x-request-id"]) == 32
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
    assert ask(Rules(), x_request_id="abc-1").headers["x-request-id"] == "abc-1"
    assert ask(Rules(), x_request_id="a\r\nset-cookie: x").headers["x-request-id"] != "a\r\nset-cookie: x"


def test_a_server_with_another_name_asks_for_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy in front of loopback makes it public."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    alone = Options((), "127.0.0.1", 0, (), (), (), 1, 1, "off", None, None, "auto", None, None)
    named = replace(alone, allow_host=("docs.example",))
    assert command._keys(alone) == ()
    keys = command._keys(named)
    assert len(keys) == 1
    assert command._keys(named) == keys == command._keys(replace(alone, host="0.0.0.0"))
    assert command._keys(replace(named, api_key=("correct-horse", "battery-staple"))) == (
        "correct-horse",
        "battery-staple",
    )
