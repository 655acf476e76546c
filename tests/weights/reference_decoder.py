"""A decoder's logits from its checkpoint, in numpy, as the config's documentation has it: slow, and meant to be read.

Shapes: T tokens, H width of the model, D of a head, V words.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kogata.config import Rope
from kogata.run.rope import rope_tables
from kogata.weights import DecoderCheckpoint

Floats = NDArray[np.float64]


def logits_TV(checkpoint: DecoderCheckpoint, ids_T: NDArray[np.int64]) -> Floats:
    """float64 [T, V] of one text."""
    config, n = checkpoint.config, len(ids_T)

    def get(name: str) -> Floats:
        tensor = checkpoint.tensors[name]
        return np.asarray(tensor if isinstance(tensor, np.ndarray) else tensor.dequantise(), np.float64)

    def norm(x: Floats, name: str, eps: float = config.norm_eps) -> Floats:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * get(f"{name}.weight")

    def linear(x: Floats, name: str, bias: bool = False) -> Floats:
        factor: Floats | float = 1.0
        if config.is_quantised(name):
            if config.linear_norms:
                x = norm(x, f"{name}.norm", config.linear_norm_eps)
            factor = 127.0 / np.maximum(np.abs(x).max(-1, keepdims=True), 1e-5)
            x = np.clip(np.rint(x * factor), -128, 127)
        result = x @ get(f"{name}.weight").T / factor
        return result + get(f"{name}.bias") if bias else result

    def heads(x: Floats) -> Floats:
        return x.reshape(n, -1, config.d_head).swapaxes(0, 1)

    def rotate(x: Floats, rope: Rope) -> Floats:
        cos, sin = (table.astype(np.float64) for table in rope_tables(rope, config.d_head, n))
        first, second = np.split(x, 2, axis=-1)
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)

    def attend(x: Floats, layer: int) -> Floats:
        attn = f"layers.{layer}.attn"
        q, k, v = (heads(linear(x, f"{attn}.{part}", config.qkv_bias)) for part in "qkv")
        if config.qk_norm:
            q, k = norm(q, f"{attn}.q_norm"), norm(k, f"{attn}.k_norm")
        windowed = config.pattern[layer] == "W"
        rope = config.window_rope if windowed and config.window_rope else config.rope
        shared = config.n_heads // config.n_kv_heads
        q, k, v = rotate(q, rope), rotate(k, rope).repeat(shared, 0), v.repeat(shared, 0)
        scores = q @ k.swapaxes(1, 2) * config.attention_scale
        ago = np.arange(n)[:, None] - np.arange(n)
        scores[:, (ago < 0) | (windowed & (ago >= config.window))] = -np.inf
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (shares / shares.sum(-1, keepdims=True) @ v).swapaxes(0, 1).reshape(n, -1)
        if config.sub_norms:
            mixed = norm(mixed, f"{attn}.sub_norm")
        result = linear(mixed, f"{attn}.out", config.out_bias)
        return norm(result, f"{attn}.post_norm") if config.post_norms else result

    def feed(x: Floats, layer: int) -> Floats:
        ffn = f"layers.{layer}.ffn"
        gate, up = (linear(x, f"{ffn}.{part}", config.ffn_bias) for part in ("gate", "up"))
        inner = ACTIVATIONS[config.activation](gate) * up
        if config.sub_norms:
            inner = norm(inner, f"{ffn}.sub_norm")
        result = linear(inner, f"{ffn}.down", config.ffn_bias)
        return norm(result, f"{ffn}.post_norm") if config.post_norms else result

    x = get("embed.weight")[ids_T] * config.embed_scale
    for layer in range(config.n_layers):
        x = x + attend(norm(x, f"layers.{layer}.attn.norm"), layer)
        x = x + feed(norm(x, f"layers.{layer}.ffn.norm"), layer)
    x = norm(x, "norm")
    return x @ get("embed.weight").T if config.tied else linear(x, "head")


ACTIVATIONS = {
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "relu2": lambda x: np.maximum(x, 0) ** 2,
}
