"""The model that comes along: real weights through the whole path, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import kogata
from kogata.app.writing import is_prompt


def test_it_writes_without_torch_and_at_once() -> None:
    program = (
        "import sys; from kogata.app.cli import main;"
        "code = main(['run', 'Once upon a time', '--max-tokens', '20', '--seed', '1', '--json']);"
        "assert not {'torch', 'transformers'} & set(sys.modules), 'imported what it does not need';"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["usage"]["completion_tokens"] == 20
    assert len(found["text"]) > 20


def test_it_has_learnt_english() -> None:
    """Real text is far likelier to it than the same tokens in any order: not something random weights do."""
    model = kogata.load("tiny")
    ids = model.tokens("Once upon a time there was a little girl who lived in a house by the sea.")
    shuffled = np.concatenate([ids[:1], np.random.default_rng(0).permutation(ids[1:])])

    def nats(text: np.ndarray) -> float:
        logits = model.logits(text)[:-1].astype(np.float64)
        chosen = logits[np.arange(len(text) - 1), text[1:]]
        return float(np.mean(np.log(np.exp(logits).sum(axis=1)) - chosen))

    real, mixed = nats(ids), nats(shuffled)
    assert real < 4.5, f"{real:.2f} nats a token; a uniform guess has {np.log(model.decoder.config.vocab_size):.2f}"
    assert real + 1.5 < mixed, f"{real:.2f} and {mixed:.2f} nats a token"


def test_the_same_seed_writes_the_same_in_pieces_and_at_once() -> None:
    model = kogata.load("tiny", context=256)
    whole = model.generate("The old man", max_tokens=30, seed=7)
    assert "".join(model.generate("The old man", max_tokens=30, seed=7, stream=True)) == whole
    assert whole != model.generate("The old man", max_tokens=30, seed=8)


@pytest.mark.parametrize(
    ("word", "prompt"),
    [("Once upon a time", True), ("tiny", False), ("hello", False), ("./my model", False), ("~/my model", False),
     ("owner/name", False)],
)  # fmt: skip
def test_what_has_spaces_and_is_no_path_is_a_prompt(word: str, prompt: bool) -> None:
    assert is_prompt(word) == prompt


def test_a_folder_with_a_space_is_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my model").mkdir()
    monkeypatch.chdir(tmp_path)
    assert not is_prompt("my model")


def test_it_is_small() -> None:
    folder = Path(kogata.__file__).parent / "models" / "tiny"
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert size < 8_000_000, f"{size:,} bytes"
