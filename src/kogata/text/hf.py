"""Tokenizers of Hugging Face's ``tokenizer.json``, run by the ``tokenizers`` library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kogata.text.hf_file import build, parse, run
from kogata.text.tokenizer import Ids, as_unicode, covered_share


class HfTokenizer:
    """A ``tokenizer.json`` behind the :class:`~kogata.text.tokenizer.Tokenizer` protocol.

    Such files often carry the truncation and padding of whoever saved them (MiniLM's cuts at 128 tokens); both are
    switched off.

    Args:
        source: The file's text.
        lowercase: Lower-case texts first, as ``sentence_bert_config.json`` may ask.

    Raises:
        ModelError: The text is not a tokenizer.
    """

    def __init__(self, source: str, *, lowercase: bool = False) -> None:
        content = parse(source)
        self._tokenizer = build(source)
        if lowercase:
            from tokenizers import normalizers

            present = self._tokenizer.normalizer
            steps = [normalizers.Lowercase(), *([] if present is None else [present])]
            self._tokenizer.normalizer = normalizers.Sequence(steps)
        self._unk_id = _unknown_id(content, self._tokenizer)
        self._n_special = int(self._tokenizer.num_special_tokens_to_add(False))
        # With a character that no vocabulary has: a tokenizer without its unknown token fails here, not amid work.
        tried = self._run(["a \U0001f5ff"], special=True)[0]
        self._n_leading = next((i for i, added in enumerate(tried.special_tokens_mask) if not added), self._n_special)
        #: The largest id that it can give: it must be a row of the model's word embedding.
        self.largest_id = max([_largest_id(content), *tried.ids])

    @property
    def unk_id(self) -> int | None:
        return self._unk_id

    @property
    def n_special(self) -> int:
        return self._n_special

    @property
    def n_leading(self) -> int:
        return self._n_leading

    def encode(self, text: str) -> Ids:
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        return [np.array(found.ids, np.int32) for found in self._run(texts, special=True)]

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(found) for found in self._run(texts, special=False)]

    def spans(self, text: str) -> NDArray[np.int32]:
        return _as_spans(self._run([text], special=False, offsets=True)[0].offsets)

    def coverage(self, text: str) -> float:
        if self._unk_id is None:
            return 1.0
        found = self._run([text], special=False, offsets=True)[0]
        unknown = np.array(found.ids, np.int32) == self._unk_id
        return covered_share(as_unicode(text), _as_spans(found.offsets)[unknown])

    def _run(self, texts: Sequence[str], *, special: bool, offsets: bool = False) -> list[Any]:
        return run(self._tokenizer, texts, special=special, offsets=offsets)


def _as_spans(offsets: list[tuple[int, int]]) -> NDArray[np.int32]:
    return np.array(offsets, np.int32).reshape(-1, 2)


def _unknown_id(content: Any, tokenizer: Any) -> int | None:
    model = content.get("model") or {}
    if isinstance(found := model.get("unk_id"), int):
        return found
    token = model.get("unk_token")
    return tokenizer.token_to_id(token) if isinstance(token, str) else None


def _largest_id(content: Any) -> int:
    vocab = content["model"].get("vocab") or {}
    largest = len(vocab) - 1 if isinstance(vocab, list) else max(vocab.values(), default=-1)
    added = content.get("added_tokens") or []
    return int(max([largest, *(token["id"] for token in added)]))
