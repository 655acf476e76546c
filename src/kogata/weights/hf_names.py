"""Tensor names of Hugging Face's encoders -> ours."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from kogata.config import EncoderConfig
from kogata.errors import ModelError

_WORD = "embeddings.word_embeddings.weight"

_EMBEDDING = {
    "embed.word": "embeddings.word_embeddings",
    "embed.position": "embeddings.position_embeddings",
    "embed.type": "embeddings.token_type_embeddings",
    "embed.norm": "embeddings.LayerNorm",
}
_BERT_LAYER = {
    "attn.q": "attention.self.query",
    "attn.k": "attention.self.key",
    "attn.v": "attention.self.value",
    "attn.out": "attention.output.dense",
    "attn.norm": "attention.output.LayerNorm",
    "ffn.up": "intermediate.dense",
    "ffn.down": "output.dense",
    "ffn.norm": "output.LayerNorm",
}
_DISTILBERT_LAYER = {
    "attn.q": "attention.q_lin",
    "attn.k": "attention.k_lin",
    "attn.v": "attention.v_lin",
    "attn.out": "attention.out_lin",
    "attn.norm": "sa_layer_norm",
    "ffn.up": "ffn.lin1",
    "ffn.down": "ffn.lin2",
    "ffn.norm": "output_layer_norm",
}
#: TensorFlow's names for a norm's weight and bias, kept by old checkpoints.
_OLD_NORM = {"weight": "gamma", "bias": "beta"}


def weight_names(present: Collection[str], config: EncoderConfig, place: Path) -> dict[str, str]:
    """Ours -> theirs, for every parameter of the config that the checkpoint stores.

    Heads, poolers and buffers beside the encoder are left out; DistilBERT stores no ``embed.type``.

    Args:
        present: The names in the checkpoint.
        config: What the model is.
        place: Where it lies, for errors.

    Raises:
        ModelError: A tensor is missing, or the checkpoint has more layers than the config says.
    """
    prefix = find_prefix(present, _WORD, "an encoder", place)
    distil = config.architecture == "distilbert"
    layers = f"{prefix}transformer.layer." if distil else f"{prefix}encoder.layer."
    within = _DISTILBERT_LAYER if distil else _BERT_LAYER
    found: dict[str, str] = {}
    for parameter in config.parameters():
        if distil and parameter.name == "embed.type":
            continue
        theirs = _their_name(parameter.name, prefix, layers, within)
        if theirs not in present and ".norm." in parameter.name:
            stem, kind = theirs.rsplit(".", 1)
            theirs = f"{stem}.{_OLD_NORM[kind]}"
        if theirs not in present:
            raise ModelError(
                f"{place} lacks the tensor {_their_name(parameter.name, prefix, layers, within)!r}, "
                f"which its config.json ({config.architecture}, {config.n_layers} layers) calls for."
            )
        found[parameter.name] = theirs
    check_depth(present, layers, config.n_layers, place)
    return found


def find_prefix(present: Collection[str], embedding: str, what: str, place: Path) -> str:
    """What stands before every name: "" or, for a model saved with a head, "bert." and the like.

    Args:
        present: The names in the checkpoint.
        embedding: How the name of the embedding of words ends.
        what: What the checkpoint should hold, for errors.
        place: Where it lies, for errors.

    Raises:
        ModelError: There is no such tensor, or more than one.
    """
    prefixes = [name.removesuffix(embedding) for name in present if name.endswith(embedding)]
    if not prefixes:
        raise ModelError(f"{place} does not hold {what}: no tensor is called {embedding!r}.")
    if len(prefixes) > 1:
        raise ModelError(f"{place} holds {len(prefixes)} word embeddings; {what} has one.")
    return prefixes[0]


def check_depth(present: Collection[str], layers: str, n_layers: int, place: Path) -> None:
    """Raises ModelError if the checkpoint has more layers, whose names begin with ``layers``, than the config says."""
    numbers = re.compile(re.escape(layers) + r"(\d+)\.")
    deepest = max((int(match[1][:9]) for name in present if (match := numbers.match(name))), default=-1)
    if deepest >= n_layers:
        raise ModelError(f"{place} has weights of layer {deepest}, but its config.json says {n_layers} layers.")


def _their_name(name: str, prefix: str, layers: str, within: dict[str, str]) -> str:
    if name.startswith("layers."):
        _, layer, part = name.split(".", 2)
        stem, kind = part.rsplit(".", 1)
        return f"{layers}{layer}.{within[stem]}.{kind}"
    if name.startswith("embed.norm."):
        return f"{prefix}{_EMBEDDING['embed.norm']}.{name.rsplit('.', 1)[1]}"
    return f"{prefix}{_EMBEDDING[name]}.weight"
