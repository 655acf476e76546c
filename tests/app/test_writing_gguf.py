"""`kogata run` and `kogata convert` with a GGUF file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Run

from gguf_writer import Kind, write_gguf


@pytest.fixture
def path(tiny_decoder: Callable[..., tuple[Path, Any]], tmp_path: Path) -> Path:
    directory, _ = tiny_decoder("qwen3", hidden_size=64, intermediate_size=64, head_dim=16, max_position_embeddings=128)
    # A blank in the name, which prompts have too.
    return write_gguf(directory, tmp_path / "my model.gguf", lambda _, data: Kind.Q5_0 if data.ndim == 2 else None)


def test_what_is_rounded_again_is_said_beside_the_answer(
    run: Run, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    first = run("run", path.name, "Once", "--seed", 1, "--max-tokens", 8)
    assert first.code == 0, first.err
    assert first.err == (
        "note: my model.gguf: 23 of its matrices are stored as Q5_0, which Kogata has no kernels for: "
        "they are rounded again, to int8.\n"
    )
    made = run("convert", path, tmp_path / "packed", "--quantize", "int4")
    assert made.code == 0, made.err
    assert "to int4." in made.err
    assert run("convert", path, tmp_path / "again").code == 0
    again = run("run", tmp_path / "again", "Once", "--seed", 1, "--max-tokens", 8)
    assert (again.out, again.err) == (first.out, ""), "packed as it was"


def test_a_damaged_file_is_an_error_in_one_line(run: Run, path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])
    found = run("run", path, "Once")
    assert found.code == 1
    assert found.err.startswith("error: ")
    assert "is cut off" in found.err
    assert "Traceback" not in found.err
