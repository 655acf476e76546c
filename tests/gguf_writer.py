"""A Hugging Face directory written as a GGUF file, by the rules of llama.cpp's converter."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

Kind = gguf.GGMLQuantizationType
Types = Callable[[str, NDArray[np.float32]], Kind | None]

ARCHITECTURES = {"gemma3_text": "gemma3", "bitnet": "bitnet-b1.58"}
NAMES = {
    "model.embed_tokens.": "token_embd.", "model.norm.": "output_norm.", "lm_head.": "output.", "model.layers.": "blk.",
    ".input_layernorm.": ".attn_norm.", ".self_attn.q_proj.": ".attn_q.", ".self_attn.k_proj.": ".attn_k.",
    ".self_attn.v_proj.": ".attn_v.", ".self_attn.o_proj.": ".attn_output.", ".self_attn.q_norm.": ".attn_q_norm.",
    ".self_attn.k_norm.": ".attn_k_norm.", ".self_attn.attn_sub_norm.": ".attn_sub_norm.",
    ".mlp.gate_proj.": ".ffn_gate.", ".mlp.up_proj.": ".ffn_up.", ".mlp.down_proj.": ".ffn_down.",
    ".mlp.ffn_sub_norm.": ".ffn_sub_norm.",
}  # fmt: skip
NORMS = {".post_attention_layernorm.": ".ffn_norm."}
GEMMA_NORMS = {
    ".post_attention_layernorm.": ".post_attention_norm.", ".pre_feedforward_layernorm.": ".ffn_norm.",
    ".post_feedforward_layernorm.": ".post_ffw_norm.",
}  # fmt: skip


def write_gguf(
    directory: Path,
    path: Path,
    types: Types | None = None,
    edit: Callable[[dict[str, Any], dict[str, Any]], None] | None = None,
    architecture: str | None = None,
) -> Path:
    """Writes ``path`` and returns it.

    Args:
        directory: A decoder in floats.
        types: What a tensor is stored as, by its name in the file; F32 where it is None.
        edit: Changes the header's values and the tensors (float32, or what gguf has quantised) before they are written.
        architecture: ``general.architecture`` where it is not the usual one.
    """
    config = json.loads((directory / "config.json").read_text())
    values = header(config, architecture or ARCHITECTURES.get(config["model_type"], config["model_type"]))
    values |= vocabulary(json.loads((directory / "tokenizer.json").read_text()), config["vocab_size"])
    tensors: dict[str, Any] = dict(converted(config, load_file(directory / "model.safetensors")))
    if edit is not None:
        edit(values, tensors)
    write(path, values, tensors, types)
    return path


def write(path: Path, values: dict[str, Any], tensors: dict[str, Any], types: Types | None = None) -> None:
    writer = gguf.GGUFWriter(path, values.pop("general.architecture"))
    for key, value in values.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, list):
            writer.add_array(key, value)
        else:
            writer.add_uint32(key, value)
    for name, tensor in tensors.items():
        kind = types(name, tensor) if types is not None else None
        if kind is None:
            writer.add_tensor(name, np.ascontiguousarray(tensor))
        elif kind == Kind.F16:
            writer.add_tensor(name, tensor.astype(np.float16))
        else:
            writer.add_tensor(name, gguf.quants.quantize(np.ascontiguousarray(tensor), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def header(config: dict[str, Any], arch: str) -> dict[str, Any]:
    heads, kind = config["num_attention_heads"], config["model_type"]
    d_head = config.get("head_dim") or config["hidden_size"] // heads
    rope = config.get("rope_parameters") or {}
    rope = rope.get("full_attention", rope)
    values = {
        "general.architecture": arch,
        f"{arch}.block_count": config["num_hidden_layers"],
        f"{arch}.context_length": config["max_position_embeddings"],
        f"{arch}.embedding_length": config["hidden_size"],
        f"{arch}.feed_forward_length": config["intermediate_size"],
        f"{arch}.attention.head_count": heads,
        f"{arch}.attention.head_count_kv": config["num_key_value_heads"],
        f"{arch}.attention.key_length": d_head,
        f"{arch}.attention.value_length": d_head,
        f"{arch}.attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        f"{arch}.rope.freq_base": float(rope["rope_theta"]),
        f"{arch}.rope.dimension_count": d_head,
    }
    if kind == "llama":
        values[f"{arch}.vocab_size"] = config["vocab_size"]
    if kind == "gemma3_text":
        values[f"{arch}.attention.sliding_window"] = config["sliding_window"]
        values[f"{arch}.attention.sliding_window_pattern"] = [
            layer == "sliding_attention" for layer in config["layer_types"]
        ]
    if rope.get("rope_type") in ("linear", "yarn"):
        values[f"{arch}.rope.scaling.type"] = rope["rope_type"]
        values[f"{arch}.rope.scaling.factor"] = float(rope["factor"])
    if rope.get("rope_type") == "yarn":
        values[f"{arch}.rope.scaling.original_context_length"] = rope["original_max_position_embeddings"]
    return values


def vocabulary(tokenizer: dict[str, Any], n_tokens: int) -> dict[str, Any]:
    tokens = [f"[PAD{i}]" for i in range(n_tokens)]
    kinds = [5] * n_tokens
    for token, place in tokenizer["model"]["vocab"].items():
        tokens[place], kinds[place] = token, 1
    for token in tokenizer["added_tokens"]:
        tokens[token["id"]], kinds[token["id"]] = token["content"], 3 if token["special"] else 4
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"]["merges"]]
    told = {
        "model": "gpt2", "pre": "gpt-2", "tokens": tokens, "token_type": kinds, "merges": merges,
        "bos_token_id": 258, "eos_token_id": 259, "add_bos_token": True,
    }  # fmt: skip
    return {f"tokenizer.ggml.{key}": value for key, value in told.items()}


def converted(config: dict[str, Any], tensors: dict[str, Any]) -> dict[str, NDArray[np.float32]]:
    kind = config["model_type"]
    found = {}
    for name, tensor in tensors.items():
        data = tensor.astype(np.float32)
        if kind == "gemma3_text" and name.endswith("norm.weight"):
            data = data + np.float32(1)
        if kind == "llama" and ("q_proj" in name or "k_proj" in name):
            heads = config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"]
            data = data.reshape(heads, 2, len(data) // heads // 2, -1).swapaxes(1, 2).reshape(data.shape)
        for theirs, ours in (NAMES | (GEMMA_NORMS if kind == "gemma3_text" else NORMS)).items():
            name = name.replace(theirs, ours)
        if name != "output.weight" or not config.get("tie_word_embeddings"):
            found[name] = data
    rope = config.get("rope_parameters") or {}
    if rope.get("rope_type") == "llama3":
        found["rope_freqs.weight"] = np.array(factors(config, rope), np.float32)
    return found


def factors(config: dict[str, Any], rope: dict[str, Any]) -> list[float]:
    d_head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    found, old = [], rope["original_max_position_embeddings"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    for i in range(0, d_head, 2):
        length = 2 * math.pi * rope["rope_theta"] ** (i / d_head)
        if length < old / high:
            found.append(1.0)
        elif length > old / low:
            found.append(rope["factor"])
        else:
            smooth = (old / length - low) / (high - low)
            found.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return found
