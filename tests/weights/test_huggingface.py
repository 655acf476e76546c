"""Directories of transformers and sentence-transformers: the same numbers, names and conventions as they use."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kogata.errors import ModelError
from kogata.weights import EncoderCheckpoint, load_encoder

Tiny = Callable[..., tuple[Path, Any]]


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def forward(checkpoint: EncoderCheckpoint, ids: np.ndarray) -> np.ndarray:
    """Token vectors of one text, in float64: BERT as its paper has it."""
    from scipy.special import erf, softmax

    config = checkpoint.config

    def get(name: str) -> np.ndarray:
        return np.asarray(checkpoint.tensors[name], np.float64)

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ get(f"{name}.weight").T + get(f"{name}.bias")

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(axis=1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + config.norm_eps)
        return scaled * get(f"{name}.weight") + get(f"{name}.bias")

    def split(x: np.ndarray) -> np.ndarray:
        return x.reshape(len(x), config.n_heads, config.d_head).swapaxes(0, 1)

    n = len(ids)
    positions = get("embed.position")[config.position_offset : config.position_offset + n]
    x = norm(get("embed.word")[ids] + positions + get("embed.type")[0], "embed.norm")
    for i in range(config.n_layers):
        layer = f"layers.{i}"
        q, k, v = (split(linear(x, f"{layer}.attn.{part}")) for part in "qkv")
        shares = softmax(q @ k.swapaxes(1, 2) / np.sqrt(config.d_head), axis=2)
        mixed = (shares @ v).swapaxes(0, 1).reshape(n, -1)
        x = norm(x + linear(mixed, f"{layer}.attn.out"), f"{layer}.attn.norm")
        inner = linear(x, f"{layer}.ffn.up")
        gelu = inner * 0.5 * (1 + erf(inner / np.sqrt(2)))
        x = norm(x + linear(gelu, f"{layer}.ffn.down"), f"{layer}.ffn.norm")
    return x


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta", "camembert", "distilbert"])
def test_every_architecture_computes_what_transformers_computes(tiny: Tiny, kind: str, head: bool) -> None:
    import torch

    directory, model = tiny(kind, head)
    checkpoint = load_encoder(directory)
    assert checkpoint.config.architecture == kind
    assert set(checkpoint.tensors) == {parameter.name for parameter in checkpoint.config.parameters()}
    ids = checkpoint.tokenizer.encode("the tide is high and the sea is low")
    encoder = getattr(model, model.base_model_prefix) if head else model
    with torch.no_grad():
        expected = encoder(torch.tensor(ids[None].astype(np.int64))).last_hidden_state[0].numpy()
    np.testing.assert_allclose(forward(checkpoint, ids), expected, atol=2e-5)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_every_stored_type_is_read_exactly(tiny: Tiny, dtype: str) -> None:
    directory, model = tiny("bert", dtype=dtype)
    expected = model.encoder.layer[1].intermediate.dense.weight.detach().numpy()
    found = load_encoder(directory).tensors["layers.1.ffn.up.weight"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_shards(tiny: Tiny) -> None:
    directory, model = tiny("bert")
    whole = load_encoder(directory)
    (directory / "model.safetensors").unlink()
    model.save_pretrained(directory, max_shard_size="4KB")
    assert len(list(directory.glob("model-*.safetensors"))) > 1
    sharded = load_encoder(directory)
    for name, expected in whole.tensors.items():
        np.testing.assert_array_equal(sharded.tensors[name], expected)


def test_old_names_of_norms(tiny: Tiny) -> None:
    from safetensors.numpy import load_file, save_file

    directory, _ = tiny("bert")
    expected = load_encoder(directory).tensors["embed.norm.weight"]
    tensors = load_file(directory / "model.safetensors")
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in tensors.items()
    }
    # Old checkpoints carry this buffer too.
    renamed["embeddings.position_ids"] = np.arange(20)[None]
    save_file(renamed, directory / "model.safetensors")
    np.testing.assert_array_equal(load_encoder(directory).tensors["embed.norm.weight"], expected)


def test_minilm(minilm: Path) -> None:
    from safetensors.numpy import load_file

    checkpoint = load_encoder(minilm)
    theirs = load_file(minilm / "model.safetensors")
    assert (checkpoint.pooling, checkpoint.normalize) == ("mean", True)
    # tokenizer.json says 128, sentence_bert_config.json, which sentence-transformers follows, 256.
    assert checkpoint.max_length == 256
    assert checkpoint.prompts == {"query": "", "document": ""}
    np.testing.assert_array_equal(checkpoint.tensors["embed.word"], theirs["embeddings.word_embeddings.weight"])
    found = checkpoint.tensors["layers.5.attn.out.weight"]
    np.testing.assert_array_equal(found, theirs["encoder.layer.5.attention.output.dense.weight"])
    assert not found.flags.writeable
    assert checkpoint.identity == load_encoder(str(minilm)).identity


def test_saved_again_by_sentence_transformers_it_is_the_same_model(minilm: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(minilm), device="cpu")
    model.prompts = {"query": "Q: ", "passage": "P: ", "clustering": "C: "}
    model.save(str(tmp_path / "saved"))
    saved, published = load_encoder(tmp_path / "saved"), load_encoder(minilm)
    assert (saved.max_length, saved.pooling, saved.normalize) == (256, "mean", True)
    assert saved.prompts == {"query": "Q: ", "document": "P: "}
    assert saved.config == published.config
    for name, expected in published.tensors.items():
        np.testing.assert_array_equal(saved.tensors[name], expected)


def test_identity_follows_everything_that_decides_a_vector(tiny: Tiny) -> None:
    directory, _ = tiny("bert")
    seen = {load_encoder(directory).identity}
    moved = directory.with_name("elsewhere")
    shutil.copytree(directory, moved)
    assert load_encoder(moved).identity in seen

    def changed() -> bool:
        identity = load_encoder(directory).identity
        new = identity not in seen
        seen.add(identity)
        return new

    write(directory / "sentence_bert_config.json", {"max_seq_length": 10})
    assert changed()
    write(directory / "config_sentence_transformers.json", {"prompts": {"query": "q: "}})
    assert changed()
    modules = [{"path": "", "type": "x.Transformer"}, {"path": "1_Pooling", "type": "x.Pooling"}]
    write(directory / "1_Pooling" / "config.json", {"pooling_mode_cls_token": True})
    write(directory / "modules.json", modules)
    assert changed()
    write(directory / "modules.json", [*modules, {"path": "2_Normalize", "type": "x.Normalize"}])
    assert changed()
    content = (directory / "tokenizer.json").read_text()
    (directory / "tokenizer.json").write_text(content.replace('"tide"', '"tides"'))
    assert changed()
    with_bit = bytearray((directory / "model.safetensors").read_bytes())
    with_bit[-1] ^= 1
    (directory / "model.safetensors").write_bytes(with_bit)
    assert changed()
    # The README is not part of it.
    (directory / "README.md").write_text("hello")
    assert not changed()


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode": "cls", "embedding_dimension": 16, "include_prompt": True}, "cls"),
        ({"pooling_mode": ["mean"]}, "mean"),
        ({}, "mean"),
    ],
)
def test_pooling(tiny: Tiny, pooling: dict[str, Any], expected: str) -> None:
    directory, _ = tiny("bert")
    modules = [{"path": "", "type": "a.Transformer"}, {"path": "1_Pooling", "type": "a.Pooling"}]
    write(directory / "modules.json", modules)
    write(directory / "1_Pooling" / "config.json", pooling)
    checkpoint = load_encoder(directory)
    assert (checkpoint.pooling, checkpoint.normalize) == (expected, False)


def test_a_transformer_in_a_folder_of_its_own(tiny: Tiny) -> None:
    directory, _ = tiny("bert")
    outer = directory.with_name("outer")
    outer.mkdir()
    directory.rename(outer / "0_Transformer")
    write(outer / "1_Pooling" / "config.json", {"pooling_mode_cls_token": True})
    modules = [{"path": "0_Transformer", "type": "s.Transformer"}, {"path": "1_Pooling", "type": "s.Pooling"}]
    write(outer / "modules.json", modules)
    checkpoint = load_encoder(outer)
    assert (checkpoint.name, checkpoint.pooling) == ("outer", "cls")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, ("", "")),
        ({"prompts": None}, ("", "")),
        ({"prompts": {"query": "q: ", "document": "d: ", "other": "o: "}}, ("q: ", "d: ")),
        ({"prompts": {"query": "q: ", "passage": "p: "}}, ("q: ", "p: ")),
        ({"prompts": {"corpus": "c: "}}, ("", "c: ")),
        ({"prompts": {"all": "a: ", "query": "q: "}, "default_prompt_name": "all"}, ("q: ", "a: ")),
    ],
)
def test_prompts(tiny: Tiny, content: dict[str, Any], expected: tuple[str, str]) -> None:
    directory, _ = tiny("bert")
    write(directory / "config_sentence_transformers.json", content)
    prompts = load_encoder(directory).prompts
    assert (prompts["query"], prompts["document"]) == expected


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("multilingual-e5-small", True),
        ("e5-base-v2", True),
        ("my_e5-large-unsupervised", True),
        ("multilingual-e5-large-instruct", False),
        ("bert-base", False),
        ("made5-small", False),
    ],
)
def test_the_prompts_of_the_e5_family_are_known_by_name(tiny: Tiny, name: str, known: bool) -> None:
    directory, _ = tiny("bert")
    renamed = directory.rename(directory.with_name(name))
    expected = {"query": "query: ", "document": "passage: "} if known else {"query": "", "document": ""}
    assert load_encoder(renamed).prompts == expected
    # What the config says goes first.
    write(renamed / "config_sentence_transformers.json", {"prompts": {"query": "x: "}})
    assert load_encoder(renamed).prompts == {"query": "x: ", "document": ""}


@pytest.mark.parametrize(
    ("stated", "tokenizer_says", "expected"),
    [
        (None, None, 20),
        (10, None, 10),
        (20, 5, 20),
        (None, 12, 12),
        (None, 10**30, 20),
        (None, 1e30, 20),
        (None, "many", 20),
        (3, None, 3),
    ],
)
def test_length(tiny: Tiny, stated: int | None, tokenizer_says: Any, expected: int) -> None:
    directory, _ = tiny("bert")
    if stated is not None:
        write(directory / "sentence_bert_config.json", {"max_seq_length": stated})
    if tokenizer_says is not None:
        write(directory / "tokenizer_config.json", {"model_max_length": tokenizer_says})
    assert load_encoder(directory).max_length == expected


def test_xlm_roberta_has_two_positions_less(tiny: Tiny) -> None:
    directory, _ = tiny("xlm-roberta", max_position_embeddings=22, pad_token_id=1)
    write(directory / "sentence_bert_config.json", {"max_seq_length": 22})
    assert load_encoder(directory).max_length == 20


def test_lower_casing_is_applied(tiny: Tiny) -> None:
    directory, _ = tiny("bert")
    assert load_encoder(directory).tokenizer.encode("TIDE").tolist() == [3, 2, 4]
    write(directory / "sentence_bert_config.json", {"do_lower_case": True})
    assert load_encoder(directory).tokenizer.encode("TIDE").tolist() == [3, 6, 4]


def test_home_directories_are_understood(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    directory, _ = tiny("bert")
    monkeypatch.setenv("HOME", str(directory.parent))
    assert load_encoder(f"~/{directory.name}").name == directory.name


def test_names_that_are_nothing() -> None:
    for name in ("defualt", "", "a b", "/no/such/place", "a/b/c", "../x", "a\0b", "x" * 5000, "https://hf.co/a/b"):
        with pytest.raises(ModelError, match="There is no model") as caught:
            load_encoder(name)
        assert "default" in str(caught.value.hint)
        assert len(str(caught.value)) < 400
