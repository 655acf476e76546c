"""Messages as OpenAI's clients send them, made into what chat templates expect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from kogata.errors import BadInput

DEEPEST = 100


def as_template_reads(messages: Sequence[Mapping[str, Any]], template: str) -> list[dict[str, Any]]:
    """The messages for a template.

    The arguments of calls become objects, which templates write in their own way, and a developer's message is a
    system's where the template does not know developers.

    Raises:
        BadInput: Arguments of a call are not a JSON object.
    """
    knows_developer = "developer" in template
    read = []
    for message in messages:
        made = dict(message)
        if made["role"] == "developer" and not knows_developer:
            made["role"] = "system"
        if made.get("tool_calls"):
            made["tool_calls"] = [_call(call) for call in made["tool_calls"]]
            made.setdefault("content", "")  # templates that add it to something stumble over none
        read.append(made)
    return read


def bounded(value: Any, what: str) -> None:
    """Raises BadInput for JSON that is nested too deeply to be gone through."""
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for one in level
            if isinstance(one, (dict, list))
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return
    raise BadInput(f"{what} is nested more than {DEEPEST} levels deep.")


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    try:
        arguments = msgspec.json.decode(function["arguments"] or "{}")
    except (msgspec.DecodeError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise BadInput(f"The arguments of the call of {function['name'][:100]!r} must be JSON text of an object.")
    bounded(arguments, f"What the call of {function['name'][:100]!r} gives")
    return {**call, "function": {**function, "arguments": arguments}}
