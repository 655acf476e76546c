"""`kogata models`: what it lists, fetches and removes, and that other commands fetch what they are given."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Run

from kogata.app.models import _ago
from kogata.weights import download
from local_hub import Hub

Tiny = Callable[..., tuple[Path, Any]]


@pytest.fixture
def hub(local_hub: Hub, tiny_decoder: Tiny) -> Hub:
    """A hub with the model a/writer."""
    directory, _ = tiny_decoder("bitnet", hidden_size=64)
    local_hub.models["a/writer"] = {path.name: path.read_bytes() for path in directory.iterdir()}
    return local_hub


def test_fetch_list_and_remove(run: Run, hub: Hub) -> None:
    fetched = run("models", "fetch", "a/writer")
    assert fetched.code == 0, fetched.err
    assert fetched.out.startswith("a/writer is here: ")
    (again,) = json.loads(run("models", "fetch", "a/writer", "--json").out)["fetched"]
    assert (again["name"], again["was_here"]) == ("a/writer", True)
    assert hub.sent("model.safetensors") == [0]
    told = json.loads(run("models", "list", "--json").out)
    assert [(one["name"], one["kind"], one["missing_bytes"]) for one in told["fetched"]] == [("a/writer", "writer", 0)]
    assert {one["name"]: one["state"] for one in told["recommended"]}["tiny"] == "here"
    assert {one["name"]: one["state"] for one in told["recommended"]}["bitnet-2b"] == "not here"
    text = run("models").out
    assert "a/writer" in text
    assert "bitnet-2b" in text
    assert run("run", "a/writer", "Once", "--max-tokens", 2, "--json").code == 0
    removed = json.loads(run("models", "remove", "a/writer", "--json").out)["removed"]
    assert removed == [{"name": "a/writer", "freed_bytes": told["fetched"][0]["bytes"]}]
    assert json.loads(run("models", "--json").out)["fetched"] == []


def test_other_commands_fetch_what_they_are_given(run: Run, hub: Hub, tmp_path: Path) -> None:
    assert run("convert", "a/writer", tmp_path / "packed").code == 0
    assert hub.sent("model.safetensors") == [0]


def test_what_is_half_fetched_is_shown_and_goes_on(run: Run, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_WAITS", (0.0,))
    hub.cut = [20_000, 0]
    failed = run("models", "fetch", "a/writer")
    assert failed.code == 1
    assert "are here." in failed.err
    assert "The same command goes on from there." in failed.err
    assert " to come" in run("models").out
    assert run("models", "fetch", "a/writer").code == 0
    assert hub.sent("model.safetensors") == [0, 20_000, 20_000]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["remove", "tiny"], 2, "tiny came with Kogata and stays."),
        (["remove", "bitnet-2b"], 2, "There is no fetched model 'bitnet-2b'."),
        (["fetch", "bitnet2b"], 1, "Is bitnet-2b meant?"),
        (["fetch", "b/none"], 1, "There is no model b/none on the Hugging Face hub, or it is private."),
        (["fetch"], 2, "Missing argument"),
    ],
)
def test_what_is_refused(run: Run, hub: Hub, arguments: list[str], code: int, said: str) -> None:
    refused = run("models", *arguments)
    assert (refused.code, refused.out) == (code, "")
    assert said in refused.err


def test_what_comes_along_is_fetched_already(run: Run, hub: Hub) -> None:
    assert run("models", "fetch", "tiny").out == "tiny came with Kogata.\n"
    assert run("models", "fetch", "default").out == "default came with Kogata.\n"


def test_when_it_was_used() -> None:
    import time

    now = time.time()
    said = [_ago(then) for then in (None, now, now - 90_000, now - 3 * 86_400)]
    assert said == ["", "used today", "used 1 day ago", "used 3 days ago"]
