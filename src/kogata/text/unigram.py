"""SentencePiece's Unigram model (Kudo, 2018, arXiv 1804.10959) over a table that stays mapped from a file.

A text is normalised character by character, runs of spaces become one, each word takes the space before it as ``▁``,
and every word is cut into the pieces whose scores (log probabilities) sum highest. A character without a piece costs
the lowest score minus 10, and neighbouring ones become one unknown token, as in SentencePiece and ``tokenizers``.

csrc/unigram.cpp does that after some 10 ms of building its tables (``tokenizers`` needs 0.8 s for 250,000 pieces);
where there is no extension, unigram_python.py gives the same ids.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kogata.extension import extension
from kogata.text.tokenizer import Ids, as_unicode, covered_share
from kogata.text.unigram_table import UnigramTable


class _Engine(Protocol):
    def encode_batch(self, texts: Sequence[str]) -> list[Ids]: ...

    def encode_spans(self, text: str) -> tuple[Ids, NDArray[np.int32]]: ...


class UnigramTokenizer:
    """A :class:`UnigramTable` behind the :class:`~kogata.text.tokenizer.Tokenizer` protocol.

    Args:
        table: The pieces; already checked.
        native: Whether to use the extension; by default where it is there and ``KOGATA_ISA`` is not ``fallback``.
    """

    n_special = 2
    n_leading = 1

    def __init__(self, table: UnigramTable, *, native: bool | None = None) -> None:
        self._table = table
        self._native = native
        self._bos = np.array([table.bos_id], np.int32)
        self._eos = np.array([table.eos_id], np.int32)

    @property
    def unk_id(self) -> int:
        return self._table.unk_id

    def encode(self, text: str) -> Ids:
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        found = self._engine.encode_batch([as_unicode(text) for text in texts])
        return [np.concatenate((self._bos, ids, self._eos)) for ids in found]

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in self._engine.encode_batch([as_unicode(text) for text in texts])]

    def spans(self, text: str) -> NDArray[np.int32]:
        return self._engine.encode_spans(as_unicode(text))[1]

    def coverage(self, text: str) -> float:
        text = as_unicode(text)
        ids_n, spans_n2 = self._engine.encode_spans(text)
        return covered_share(text, spans_n2[ids_n == self.unk_id])

    @cached_property
    def _engine(self) -> _Engine:
        # Built on first use: whoever only looks at a model does not pay for it.
        wanted = os.environ.get("KOGATA_ISA") != "fallback" if self._native is None else self._native
        module = extension() if wanted else None
        if module is not None:
            return _NativeUnigram(module, self._table)
        from kogata.text.unigram_python import PythonUnigram

        return PythonUnigram(self._table)


class _NativeUnigram:
    """csrc/unigram.cpp behind the same two methods as :class:`~kogata.text.unigram_python.PythonUnigram`."""

    def __init__(self, module: Any, table: UnigramTable) -> None:
        self._unigram = module.Unigram(
            table.blob_B,
            table.offsets_V1,
            table.scores_V,
            table.norm_from_M,
            table.norm_offsets_M1,
            table.norm_to_O,
            table.unk_id,
        )

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        encoded = [text.encode() for text in texts]
        starts = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(text) for text in encoded], out=starts[1:])
        ids, ends = self._unigram.encode_batch(b"".join(encoded), starts)
        return np.split(ids, ends[1:-1]) if encoded else []

    def encode_spans(self, text: str) -> tuple[Ids, NDArray[np.int32]]:
        ids, spans = self._unigram.encode_spans(text.encode())
        return ids, spans.reshape(-1, 2)
