"""`kogata ask --writer`: what it prints, what it says in JSON, what it refuses, and how it is stopped."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Run
from numpy.typing import NDArray

from kogata.app import cli, writing
from kogata.run.engine import Engine

QUESTION = "When was the gauge calibrated?"
NOT_THERE = "Which chess opening did the champion of Uruguay prefer in 1934?"


class Script:
    """A constraint under which a model says one text, and then ends."""

    def __init__(self, ids: list[int], at: int = 0) -> None:
        self.ids, self.at = ids, at

    @property
    def over(self) -> bool:
        return self.at == len(self.ids)

    def fork(self) -> Script:
        return Script(self.ids, self.at)

    def fill(self, mask_W: NDArray[np.uint32]) -> None:
        mask_W[:] = 0
        mask_W[self.ids[self.at] // 32] = np.uint32(1) << np.uint32(self.ids[self.at] % 32)

    def accept(self, token: int) -> None:
        self.at += 1


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Whatever model is loaded from now on says this."""
    submit = Engine.submit

    def says(text: str) -> None:
        def scripted(self: Engine, prompt: Any, params: Any, **more: Any) -> Any:
            return submit(self, prompt, params, constraint=Script(self.tokenizer.encode(text).tolist()), **more)

        monkeypatch.setattr(Engine, "submit", scripted)

    return says


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_answer_comes_with_the_sources_that_it_names(run: Run, shelf: Path, says: Callable[[str], None]) -> None:
    says("In May 2021, by Maria Lindqvist. 【1】 And [8] no more.")
    result = run("ask", "--index", shelf, "--writer", "tiny", QUESTION)
    print(result.out)
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert lines[0] == "In May 2021, by Maria Lindqvist. [1] And no more."
    assert re.search(r"^  \[1\] .*tides\.md", lines[2])
    assert "calibrated in May 2021" in lines[3]
    assert "Note: The model named sources that it was not given; the marks were taken out: [8]." in lines
    assert "[2]" not in result.out
    assert result.err == "", "nothing but the answer in a pipe"


def test_json_has_the_shape_of_an_answer_and_who_wrote_it(run: Run, shelf: Path, says: Callable[[str], None]) -> None:
    says("二回です【1】。")
    written = json.loads(run("ask", "--index", shelf, "--writer", "tiny", "満潮は一日に何回起こりますか", "--json").out)
    quoted = json.loads(run("ask", "--index", shelf, "満潮は一日に何回起こりますか", "--json").out)
    assert written.keys() - quoted.keys() == {"model", "finish_reason", "usage"}
    assert quoted.keys() <= written.keys()
    assert written["citations"][0].keys() == quoted["citations"][0].keys()
    assert written["citations"][0]["path"] == quoted["citations"][0]["path"]
    assert (written["text"], written["model"], written["finish_reason"]) == ("二回です[1]。", "tiny", "stop")
    assert written["sentences"] == [{"text": "二回です。", "citation": 1}]
    assert written["usage"]["prompt_tokens"] > 300
    assert written["usage"]["completion_tokens"] > 3


def test_what_is_not_there_is_refused_before_a_model_is_loaded(
    run: Run, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "load_model", lambda *_: pytest.fail("loaded"))
    result = run("ask", "--index", shelf, "--writer", "tiny", NOT_THERE)
    assert result.code == 3
    assert result.out.startswith("Not found in these documents")
    found = json.loads(run("ask", "--index", shelf, "--writer", "tiny", NOT_THERE, "--json").out)
    assert (found["found"], found["model"], found["usage"]) == (False, None, None)


def test_without_a_named_source_the_passages_are_shown(run: Run, shelf: Path) -> None:
    result = run("ask", "--index", shelf, "--writer", "tiny", "--max-tokens", 20, QUESTION)
    assert result.code == 0, result.err
    assert "Passages that it was given:" in result.out
    assert "tides.md" in result.out
    again = run("ask", "--index", shelf, "--writer", "tiny", "--max-tokens", 20, QUESTION)
    assert again.out == result.out, "always the likeliest token, unless told otherwise"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--writer", "tiny", "--temperature", "nan"], "temperature is nan"),
        (["--writer", "tiny", "--max-tokens", "0"], "max_tokens is 0"),
        (["--writer", "tiny", "--max-tokens", str(2**63)], "max_tokens is 9223372036854775808"),
        (["--writer", "tiny", "--context", "4000"], "context is 4000; tiny takes 1 to 2,048"),
        (["--writer", "tiny", "--context", "150"], r"question has \d+ tokens.*takes 150, of which 37 are kept"),
        (["--seed", "1"], "go with --writer"),
        (["--context", "100"], "go with --writer"),
        (["--memory", "1GB"], "go with --writer"),
        (["--writer", "tiny", "--memory", "1MB"], "memory is 1.0 MB; the weights of tiny take"),
    ],
)
def test_what_is_refused(run: Run, shelf: Path, arguments: list[str], said: str) -> None:
    result = run("ask", "--index", shelf, QUESTION, *arguments)
    assert result.code == 2
    assert result.out == ""
    assert re.search(said, result.err), result.err


def test_no_such_writer(run: Run, shelf: Path) -> None:
    result = run("ask", "--index", shelf, "--writer", "nonesuch", QUESTION)
    assert result.code == 1
    assert "There is no model 'nonesuch'" in result.err


def test_ctrl_c_leaves_the_line_and_the_index_whole(
    run: Run, shelf: Path, says: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    says("In May 2021, by Maria Lindqvist. [1] And so on, and so on.")
    step, steps, dropped = Engine.step, [0], []

    def interrupted(self: Engine) -> None:
        steps[0] += 1
        if steps[0] > 8:
            raise KeyboardInterrupt
        step(self)

    monkeypatch.setattr(Engine, "step", interrupted)
    drop = Engine.drop
    monkeypatch.setattr(Engine, "drop", lambda self, answer: (dropped.append(answer), drop(self, answer)))
    result = run("ask", "--index", shelf, "--writer", "tiny", QUESTION)
    assert result.code == cli.STOPPED
    assert "stopped; the answer is not complete" in result.err
    assert result.out.startswith("In May")
    assert result.out.endswith("\n")
    assert len(dropped) == 1, "the model does no more"
    assert run("ask", "--index", shelf, QUESTION).code == 0


def test_on_a_terminal_nothing_of_the_model_moves_the_cursor(
    shelf: Path, says: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    says("In May \x1b[2J2021 [1].")
    out, err = Tty(), Tty()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert cli.main(["ask", "--index", str(shelf), "--writer", "tiny", QUESTION]) == 0
    assert "\x1b[2J" not in out.getvalue()
    assert "␛[2J2021 [1]." in out.getvalue()
    assert "loading the model" in err.getvalue()
    assert re.search(r"\d+ \+ \d+ tokens; first after", err.getvalue())
