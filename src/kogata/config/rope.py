"""Rotary position embeddings: what stretches them, and how Hugging Face writes it down."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from kogata.config.parameters import check_fields, check_flag, check_number, check_size, is_finite, shown
from kogata.errors import ModelError

RopeKind = Literal["default", "linear", "dynamic", "llama3", "yarn", "factors"]
#: Those that Hugging Face's files name. GGUF files of Llama 3 hold the factors that its rule comes to.
_NAMED = tuple(kind for kind in get_args(RopeKind) if kind != "factors")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rope:
    """How positions turn into angles. ``kogata.run.rope`` makes the tables.

    Attributes:
        theta: The base: pair i of a head of width D turns by ``theta ** (-2i / D)`` a position.
        kind: How the angles are stretched for longer texts: not at all, all alike (linear), by a base that grows with
            the text (dynamic), the slow pairs only (llama3), by a ramp between the fast and the slow (yarn), or each
            pair by a factor of its own (factors).
        factor: How far they are stretched.
        original_context: Positions before stretching (dynamic, llama3, yarn).
        low_freq_factor: llama3: pairs that turn less often than this within ``original_context`` are stretched fully.
        high_freq_factor: llama3: pairs that turn more often than this are left alone.
        beta_fast: yarn: pairs that turn more often than this are left alone.
        beta_slow: yarn: pairs that turn less often than this are stretched fully.
        truncate: yarn: whether the ramp begins and ends at whole pairs.
        attention_factor: yarn: multiplies the cosines and sines.
        factors: factors: how far each pair is stretched, D / 2 of them.

    Raises:
        ModelError: A number is out of range or contradicts another.
    """

    theta: float
    kind: RopeKind = "default"
    factor: float = 1.0
    original_context: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float = 1.0
    factors: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in get_args(RopeKind):
            raise ModelError(
                f"Rotary positions of type {shown(self.kind)} cannot be run; {', '.join(get_args(RopeKind))} can."
            )
        check_number("rope theta", self.theta, 2, 1e12)
        check_number("rope factor", self.factor, 1, 1e6)
        check_flag("rope truncate", self.truncate)
        for name in ("low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow"):
            check_number(f"rope {name}", getattr(self, name), 1e-6, 1e6)
        check_number("rope attention_factor", self.attention_factor, 1e-6, 1e6)
        if self.kind in ("dynamic", "llama3", "yarn"):
            check_size("context", self.original_context)
        if not isinstance(self.factors, tuple) or bool(self.factors) != (self.kind == "factors"):
            raise ModelError(f"A rope of the kind {self.kind!r} cannot have the factors {shown(self.factors)}.")
        for factor in self.factors:
            check_number("rope factors", factor, 1e-6, 1e6)
        if self.low_freq_factor >= self.high_freq_factor:
            raise ModelError(
                f"The rope's low_freq_factor is {self.low_freq_factor:g} and its high_freq_factor "
                f"{self.high_freq_factor:g}; the second must be larger."
            )
        if self.beta_slow > self.beta_fast:
            raise ModelError(
                f"The rope's beta_slow is {self.beta_slow:g} and its beta_fast {self.beta_fast:g}; "
                "the first must not be larger."
            )

    @classmethod
    def from_dict(cls, values: object) -> Rope:
        """The rope whose fields these are.

        Raises:
            ModelError: A field is unknown, missing, or not accepted.
        """
        found = check_fields(cls, values)
        factors = found.get("factors", ())
        return cls(**found | {"factors": tuple(factors) if isinstance(factors, list | tuple) else factors})

    @classmethod
    def from_hf(cls, values: object, theta: object, context: int, original_context: object = None) -> Rope:
        """The rope of Hugging Face's ``rope_parameters`` (since transformers 5) or ``rope_scaling`` (before).

        Args:
            values: The object.
            theta: The base where the object does not name one.
            context: The config's ``max_position_embeddings``.
            original_context: The config's own ``original_max_position_embeddings``, which goes before the object's.

        Raises:
            ModelError: The kind is not known, or a number is missing or not accepted.
        """
        if not isinstance(values, Mapping):
            raise ModelError(f"config.json describes its rope by {shown(values)}; an object is accepted.")
        part = values.get("partial_rotary_factor")
        if part is not None and part != 1:
            raise ModelError(f"config.json rotates a share of {shown(part)} of each head; only whole heads can be run.")
        kind = values.get("rope_type", values.get("type", "default"))
        if kind not in _NAMED:
            raise ModelError(f"Rotary positions of type {shown(kind)} cannot be run; {', '.join(_NAMED)} can.")
        found: dict[str, Any] = {"kind": kind, "theta": _number(values.get("rope_theta", theta), "rope_theta")}
        if kind == "default":
            return cls(**found)
        if kind == "dynamic":
            return cls(**found, factor=_needed(values, kind, "factor"), original_context=context)
        if kind == "linear":
            return cls(**found, factor=_needed(values, kind, "factor"))
        if original_context is None:
            original_context = values.get("original_max_position_embeddings", context)
        found["original_context"] = original = check_size("context", original_context)
        if kind == "llama3":
            for name in ("factor", "low_freq_factor", "high_freq_factor"):
                found[name] = _needed(values, kind, name)
            return cls(**found)
        factor = values.get("factor")
        found["factor"] = context / original if factor is None else _number(factor, "factor")
        for name in ("beta_fast", "beta_slow"):
            if values.get(name):
                found[name] = _number(values[name], name)
        return cls(**found, truncate=values.get("truncate", True), attention_factor=_attention(values, found["factor"]))


def _attention(values: Mapping[str, Any], factor: float) -> float:
    """What YaRN multiplies the cosines and sines by: given, or by its paper (DeepSeek adds the two ``mscale``)."""
    given = values.get("attention_factor")
    if given is not None:
        return _number(given, "attention_factor")
    scale = 0.1 * math.log(max(factor, 1.0))
    above, below = values.get("mscale"), values.get("mscale_all_dim")
    if above and below:
        return (_number(above, "mscale") * scale + 1.0) / (_number(below, "mscale_all_dim") * scale + 1.0)
    return scale + 1.0


def _needed(values: Mapping[str, Any], kind: str, name: str) -> float:
    if name not in values:
        raise ModelError(f"config.json's rope of type {kind!r} lacks {name!r}.")
    return _number(values[name], name)


def _number(value: object, name: str) -> float:
    if not is_finite(value):
        raise ModelError(f"config.json's rope has the {name} {shown(value)}; a number is accepted.")
    return float(value)  # type: ignore[arg-type]
