"""Hugging Face's ``config.json`` of a decoder -> our settings.

What transformers takes for granted is taken for granted here too; what it would compute and we would not is refused.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kogata.config.parameters import check_eps, check_flag, check_number, check_size, shown
from kogata.config.rope import Rope
from kogata.errors import ModelError

#: Hugging Face's ``model_type`` of the decoders that run. A ``gemma3``'s ``text_config`` is a ``gemma3_text``.
DECODERS = ("llama", "qwen2", "qwen3", "gemma3_text", "bitnet")

#: The linears of a layer: ours -> Hugging Face's.
LINEARS = {
    "attn.q": "self_attn.q_proj",
    "attn.k": "self_attn.k_proj",
    "attn.v": "self_attn.v_proj",
    "attn.out": "self_attn.o_proj",
    "ffn.gate": "mlp.gate_proj",
    "ffn.up": "mlp.up_proj",
    "ffn.down": "mlp.down_proj",
}

_SIZES = {
    "n_layers": "num_hidden_layers",
    "d_model": "hidden_size",
    "n_heads": "num_attention_heads",
    "d_ff": "intermediate_size",
    "vocab_size": "vocab_size",
    "context": "max_position_embeddings",
}

_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "relu2": "relu2",
}

_MOST_PATTERNS = 1_000

#: What transformers assumes where the file is silent. Sizes are assumed for Gemma 3 only, whose files rely on it.
_ASSUMED: dict[str, dict[str, Any]] = {
    "llama": {"rms_norm_eps": 1e-6, "hidden_act": "silu", "rope_theta": 1e4, "tie_word_embeddings": False},
    "qwen2": {"rms_norm_eps": 1e-6, "hidden_act": "silu", "rope_theta": 1e4, "tie_word_embeddings": False},
    "qwen3": {
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "rope_theta": 1e4,
        "tie_word_embeddings": False,
        "head_dim": 128,
    },
    "bitnet": {"rms_norm_eps": 1e-5, "hidden_act": "relu2", "rope_theta": 5e5, "tie_word_embeddings": False},
    "gemma3_text": {
        "rms_norm_eps": 1e-6,
        "hidden_activation": "gelu_pytorch_tanh",
        "rope_theta": 1e6,
        "rope_local_base_freq": 1e4,
        "tie_word_embeddings": True,
        "vocab_size": 262_208,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131_072,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "sliding_window_pattern": 6,
    },
}


@dataclass(frozen=True, slots=True)
class Quantisation:
    """How the file of a BitNet-like model holds its linears: ``quantization_config`` with ``quant_method: bitnet``.

    Attributes:
        linear_class: ``"bitlinear"`` stores ``1 / mean|W|`` as ``weight_scale``, ``"autobitlinear"`` ``mean|W|``.
        mode: ``"offline"``: codes and ``weight_scale``; ``"online"``: weights at 16 or 32 bits, to be quantised.
        binary: Online, by the original BitNet: the sign of ``W - mean W`` (our own key, ``"weights": "binary"``).
        norms: Each linear has an RMS norm of its own (``use_rms_norm``).
        norm_eps: Added to the mean square in those.
        skipped: Names and patterns of Hugging Face's modules that are not quantised; None: the head only.
    """

    linear_class: Literal["bitlinear", "autobitlinear"]
    mode: Literal["offline", "online"]
    binary: bool = False
    norms: bool = False
    norm_eps: float = 1e-6
    skipped: tuple[str, ...] | None = None


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``DecoderConfig`` for a ``config.json``.

    Raises:
        ModelError: It does not describe a decoder that can be run.
    """
    text = _text_config(config)
    architecture: str = text["model_type"]
    gemma = architecture == "gemma3_text"
    values = _ASSUMED[architecture] | text
    sizes: dict[str, int] = {}
    for ours, theirs in _SIZES.items():
        if values.get(theirs) is None:
            raise ModelError(f"config.json lacks {theirs!r}.")
        sizes[ours] = check_size(ours, values[theirs])
    n_kv_heads = check_size("n_kv_heads", _or_else(values.get("num_key_value_heads"), sizes["n_heads"]))
    d_head = check_size("d_head", _or_else(values.get("head_dim"), sizes["d_model"] // sizes["n_heads"]))
    if values.get("head_dim") is None and sizes["d_model"] % sizes["n_heads"]:
        raise ModelError(f"{sizes['n_heads']} attention heads do not divide the model's width of {sizes['d_model']}.")
    rope, window_rope = _ropes(values, sizes["context"])
    pattern, window = _pattern(values, sizes["n_layers"])
    tied = check_flag("tie_word_embeddings", values["tie_word_embeddings"])
    quantised, early_bitnet = quantisation(config), values.get("weight_bits") is not None
    for name in ("final_logit_softcapping", "attn_logit_softcapping", "use_bidirectional_attention"):
        if gemma and values.get(name):
            raise ModelError(f"config.json says {name!r}: {shown(values[name])}, which cannot be run.")
    attention_bias = architecture != "qwen2" and _flag(values, "attention_bias")
    scalar = check_number("query_pre_attn_scalar", values["query_pre_attn_scalar"] if gemma else d_head, 1e-3, 1e6)
    return sizes | {
        "architecture": architecture,
        "n_kv_heads": n_kv_heads,
        "d_head": d_head,
        "context": _stretched(rope, sizes["context"]),
        "norm_eps": check_eps("rms_norm_eps", values["rms_norm_eps"]),
        "activation": _activation(values["hidden_activation" if gemma else "hidden_act"]),
        "rope": rope,
        "window_rope": window_rope if "W" in pattern and window_rope != rope else None,
        "pattern": pattern,
        "window": window,
        "qkv_bias": architecture == "qwen2" or attention_bias,
        "out_bias": attention_bias,
        "ffn_bias": architecture == "llama" and _flag(values, "mlp_bias"),
        "qk_norm": architecture == "qwen3" or gemma,
        "sub_norms": architecture == "bitnet" or early_bitnet,
        "post_norms": gemma,
        "embed_scale": _rounded(math.sqrt(sizes["d_model"]), _dtype(config, text)) if gemma else 1.0,
        "attention_scale": scalar**-0.5,
        "tied": tied,
        "quantised": quantised is not None,
        "unquantised": _unquantised(quantised.skipped, sizes["n_layers"]) if quantised else (),
        "linear_norms": quantised is not None and quantised.norms,
        "linear_norm_eps": quantised.norm_eps if quantised else 1e-6,
    }


def quantisation(config: Mapping[str, Any]) -> Quantisation | None:
    """How the linears of a ``config.json``'s model are stored, or None where they are not quantised.

    The first published b1.58 models (1bitLLM) say ``weight_bits: 1, input_bits: 8`` instead.

    Raises:
        ModelError: They are quantised in another way than BitNet's, or a setting is not known.
    """
    given = config.get("quantization_config")
    if given is None:
        bits = config.get("weight_bits"), config.get("input_bits")
        if bits == (None, None):
            return None
        if bits != (1, 8):
            raise ModelError(
                f"config.json says weight_bits {shown(bits[0])} and input_bits {shown(bits[1])}; 1 and 8 can be run."
            )
        return Quantisation("autobitlinear", "online")
    if not isinstance(given, Mapping):
        raise ModelError(f"config.json's 'quantization_config' is {shown(given)}; an object is accepted.")
    method = given.get("quant_method")
    if method != "bitnet":
        raise ModelError(
            f"The model is quantised by {shown(method)}; of such files only those of 'bitnet' can be read."
        )
    linear_class = _choice(given, "linear_class", "bitlinear", "autobitlinear")
    mode = _choice(given, "quantization_mode", "offline", "online")
    binary = _choice(given, "weights", "ternary", "binary") == "binary"
    if binary and mode == "offline":
        raise ModelError("config.json says that binary weights are quantised offline; only 'online' is known for them.")
    skipped = given.get("modules_to_not_convert")
    if skipped is not None and not (isinstance(skipped, list) and all(isinstance(name, str) for name in skipped)):
        raise ModelError(f"config.json's 'modules_to_not_convert' is {shown(skipped)}; a list of names is accepted.")
    return Quantisation(
        linear_class="bitlinear" if linear_class == "bitlinear" else "autobitlinear",
        mode="offline" if mode == "offline" else "online",
        binary=binary,
        norms=check_flag("use_rms_norm", given.get("use_rms_norm", False)),
        norm_eps=check_eps("rms_norm_eps", _or_else(given.get("rms_norm_eps"), 1e-6)),
        skipped=None if skipped is None else tuple(skipped),
    )


def _text_config(config: object) -> dict[str, Any]:
    """The object that describes the text model, with its ``model_type``."""
    if not isinstance(config, Mapping):
        raise ModelError("config.json does not hold an object, so it does not describe a model.")
    kind = config.get("model_type")
    text = dict(config)
    if kind == "gemma3":
        inner = config.get("text_config")
        if not isinstance(inner, Mapping):
            raise ModelError("config.json of a 'gemma3' lacks the object 'text_config'.")
        text = {"model_type": "gemma3_text", **inner}
        if config.get("tie_word_embeddings") is not None:
            text.setdefault("tie_word_embeddings", config["tie_word_embeddings"])
        kind = text["model_type"]
    if kind not in DECODERS:
        named = f"The architecture {shown(kind)}" if isinstance(kind, str) else "A config.json without 'model_type'"
        raise ModelError(f"{named} cannot be run as a text generator; Kogata runs {', '.join(DECODERS)}.")
    return text


def _ropes(values: Mapping[str, Any], context: int) -> tuple[Rope, Rope]:
    """Of full layers and of window layers."""
    given = _or_else(values.get("rope_parameters"), {})
    scaling = _or_else(values.get("rope_scaling"), {})
    for name, found in (("rope_parameters", given), ("rope_scaling", scaling)):
        if not isinstance(found, Mapping):
            raise ModelError(f"config.json's {name!r} is {shown(found)}; an object is accepted.")
    by_type = {"full_attention", "sliding_attention"} & set(given)
    if values["model_type"] != "gemma3_text":
        if by_type:
            raise ModelError("config.json's 'rope_parameters' differ by layer type, which can be run for Gemma 3 only.")
        shared = {"partial_rotary_factor": values.get("partial_rotary_factor"), **(scaling or given)}
        own = values.get("original_max_position_embeddings")
        rope = Rope.from_hf(shared, values["rope_theta"], context, own)
        return rope, rope
    if given and not by_type:
        raise ModelError("config.json's 'rope_parameters' name neither 'full_attention' nor 'sliding_attention'.")
    full, sliding = (_or_else(given.get(name), {}) for name in ("full_attention", "sliding_attention"))
    if not isinstance(full, Mapping):
        raise ModelError(f"config.json's 'full_attention' rope is {shown(full)}; an object is accepted.")
    return (
        Rope.from_hf({**full, **scaling}, values["rope_theta"], context),
        Rope.from_hf(sliding, values["rope_local_base_freq"], context),
    )


def _stretched(rope: Rope, context: int) -> int:
    """Tokens that the model is made for: two kinds of rope stretch what ``max_position_embeddings`` says."""
    if rope.kind == "dynamic":
        return check_size("context", int(context * rope.factor))
    if rope.kind == "yarn":
        return check_size("context", max(context, int(rope.original_context * rope.factor)))
    return context


def _pattern(values: Mapping[str, Any], n_layers: int) -> tuple[str, int]:
    """A letter a layer, and the window of those with a W."""
    architecture = values["model_type"]
    if architecture in ("llama", "bitnet"):
        return "F" * n_layers, 0
    gemma = architecture == "gemma3_text"
    window = values.get("sliding_window") if gemma or _flag(values, "use_sliding_window") else None
    types = values.get("layer_types")
    if types is not None:
        known = {"full_attention": "F", "sliding_attention": "W"}
        if not isinstance(types, list) or len(types) != n_layers or not all(map(known.__contains__, map(str, types))):
            raise ModelError(
                f"config.json's 'layer_types' is {shown(types)}; 'full_attention' or 'sliding_attention' for each of "
                f"its {n_layers} layers is accepted."
            )
        pattern = "".join(known[kind] for kind in types)
    elif gemma:
        every = values["sliding_window_pattern"]
        if type(every) is not int or every < 1:
            raise ModelError(f"config.json's 'sliding_window_pattern' is {shown(every)}; 1 or more is accepted.")
        pattern = "".join("W" if (i + 1) % every else "F" for i in range(n_layers))
    else:
        first = _or_else(values.get("max_window_layers"), 28) if window is not None else n_layers
        if type(first) is not int or first < 0:
            raise ModelError(f"config.json's 'max_window_layers' is {shown(first)}; a number of layers is accepted.")
        pattern = "".join("F" if i < first else "W" for i in range(n_layers))
    if "W" not in pattern:
        return pattern, 0
    if window is None:
        raise ModelError("config.json has layers of 'sliding_attention', but no 'sliding_window' that is in use.")
    return pattern, check_size("window", window)


def _unquantised(skipped: tuple[str, ...] | None, n_layers: int) -> tuple[str, ...]:
    """Our names of the linears that Hugging Face's ``modules_to_not_convert`` leave alone."""
    if skipped is None:
        return ("head",)
    if len(skipped) > _MOST_PATTERNS:
        raise ModelError(
            f"config.json's 'modules_to_not_convert' has {len(skipped)} names; {_MOST_PATTERNS} are enough."
        )
    meant = [_means(pattern) for pattern in skipped]
    modules = {"head": "lm_head"}
    for i in range(n_layers):
        modules |= {f"layers.{i}.{ours}": f"model.layers.{i}.{theirs}" for ours, theirs in LINEARS.items()}
    return tuple(ours for ours, theirs in modules.items() if any(mean(theirs) for mean in meant))


def _means(pattern: str) -> Callable[[str], bool]:
    """Whether a pattern means a module: by how its name begins, up to a dot, or by how it ends, as in transformers.

    There it is a regular expression; of those only ``.*`` is known here, because a hostile one would run for ever.
    """
    parts = pattern.split(".*")
    if not pattern or set("".join(parts)) & set("^$*+?()[]{}|\\") or len(parts) > 4:
        raise ModelError(
            f"config.json's 'modules_to_not_convert' names {shown(pattern)}; names, perhaps with '.*', are accepted."
        )
    start = re.compile(".*".join(map(re.escape, parts)) + r"(?:(?<=\.)|(?=\.|$))")
    return lambda module: module.endswith(pattern) or start.match(module) is not None


def _activation(name: object) -> str:
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        raise ModelError(f"The activation {shown(name)} cannot be run; {', '.join(_ACTIVATIONS)} can.")
    return _ACTIVATIONS[name]


def _dtype(config: Mapping[str, Any], text: Mapping[str, Any]) -> object:
    found = (values.get(name) for values in (text, config) for name in ("dtype", "torch_dtype"))
    return next((dtype for dtype in found if dtype is not None), None)


def _rounded(value: float, dtype: object) -> float:
    """A number as the model's own type holds it: Gemma's scale of 55.4256 is 55.5 in bfloat16."""
    if dtype == "float16":
        return float(struct.unpack("<e", struct.pack("<e", value))[0])
    bits = int(struct.unpack("<I", struct.pack("<f", value))[0])
    if dtype == "bfloat16":
        bits = (bits + 0x7FFF + (bits >> 16 & 1)) & ~0xFFFF
    return float(struct.unpack("<f", struct.pack("<I", bits))[0])


def _choice(values: Mapping[str, Any], name: str, *accepted: str) -> str:
    """One of the accepted values, the first where there is none."""
    value = values.get(name, accepted[0])
    if value not in accepted:
        raise ModelError(f"config.json's {name!r} is {shown(value)}; {' or '.join(accepted)} is accepted.")
    return str(value)


def _flag(values: Mapping[str, Any], name: str) -> bool:
    return check_flag(name, _or_else(values.get(name), False))


def _or_else(value: Any, other: Any) -> Any:
    return other if value is None else value
