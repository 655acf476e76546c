"""Tools that a model must call: the form that its answer is held to then, and the calls in what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from kogata.app.serve.parts import Called
from kogata.errors import BadInput

MOST_CALLS = 16
"""In one answer that is held to calls."""


def form_of_calls(tools: Sequence[Mapping[str, Any]], *, several: bool) -> dict[str, Any]:
    """The JSON schema of one call of one of these tools, or of a list of one or more.

    Args:
        tools: As OpenAI's clients send them.
        several: Whether it is a list.

    Raises:
        BadInput: Two tools define something else under the same name.
    """
    shared: dict[str, dict[str, Any]] = {}
    calls = []
    for tool in tools:
        function = tool["function"]
        arguments = dict(function.get("parameters") or {"type": "object"})
        for place in ("$defs", "definitions"):  # references to them begin at the root, which is ours
            for name, what in (arguments.pop(place, None) or {}).items():
                if shared.setdefault(place, {}).setdefault(name, what) != what:
                    raise BadInput(f"Two tools define {name[:100]!r} differently in {place}.")
        calls.append(
            {
                "type": "object", "properties": {"name": {"const": function["name"]}, "arguments": arguments},
                "required": ["name", "arguments"], "additionalProperties": False,
            }
        )  # fmt: skip
    form: dict[str, Any] = calls[0] if len(calls) == 1 else {"anyOf": calls}
    if several:
        form = {"type": "array", "items": form, "minItems": 1, "maxItems": MOST_CALLS}
    return {**form, **shared}


class HeldCalls:
    """Reads the calls out of an answer that was held to :func:`form_of_calls`.

    Attributes:
        calls: Those that are complete.
    """

    def __init__(self) -> None:
        self.calls: list[Called] = []
        self._text = ""

    def push(self, text: str) -> str:
        """What of it is text for people: nothing, while it is not over."""
        self._text += text
        return ""

    def flush(self) -> str:
        """The text ends here: nothing, or all of it where it broke off before it was a call."""
        try:
            found = msgspec.json.decode(self._text)
        except msgspec.DecodeError:
            return self._text
        for call in found if isinstance(found, list) else [found]:
            self.calls.append(Called(call["name"], msgspec.json.encode(call["arguments"]).decode()))
        return ""
