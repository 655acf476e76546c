"""Tokenizers of models that write, from ``tokenizer.json``: byte-level BPE in tiktoken where that is exact, all else
(and all else is SentencePiece-like BPE, Unigram, and byte-level BPE with rules of its own) in ``tokenizers``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np

from kogata.errors import ModelError
from kogata.text.bpe import byte_level_bpe
from kogata.text.hf_file import build, parse, refusals, run
from kogata.text.tokenizer import Ids, Spans, as_unicode
from kogata.text.vocabulary import AddedToken, AddedTokens, Vocabulary


class _Engine(Protocol):
    def encode(self, text: str, *, first: bool) -> Ids:
        """The ids of plain text; ``first``: it stands at the beginning of the whole text."""


class HfTextTokenizer:
    """A ``tokenizer.json`` behind the :class:`~kogata.text.tokenizer.TextTokenizer` protocol.

    Args:
        source: The file's text.
        fast: Whether tiktoken may be used. For tests: the ids are the same.

    Raises:
        ModelError: The text is not a tokenizer, or not one of a language model.
    """

    def __init__(self, source: str, *, fast: bool = True) -> None:
        content = parse(source)
        if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
            raise ModelError("tokenizer.json is not a tokenizer that can be read: it has no model.")
        with refusals("a tokenizer that can be read"):
            self._vocabulary = Vocabulary(content)
            engine = byte_level_bpe(content) if fast else None
        controls = [token for token in self._vocabulary.added if token.is_control]
        plain = [token for token in self._vocabulary.added if not token.is_control]
        self._engine: _Engine = _Library(source, content, controls) if engine is None or plain else engine
        self._controls = AddedTokens(controls)
        self.special_ids = frozenset(token.id for token in self._vocabulary.added if token.special)
        # Unigram takes the best-scored pieces, and files give control tokens the best score there is.
        model = content["model"]
        takes_any = model.get("type") == "Unigram"
        unknown = model.get("unk_token")
        unknown_ids = (model.get("unk_id"), self.id_of(unknown) if isinstance(unknown, str) else None)
        unwanted = [t.id for t in controls if (t.special or takes_any) and t.id not in unknown_ids]
        self._unwanted_V = np.zeros(self.vocab_size, bool)
        self._unwanted_V[unwanted] = True

    @property
    def vocab_size(self) -> int:
        return self._vocabulary.size

    @property
    def is_fast(self) -> bool:
        """Whether tiktoken encodes."""
        return not isinstance(self._engine, _Library)

    def encode(self, text: str, *, special: bool = False) -> Ids:
        return self.encode_around(text, () if special else ((0, len(text)),))

    def encode_around(self, text: str, plain: Spans) -> Ids:
        text = as_unicode(text)
        found: list[Ids] = []
        done, own = 0, 0
        for start, end in (*plain, (len(text), len(text))):
            for left, right, token in self._controls.find(text, own, start):
                before = text[done:left]
                found.append(self._plain(before.rstrip() if token.left else before, first=done == 0))
                found.append(np.array([token.id], np.int32))
                done = right
                if token.right:
                    done += len(text) - right - len(text[right:].lstrip())
            own = end
        found.append(self._plain(text[done:], first=done == 0))
        return np.concatenate(found)

    def decode(self, ids: Iterable[int]) -> str:
        data = b"".join(self.token_bytes(int(token)) for token in ids if int(token) not in self.special_ids)
        text = data.decode(errors="replace")
        return text.removeprefix(" ") if self._vocabulary.strips_space else text

    def token_bytes(self, token_id: int) -> bytes:
        return self._vocabulary.bytes_of(token_id)

    def id_of(self, text: str) -> int | None:
        return self._vocabulary.id_of(text)

    def _plain(self, text: str, *, first: bool) -> Ids:
        if not text:
            return np.zeros(0, np.int32)
        ids = self._engine.encode(text, first=first)
        unwanted = self._unwanted_V[ids]
        if not unwanted.any():
            return ids
        # The text's own pieces add up to a control token. Cut small enough they cannot.
        half = len(text) // 2
        if half == 0:
            return ids[~unwanted]
        return np.concatenate([self._plain(text[:half], first=first), self._plain(text[half:], first=False)])


class _Library:
    """``tokenizers`` for plain text."""

    def __init__(self, source: str, content: dict[str, Any], controls: list[AddedToken]) -> None:
        from tokenizers import AddedToken as Added
        from tokenizers import pre_tokenizers

        self._tokenizer = build(source)
        self._prefix: str | None = None
        with refusals("a tokenizer that can be read"):
            # Marked as special they can be switched off, all of them.
            self._tokenizer.add_special_tokens([Added(token.content, special=True) for token in controls])
            self._tokenizer.encode_special_tokens = True
            match content.get("pre_tokenizer"):
                case {"type": "Metaspace", "prepend_scheme": "first", "replacement": str(space), **rest}:
                    # The library knows the first word by where it stands, and we give it the text in parts.
                    self._prefix = space
                    self._tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
                        replacement=space, prepend_scheme="never", split=bool(rest.get("split", True))
                    )
        # With a character that no vocabulary has: a tokenizer without its unknown token fails here, not amid work.
        self.encode("a \U0001f5ff", first=True)

    def encode(self, text: str, *, first: bool) -> Ids:
        if first and self._prefix is not None and not text.startswith((" ", self._prefix)):
            text = " " + text
        return np.array(run(self._tokenizer, [text], special=False)[0].ids, np.int32)
