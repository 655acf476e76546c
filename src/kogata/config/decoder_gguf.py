"""The header of a GGUF file -> our settings.

What llama.cpp takes for granted is taken for granted here too: it defines what such a file means.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from kogata.config.decoder_hf import LINEARS
from kogata.config.parameters import check_eps, check_number, check_size, shown
from kogata.config.rope import Rope
from kogata.errors import ModelError

#: ``general.architecture`` -> ours. ``bitnet`` are the first b1.58 models (1bitLLM), the others those of Microsoft.
ARCHITECTURES = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma3": "gemma3_text",
    "bitnet": "bitnet",
    "bitnet-b1.58": "bitnet",
    "bitnet-25": "bitnet",
}

_SIZES = {
    "n_layers": "block_count",
    "d_model": "embedding_length",
    "n_heads": "attention.head_count",
    "d_ff": "feed_forward_length",
    "context": "context_length",
}

#: What would change the result and is not computed here.
_REFUSED = (
    "expert_count",
    "attention.scale",
    "attention.clamp_kqv",
    "attention.max_alibi_bias",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "logit_scale",
    "residual_scale",
    "embedding_scale",
)

_GEMMA_PATTERN = 6  # every sixth layer sees everything
_GEMMA_WINDOW_THETA = 1e4
_GEMMA_27B_LAYERS = 62


def settings(
    told: Mapping[str, Any],
    vocab_size: int,
    present: Collection[str],
    ternary: Collection[str],
    factors: tuple[float, ...],
) -> dict[str, Any]:
    """The arguments of ``DecoderConfig`` for a file.

    Args:
        told: The header's values.
        vocab_size: Rows of the embedding.
        present: The names of its tensors: what a model has beyond its architecture's least shows there.
        ternary: Our names of its linears with ternary weights.
        factors: What ``rope_freqs.weight`` holds, if it is there.

    Raises:
        ModelError: The architecture is not one of :data:`ARCHITECTURES`, a number is missing or contradictory, or the
            model uses a variant that would compute something else.
    """
    theirs = told.get("general.architecture")
    architecture = ARCHITECTURES.get(theirs) if isinstance(theirs, str) else None
    if architecture is None:
        known = ", ".join(ARCHITECTURES)
        raise ModelError(f"The architecture {shown(theirs)} cannot be run; of GGUF files Kogata runs {known}.")
    values = {key.removeprefix(f"{theirs}."): value for key, value in told.items() if key.startswith(f"{theirs}.")}
    for key in _REFUSED:
        if values.get(key):
            raise ModelError(f"The file's {theirs}.{key} is {shown(values[key])}, which cannot be run.")
    sizes: dict[str, int] = {}
    for ours, key in _SIZES.items():
        if key not in values:
            raise ModelError(f"The file's header lacks {theirs}.{key}.")
        sizes[ours] = check_size(ours, values[key])
    heads, gemma = sizes["n_heads"], architecture == "gemma3_text"
    if "attention.key_length" not in values and sizes["d_model"] % heads:
        raise ModelError(f"{heads} attention heads do not divide the model's width of {sizes['d_model']}.")
    d_head = check_size("d_head", values.get("attention.key_length", sizes["d_model"] // heads))
    meant = {"attention.value_length": d_head, "rope.dimension_count": d_head, "vocab_size": vocab_size}
    for key, wanted in meant.items():
        if values.get(key, wanted) != wanted:
            raise ModelError(f"The file's {theirs}.{key} is {shown(values[key])}, but its weights make it {wanted}.")
    rope = _rope(values, sizes["context"], factors)
    pattern, window = _pattern(values, sizes["n_layers"]) if gemma else ("F" * sizes["n_layers"], 0)
    tied = "output.weight" not in present
    unquantised = [name for name in _linears(sizes["n_layers"]) if name not in ternary]
    width = sizes["d_model"] // heads if gemma and sizes["n_layers"] == _GEMMA_27B_LAYERS else d_head
    window_theta = check_number("rope theta", values.get("rope.freq_base_swa", _GEMMA_WINDOW_THETA), 2, 1e12)
    window_rope = Rope(theta=window_theta) if "W" in pattern else None
    return sizes | {
        "architecture": architecture,
        "n_kv_heads": check_size("n_kv_heads", values.get("attention.head_count_kv", heads)),
        "d_head": d_head,
        "vocab_size": vocab_size,
        "context": max(sizes["context"], int(rope.original_context * rope.factor)),
        "norm_eps": check_eps("norm_eps", values.get("attention.layer_norm_rms_epsilon")),
        "activation": _activation(str(theirs)),
        "rope": rope,
        "window_rope": window_rope if window_rope != rope else None,
        "pattern": pattern,
        "window": window,
        "qkv_bias": "blk.0.attn_q.bias" in present,
        "out_bias": "blk.0.attn_output.bias" in present,
        "ffn_bias": "blk.0.ffn_gate.bias" in present,
        "qk_norm": architecture == "qwen3" or gemma,
        "sub_norms": architecture == "bitnet",
        "post_norms": gemma,
        "embed_scale": math.sqrt(sizes["d_model"]) if gemma else 1.0,
        "attention_scale": width**-0.5,
        "tied": tied,
        "quantised": bool(ternary),
        "unquantised": tuple(unquantised) if ternary else (),
    }


def _linears(n_layers: int) -> list[str]:
    return ["head", *(f"layers.{i}.{part}" for i in range(n_layers) for part in LINEARS)]


def _activation(architecture: str) -> str:
    if architecture == "gemma3":
        return "gelu_tanh"
    return "relu2" if architecture in ("bitnet-b1.58", "bitnet-25") else "silu"


def _rope(values: Mapping[str, Any], context: int, factors: tuple[float, ...]) -> Rope:
    theta = check_number("rope theta", values.get("rope.freq_base", 1e4), 2, 1e12)
    kind = values.get("rope.scaling.type", "linear")
    stretched = values.get("rope.scaling.factor", values.get("rope.scale_linear", 1.0))  # the second in old files
    factor = check_number("rope factor", stretched, 1, 1e6)
    if factors:
        if factor != 1.0 and kind != "none":
            raise ModelError("The file stretches its rotary positions twice, by a factor and by rope_freqs.weight.")
        return Rope(theta=theta, kind="factors", factors=factors)
    if kind == "none" or (kind == "linear" and factor == 1.0):
        return Rope(theta=theta)
    if kind == "linear":
        return Rope(theta=theta, kind="linear", factor=factor)
    if kind != "yarn":
        raise ModelError(f"Rotary positions of type {shown(kind)} cannot be run; of GGUF files linear and yarn can.")
    more: dict[str, Any] = {}
    for ours, key in (("beta_fast", "yarn_beta_fast"), ("beta_slow", "yarn_beta_slow")):
        if f"rope.scaling.{key}" in values:
            more[ours] = check_number(f"rope {ours}", values[f"rope.scaling.{key}"], 1e-6, 1e6)
    attention = check_number("rope attention_factor", values.get("rope.scaling.attn_factor", 1.0), 1e-6, 1e6)
    return Rope(
        theta=theta,
        kind="yarn",
        factor=factor,
        original_context=check_size("context", values.get("rope.scaling.original_context_length", context)),
        attention_factor=attention * (1.0 + 0.1 * math.log(factor)),
        **more,
    )


def _pattern(values: Mapping[str, Any], n_layers: int) -> tuple[str, int]:
    """A letter a layer, and the window of those with a W (Gemma 3)."""
    window = values.get("attention.sliding_window", 0)
    if not window:
        return "F" * n_layers, 0
    given = values.get("attention.sliding_window_pattern", _GEMMA_PATTERN)
    if isinstance(given, list):
        if len(given) != n_layers or not all(isinstance(one, bool) for one in given):
            raise ModelError(f"The file's sliding_window_pattern is {shown(given)}; one flag a layer is accepted.")
        pattern = "".join("W" if one else "F" for one in given)
    elif type(given) is not int or given < 1:
        raise ModelError(f"The file's sliding_window_pattern is {shown(given)}; 1 or more is accepted.")
    else:
        pattern = "".join("W" if (i + 1) % given else "F" for i in range(n_layers))
    return pattern, check_size("window", window) if "W" in pattern else 0
