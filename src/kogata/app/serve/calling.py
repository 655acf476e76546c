"""Tools that a model may or must call: the form that its answer is held to where it must, and the calls in it.

Models write calls in two ways: between tags, ``<tool_call>{"name": …, "arguments": {…}}</tool_call>`` (Hermes, Qwen),
or as a whole answer that is JSON, where "parameters" may stand for "arguments" (Llama).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from kogata.app.serve.parts import Called

MOST_CALLS = 16
"""In one answer that is held to calls."""


def form_of_calls(tools: Sequence[Mapping[str, Any]], *, several: bool) -> dict[str, Any]:
    """The JSON schema of one call of one of these tools, or of a list of one or more.

    Args:
        tools: As OpenAI's clients send them.
        several: Whether it is a list.
    """
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool["function"]["name"]},
                # With an id of its own, what a tool's schema refers to is found in it, "#" being itself.
                "arguments": {**(tool["function"].get("parameters") or {"type": "object"}), "$id": f"tool:{i}"},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for i, tool in enumerate(tools)
    ]
    form: dict[str, Any] = calls[0] if len(calls) == 1 else {"anyOf": calls}
    return {"type": "array", "items": form, "minItems": 1, "maxItems": MOST_CALLS} if several else form


OPEN, CLOSE = "<tool_call>", "</tool_call>"


class Calls:
    """Takes the calls out of an answer as it is written. What is none stays text: nothing is lost.

    Args:
        tools: The names of the tools that may be called.

    Attributes:
        calls: Those that are complete.
    """

    def __init__(self, tools: Collection[str]) -> None:
        self.calls: list[Called] = []
        self._tools = tools
        self._held = ""
        self._blank = ""  # before the open tag: dropped with a call
        self._begun = False  # there was text
        self._inside = False  # a tag is open

    def push(self, text: str) -> str:
        """What of the answer is text for people, as far as that is certain."""
        self._held += text
        said = ""
        while True:
            if self._inside:
                end = self._held.find(CLOSE)
                if end < 0:
                    return said
                inner, rest = self._held[:end], self._held[end + len(CLOSE) :]
                said += "" if self._take(inner) else f"{self._blank}{OPEN}{inner}{CLOSE}"
                self._held, self._inside = rest, False
            if not self._begun and _may_be_calls(self._held):
                return said  # that shows at its end
            begin = self._held.find(OPEN)
            if begin < 0:
                free = len(self._held) - _unsure(self._held)
                passed, self._held = self._held[:free], self._held[free:]
                self._begun = self._begun or bool(passed.strip())
                return said + passed
            before = self._held[:begin].rstrip()
            said, self._blank = said + before, self._held[len(before) : begin]
            self._held, self._begun, self._inside = self._held[begin + len(OPEN) :], True, True

    def flush(self) -> str:
        """The answer ends here: what was held back and is no call."""
        held, self._held = self._held, ""
        if self._inside:  # some models leave out the last tag
            return "" if self._take(held) else self._blank + OPEN + held
        return "" if not self._begun and self._take(held) else held if held.strip() or not self.calls else ""

    def _take(self, text: str) -> bool:
        """Whether the text is one call or a list of them, which are ours then."""
        try:
            found = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            return False
        calls = [self._call(one) for one in (found if isinstance(found, list) else [found])]
        whole = [call for call in calls if call is not None]
        if not whole or len(whole) < len(calls):
            return False
        self.calls += whole
        return True

    def _call(self, told: Any) -> Called | None:
        inner = told.get("function") if isinstance(told, dict) else None
        told = inner if isinstance(inner, dict) else told
        if not isinstance(told, dict) or told.get("name") not in self._tools:
            return None
        arguments = told.get("arguments", told.get("parameters", {}))
        return Called(told["name"], msgspec.json.encode(arguments).decode()) if isinstance(arguments, dict) else None


def _may_be_calls(text: str) -> bool:
    """Whether a whole answer that begins so may be a JSON object or a list of them."""
    text = text.lstrip()
    return text.startswith("{") or (text.startswith("[") and text[1:].lstrip()[:1] in ("{", ""))


def _unsure(text: str) -> int:
    """How many of the last characters may still belong to a call: the beginning of a tag, and blanks before it."""
    tag = next((n for n in range(min(len(OPEN) - 1, len(text)), 0, -1) if text.endswith(OPEN[:n])), 0)
    before = text[: len(text) - tag]
    return len(text) - len(before.rstrip())
