"""Tensor names of Hugging Face's decoders -> ours."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from kogata.config import DecoderConfig
from kogata.config.decoder_hf import LINEARS
from kogata.errors import ModelError
from kogata.weights.hf_names import check_depth, find_prefix

_NORMS = {
    "attn.norm": "input_layernorm",
    "attn.q_norm": "self_attn.q_norm",
    "attn.k_norm": "self_attn.k_norm",
    "attn.sub_norm": "self_attn.attn_sub_norm",
    "ffn.norm": "post_attention_layernorm",
    "ffn.sub_norm": "mlp.ffn_sub_norm",
}
#: Gemma 3 has four norms a layer, and its ``post_attention_layernorm`` does stand after the attention.
_GEMMA_NORMS = _NORMS | {
    "attn.post_norm": "post_attention_layernorm",
    "ffn.norm": "pre_feedforward_layernorm",
    "ffn.post_norm": "post_feedforward_layernorm",
}
#: The first published b1.58 models (1bitLLM) call the same two norms by other names.
_EARLY_NORMS = _NORMS | {"attn.sub_norm": "self_attn.inner_attn_ln", "ffn.sub_norm": "mlp.ffn_layernorm"}

_EMBEDDING = "embed_tokens.weight"


def decoder_names(present: Collection[str], config: DecoderConfig, place: Path) -> dict[str, str]:
    """Ours -> theirs, for every parameter of the config.

    Args:
        present: The names in the checkpoint.
        config: What the model is.
        place: Where it lies, for errors.

    Raises:
        ModelError: A tensor is missing, or the layers have tensors that the config does not call for: they would
            change what the model computes.
    """
    prefix = find_prefix(present, _EMBEDDING, "a decoder", place)
    layers, head = f"{prefix}layers.", _head(present, prefix)
    norms = _norms(present, config, layers)
    found: dict[str, str] = {}
    for parameter in config.parameters():
        stem, kind = parameter.name.rsplit(".", 1)
        if stem in ("embed", "norm"):
            theirs = f"{prefix}{_EMBEDDING}" if stem == "embed" else f"{prefix}norm.weight"
        elif stem in ("head", "head.norm"):
            theirs = f"{head}.{kind}" if stem == "head" else f"{head}.rms_norm.{kind}"
        else:
            _, layer, part = stem.split(".", 2)
            linear = LINEARS.get(part.removesuffix(".norm"))
            within = norms[part] if linear is None else linear if part in LINEARS else f"{linear}.rms_norm"
            theirs = f"{layers}{layer}.{within}.{kind}"
        if theirs not in present:
            raise ModelError(
                f"{place} lacks the tensor {theirs!r}, which its config.json ({config.architecture}, "
                f"{config.n_layers} layers) calls for."
            )
        found[parameter.name] = theirs
    check_depth(present, layers, config.n_layers, place)
    _check_unexpected(present, layers, set(found.values()), place)
    return found


def stored_head(present: Collection[str], place: Path) -> tuple[str, str] | None:
    """The names of the embedding and of the head, or None where the checkpoint stores no head.

    Raises:
        ModelError: There is no embedding, or more than one.
    """
    prefix = find_prefix(present, _EMBEDDING, "a decoder", place)
    head = f"{_head(present, prefix)}.weight"
    return (f"{prefix}{_EMBEDDING}", head) if head in present else None


def _head(present: Collection[str], prefix: str) -> str:
    """``lm_head``, which multimodal models once stored beside their text model."""
    beside = f"{prefix.removesuffix('model.')}lm_head"
    return beside if f"{beside}.weight" in present else "lm_head"


def _norms(present: Collection[str], config: DecoderConfig, layers: str) -> dict[str, str]:
    if config.architecture == "gemma3_text":
        return _GEMMA_NORMS
    return _EARLY_NORMS if f"{layers}0.{_EARLY_NORMS['attn.sub_norm']}.weight" in present else _NORMS


def _check_unexpected(present: Collection[str], layers: str, used: set[str], place: Path) -> None:
    for name in present:
        known = name in used or name.removesuffix("_scale") in used
        # Old checkpoints carry the rope's frequencies, which follow from the config.
        if name.startswith(layers) and not known and not name.endswith("rotary_emb.inv_freq"):
            raise ModelError(f"{place} holds the tensor {name!r}, which its config.json does not call for.")
