"""llama.cpp through llama-cpp-python: contexts of a model, and caches that are deep without anything being read."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import llama_cpp as lib
import numpy as np
from numpy.typing import NDArray

KV = {"f16": 1, "q8_0": 8}
"""Storage of keys and values, by ggml's numbers."""

SHORT = 64
"""Tokens that are really read before a cache is made deep; depths are multiples of it."""


class Llama:
    """A model, mapped."""

    def __init__(self, path: Path) -> None:
        lib.llama_backend_init()
        self._model = lib.llama_model_load_from_file(str(path).encode(), lib.llama_model_default_params())
        assert self._model, path
        self.vocab_size = int(lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self._model)))

    def context(self, n_tokens: int, *, flash: bool, kv: str = "f16", rows: int = 512) -> Context:
        """Room for one text; up to `rows` tokens are read at once. Without flash attention values stay f16."""
        options = lib.llama_context_default_params()
        options.n_ctx, options.n_batch, options.n_ubatch = n_tokens, rows, rows
        options.flash_attn_type = 1 if flash else 0
        options.type_k, options.type_v = KV[kv], KV[kv] if flash else KV["f16"]
        made = lib.llama_init_from_model(self._model, options)
        assert made, (n_tokens, flash, kv)
        return Context(made)


class Context:
    """One text and its keys and values."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._memory = lib.llama_get_memory(context)

    def threads(self, n: int) -> None:
        lib.llama_set_n_threads(self._context, n, n)

    def read(self, ids: NDArray[np.int32]) -> None:
        """Appends tokens and waits for the logits of the last one."""
        pointer = ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        assert lib.llama_decode(self._context, lib.llama_batch_get_one(pointer, len(ids))) == 0
        lib.llama_get_logits_ith(self._context, -1)

    def cut(self, length: int) -> None:
        """Forgets all tokens from there on."""
        assert lib.llama_memory_seq_rm(self._memory, 0, length, -1)

    @property
    def length(self) -> int:
        return int(lib.llama_memory_seq_pos_max(self._memory, 0)) + 1

    def deepen(self, ids: NDArray[np.int32], depth: int) -> None:
        """A text of so many tokens: the keys and values of a short one that is read, over and over.

        Through llama.cpp's own saved state of a text, rewritten for more cells.
        """
        lib.llama_memory_clear(self._memory, True)
        for one in ids[:SHORT]:
            self.read(np.array([one], np.int32))
        state = np.empty(lib.llama_state_seq_get_size(self._context, 0), np.uint8)
        assert lib.llama_state_seq_get_data(self._context, _bytes(state), state.size, 0) == state.size
        lib.llama_memory_clear(self._memory, True)
        deep = _repeated(state, depth // SHORT)
        assert lib.llama_state_seq_set_data(self._context, _bytes(deep), deep.size, 0) == deep.size
        assert self.length == depth, (self.length, depth)

    def close(self) -> None:
        lib.llama_free(self._context)


def _bytes(array: NDArray[np.uint8]) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))


def _repeated(state: NDArray[np.uint8], times: int) -> NDArray[np.uint8]:
    """A saved text with its cells that many times, at places that go on.

    The format is that of llama_kv_cache::state_write: magic, text, streams (1), cells; each cell's place, number of
    texts (1) and text; whether values are transposed, layers; then for each layer its keys, a row a cell, and for each
    layer its values, a row a cell or, transposed, a row a dimension.
    """
    pieces: list[tuple[NDArray[np.uint8], int]] = []  # rows, and how often each stands in the result
    at = 0

    def take(n_rows: int, width: int, repeats: int = 1) -> NDArray[np.uint8]:
        nonlocal at
        rows = state[at : at + n_rows * width].reshape(n_rows, width)
        pieces.append((rows, repeats))
        at += n_rows * width
        return rows

    head = take(1, 16).copy().view(np.int32)[0]
    cells = int(head[3])
    assert (head[2], cells) == (1, SHORT), head
    head[3] = cells * times
    pieces[-1] = head.view(np.uint8)[None], 1
    take(1, 12 * cells)
    places = np.zeros((cells * times, 3), np.int32)
    places[:, 0], places[:, 1] = np.arange(cells * times), 1
    pieces[-1] = places.view(np.uint8).reshape(1, -1), 1
    transposed, n_layers = take(1, 8).view(np.uint32)[0]
    for _ in range(n_layers):
        take(1, 4)
        take(1, cells * int(take(1, 8).view(np.uint64)[0, 0]), times)
    for _ in range(n_layers):
        take(1, 4)
        if transposed:
            element, width = take(1, 8).view(np.uint32)[0]
            take(int(width), cells * int(element), times)
        else:
            take(1, cells * int(take(1, 8).view(np.uint64)[0, 0]), times)
    assert at == len(state), (at, len(state))
    made = np.empty(sum(rows.size * repeats for rows, repeats in pieces), np.uint8)
    at = 0
    for rows, repeats in pieces:
        size = rows.size * repeats
        made[at : at + size].reshape(len(rows), repeats, -1)[:] = rows[:, None]
        at += size
    return made
