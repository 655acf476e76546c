"""Text as it is generated: whole characters only, and nothing that may still become a stop string."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Iterable

from kogata.errors import BadInput

LARGEST_STOP_STRINGS = 200_000  # characters, together: some 20 MB and a fifth of a second


class Utf8Stream:
    """Bytes in, text out, never part of a character. Invalid bytes become U+FFFD, as in ``bytes.decode``."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, data: bytes) -> str:
        """The characters that are complete with these bytes."""
        return self._decoder.decode(data)

    def flush(self) -> str:
        """U+FFFD if the last character was never finished, else nothing. Afterwards a new text may begin."""
        return self._decoder.decode(b"", final=True)


class StopStrings:
    """Lets text through up to the first stop string, and holds back only what may still become one.

    The stop string that is complete first ends the text; of several that end at the same character the longest
    counts, so nothing of it is shown. The outcome does not depend on how the text was cut into pieces.

    Args:
        strings: Any number of stop strings, found together in one pass (Aho and Corasick, 1975).

    Raises:
        BadInput: An empty stop string, or more than 200,000 characters of them.
    """

    def __init__(self, strings: Iterable[str]) -> None:
        #: The stop string that ended the text, or None.
        self.matched: str | None = None
        self._next: list[dict[str, int]] = [{}]
        self._depth = [0]
        self._found: list[str | None] = [None]  # the longest stop string that ends here
        self._state = 0
        self._held = ""
        room = LARGEST_STOP_STRINGS
        for string in strings:
            if not string:
                raise BadInput("A stop string must not be empty.")
            room -= len(string)
            if room < 0:
                raise BadInput(f"The stop strings are longer than {LARGEST_STOP_STRINGS:,} characters together.")
            self._insert(string)
        self._link()

    def push(self, text: str) -> str:
        """What may be shown now: the text up to the stop string, or up to what may still become one.

        Empty once a stop string was found.
        """
        if self.matched is not None:
            return ""
        self._held += text
        start = len(self._held) - len(text)
        for at in range(start, len(self._held)):
            self._step(self._held[at])
            if (found := self._found[self._state]) is not None:
                self.matched = found
                shown = self._held[: at + 1 - len(found)]
                self._held = ""
                return shown
        free = len(self._held) - self._depth[self._state]
        shown, self._held = self._held[:free], self._held[free:]
        return shown

    def flush(self) -> str:
        """What was held back, where the text ends without a stop string."""
        shown, self._held, self._state = self._held, "", 0
        return shown

    def _step(self, character: str) -> None:
        state = self._state
        while (follows := self._next[state].get(character)) is None and state:
            state = self._fallback[state]
        self._state = follows or 0

    def _insert(self, string: str) -> None:
        state = 0
        for character in string:
            follows = self._next[state].get(character)
            if follows is None:
                follows = self._next[state][character] = len(self._next)
                self._next.append({})
                self._depth.append(self._depth[state] + 1)
                self._found.append(None)
            state = follows
        self._found[state] = string

    def _link(self) -> None:
        # A state's fallback is its longest proper suffix that is a state too: found breadth first, from its parent's.
        self._fallback = [0] * len(self._next)
        queue = deque(self._next[0].values())
        while queue:
            state = queue.popleft()
            for character, follows in self._next[state].items():
                fallback = self._fallback[state]
                while character not in self._next[fallback] and fallback:
                    fallback = self._fallback[fallback]
                self._fallback[follows] = self._next[fallback].get(character, 0)
                queue.append(follows)
            if self._found[state] is None:
                self._found[state] = self._found[self._fallback[state]]
