"""The tokens of a ``tokenizer.json``: the bytes that each stands for, and which of them control a model."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from kogata.errors import ModelError

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_WORD = re.compile(r"\w")
_OUTSIDE = "\u0100\u0100"  # what no byte is written as: refused by Latin-1


class _Bytes(dict[int, str]):
    """GPT-2's printable character of each byte, back to the byte, for ``str.translate``."""

    def __init__(self) -> None:
        printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
        others = [byte for byte in range(256) if byte not in printable]
        super().__init__({byte: chr(byte) for byte in printable})
        self.update({0x100 + i: chr(byte) for i, byte in enumerate(others)})

    def __missing__(self, character: int) -> str:
        return _OUTSIDE


_BYTES = _Bytes()


def byte_tokens(tokens: Iterable[str]) -> list[bytes | None]:
    """The bytes of byte-level tokens as vocabularies write them; None for one that is not written so."""
    found: list[bytes | None] = []
    for token in tokens:
        try:
            found.append(token.translate(_BYTES).encode("latin-1"))
        except UnicodeEncodeError:
            found.append(None)
    return found


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token that is looked for in the text before anything else happens to it.

    ``left`` and ``right`` take the white space on that side along; ``word`` asks that no letter or digit be beside.
    """

    id: int
    content: str
    special: bool
    left: bool
    right: bool
    word: bool

    @property
    def is_control(self) -> bool:
        """Whether this may mean something to the model beyond its text.

        Files mark only some of these as special (Qwen's ``<tool_response>`` and DeepSeek's ``<｜User｜>`` are not), so
        all count but those that are nothing but white space.
        """
        return bool(self.content.strip(" \t\r\n▁"))


class Vocabulary:
    """Every token's bytes, and the added tokens.

    Args:
        content: A ``tokenizer.json``.

    Raises:
        ModelError: It has no vocabulary, or a decoder of a kind that language models do not have.
    """

    def __init__(self, content: dict[str, Any]) -> None:
        model = content["model"]
        vocab = model.get("vocab")
        try:
            if isinstance(vocab, list):
                tokens = {str(token): place for place, (token, _) in enumerate(vocab)}
            else:
                tokens = {token: operator.index(place) for token, place in vocab.items()}
            self.added = [
                AddedToken(
                    operator.index(token["id"]),
                    str(token["content"]),
                    *(bool(token.get(key)) for key in ("special", "lstrip", "rstrip", "single_word")),
                )
                for token in content.get("added_tokens") or []
                if token["content"]
            ]
            places = [*tokens.values(), *(token.id for token in self.added)]
            # Some ids may be missing, but one of 2^31 would only cost memory.
            if not places or min(places) < 0 or max(places) > 16 * len(places) + 2**20:
                raise ValueError("ids out of range")
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
            raise ModelError(f"tokenizer.json is not a tokenizer that can be read: vocabulary ({error}).") from None
        self.size = max(places) + 1
        decoder = _Decoder(content)
        #: Whether a decoded text loses the space that encoding put before its first word.
        self.strips_space = decoder.strips_space
        self._bytes: list[bytes] = [b""] * self.size
        for place, data in zip(tokens.values(), decoder.bytes_of(list(tokens)), strict=True):
            self._bytes[place] = data
        for added in self.added:
            control = added.content.encode(errors="replace")
            self._bytes[added.id] = control if added.is_control else decoder.bytes_of([added.content])[0]

    def bytes_of(self, token_id: int) -> bytes:
        """The bytes of a token; empty for an id that has none."""
        return self._bytes[token_id] if 0 <= token_id < self.size else b""

    def id_of(self, text: str) -> int | None:
        """The id of the token that is this text: of an added one first."""
        for token in self.added:
            if token.content == text:
                return token.id
        try:
            return self._bytes.index(text.encode()) if text else None
        except (UnicodeEncodeError, ValueError):
            return None


class _Decoder:
    """How tokens are written, as the file's ``decoder`` says."""

    def __init__(self, content: dict[str, Any]) -> None:
        steps = _steps(content.get("decoder"))
        kinds = {str(step.get("type")) for step in steps}
        if "ByteLevel" in kinds and kinds <= {"ByteLevel", "Fuse"}:
            kinds = {"ByteLevel"}
        elif not kinds <= {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}:
            kind = ", ".join(sorted(kinds))
            raise ModelError(f"tokenizer.json has a decoder that language models do not have: {kind}.")
        self.strips_space = False
        self._is_byte_level = kinds == {"ByteLevel"}
        self._has_bytes = "ByteFallback" in kinds or bool(content["model"].get("byte_fallback"))
        self._replaced: list[tuple[str, str]] = []
        for step in steps:
            if step["type"] == "Replace" and (old := str(step["pattern"].get("String", ""))):
                self._replaced.append((old, str(step["content"])))
            elif step["type"] == "Metaspace":
                self._replaced.append((str(step.get("replacement", "▁")), " "))
                scheme = step.get("prepend_scheme", "always" if step.get("add_prefix_space", True) else "never")
                self.strips_space = scheme != "never"
            elif step["type"] == "Strip":
                self.strips_space = step["content"] == " " and step["start"] == 1

    def bytes_of(self, tokens: list[str]) -> list[bytes]:
        if self._is_byte_level:
            return [
                token.encode(errors="replace") if found is None else found
                for token, found in zip(tokens, byte_tokens(tokens), strict=True)
            ]
        for old, new in self._replaced:
            tokens = [token.replace(old, new) for token in tokens]
        return [
            bytes.fromhex(byte[1])
            if self._has_bytes and (byte := _BYTE_TOKEN.fullmatch(token))
            else token.encode(errors="replace")
            for token in tokens
        ]


def _steps(decoder: Any) -> list[dict[str, Any]]:
    if decoder is None:
        return []
    if decoder["type"] == "Sequence":
        return [step for inner in decoder["decoders"] for step in _steps(inner)]
    return [decoder]


class AddedTokens:
    """Finds added tokens in a text: the leftmost, and of those that begin together the longest."""

    def __init__(self, tokens: Iterable[AddedToken]) -> None:
        self._by_content = {token.content: token for token in tokens}
        self._sizes = sorted({len(content) for content in self._by_content}, reverse=True)
        firsts = "".join(sorted({content[0] for content in self._by_content}))
        self._first = re.compile(f"[{re.escape(firsts)}]") if firsts else re.compile("(?!)")

    def find(self, text: str, start: int, end: int) -> Iterator[tuple[int, int, AddedToken]]:
        """Start, end and token of each inside [start, end) of the text."""
        while (candidate := self._first.search(text, start, end)) is not None:
            start = candidate.start()
            for size in self._sizes:
                token = self._by_content.get(text[start : min(start + size, end)])
                if token is not None and not (token.word and _beside_word(text, start, start + len(token.content))):
                    yield start, start + len(token.content), token
                    start += len(token.content)
                    break
            else:
                start += 1


def _beside_word(text: str, start: int, end: int) -> bool:
    return bool(_WORD.match(text[max(start - 1, 0) : start]) or _WORD.match(text[end : end + 1]))
