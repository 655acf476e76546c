"""Tools that a model may or must call: the form that its answer is held to where it must, and the calls in it.

Models write calls in two ways: between tags, ``<tool_call>{"name": …, "arguments": {…}}</tool_call>`` (Hermes, Qwen),
or as a whole answer that is JSON, where "parameters" may stand for "arguments" (Llama). Some leave out a tag.
"""

from __future__ import annotations

import re
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

    What may be a call ends at the first character that is no JSON; an end tag in a string does not end it. If it then
    is none, its open tag is text, and what follows that is read anew. The time is proportional to the answer's length:
    no character is read anew more than twice, as one open tag in what another opened is in a string there, and what is
    in a string to one of the two is not to the other.

    Args:
        tools: The names of the tools that may be called.

    Attributes:
        calls: Those that are complete.
    """

    def __init__(self, tools: Collection[str]) -> None:
        self.calls: list[Called] = []
        self._tools = tools
        self._answer = ""
        self._told = 0  # before it all is passed on or a call
        self._seen = 0  # between the two is nothing but blanks: dropped before a call
        self._begun = False  # there was text or a call
        self._json: _Json | None = None  # may be calls

    def push(self, text: str) -> str:
        """What of the answer is text for people, as far as that is certain."""
        return self._read(text, over=False)

    def flush(self) -> str:
        """The answer ends here: what was held back and is no call."""
        said = self._read("", over=True)
        return said if self.calls else said + self._answer[self._told :]

    def _read(self, text: str, *, over: bool) -> str:
        answer, self._answer = self._answer, ""  # a text with one name grows in place
        answer += text
        self._answer = answer
        said = ""
        while True:
            if self._json is None:
                said += self._text(over)
            json = self._json
            if json is None:
                return said
            json.follow(answer)
            tag = answer[json.end : json.end + len(CLOSE)]
            if not over and tag != CLOSE and CLOSE.startswith(tag):
                return said
            self._json, self._begun = None, True
            if tag in (CLOSE, "") and self._take(answer[json.begin : json.end]):
                self._told = json.end + len(tag)
            else:
                said += answer[self._told : json.begin]
                self._told = json.begin
            self._seen = self._told

    def _text(self, over: bool) -> str:
        """The text up to where there may be calls, or up to the end."""
        answer = self._answer
        if not self._begun:
            first = answer[self._seen :].lstrip()
            if first.startswith(("{", "[")):
                self._json = _Json(len(answer) - len(first))
                return ""
        tag = answer.find(OPEN, self._seen)
        if tag >= 0:
            end, self._json = tag, _Json(tag + len(OPEN))
        else:
            end = len(answer) - (0 if over else _begins_tag(answer))
        said = answer[self._seen : end].rstrip()
        if said:
            self._begun = True
            after = self._seen + len(said)
            said, self._told = answer[self._told : after], after
        self._seen = end
        return said

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


class _Json:
    """JSON in a text that grows.

    Attributes:
        begin, end: Of what may be JSON so far: what is at the end, if anything, is not. It lies beyond the text where
            that breaks off in an escape.
    """

    def __init__(self, begin: int) -> None:
        self.begin = self.end = begin
        self._quoted = False

    def follow(self, text: str) -> None:
        """Go on to the end; no character is looked at twice."""
        while found := (_IN_STRING if self._quoted else _OUTSIDE).search(text, self.end):
            self.end = found.start()
            if found[0] == '"':
                self._quoted = not self._quoted
            elif not (self._quoted and found[0] == "\\"):
                return
            self.end += 1 if found[0] == '"' else 2  # what is escaped says nothing
        self.end = max(self.end, len(text))


_OUTSIDE = re.compile(r"[^][{}:,0-9Eaeflnrstu+.\- \t\n\r]")
"""Of strings: one begins, or what is no JSON."""

_IN_STRING = re.compile(r'["\\\0-\x1f]')
"""It ends, or something is escaped, or what is no JSON."""


def _begins_tag(text: str) -> int:
    """How many of the last characters are the beginning of a tag."""
    return next((n for n in range(len(OPEN) - 1, 0, -1) if text.endswith(OPEN[:n])), 0)
