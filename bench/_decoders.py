"""Decoders of published shapes with random weights: as our checkpoints, and as GGUF files for llama.cpp."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from kogata.config import DecoderConfig, Rope
from kogata.weights import DecoderCheckpoint, FloatTensor, TernaryTensor

SIZES = {
    "2B4T": {"d_model": 2560, "d_ff": 6912, "n_layers": 30, "n_heads": 20, "n_kv_heads": 5, "vocab_size": 128256},
    "150M": {"d_model": 768, "d_ff": 3072, "n_layers": 12, "n_heads": 12, "n_kv_heads": 4, "vocab_size": 50304},
}


def config(shape: str, n_layers: int | None = None, context: int = 131_072) -> DecoderConfig:
    """BitNet's architecture at one of :data:`SIZES`."""
    sizes = dict(SIZES[shape])
    sizes["n_layers"] = n_layers or sizes["n_layers"]
    d_head = sizes["d_model"] // sizes["n_heads"]
    return DecoderConfig(
        architecture="bitnet", **sizes, d_head=d_head, context=context, norm_eps=1e-5, activation="relu2",
        rope=Rope(theta=500_000.0), pattern="F" * sizes["n_layers"], sub_norms=True, attention_scale=d_head**-0.5,
        tied=True, quantised=True, unquantised=("head",),
    )  # fmt: skip


def codes(shape: tuple[int, int], seed: int) -> NDArray[np.int8]:
    """Random -1, 0 and 1, as many of each."""
    return np.random.default_rng(seed).integers(-1, 2, shape, np.int8)


class _Random(Mapping[str, Any]):
    """Tensors made when they are looked up; layers repeat each other's codes, which no kernel can notice."""

    def __init__(self, config: DecoderConfig) -> None:
        self._shapes = {parameter.name: parameter.shape for parameter in config.parameters()}
        self._codes: dict[str, NDArray[np.int8]] = {}

    def __getitem__(self, name: str) -> FloatTensor | TernaryTensor:
        shape = self._shapes[name]
        part = name.split(".", 2)[-1]
        if len(shape) == 1:
            return np.ones(shape, np.float32)
        if name == "embed.weight":
            return np.random.default_rng(0).standard_normal(shape, np.float32)
        n, k = shape
        if part not in self._codes:
            self._codes[part] = codes((n, k), len(self._codes) + 1)
        scale = np.full((n, 1), k**-0.5, np.float32)
        return TernaryTensor((n, k), scale, lambda: self._codes[part])

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


def checkpoint(shape: str, n_layers: int | None = None) -> DecoderCheckpoint:
    """Random weights of a shape; there is no tokenizer."""
    made = config(shape, n_layers)
    return DecoderCheckpoint(shape, made, _Random(made), cast("Any", None), None, "", "", None, (), "")


@dataclass(frozen=True)
class Gguf:
    """A model for llama.cpp: ternary (or 4-bit) linears, the embedding and head at 8 bits."""

    path: Path
    kind: str


def gguf(shape: str, kind: str, folder: Path) -> Gguf:
    """The file, written if it is not there: kind "TQ2_0", "TQ1_0", "Q4_0" or "F16"."""
    import gguf as library

    path = folder / f"{shape}-{kind}.gguf"
    if path.exists():
        return Gguf(path, kind)
    made = config(shape)
    half = path.with_suffix(".part")
    writer = library.GGUFWriter(half, "bitnet", use_temp_file=True)
    writer.add_context_length(made.context)
    writer.add_embedding_length(made.d_model)
    writer.add_block_count(made.n_layers)
    writer.add_feed_forward_length(made.d_ff)
    writer.add_head_count(made.n_heads)
    writer.add_head_count_kv(made.n_kv_heads)
    writer.add_layer_norm_rms_eps(made.norm_eps)
    writer.add_rope_dimension_count(made.d_head)
    writer.add_rope_freq_base(made.rope.theta)
    writer.add_vocab_size(made.vocab_size)
    writer.add_tokenizer_model("no_vocab")
    quantisation = library.GGMLQuantizationType[kind]
    packed: dict[str, Any] = {}

    def add(name: str, tensor: FloatTensor, to: Any) -> None:
        data = tensor.astype(np.float16) if to.name == "F16" else library.quants.quantize(tensor, to)
        writer.add_tensor(name, data, raw_dtype=to)
        packed[name.split(".", 2)[-1]] = data

    tensors = _Random(made)
    add("token_embd.weight", cast("FloatTensor", tensors["embed.weight"]), library.GGMLQuantizationType.Q8_0)
    writer.add_tensor("output_norm.weight", np.ones(made.d_model, np.float32))
    parts = {
        "attn.q": "attn_q", "attn.k": "attn_k", "attn.v": "attn_v", "attn.out": "attn_output", "ffn.gate": "ffn_gate",
        "ffn.up": "ffn_up", "ffn.down": "ffn_down",
    }  # fmt: skip
    norms = {"attn.norm": "attn_norm", "attn.sub_norm": "attn_sub_norm", "ffn.norm": "ffn_norm",
             "ffn.sub_norm": "ffn_sub_norm"}  # fmt: skip
    for i in range(made.n_layers):
        for ours, theirs in norms.items():
            writer.add_tensor(f"blk.{i}.{theirs}.weight", cast("FloatTensor", tensors[f"layers.{i}.{ours}.weight"]))
        for ours, theirs in parts.items():
            if i == 0:
                weight = cast("TernaryTensor", tensors[f"layers.0.{ours}.weight"])
                add(f"blk.0.{theirs}.weight", weight.dequantise(), quantisation)
            else:
                writer.add_tensor(f"blk.{i}.{theirs}.weight", packed[f"{theirs}.weight"], raw_dtype=quantisation)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    half.rename(path)
    return Gguf(path, kind)
