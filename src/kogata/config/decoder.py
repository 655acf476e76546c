"""The numbers of a decoder: models that continue a text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from kogata.config.decoder_hf import DECODERS, LINEARS, settings
from kogata.config.parameters import (
    Parameter,
    check_eps,
    check_fields,
    check_flag,
    check_number,
    check_size,
    shown,
)
from kogata.config.rope import Rope
from kogata.errors import ModelError

Activation = Literal["silu", "gelu_tanh", "relu2"]

_SIZES = ("n_layers", "d_model", "n_heads", "n_kv_heads", "d_head", "d_ff", "vocab_size", "context")
_FLAGS = (
    "qkv_bias",
    "out_bias",
    "ffn_bias",
    "qk_norm",
    "sub_norms",
    "post_norms",
    "tied",
    "quantised",
    "linear_norms",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    """The numbers that fix a decoder.

    All are one pre-norm layer, ``x += out(attend(norm(x)))`` and ``x += down(act(gate(norm(x))) * up(norm(x)))``,
    its norms RMS norms: ``x / sqrt(mean(x^2) + norm_eps) * weight``. The flags say what an architecture adds.

    Attributes:
        architecture: One of :data:`DECODERS`: where the numbers come from.
        n_layers: Transformer layers.
        d_model: Width of the residual stream.
        n_heads: Query heads.
        n_kv_heads: Key and value heads, each shared by ``n_heads / n_kv_heads`` query heads.
        d_head: Width of one head; even.
        d_ff: Width of the feed-forward's middle.
        vocab_size: Rows of the embedding.
        context: Most tokens of a text that the model is made for.
        norm_eps: Added to the mean square in every norm but those of ``linear_norms``.
        activation: Of the gated feed-forward: SiLU, GELU in its tanh form, or the square of ReLU.
        rope: Rotary positions of the full layers.
        window_rope: Those of the window layers where they differ (Gemma 3).
        pattern: One letter a layer: F attends to everything before, W to a sliding window.
        window: Tokens that a W layer sees, the own one included; 0 where there is none.
        qkv_bias, out_bias, ffn_bias: Whether these linears have biases.
        qk_norm: RMS norms of each head's query and key before the rotation (Qwen3, Gemma 3).
        sub_norms: RMS norms before ``attn.out`` and before ``ffn.down`` (BitNet).
        post_norms: RMS norms of what attention and feed-forward give, before it is added (Gemma 3).
        embed_scale: Multiplies the embedding of a token (Gemma: the root of ``d_model``).
        attention_scale: Multiplies the products of queries and keys.
        tied: The head is the embedding.
        quantised: Linears take activations at 8 bits, symmetric per token (BitNet), and have ternary weights.
        unquantised: The linears that do not, ``head`` among them, where the others do.
        linear_norms: Each quantised linear has an RMS norm of its own before quantising.
        linear_norm_eps: Added to the mean square in those.

    Raises:
        ModelError: A number is out of range or contradicts another.
    """

    architecture: str
    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_ff: int
    vocab_size: int
    context: int
    norm_eps: float
    activation: Activation
    rope: Rope
    window_rope: Rope | None = None
    pattern: str
    window: int = 0
    qkv_bias: bool = False
    out_bias: bool = False
    ffn_bias: bool = False
    qk_norm: bool = False
    sub_norms: bool = False
    post_norms: bool = False
    embed_scale: float = 1.0
    attention_scale: float
    tied: bool
    quantised: bool = False
    unquantised: tuple[str, ...] = ()
    linear_norms: bool = False
    linear_norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.architecture not in DECODERS:
            raise ModelError(f"Unknown architecture {shown(self.architecture)}; Kogata runs {', '.join(DECODERS)}.")
        for name in _SIZES:
            check_size(name, getattr(self, name))
        for name in _FLAGS:
            check_flag(name, getattr(self, name))
        check_eps("norm_eps", self.norm_eps)
        check_eps("linear_norm_eps", self.linear_norm_eps)
        check_number("embed_scale", self.embed_scale, 1e-6, 1e6)
        check_number("attention_scale", self.attention_scale, 1e-6, 1e3)
        if self.n_heads % self.n_kv_heads:
            raise ModelError(f"{self.n_kv_heads} key and value heads do not divide {self.n_heads} query heads.")
        if self.d_head % 2:
            raise ModelError(f"A head is {self.d_head} wide; rotary positions need an even number.")
        if self.activation not in get_args(Activation):
            raise ModelError(
                f"Unknown activation {shown(self.activation)}; {', '.join(get_args(Activation))} can be run."
            )
        self._check_attention()
        self._check_quantisation()

    def _check_attention(self) -> None:
        if not isinstance(self.pattern, str) or len(self.pattern) != self.n_layers or set(self.pattern) - {"F", "W"}:
            raise ModelError(
                f"The model's pattern is {shown(self.pattern)}; one letter F or W for each of its "
                f"{self.n_layers} layers is accepted."
            )
        if "W" in self.pattern:
            check_size("window", self.window)
        elif self.window != 0 or self.window_rope is not None:
            raise ModelError("The model has a window, but no layer with sliding attention.")
        if not isinstance(self.rope, Rope) or not isinstance(self.window_rope, Rope | None):
            raise ModelError("The model's rope and window_rope must be ropes.")
        for rope in (self.rope, self.window_rope):
            if rope is not None and rope.factors and len(rope.factors) != self.d_head // 2:
                raise ModelError(f"The model's rope has {len(rope.factors)} factors for {self.d_head // 2} pairs.")

    def _check_quantisation(self) -> None:
        if not self.quantised:
            if self.unquantised or self.linear_norms:
                raise ModelError("The model is not quantised, so unquantised and linear_norms do not apply.")
            return
        known = {"head", *(f"layers.{i}.{part}" for i in range(self.n_layers) for part in LINEARS)}
        if not isinstance(self.unquantised, tuple) or set(self.unquantised) - known:
            raise ModelError(
                f"The model's unquantised is {shown(self.unquantised)}; names of its linears are accepted."
            )
        if self.tied and "head" not in self.unquantised:
            raise ModelError("The model's head is quantised, but is also the embedding, which cannot be.")

    def is_quantised(self, linear: str) -> bool:
        """Whether what has this name (``layers.0.attn.q``, ``head``) is a linear that takes activations at 8 bits."""
        is_linear = linear == "head" or linear.split(".", 2)[-1] in LINEARS
        return self.quantised and is_linear and linear not in self.unquantised

    def parameters(self) -> list[Parameter]:
        """All tensors of the model in the order of the forward pass."""
        d, heads, kv_heads = self.d_model, self.n_heads * self.d_head, self.n_kv_heads * self.d_head
        found = [Parameter("embed.weight", (self.vocab_size, d), "int4")]
        for i in range(self.n_layers):
            attn, ffn = f"layers.{i}.attn", f"layers.{i}.ffn"
            found.append(_norm(f"{attn}.norm", d))
            for part, width in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
                found += self._linear(f"{attn}.{part}", width, d, self.qkv_bias)
            if self.qk_norm:
                found += [_norm(f"{attn}.q_norm", self.d_head), _norm(f"{attn}.k_norm", self.d_head)]
            if self.sub_norms:
                found.append(_norm(f"{attn}.sub_norm", heads))
            found += self._linear(f"{attn}.out", d, heads, self.out_bias)
            if self.post_norms:
                found.append(_norm(f"{attn}.post_norm", d))
            found.append(_norm(f"{ffn}.norm", d))
            for part in ("gate", "up"):
                found += self._linear(f"{ffn}.{part}", self.d_ff, d, self.ffn_bias)
            if self.sub_norms:
                found.append(_norm(f"{ffn}.sub_norm", self.d_ff))
            found += self._linear(f"{ffn}.down", d, self.d_ff, self.ffn_bias)
            if self.post_norms:
                found.append(_norm(f"{ffn}.post_norm", d))
        found.append(_norm("norm", d))
        if not self.tied:
            found += self._linear("head", self.vocab_size, d, False)
        return found

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values; :meth:`from_dict` reads them back."""
        return asdict(self) | {"unquantised": list(self.unquantised)}

    @classmethod
    def from_dict(cls, values: object) -> DecoderConfig:
        """The config that :meth:`to_dict` gave.

        Raises:
            ModelError: A field is unknown, missing, or not accepted.
        """
        found = check_fields(cls, values)
        found["rope"] = Rope.from_dict(found["rope"])
        if found.get("window_rope") is not None:
            found["window_rope"] = Rope.from_dict(found["window_rope"])
        names = found.get("unquantised", [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ModelError(f"The model's unquantised is {shown(names)}; a list of names is accepted.")
        return cls(**found | {"unquantised": tuple(names)})

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> DecoderConfig:
        """The config of a Hugging Face ``config.json``.

        Args:
            config: The file's object.

        Raises:
            ModelError: The architecture is not one of :data:`DECODERS`, a number is missing or contradictory, or the
                model uses a variant (another quantisation, soft-capped logits) that would compute something else.
        """
        return cls(**settings(config))

    def _linear(self, name: str, n_out: int, n_in: int, bias: bool) -> list[Parameter]:
        quantised = self.is_quantised(name)
        found = [Parameter(f"{name}.weight", (n_out, n_in), "ternary" if quantised else "int4")]
        if bias:
            found.append(Parameter(f"{name}.bias", (n_out,), "f32"))
        return [_norm(f"{name}.norm", n_in), *found] if quantised and self.linear_norms else found


def _norm(name: str, width: int) -> Parameter:
    return Parameter(f"{name}.weight", (width,), "f32")
