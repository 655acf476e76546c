"""Decoders of published shapes with random weights: as checkpoints in memory and on disk, and as GGUF files for
llama.cpp; and processes that are measured in turn."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from kogata.config import DecoderConfig, Rope
from kogata.weights import DecoderCheckpoint, FloatTensor, TernaryTensor
from kogata.weights.safetensors import write_safetensors

CACHE = Path(os.environ.get("KOGATA_BENCH_CACHE", Path.home() / ".cache" / "kogata-bench"))

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


def gguf(shape: str, kind: str) -> Gguf:
    """The file, written if it is not there: kind "TQ2_0", "TQ1_0", "Q4_0" or "F16"."""
    import gguf as library

    path = CACHE / f"{shape}-{kind}.gguf"
    if path.exists():
        return Gguf(path, kind)
    CACHE.mkdir(parents=True, exist_ok=True)
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


def published(shape: str) -> Path:
    """A checkpoint in Hugging Face's layout, packed as BitNet 2B4T's is published; written if it is not there."""
    folder = CACHE / f"{shape}-published"
    if folder.exists():
        return folder
    made, half = config(shape), folder.with_suffix(".part")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    parts = {
        "attn.q": "self_attn.q_proj", "attn.k": "self_attn.k_proj", "attn.v": "self_attn.v_proj",
        "attn.out": "self_attn.o_proj", "attn.sub_norm": "self_attn.attn_sub_norm", "attn.norm": "input_layernorm",
        "ffn.gate": "mlp.gate_proj", "ffn.up": "mlp.up_proj", "ffn.down": "mlp.down_proj",
        "ffn.sub_norm": "mlp.ffn_sub_norm", "ffn.norm": "post_attention_layernorm",
    }  # fmt: skip
    arrays: dict[str, NDArray[Any]] = {}
    packed: dict[str, NDArray[np.uint8]] = {}
    for name, tensor in _Random(made).items():
        layer, _, part = name.removeprefix("layers.").removesuffix(".weight").partition(".")
        theirs = f"layers.{layer}.{parts[part]}" if part in parts else name.removesuffix(".weight")
        theirs = f"model.{theirs.replace('embed', 'embed_tokens')}.weight"
        if isinstance(tensor, TernaryTensor):
            if part not in packed:
                four = (tensor.codes_i8() + 1).astype(np.uint8).reshape(4, tensor.shape[0] // 4, tensor.shape[1])
                packed[part] = four[0] | four[1] << 2 | four[2] << 4 | four[3] << 6
            arrays[theirs] = packed[part]
            arrays[f"{theirs}_scale"] = tensor.scales_NG[:1, 0]
        else:
            arrays[theirs] = tensor
    write_safetensors(half / "model.safetensors", arrays)
    stated = {
        "model_type": "bitnet", "hidden_size": made.d_model, "intermediate_size": made.d_ff,
        "num_hidden_layers": made.n_layers, "num_attention_heads": made.n_heads,
        "num_key_value_heads": made.n_kv_heads, "vocab_size": made.vocab_size, "hidden_act": "relu2",
        "max_position_embeddings": made.context, "rms_norm_eps": made.norm_eps, "rope_theta": made.rope.theta,
        "tie_word_embeddings": True,
        "quantization_config": {
            "quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"
        },
    }  # fmt: skip
    (half / "config.json").write_text(json.dumps(stated), encoding="utf-8")
    (half / "tokenizer.json").write_text(json.dumps(_tokenizer(made.vocab_size)), encoding="utf-8")
    half.rename(folder)
    return folder


def converted(shape: str, *, ternary: str = "auto", head: str = "auto") -> Path:
    """The folder that `kogata convert` makes of :func:`published`; made if it is not there."""
    folder = CACHE / f"{shape}-{ternary}-{head}"
    if not folder.exists():
        command = [sys.executable, "-m", "kogata.app.cli", "convert", str(published(shape)), str(folder)]
        subprocess.run([*command, "--ternary", ternary, "--head", head], check=True, stdout=subprocess.DEVNULL)
    return folder


def _tokenizer(vocab_size: int) -> dict[str, Any]:
    """A byte a token, and words that no text comes to for the rest of the vocabulary."""
    from tokenizers.pre_tokenizers import ByteLevel

    words = [*sorted(ByteLevel.alphabet()), *(f"<{n}>" for n in range(256, vocab_size))]
    return {
        "version": "1.0", "added_tokens": [], "normalizer": None, "post_processor": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": {word: n for n, word in enumerate(words)}, "merges": []},
    }  # fmt: skip


# --- processes that are measured in turn: a line of JSON in, a line of JSON out


class Side:
    """One of those that are compared: this benchmark again, with ``--side``."""

    def __init__(self, script: str, name: str, *arguments: str) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, script, "--side", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.loaded = self._answer()

    def ask(self, **question: Any) -> dict[str, Any]:
        """What it answers."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with {self._process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


def questions() -> Iterator[dict[str, Any]]:
    """What a side is asked."""
    for line in sys.stdin:
        yield json.loads(line)


def answer(**value: Any) -> None:
    """What a side answers; the first one says that it is ready."""
    print(json.dumps(value), flush=True)
