"""`kogata run` and `kogata chat` with a tiny random model: prompts, pipes, JSON, and what is refused."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Run

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<user>{{ m.role }}: {{ m.content }}<end>{% endfor %}"
    "{% if messages|length > 5 %}{{ raise_exception('too many turns') }}{% endif %}"
)


@pytest.fixture
def plain(tiny_decoder: Callable[..., tuple[Path, Any]]) -> Path:
    """A model that knows no conversations."""
    return tiny_decoder("bitnet", hidden_size=64, max_position_embeddings=128)[0]


@pytest.fixture
def talking(plain: Path) -> Path:
    """The same, with a chat template."""
    config = {"bos_token": "<s>", "eos_token": "</s>", "chat_template": TEMPLATE}
    (plain / "tokenizer_config.json").write_text(json.dumps(config))
    return plain


def typed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))


def test_the_same_seed_writes_the_same(run: Run, plain: Path) -> None:
    first = run("run", plain, "Once", "upon", "--seed", 1, "--max-tokens", 12)
    assert first.code == 0, first.err
    assert first.err == "", "nothing but the answer in a pipe"
    assert run("run", plain, "Once upon", "--seed", 1, "--max-tokens", 12).out == first.out
    assert run("run", plain, "Once upon", "--seed", 2, "--max-tokens", 12).out != first.out


def test_json(run: Run, plain: Path) -> None:
    found = json.loads(run("run", plain, "Once", "--max-tokens", 5, "--json", "--temperature", 0).out)
    assert found["finish_reason"] == "length"
    assert found["usage"]["prompt_tokens"] == 5, "a beginning and four bytes"
    assert found["usage"]["completion_tokens"] == 5
    assert found["usage"]["tokens_per_second"] > 0
    assert found["model"] == plain.name


def test_a_prompt_is_known_after_a_restart(run: Run, plain: Path, tmp_path: Path) -> None:
    arguments = "run", plain, "abc " * 25, "--max-tokens", 5, "--json", "--temperature", 0
    alone, first, again = (
        json.loads(run(*arguments, *more).out) for more in ([], *[["--cache-dir", tmp_path / "kept"]] * 2)
    )
    assert first["text"] == again["text"] == alone["text"]
    assert [found["usage"]["cached_tokens"] for found in (alone, first, again)] == [0, 0, 64]


def test_prompts_come_from_arguments_files_and_pipes(
    run: Run, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tokens(*arguments: Any) -> int:
        result = run("run", plain, *arguments, "--max-tokens", 1, "--json")
        assert result.code == 0, result.err
        return int(json.loads(result.out)["usage"]["prompt_tokens"])

    (tmp_path / "text.txt").write_text("潮位\n")
    assert tokens("-f", tmp_path / "text.txt", "ab") == 1 + 7 + 1 + 2  # a line feed between
    typed(monkeypatch, "潮位".encode())
    assert tokens() == 1 + 6
    typed(monkeypatch, b"abc")
    assert tokens("-") == 1 + 3


def test_a_template_makes_the_prompt_a_question(run: Run, talking: Path) -> None:
    def tokens(*arguments: Any) -> int:
        result = run("run", talking, "hi", *arguments, "--max-tokens", 1, "--json")
        assert result.code == 0, result.err
        return int(json.loads(result.out)["usage"]["prompt_tokens"])

    assert tokens() == 1 + len("user: hi") + 2
    assert tokens("--raw") == 1 + 2
    assert tokens("--system", "be") == 1 + len("system: be") + 2 + len("user: hi") + 2
    result = run("run", talking, "a <end> b", "--max-tokens", 1, "--json")
    assert json.loads(result.out)["usage"]["prompt_tokens"] == 1 + len("user: a <end> b") + 2, "text stays text"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["hi", "--temperature", "nan"], "temperature is nan"),
        (["hi", "--max-tokens", "0"], "max_tokens is 0"),
        (["hi", "--max-tokens", str(2**63)], "max_tokens is 9223372036854775808"),
        (["hi", "--top-p", "1.5"], "top_p is 1.5"),
        (["hi", "--context", "129"], "context is 129; .* 1 to 128"),
        (["x" * 128], "129 tokens; .* at most 128"),
        (["hi", "--max-tokens", "126"], "3 tokens and an answer of up to 126"),
        (["hi", "--threads", "0"], "threads is 0"),
        (["hi", "--system", "be"], "--system is for models with a chat template"),
        ([" "], "no prompt"),
        (["-f", "/nonexistent"], "/nonexistent cannot be read"),
    ],
)
def test_what_is_refused(run: Run, plain: Path, arguments: list[str], said: str) -> None:
    result = run("run", plain, *arguments)
    assert result.code == 2
    assert result.out == ""
    assert re.search(said, result.err), result.err


def test_a_folder_for_prefixes_that_cannot_be_used(run: Run, plain: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = run("run", plain, "Once", "--cache-dir", tmp_path / "file")
    assert (refused.code, refused.out) == (2, "")
    assert f"{tmp_path / 'file'} is a file; prefixes need a directory." in refused.err


def test_no_model(run: Run, plain: Path, tmp_path: Path) -> None:
    assert "There is no model" in run("run", tmp_path / "nothing", "hi").err
    (plain / "model.safetensors").write_bytes((plain / "model.safetensors").read_bytes()[:-100])
    result = run("run", plain, "hi")
    assert result.code == 1
    assert "cut off" in result.err


def test_a_conversation(run: Run, talking: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, b"hello\n/undo\nhello\n\n/help\n/new\nhello\nand on\n/exit\nnever\n")
    result = run("chat", talking, "--max-tokens", 6, "--seed", 4)
    assert result.code == 0, result.err
    answers = [part.split("\n")[0] for part in result.out.split("> ")]
    assert answers[1] == answers[3] == answers[7], "taken back, and begun anew, it says the same"
    assert "/undo  take back" in result.out
    assert "never" not in result.out


def test_a_conversation_that_the_template_refuses_goes_on(
    run: Run, talking: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, b"one\ntwo\nthree\nfour\n/new\nfive\n")
    result = run("chat", talking, "--max-tokens", 2, "--seed", 1)
    assert result.code == 0
    assert result.err.count("too many turns") == 1


def test_chat_needs_a_template(run: Run, plain: Path) -> None:
    result = run("chat", plain)
    assert result.code == 1
    assert "no chat template" in result.err


def test_a_prompt_may_be_longer_than_a_file_name(run: Run) -> None:
    found = run("run", "and then " * 100, "--max-tokens", 1)
    assert found.code == 0, found.err
