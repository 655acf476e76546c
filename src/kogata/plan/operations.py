"""What a decoder computes and reads for a token: products, additions, multiplications, bytes. Counted, not measured.

The count is of the arithmetic, whatever instructions do it: a ternary weight adds, subtracts or skips an activation and
multiplies nothing, although processors of today do that with their 8-bit multiply-adds. Exponentials, comparisons,
roundings and the one division of a norm are left out.

Shapes: N rows (outputs) and K columns (inputs) of a matrix, G groups of columns that share a scale.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from kogata.config import DecoderConfig

__all__ = ["Matrix", "Operations", "count", "sixteen_bit"]

_ACTIVATION = {"silu": 2, "gelu_tanh": 7, "relu2": 2}
"""Multiplications for each value of the feed-forward's middle, that with ``up`` included."""
_KV_BYTES = {"f32": 4.0, "bf16": 2.0, "int8": 1.0}


@dataclass(frozen=True)
class Matrix:
    """One linear layer as it is stored.

    Attributes:
        kind: f32, bf16, int8, int4, ternary or trits.
        n_out: N.
        n_in: K.
        group: Columns that share a scale; 0: one scale a row, or none.
        nbytes: Of everything that is read to multiply with it.
    """

    kind: str
    n_out: int
    n_in: int
    group: int
    nbytes: int


@dataclass
class Operations:
    """What was counted; two of them can be added.

    Attributes:
        products: Multiply-adds of matrix products and attention by what is multiplied: ternary, int8, bf16, f32.
        f32_multiplications, f32_additions: All the others: norms, rotation, scales, gates, what layers add.
        weight_bytes, kv_bytes: Read from memory: the weights once for all tokens of a step, keys and values for each.
    """

    products: Counter[str] = field(default_factory=Counter)
    f32_multiplications: int = 0
    f32_additions: int = 0
    weight_bytes: int = 0
    kv_bytes: int = 0

    def __add__(self, other: Operations) -> Operations:
        return Operations(
            self.products + other.products,
            self.f32_multiplications + other.f32_multiplications,
            self.f32_additions + other.f32_additions,
            self.weight_bytes + other.weight_bytes,
            self.kv_bytes + other.kv_bytes,
        )

    @property
    def multiplications(self) -> dict[str, int]:
        """By what is multiplied: int8, bf16, f32."""
        products = self.products
        return {
            "int8": products["int8"],
            "bf16": products["bf16"],
            "f32": products["f32"] + self.f32_multiplications,
        }

    @property
    def additions(self) -> dict[str, int]:
        """By what is added: int32, the sums of ternary and int8 products, and f32, all others."""
        products = self.products
        return {
            "int32": products["ternary"] + products["int8"],
            "f32": products["bf16"] + products["f32"] + self.f32_additions,
        }

    @property
    def nbytes(self) -> int:
        """All bytes read."""
        return self.weight_bytes + self.kv_bytes


def sixteen_bit(config: DecoderConfig) -> dict[str, Matrix]:
    """The matrices of the same model with weights of 16 bits."""
    return {
        name: Matrix("bf16", n, k, 0, 2 * (n * k + n * _has_bias(config, name)))
        for parameter in config.parameters()
        if len(parameter.shape) == 2
        for name, (n, k) in [(parameter.name.removesuffix(".weight"), parameter.shape)]
    }


def count(
    config: DecoderConfig, matrices: Mapping[str, Matrix], kv: str, *, depth: int = 0, n_tokens: int = 1
) -> Operations:
    """What ``n_tokens`` that are read together take after ``depth`` others, with logits for the last of them.

    Args:
        config: The model.
        matrices: Its linears by name, ``embed`` among them: one by one or, where they are stored so, joined.
        kv: Storage of keys and values: f32, bf16 or int8.
        depth: Tokens before the first.
        n_tokens: 1 for decoding.
    """
    head = "embed" if config.tied else "head"
    total = _head(config, matrices[head])
    for name, matrix in matrices.items():
        if name.startswith("layers."):
            total += _product(config, name, matrix, n_tokens)
    if not config.tied:
        embed = matrices["embed"]
        total.weight_bytes += n_tokens * (embed.nbytes // embed.n_out)
    gains = [p.shape[0] for p in config.parameters() if len(p.shape) == 1 and p.name.endswith(".weight")]
    total.weight_bytes += 4 * sum(gains)
    for letter in config.pattern:
        total += _attention(config, kv, depth, n_tokens, config.window if letter == "W" else 0)
    return total + _elsewhere(config, n_tokens)


def _head(config: DecoderConfig, matrix: Matrix) -> Operations:
    return _product(config, "head", matrix, 1) + _norm(config.d_model, 1)


def _product(config: DecoderConfig, name: str, matrix: Matrix, n_tokens: int) -> Operations:
    """A linear layer with what quantising its input and scaling its output take."""
    n, k = matrix.n_out, matrix.n_in
    ternary, integers = matrix.kind in ("ternary", "trits"), matrix.kind in ("int8", "int4")
    arithmetic = "ternary" if ternary else "int8" if integers else matrix.kind
    multiplications = additions = 0
    if ternary or integers:
        scales = n * (k // matrix.group if matrix.group else 1)
        multiplications = k + scales + n  # the input to 8 bits, the scales of the weights, that of the input
        additions = scales - n
    if integers:  # their activations have an offset
        multiplications, additions = multiplications + n, additions + n
    if _has_bias(config, name):
        additions += n
    found = Operations(
        Counter({arithmetic: n * k * n_tokens}), multiplications * n_tokens, additions * n_tokens, matrix.nbytes
    )
    own = config.linear_norms and any(config.is_quantised(part) for part in _parts(name))
    return found + _norm(k, n_tokens * len(_parts(name))) if own else found


def _attention(config: DecoderConfig, kv: str, depth: int, n_tokens: int, window: int) -> Operations:
    """Queries by keys and weights by values of one layer; each token sees itself and those before it."""
    keys = [min(at + 1, window) if window else at + 1 for at in range(depth, depth + n_tokens)]
    pairs = config.n_heads * sum(keys)
    products = Counter({kv: 2 * pairs * config.d_head})
    multiplications = pairs  # the scale
    if kv == "int8":  # weights have two halves of 7 bits; a scale for each key and each value
        products[kv] += pairs * config.d_head
        multiplications += 2 * pairs
    per_token = 2 * config.n_kv_heads * (int(config.d_head * _KV_BYTES[kv]) + (4 if kv == "int8" else 0))
    seen = keys[-1] + n_tokens - 1  # by the tokens of a step together, read once for all of them
    return Operations(products, multiplications, 0, 0, per_token * min(seen, depth + n_tokens))


def _elsewhere(config: DecoderConfig, n_tokens: int) -> Operations:
    """Norms, rotation, gates and what layers add."""
    d, heads = config.d_model, config.n_heads
    rotated = (heads + config.n_kv_heads) * config.d_head
    layer = _norm(d, 2) + Operations(Counter(), 2 * rotated + _ACTIVATION[config.activation] * config.d_ff, rotated)
    layer.f32_additions += 2 * d + (2 * config.d_ff if config.activation == "gelu_tanh" else 0)
    if config.qk_norm:
        layer += _norm(config.d_head, heads + config.n_kv_heads)
    if config.sub_norms:
        layer += _norm(heads * config.d_head, 1) + _norm(config.d_ff, 1)
    if config.post_norms:
        layer += _norm(d, 2)
    times = config.n_layers * n_tokens
    scaled = d * n_tokens if config.embed_scale != 1.0 else 0
    return Operations(Counter(), times * layer.f32_multiplications + scaled, times * layer.f32_additions)


def _norm(width: int, times: int) -> Operations:
    """RMS norms: the squares and their sum, the factor, the gain."""
    return Operations(Counter(), 3 * width * times, width * times)


def _parts(name: str) -> list[str]:
    """The linears that one joined matrix holds."""
    layer, _, part = name.rpartition(".")
    joined = {"qkv": ("q", "k", "v"), "gate_up": ("gate", "up")}
    return [f"{layer}.{each}" for each in joined[part]] if part in joined else [name]


def _has_bias(config: DecoderConfig, name: str) -> bool:
    part = name.rpartition(".")[2]
    if part in ("q", "k", "v", "qkv"):
        return config.qkv_bias
    return config.out_bias if part == "out" else config.ffn_bias if part in ("gate", "up", "gate_up", "down") else False
