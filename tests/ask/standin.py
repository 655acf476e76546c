"""An embedder of a page, so that the tests of the index need no model: words hashed onto directions."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np

DIMENSIONS = 64


class WordTokenizer:
    """Words and single characters of Japanese; Ogham is the script it does not know."""

    n_special = 2
    unk_id = 0
    _token = re.compile(r"[\u3041-\u30ff\u4e00-\u9fff]|\w+|[^\w\s]")

    def encode(self, text: str) -> np.ndarray:
        ids = [2 + zlib.crc32(word.encode()) % 60_000 for word in self._token.findall(text)]
        return np.array([1, *ids, 1], np.int32)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [self.encode(text) for text in texts]

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(self._token.findall(text)) for text in texts]

    def spans(self, text: str) -> np.ndarray:
        return np.array([match.span() for match in self._token.finditer(text)], np.int32).reshape(-1, 2)

    def coverage(self, text: str) -> float:
        letters = [letter for letter in text if not letter.isspace()]
        known = [letter for letter in letters if not "\u1680" <= letter <= "\u169f"]
        return len(known) / len(letters) if letters else 1.0


class StandIn:
    """Vectors that agree where texts share words."""

    def __init__(self, identity: str = "standin-1", name: str = "standin") -> None:
        self.identity = identity
        self.name = name
        self.dimensions = DIMENSIONS
        self.tokenizer = WordTokenizer()
        self.max_length = 512
        self.prompts = {"query": "", "document": ""}
        self.embedded = 0
        self._directions: dict[int, np.ndarray] = {}

    def encode_query(self, texts: str | Sequence[str], **_: object) -> np.ndarray:
        return self._encode(texts)

    def encode_document(self, texts: str | Sequence[str], **_: object) -> np.ndarray:
        self.embedded += 1 if isinstance(texts, str) else len(texts)
        return self._encode(texts)

    def _encode(self, texts: str | Sequence[str]) -> np.ndarray:
        if isinstance(texts, str):
            return self._encode([texts])[0]
        rows = np.zeros((len(texts), DIMENSIONS), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for id_ in self.tokenizer.encode(text.lower())[1:-1]:
                row += self._direction(int(id_))
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def _direction(self, id_: int) -> np.ndarray:
        if id_ not in self._directions:
            seed = [id_, zlib.crc32(self.identity.encode())]
            self._directions[id_] = np.random.default_rng(seed).standard_normal(DIMENSIONS).astype(np.float32)
        return self._directions[id_]
