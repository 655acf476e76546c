"""Decoders in GGUF files: the same numbers as transformers and the gguf package have, and the same texts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from reference_decoder import logits_TV

import kogata
from gguf_writer import Kind, write_gguf
from kogata.config import Rope
from kogata.errors import ModelError
from kogata.weights import (
    DecoderCheckpoint,
    Q4Tensor,
    Q8Tensor,
    TernaryTensor,
    convert_decoder,
    load_decoder,
)
from kogata.weights.packed import pack_decoder

Tiny = Callable[..., tuple[Path, Any]]
IDS = np.array([258, 5, 17, 200, 3, 3, 99, 256, 42, 7, 130, 257, 0])
WIDE = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64}

KINDS: dict[str, dict[str, Any]] = {
    "llama": {"kind": "llama"},
    "llama, tied": {"kind": "llama", "tie_word_embeddings": True},
    "llama with biases": {"kind": "llama", "attention_bias": True, "mlp_bias": True},
    "llama with wide heads": {"kind": "llama", "head_dim": 10, "num_key_value_heads": 4},
    "llama 3.1": {
        "kind": "llama",
        "rope_parameters": {
            "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
        },
    },
    "qwen2": {"kind": "qwen2"},
    "qwen2, yarn": {
        "kind": "qwen2",
        "rope_parameters": {
            "rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 16
        },
    },
    "qwen3": {"kind": "qwen3", "tie_word_embeddings": True},
    "gemma3": {
        "kind": "gemma3_text", "sliding_window": 5, "sliding_window_pattern": 2, "query_pre_attn_scalar": 12
    },
    "gemma3, linear": {
        "kind": "gemma3_text",
        "sliding_window": 3,
        "query_pre_attn_scalar": 12,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    },
    "bitnet without quantisation": {"kind": "bitnet"},
}  # fmt: skip


def loaded(path: Path) -> DecoderCheckpoint:
    found = load_decoder(path)
    assert isinstance(found, DecoderCheckpoint)
    return found


def expected_TV(model: Any) -> np.ndarray:
    import torch

    with torch.no_grad():
        return np.asarray(model(torch.tensor(IDS[None])).logits[0].double())


@pytest.mark.parametrize("name", KINDS)
def test_every_architecture_computes_what_transformers_computes(tiny_decoder: Tiny, tmp_path: Path, name: str) -> None:
    directory, model = tiny_decoder(**KINDS[name])
    checkpoint = loaded(write_gguf(directory, tmp_path / "model.gguf"))
    assert set(checkpoint.tensors) == {parameter.name for parameter in checkpoint.config.parameters()}
    expected = expected_TV(model)
    error = np.abs(logits_TV(checkpoint, IDS) - expected).max()
    print(f"{name}: largest error {error:.1e} of logits up to {np.abs(expected).max():.1f}")
    assert error < 1e-5 * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "gemma3_text", "bitnet"])
def test_the_kernels_compute_it_too(tiny_decoder: Tiny, tmp_path: Path, kind: str) -> None:
    more = {"gemma3_text": {"query_pre_attn_scalar": 16, "head_dim": 16}, "qwen3": {"head_dim": 16}}
    directory, model = tiny_decoder(kind, hidden_size=64, **more.get(kind, {}))
    path = write_gguf(directory, tmp_path / "model.gguf")
    expected = expected_TV(model)
    error = np.abs(kogata.load(path, quantise="f32", kv="f32").logits(IDS) - expected).max()
    print(f"{kind}: largest error {error:.1e} of logits up to {np.abs(expected).max():.1f}")
    assert error < 1e-5 * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("name", KINDS)
def test_the_same_model_as_from_its_directory(tiny_decoder: Tiny, tmp_path: Path, name: str) -> None:
    """Config and tensors are those of Hugging Face's files, but for how Llama 3's rope is told."""
    directory, _ = tiny_decoder(**KINDS[name])
    theirs = load_decoder(directory)
    ours = loaded(write_gguf(directory, tmp_path / "model.gguf"))
    values, wanted = ours.config.to_dict(), theirs.config.to_dict()
    if "3.1" in name:
        assert values.pop("rope")["kind"] == "factors"
        assert wanted.pop("rope")["kind"] == "llama3"
    assert in_single(values) == in_single(wanted)
    for name, tensor in theirs.tensors.items():
        np.testing.assert_array_equal(ours.tensors[name], tensor)
    assert (ours.bos_id, ours.stop_ids) == (theirs.bos_id, theirs.stop_ids)


def in_single(value: Any) -> Any:
    """All numbers in it as float32, which is how a header holds them."""
    if isinstance(value, dict):
        return {key: in_single(inner) for key, inner in value.items()}
    return np.float32(value) if isinstance(value, float) else value


@pytest.mark.parametrize("kind", [Kind.Q8_0, Kind.Q4_0, Kind.F16, Kind.BF16, Kind.TQ1_0, Kind.TQ2_0, Kind.Q5_1])
@pytest.mark.parametrize("model", ["llama", "qwen3"])
def test_every_type_is_read_as_the_gguf_package_reads_it(
    tiny_decoder: Tiny, tmp_path: Path, kind: Kind, model: str
) -> None:
    directory, _ = tiny_decoder(model, **WIDE)
    path = write_gguf(directory, tmp_path / "model.gguf", lambda name, data: kind if data.ndim == 2 else None)
    checkpoint = loaded(path)
    read = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    for ours, theirs in {
        "embed.weight": "token_embd.weight", "head.weight": "output.weight",
        "layers.0.attn.q.weight": "blk.0.attn_q.weight",
        "layers.1.attn.k.weight": "blk.1.attn_k.weight", "layers.2.attn.v.weight": "blk.2.attn_v.weight",
        "layers.1.attn.out.weight": "blk.1.attn_output.weight", "layers.2.ffn.down.weight": "blk.2.ffn_down.weight",
    }.items():  # fmt: skip
        expected = gguf.quants.dequantize(read[theirs].data, kind)
        if model == "llama" and theirs[-8] in "qk":
            expected = expected.reshape(-1, 32, 2, 256).swapaxes(1, 2).reshape(expected.shape)
        found = checkpoint.tensors[ours]
        values = found if isinstance(found, np.ndarray) else found.dequantise()
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, expected)
        wanted = {"Q8_0": Q8Tensor, "Q4_0": Q4Tensor, "TQ1_0": TernaryTensor, "TQ2_0": TernaryTensor}
        assert isinstance(found, wanted.get(kind.name, np.ndarray))
    assert set(checkpoint.requantised.values()) == ({"Q5_1"} if kind == Kind.Q5_1 else set())
    assert checkpoint.config.quantised == kind.name.startswith("TQ")


@pytest.mark.parametrize("kind", [Kind.Q8_0, Kind.Q4_0])
def test_codes_reach_the_kernels_as_they_are(tiny_decoder: Tiny, tmp_path: Path, kind: Kind) -> None:
    directory, _ = tiny_decoder("qwen2", **WIDE)
    path = write_gguf(directory, tmp_path / "model.gguf", lambda name, data: kind if data.ndim == 2 else None)
    checkpoint = loaded(path)
    packed = pack_decoder(checkpoint)
    storage = {"Q8_0": "int8", "Q4_0": "int4"}[kind.name]
    assert {(linear.kind, linear.group) for linear in packed.linears.values()} == {(storage, 32)}
    assert packed.notes == ()
    parts = [checkpoint.tensors[f"layers.1.attn.{part}.weight"].dequantise() for part in "qkv"]
    np.testing.assert_array_equal(packed.linears["layers.1.attn.qkv"].dense_NK, np.concatenate(parts))
    np.testing.assert_array_equal(packed.linears["embed"].dense_NK, checkpoint.tensors["embed.weight"].dequantise())
    # Asked for by name they stay as well; another storage is made from their values.
    assert {linear.group for linear in pack_decoder(checkpoint, quantise=storage).linears.values()} == {32}
    for other in ("f32", "bf16", "int8", "int4"):
        if other != storage:
            assert {linear.kind for linear in pack_decoder(checkpoint, quantise=other).linears.values()} == {other}


def test_what_is_rounded_again_is_said(tiny_decoder: Tiny, tmp_path: Path) -> None:
    directory, _ = tiny_decoder("qwen3", num_hidden_layers=2, **WIDE)
    kinds = {"ffn_down": Kind.Q5_1, "ffn_up": Kind.Q5_0, "attn_q.": Kind.Q8_0}

    def types(name: str, data: np.ndarray) -> Kind | None:
        return next((kind for part, kind in kinds.items() if part in name), Kind.F16) if data.ndim == 2 else None

    checkpoint = loaded(write_gguf(directory, tmp_path / "model.gguf", types))
    packed = pack_decoder(checkpoint)
    stored = {name: (linear.kind, linear.group) for name, linear in packed.linears.items() if "layers.1" not in name}
    assert stored == {
        "embed": ("bf16", 0), "head": ("bf16", 0), "layers.0.attn.q": ("int8", 32), "layers.0.attn.k": ("bf16", 0),
        "layers.0.attn.v": ("bf16", 0), "layers.0.attn.out": ("bf16", 0), "layers.0.ffn.gate": ("bf16", 0),
        "layers.0.ffn.up": ("int8", 0), "layers.0.ffn.down": ("int8", 0),
    }  # fmt: skip
    assert packed.notes == (
        "4 of its matrices are stored as Q5_0 and Q5_1, which Kogata has no kernels for: "
        "they are rounded again, to int8.",
    )
    assert "to int4." in pack_decoder(checkpoint, quantise="int4").notes[0]
    exact = logits_TV(checkpoint, IDS)
    found = kogata.load(tmp_path / "model.gguf", kv="f32").logits(IDS)
    error = np.sqrt(((found - exact) ** 2).mean() / (exact**2).mean())
    print(f"relative error {error:.3f}")
    assert error < 0.1, "parts that are packed one by one are put together again"


def test_k_quants_are_multiplied_out(tiny_decoder: Tiny, tmp_path: Path) -> None:
    """Which gguf cannot make: their bytes are random, but for the scales."""
    rng = np.random.default_rng(0)
    sizes = {"Q4_K": (144, [0, 2]), "Q6_K": (210, [208]), "IQ4_XS": (136, [0]), "Q2_K": (84, [80, 82])}
    directory, _ = tiny_decoder("qwen3", num_hidden_layers=len(sizes), **WIDE)
    written = {}

    def edit(values: dict[str, Any], tensors: dict[str, Any]) -> None:
        for i, (kind, (size, scales)) in enumerate(sizes.items()):
            blocks = rng.integers(0, 256, (256, 2, size), np.uint8)
            for at in scales:
                blocks[:, :, at : at + 2] = rng.uniform(0.001, 0.01, (256, 2, 1)).astype(np.float16).view(np.uint8)
            written[i] = (Kind[kind], blocks.reshape(256, -1))
            tensors[f"blk.{i}.ffn_down.weight"] = written[i][1].view(np.int8)

    path = write_gguf(directory, tmp_path / "model.gguf", None, edit)
    retype(path, {f"blk.{i}.ffn_down.weight": kind for i, (kind, _) in written.items()})
    checkpoint = loaded(path)
    assert sorted(checkpoint.requantised.values()) == sorted(sizes)
    for i, (kind, data) in written.items():
        expected = gguf.quants.dequantize(data, kind)
        np.testing.assert_array_equal(checkpoint.tensors[f"layers.{i}.ffn.down.weight"], expected)
        assert expected.std() > 0
    damaged = path.read_bytes().replace(written[0][1].tobytes()[:16], b"\x00\x7c" + bytes(14))
    path.write_bytes(damaged)
    with pytest.raises(ModelError, match=r"'blk.0.ffn_down.weight' in .* not finite"):
        pack_decoder(loaded(path))


def retype(path: Path, kinds: dict[str, Kind]) -> None:
    """Gives tensors written as bytes the type that these are."""
    data = bytearray(path.read_bytes())
    for name, kind in kinds.items():
        at = data.index(len(name).to_bytes(8, "little") + name.encode()) + 8 + len(name)
        assert data[at : at + 4] == (2).to_bytes(4, "little")
        columns = int.from_bytes(data[at + 4 : at + 12], "little")
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        data[at + 4 : at + 12] = (columns // size * elements).to_bytes(8, "little")
        data[at + 20 : at + 24] = int(kind).to_bytes(4, "little")
    path.write_bytes(data)


# Ternary


def ternary_types(kind: Kind) -> Callable[[str, np.ndarray], Kind | None]:
    linear = ("attn_q.w", "attn_k.w", "attn_v.w", "attn_output.w", "ffn_")
    return lambda name, data: kind if data.ndim == 2 and any(part in name for part in linear) else None


def make_ternary(values: dict[str, Any], tensors: dict[str, Any]) -> None:
    """A scale a matrix, as BitNet has it, which float16 holds."""
    rng = np.random.default_rng(1)
    for name, data in tensors.items():
        if data.ndim == 2 and name.startswith("blk."):
            codes = rng.integers(-1, 2, data.shape)
            codes[0, :256] = 0  # a block of zeros has the scale 0
            tensors[name] = (codes * np.float16(rng.uniform(0.05, 0.2))).astype(np.float32)


@pytest.mark.parametrize("kind", [Kind.TQ1_0, Kind.TQ2_0, Kind.F16, Kind.BF16, None])
def test_bitnet(tiny_decoder: Tiny, tmp_path: Path, kind: Kind | None) -> None:
    """Ternary blocks and floats that are ternary give the same model, with a scale a row."""
    directory, _ = tiny_decoder("bitnet", hidden_act="relu2", num_hidden_layers=2, **WIDE)

    def edit(values: dict[str, Any], tensors: dict[str, Any]) -> None:
        make_ternary(values, tensors)
        if kind == Kind.BF16:  # of 8 bits of mantissa
            for name, data in tensors.items():
                if data.ndim == 2 and name.startswith("blk."):
                    tensors[name] = np.sign(data) * np.float32(0.0625)
        written.update(tensors)

    written: dict[str, Any] = {}
    path = write_gguf(directory, tmp_path / "model.gguf", kind and ternary_types(kind), edit)
    checkpoint = loaded(path)
    assert checkpoint.config.quantised
    assert checkpoint.config.unquantised == ("head",)
    assert checkpoint.config.activation == "relu2"
    for ours, theirs in (("attn.q", "attn_q"), ("ffn.down", "ffn_down")):
        found = checkpoint.tensors[f"layers.1.{ours}.weight"]
        assert isinstance(found, TernaryTensor)
        assert found.scales_NG.shape[1] == 1
        np.testing.assert_array_equal(found.dequantise(), written[f"blk.1.{theirs}.weight"])
    packed = pack_decoder(checkpoint)
    assert packed.linears["layers.0.attn.qkv"].ternary
    assert packed.linears["layers.0.attn.qkv"].group == 0
    assert packed.linears["embed"].kind == "int8"
    expected = logits_TV(checkpoint, IDS)
    found_TV = kogata.load(path, kv="f32").logits(IDS)
    print(f"int8 embedding and head: {np.corrcoef(found_TV.ravel(), expected.ravel())[0, 1]:.5f} correlated")
    assert np.corrcoef(found_TV.ravel(), expected.ravel())[0, 1] > 0.99


def test_scales_that_differ_by_block_stay_exact(tiny_decoder: Tiny, tmp_path: Path) -> None:
    directory, _ = tiny_decoder("bitnet", num_hidden_layers=2, **WIDE)

    def edit(values: dict[str, Any], tensors: dict[str, Any]) -> None:
        make_ternary(values, tensors)
        tensors["blk.0.ffn_down.weight"][5:, 256:] *= np.float32(2)
        tensors["blk.1.ffn_up.weight"][:] *= np.float32(2)
        written.update(tensors)

    written: dict[str, Any] = {}
    path = write_gguf(directory, tmp_path / "model.gguf", ternary_types(Kind.TQ2_0), edit)
    checkpoint = loaded(path)
    found = checkpoint.tensors["layers.0.ffn.down.weight"]
    assert isinstance(found, TernaryTensor)
    assert found.group == 256
    np.testing.assert_array_equal(found.dequantise(), written["blk.0.ffn_down.weight"])
    packed = pack_decoder(checkpoint).linears["layers.0.ffn.down"]
    assert (packed.kind, packed.group) == ("ternary", 256)
    np.testing.assert_array_equal(packed.dense_NK, written["blk.0.ffn_down.weight"])
    exact = logits_TV(checkpoint, IDS)
    found_TV = kogata.load(path, kv="f32", quantise="f32").logits(IDS)
    flipped = int((np.abs(found_TV - exact).max(1) > 1e-4 * np.abs(exact).max()).sum())
    print(f"{flipped} of {len(IDS)} tokens differ by a rounding that fell the other way")
    assert flipped <= 3


def test_bitnets_that_were_rounded_otherwise_are_not_taken_for_ternary(tiny_decoder: Tiny, tmp_path: Path) -> None:
    directory, _ = tiny_decoder("bitnet", num_hidden_layers=2, **WIDE)
    path = write_gguf(directory, tmp_path / "model.gguf", ternary_types(Kind.Q4_0), make_ternary)
    checkpoint = loaded(path)
    assert not checkpoint.config.quantised
    assert isinstance(checkpoint.tensors["layers.0.ffn.up.weight"], Q4Tensor)
    kogata.load(path).logits(IDS)


def test_a_scale_beside_a_matrix(tiny_decoder: Tiny, tmp_path: Path) -> None:
    directory, _ = tiny_decoder("bitnet", num_hidden_layers=2, **WIDE)

    def edit(values: dict[str, Any], tensors: dict[str, Any]) -> None:
        make_ternary(values, tensors)
        written.update(tensors)
        tensors["blk.0.ffn_up.scale"] = np.array([0.5], np.float32)
        tensors["token_embd.scale"] = np.array([3.0], np.float32)

    written: dict[str, Any] = {}
    checkpoint = loaded(write_gguf(directory, tmp_path / "model.gguf", ternary_types(Kind.TQ1_0), edit))
    found = checkpoint.tensors["layers.0.ffn.up.weight"]
    assert isinstance(found, TernaryTensor)
    np.testing.assert_array_equal(found.dequantise(), written["blk.0.ffn_up.weight"] * np.float32(0.5))
    np.testing.assert_array_equal(checkpoint.tensors["embed.weight"], written["token_embd.weight"] * np.float32(3))


def test_the_first_bitnets_have_another_activation(tiny_decoder: Tiny, tmp_path: Path) -> None:
    directory, _ = tiny_decoder("bitnet", hidden_act="silu")
    for architecture, activation in (("bitnet", "silu"), ("bitnet-b1.58", "relu2"), ("bitnet-25", "relu2")):
        path = write_gguf(directory, tmp_path / f"{architecture}.gguf", architecture=architecture)
        assert loaded(path).config.activation == activation


# Rope


def test_ropes(tiny_decoder: Tiny, tmp_path: Path) -> None:
    directory, _ = tiny_decoder("qwen2")

    def rope(**scaling: Any) -> Rope:
        values = {f"qwen2.rope.scaling.{key}": value for key, value in scaling.items()}
        return loaded(write_gguf(directory, tmp_path / "a.gguf", edit=lambda told, _: told.update(values))).config.rope

    plain = rope()
    assert plain.kind == "default"
    assert rope(type="linear", factor=1.0) == rope(type="none", factor=4.0) == plain
    assert (rope(type="linear", factor=4.0).kind, rope(factor=4.0).factor) == ("linear", 4.0)
    yarn = rope(type="yarn", factor=4.0, original_context_length=32, attn_factor=0.5, yarn_beta_fast=16.0)
    assert (yarn.original_context, yarn.beta_fast, yarn.beta_slow) == (32, 16.0, 1.0)
    assert yarn.attention_factor == pytest.approx(0.5 * (1 + 0.1 * np.log(4)))


# Files


def test_split_files(tiny_decoder: Tiny, tmp_path: Path) -> None:
    directory, _ = tiny_decoder("qwen3")
    whole = loaded(write_gguf(directory, tmp_path / "model.gguf"))
    parts = split(directory, tmp_path / "parts", 3)
    for part in parts:
        found = loaded(part)
        assert found.config == whole.config
        for name in whole.tensors:
            np.testing.assert_array_equal(found.tensors[name], whole.tensors[name])
    assert loaded(tmp_path / "parts").config == whole.config


def split(directory: Path, folder: Path, count: int) -> list[Path]:
    """As llama-gguf-split does it: the header in the first file, tensors in all."""
    folder.mkdir()
    paths = [folder / f"model-{i + 1:05}-of-{count:05}.gguf" for i in range(count)]
    for i, path in enumerate(paths):

        def edit(values: dict[str, Any], tensors: dict[str, Any], i: int = i) -> None:
            kept = [name for j, name in enumerate(tensors) if j % count == i]
            for name in set(tensors) - set(kept):
                del tensors[name]
            if i:
                architecture = values["general.architecture"]
                values.clear()
                values["general.architecture"] = architecture
            values |= {"split.no": i, "split.count": count, "split.tensors.count": 99}

        write_gguf(directory, path, edit=edit)
    return paths


def test_converting(tiny_decoder: Tiny, tmp_path: Path) -> None:
    directory, _ = tiny_decoder("qwen3", **WIDE)
    template = "{{ messages[0].content }}"
    path = write_gguf(
        directory,
        tmp_path / "model.gguf",
        lambda name, data: Kind.Q8_0 if data.ndim == 2 else None,
        lambda values, _: values.update({"tokenizer.chat_template": template}),
    )
    made = convert_decoder(path, tmp_path / "packed")
    read = kogata.load(tmp_path / "packed")
    assert (read.name, read.packed.chat_template, read.packed.bos_id) == ("model.gguf", template, 258)
    assert read.packed.linears["layers.0.ffn.gate_up"].group == 32
    text = "the tide <s> 潮位"
    np.testing.assert_array_equal(read.tokens(text), kogata.load(path).tokens(text))
    np.testing.assert_array_equal(read.logits(IDS), kogata.load(path).logits(IDS))
    assert made.identity != pack_decoder(loaded(path), quantise="bf16").identity


def test_only_what_is_looked_up_is_read(tiny_decoder: Tiny, tmp_path: Path) -> None:
    directory, _ = tiny_decoder("qwen3", **WIDE)
    path = write_gguf(directory, tmp_path / "model.gguf", lambda name, data: Kind.Q8_0 if data.ndim == 2 else None)
    found = loaded(path).tensors["layers.0.ffn.up.weight"]
    assert isinstance(found, Q8Tensor)
    assert not found.blocks_NGB.flags.owndata
    assert not found.blocks_NGB.flags.writeable


# Tokens


def test_tokens_that_begin_and_end_texts(tiny_decoder: Tiny, tmp_path: Path) -> None:
    directory, _ = tiny_decoder()

    def told(**changes: Any) -> DecoderCheckpoint:
        def edit(values: dict[str, Any], _: dict[str, Any]) -> None:
            for key, value in changes.items():
                values.pop(f"tokenizer.ggml.{key}", None)
                if value is not None:
                    values[f"tokenizer.ggml.{key}"] = value

        return loaded(write_gguf(directory, tmp_path / "a.gguf", edit=edit))

    plain = told()
    assert (plain.bos_id, plain.bos_token, plain.eos_token, plain.stop_ids) == (258, "<s>", "</s>", (259,))
    assert told(add_bos_token=False).bos_id is None
    assert told(add_bos_token=None).bos_id is None
    assert told(add_bos_token=None, pre="llama-bpe").bos_id == 258
    assert told(eot_token_id=261, eos_token_id=260).stop_ids == (260, 261, 259)  # </s> is one that ends by its name
    tokens = json.loads(json.dumps(["<|eot_id|>", "<|im_end|>"]))
    assert told(tokens=[*loaded_tokens(directory)[:260], *tokens]).stop_ids == (259, 260, 261)


def loaded_tokens(directory: Path) -> list[str]:
    from gguf_writer import vocabulary

    found = vocabulary(json.loads((directory / "tokenizer.json").read_text()), 262)
    return list(found["tokenizer.ggml.tokens"])
