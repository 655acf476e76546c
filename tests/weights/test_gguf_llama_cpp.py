"""The same GGUF files in llama.cpp: its logits and its tokens are ours.

llama-cpp-python is no dependency, not even of the tests: building it takes minutes. Where it is, these run.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_gguf_decoders import IDS, KINDS, WIDE, make_ternary, ternary_types

import kogata
from gguf_writer import Kind, write_gguf

llama_cpp = pytest.importorskip("llama_cpp")

Tiny = Callable[..., tuple[Path, Any]]
TEXTS = ["the tide is high", "the  then\n\n  theth 潮位 1234", "a<user>b</s>", " the", ""]


def theirs(path: Path) -> Any:
    return llama_cpp.Llama(
        str(path), n_ctx=64, logits_all=True, verbose=False, n_threads=1,
        type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32,
    )  # fmt: skip


def logits_TV(path: Path) -> np.ndarray:
    model = theirs(path)
    model.eval(IDS.tolist())
    return np.array(model.scores[: len(IDS)])


MODELS = [
    "llama", "llama, tied", "llama with biases", "llama 3.1", "qwen2", "qwen2, yarn", "qwen3", "gemma3",
    "gemma3, linear",
]  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_logits_of_floats(tiny_decoder: Tiny, tmp_path: Path, name: str) -> None:
    settings = KINDS[name] | {"hidden_size": 128, "head_dim": 32}
    if "gemma" in name:
        settings["query_pre_attn_scalar"] = 32
    directory, _ = tiny_decoder(**settings)
    path = write_gguf(directory, tmp_path / "model.gguf")
    expected = logits_TV(path)
    found = kogata.load(path, quantise="f32", kv="f32").logits(IDS)
    error = np.abs(found - expected).max() / np.abs(expected).max()
    print(f"{name}: largest error {error:.1e} of the largest logit")
    assert error < 1e-4


@pytest.mark.parametrize("kind", [Kind.F16, Kind.Q8_0, Kind.Q4_0, Kind.Q5_1, Kind.TQ1_0, Kind.TQ2_0])
def test_logits_of_quantised_weights(tiny_decoder: Tiny, tmp_path: Path, kind: Kind) -> None:
    """Both round activations, each in its own way, so the logits agree as far as 8 bits do."""
    ternary = kind.name.startswith("TQ")
    directory, _ = tiny_decoder("bitnet" if ternary else "llama", tie_word_embeddings=ternary, **WIDE)
    types = ternary_types(kind) if ternary else (lambda name, data: kind if data.ndim == 2 else None)
    path = write_gguf(
        directory, tmp_path / "model.gguf", types, make_ternary if ternary else None,
        architecture="bitnet" if ternary else None,
    )  # fmt: skip
    expected = logits_TV(path)
    for quantise in ("f32", "auto"):
        found = kogata.load(path, quantise=quantise, kv="f32").logits(IDS)
        error = np.sqrt(((found - expected) ** 2).mean() / (expected**2).mean())
        same = (found.argmax(1) == expected.argmax(1)).mean()
        print(f"{kind.name} {quantise}: relative error {error:.4f}, the same token first in {same:.0%}")
        assert error < 0.1


@pytest.mark.parametrize("pre", ["gpt-2", "qwen2", "llama-bpe", "smollm", "falcon3"])
def test_tokens(tiny_decoder: Tiny, tmp_path: Path, pre: str) -> None:
    directory, _ = tiny_decoder("qwen2", hidden_size=64)
    path = write_gguf(
        directory, tmp_path / f"{pre}.gguf", edit=lambda told, _: told.update({"tokenizer.ggml.pre": pre})
    )
    ours, other = kogata.load(path), theirs(path)
    for text in TEXTS:
        expected = other.tokenize(text.encode(), add_bos=False, special=True)
        assert ours.tokenizer.encode(text, special=True).tolist() == expected
        assert ours.tokens(text).tolist() == other.tokenize(text.encode(), add_bos=True, special=False)
