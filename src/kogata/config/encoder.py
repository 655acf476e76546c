"""The numbers of an encoder: BERT and its relatives, which make vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from kogata.config.parameters import Parameter, check_eps, check_fields, check_size, shown
from kogata.errors import ModelError

#: Hugging Face ``model_type`` -> what differs between the encoders that run.
ENCODERS = ("bert", "distilbert", "roberta", "xlm-roberta", "camembert")

#: These count positions from ``pad_token_id + 1``: rows before it exist in the table and are never used.
_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert")

#: Names of the same quantity: ours -> Hugging Face's for BERT-like models, and DistilBERT's own.
_HF_NAMES: dict[str, tuple[str, str]] = {
    "n_layers": ("num_hidden_layers", "n_layers"),
    "d_model": ("hidden_size", "dim"),
    "n_heads": ("num_attention_heads", "n_heads"),
    "d_ff": ("intermediate_size", "hidden_dim"),
    "vocab_size": ("vocab_size", "vocab_size"),
    "max_positions": ("max_position_embeddings", "max_position_embeddings"),
}

_SIZES = ("n_layers", "d_model", "n_heads", "d_ff", "vocab_size", "max_positions", "n_token_types")


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """The numbers that fix an encoder's shape.

    Attributes:
        architecture: One of :data:`ENCODERS`. All of them are BERT's post-norm layer; they differ in their embeddings.
        n_layers: Transformer layers.
        d_model: Width of the residual stream.
        n_heads: Attention heads; ``d_model / n_heads`` is a head's width.
        d_ff: Width of the feed-forward's middle.
        vocab_size: Rows of the word embedding.
        max_positions: Rows of the position embedding, the unused first ``position_offset`` included.
        position_offset: Row of a text's first token (0 for BERT, 2 for XLM-RoBERTa).
        n_token_types: Rows of the token type embedding; texts use row 0.
        norm_eps: Added to the variance in every layer norm.
        activation: Of the feed-forward: ``"gelu"``, by the error function.

    Raises:
        ModelError: A number is out of range or contradicts another.
    """

    architecture: str
    n_layers: int
    d_model: int
    n_heads: int
    d_ff: int
    vocab_size: int
    max_positions: int
    position_offset: int = 0
    n_token_types: int = 2
    norm_eps: float = 1e-12
    activation: str = "gelu"

    def __post_init__(self) -> None:
        if self.architecture not in ENCODERS:
            raise ModelError(f"Unknown architecture {self.architecture!r}; Kogata runs {', '.join(ENCODERS)}.")
        for name in _SIZES:
            check_size(name, getattr(self, name))
        if not isinstance(self.position_offset, int) or isinstance(self.position_offset, bool):
            raise ModelError(f"The model's position_offset must be a whole number, not {shown(self.position_offset)}.")
        if not 0 <= self.position_offset < self.max_positions:
            raise ModelError(
                f"The model counts positions from {self.position_offset}, but has only {self.max_positions} of them."
            )
        if self.d_model % self.n_heads:
            raise ModelError(f"{self.n_heads} attention heads do not divide the model's width of {self.d_model}.")
        check_eps("norm_eps", self.norm_eps)
        if self.activation != "gelu":
            raise ModelError(f"Unknown activation {shown(self.activation)}; 'gelu' is accepted.")

    @property
    def d_head(self) -> int:
        """Width of one attention head."""
        return self.d_model // self.n_heads

    @property
    def context(self) -> int:
        """Most tokens of one text, special tokens included."""
        return self.max_positions - self.position_offset

    def parameters(self) -> list[Parameter]:
        """All tensors of the model in the order of the forward pass."""
        d, f = self.d_model, self.d_ff
        found = [
            Parameter("embed.word", (self.vocab_size, d), "int4"),
            Parameter("embed.position", (self.max_positions, d), "f32"),
            Parameter("embed.type", (self.n_token_types, d), "f32"),
            *_norm("embed.norm", d),
        ]
        for i in range(self.n_layers):
            for part in ("q", "k", "v", "out"):
                found += _linear(f"layers.{i}.attn.{part}", d, d)
            found += _norm(f"layers.{i}.attn.norm", d)
            found += _linear(f"layers.{i}.ffn.up", f, d)
            found += _linear(f"layers.{i}.ffn.down", d, f)
            found += _norm(f"layers.{i}.ffn.norm", d)
        return found

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values; :meth:`from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EncoderConfig:
        """The config that :meth:`to_dict` gave.

        Raises:
            ModelError: A field is unknown, missing, or not accepted.
        """
        return cls(**check_fields(cls, values))

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> EncoderConfig:
        """The config of a Hugging Face ``config.json``.

        Args:
            config: The file's object.

        Raises:
            ModelError: The architecture is not one of :data:`ENCODERS`, a number is missing or contradictory, or the
                model uses a variant (relative positions, another activation, a decoder) that would compute something
                else.
        """
        if not isinstance(config, Mapping):
            raise ModelError("config.json does not hold an object, so it does not describe a model.")
        kind = config.get("model_type")
        if kind not in ENCODERS:
            named = f"The architecture {kind!r}" if isinstance(kind, str) else "A config.json without 'model_type'"
            raise ModelError(f"{named} cannot be run as an embedding model; Kogata runs {', '.join(ENCODERS)}.")
        distil = kind == "distilbert"
        positions = config.get("position_embedding_type") or "absolute"
        if positions != "absolute":
            raise ModelError(f"Position embeddings of type {shown(positions)} cannot be run; only 'absolute' can.")
        for flag in ("is_decoder", "add_cross_attention"):
            if config.get(flag):
                raise ModelError(f"config.json says {flag!r}: decoders cannot be run as an embedding model.")
        values: dict[str, Any] = {}
        for ours, names in _HF_NAMES.items():
            theirs = names[distil]
            if theirs not in config:
                raise ModelError(f"config.json lacks {theirs!r}.")
            values[ours] = config[theirs]
        offset = 0
        if kind in _OFFSET_POSITIONS:
            pad = config.get("pad_token_id", 1)
            if not isinstance(pad, int) or isinstance(pad, bool) or pad < 0:
                raise ModelError(f"config.json's 'pad_token_id' is {shown(pad)}; a {kind} model needs a token id.")
            offset = pad + 1
        eps = 1e-12 if distil else config.get("layer_norm_eps", 1e-12)
        return cls(
            architecture=kind,
            **values,
            position_offset=offset,
            # DistilBERT has no token types: one row of zeros computes the same.
            n_token_types=1 if distil else config.get("type_vocab_size", 2),
            norm_eps=float(eps) if isinstance(eps, int) and not isinstance(eps, bool) else eps,
            activation=config.get("activation" if distil else "hidden_act", "gelu"),
        )


def _linear(name: str, n_out: int, n_in: int) -> list[Parameter]:
    return [Parameter(f"{name}.weight", (n_out, n_in), "int4"), Parameter(f"{name}.bias", (n_out,), "f32")]


def _norm(name: str, width: int) -> list[Parameter]:
    return [Parameter(f"{name}.weight", (width,), "f32"), Parameter(f"{name}.bias", (width,), "f32")]
