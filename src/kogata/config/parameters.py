"""The parameters that a config declares, and the checks that all configs share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal

from kogata.errors import ModelError

Precision = Literal["f32", "bf16", "int8", "int4", "ternary"]

#: Sanity bounds: far above every published model, far below what would exhaust a machine by itself.
_LARGEST = {
    "n_layers": 1_000,
    "d_model": 65_536,
    "n_heads": 4_096,
    "n_kv_heads": 4_096,
    "d_head": 4_096,
    "d_ff": 1_048_576,
    "vocab_size": 16_777_216,
    "max_positions": 16_777_216,
    "context": 16_777_216,
    "window": 16_777_216,
    "n_token_types": 65_536,
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One tensor of a model.

    Attributes:
        name: Kogata's name, for example ``layers.0.attn.q.weight``.
        shape: Sizes, outputs before inputs for a linear map.
        lowest_precision: The narrowest storage that is allowed for it.
    """

    name: str
    shape: tuple[int, ...]
    lowest_precision: Precision


def check_size(name: str, value: object) -> int:
    """The value, if it is a whole number within the bounds of a size of that name.

    Raises:
        ModelError: It is not.
    """
    largest = _LARGEST[name]
    if not isinstance(value, int) or isinstance(value, bool):
        raise ModelError(f"The model's {name} must be a whole number, not {shown(value)}.")
    if not 1 <= value <= largest:
        raise ModelError(f"The model's {name} is {shown(value)}; 1 to {largest:,} is accepted.")
    return value


def check_flag(name: str, value: object) -> bool:
    """The value, if it is true or false.

    Raises:
        ModelError: It is neither.
    """
    if not isinstance(value, bool):
        raise ModelError(f"The model's {name} is {shown(value)}; true or false is accepted.")
    return value


def check_number(name: str, value: object, least: float, largest: float) -> float:
    """The value as a float, if it is a number between the bounds, them included.

    Raises:
        ModelError: It is not.
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= largest:
        raise ModelError(f"The model's {name} is {shown(value)}; a number from {least:g} to {largest:g} is accepted.")
    return float(value)


def check_eps(name: str, value: object) -> float:
    """The value as a float, if it can be what a norm adds to a mean square.

    Raises:
        ModelError: It is not a number between 0 and 1.
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0.0 < value < 1.0:
        raise ModelError(f"The model's {name} is {shown(value)}; a number between 0 and 1 is accepted.")
    return float(value)


def check_fields(config: type, values: object) -> dict[str, Any]:
    """The values, if their names are fields of a config's dataclass and none that it needs is missing.

    Raises:
        ModelError: They are not an object, or a field is unknown or missing.
    """
    if not isinstance(values, Mapping):
        raise ModelError("A model's settings must be an object.")
    known = {field.name: field.default is MISSING for field in fields(config)}
    if unknown := sorted(set(map(str, values)) - set(known)):
        raise ModelError(f"Unknown model setting {unknown[0]!r}; known are {', '.join(known)}.")
    if missing := [name for name, needed in known.items() if needed and name not in values]:
        raise ModelError(f"The model setting {missing[0]!r} is missing.")
    return dict(values)


def shown(value: object) -> str:
    """A value for an error message, at a bearable length."""
    try:
        text = repr(value)
    except ValueError:  # a whole number with more digits than Python prints
        return "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:57]}..."


def is_finite(value: object) -> bool:
    """Whether a value is a number that a float can hold."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False
