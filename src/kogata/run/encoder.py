"""Texts to vectors: BERT and XLM-RoBERTa encoders on our own kernels, without torch.

Shapes: T tokens of a batch (all its texts packed, no padding), H width, F feed-forward width, S texts of a batch,
N texts, D dimensions asked for.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kogata.errors import BadInput
from kogata.ops import dispatch
from kogata.ops.attend import encode_attention
from kogata.ops.elementwise import embed, layer_norm, pool
from kogata.ops.linear import Kind, PackedLinear, linear, pack
from kogata.text.tokenizer import Tokenizer
from kogata.weights import EncoderCheckpoint, Q4Tensor, load_encoder

__all__ = ["Encoder", "TokenVectors"]

Floats = NDArray[np.float32]
Precision = Literal["auto", "f32", "bf16", "int8", "int4"]
LongTexts = Literal["refuse", "window"]

#: Tokens of a batch: enough rows for the kernels' tiles, few enough that its activations stay in the caches and that
#: Ctrl-C, which acts between batches, acts at once.
BATCH_TOKENS = 512
#: Texts that are tokenised and sorted by length together.
_SLAB = 2048
#: The widest model of floats that "auto" runs at int8: what was measured (docs/decisions/encoder-arithmetic.md).
_WIDEST_AT_INT8 = 384


@dataclass(frozen=True)
class TokenVectors:
    """The tokens of a text: float32 [T, H], each of length 1, and int32 [T, 2], their start and end in characters."""

    vectors_TH: Floats
    spans_T2: NDArray[np.int32]


@dataclass(frozen=True)
class _Norm:
    gain_H: Floats
    bias_H: Floats


@dataclass(frozen=True)
class _Layer:
    qkv: PackedLinear
    out: PackedLinear
    attention_norm: _Norm
    up: PackedLinear
    down: PackedLinear
    norm: _Norm


class Encoder:
    """An embedding model, ready to run.

    Args:
        model: ``"default"``, a directory in Hugging Face or sentence-transformers layout, a hub id, or a checkpoint.
        precision: Of the matrix products. ``"auto"`` takes the fastest that keeps the model's quality: int8 for weights
            that are integers already, and for models up to 384 wide where the processor has dot products of bytes;
            else bf16 where it has those, else f32. Vectors of one model made at different precisions can be compared
            with each other.
        threads: For all kernels of this process; by default what affinity and the container's quota allow.

    Raises:
        ModelError: There is no such model, or it is damaged or of a kind that cannot be run.
        BadInput: An argument is not one of those named.

    >>> encoder = Encoder()
    >>> encoder.encode_query("what is a tide", dimensions=128).shape
    (128,)
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | EncoderCheckpoint = "default",
        *,
        precision: Precision = "auto",
        threads: int | None = None,
    ) -> None:
        if precision not in ("auto", "f32", "bf16", "int8", "int4"):
            raise BadInput(f"precision is {precision!r}; accepted: auto, f32, bf16, int8, int4.")
        if threads is not None:
            dispatch.set_threads(threads)
        checkpoint = model if isinstance(model, EncoderCheckpoint) else load_encoder(model)
        config, tensors = checkpoint.config, checkpoint.tensors
        self.name = checkpoint.name
        self.identity = checkpoint.identity
        self.tokenizer: Tokenizer = checkpoint.tokenizer
        self.prompts: Mapping[str, str] = checkpoint.prompts
        self.max_length = checkpoint.max_length
        self.dimensions = config.d_model
        first = tensors["layers.0.attn.q.weight"]
        self.precision: Kind = (
            _fastest(isinstance(first, Q4Tensor), config.d_model) if precision == "auto" else precision
        )
        self._config = config
        self._pooling = checkpoint.pooling
        self._word_VH = tensors["embed.word"]
        self._position_PH = _floats(tensors["embed.position"])
        self._type_NH = _floats(tensors["embed.type"])
        self._embed_norm = _norm(checkpoint, "embed.norm")
        self._layers = [self._load_layer(checkpoint, f"layers.{i}") for i in range(config.n_layers)]
        self._memory = threading.local()

    def _load_layer(self, checkpoint: EncoderCheckpoint, name: str) -> _Layer:
        def load(*parts: str) -> PackedLinear:
            weights = [checkpoint.tensors[f"{name}.{part}.weight"] for part in parts]
            bias = np.concatenate([_floats(checkpoint.tensors[f"{name}.{part}.bias"]) for part in parts])
            group = 32 if self.precision == "int4" else 0
            kind = self.precision
            if all(isinstance(weight, Q4Tensor) for weight in weights):
                blocks = [weight.blocks_NGB for weight in weights if isinstance(weight, Q4Tensor)]
                return pack(Q4Tensor(np.concatenate(blocks)), kind, group, bias)
            return pack(np.concatenate([_floats(weight) for weight in weights]), kind, group, bias)

        return _Layer(
            qkv=load("attn.q", "attn.k", "attn.v"),
            out=load("attn.out"),
            attention_norm=_norm(checkpoint, f"{name}.attn.norm"),
            up=load("ffn.up"),
            down=load("ffn.down"),
            norm=_norm(checkpoint, f"{name}.ffn.norm"),
        )

    def encode_query(
        self, texts: str | Sequence[str], *, dimensions: int | None = None, long_texts: LongTexts = "refuse"
    ) -> Floats:
        """Vectors of questions: float32 [N, D] of length 1, or [D] for a single string.

        The model's own prompt goes before each text. A text's vector does not depend on the others.

        Args:
            texts: One text or several.
            dimensions: How many of the model's dimensions to keep (the first ones, then scaled to length 1).
            long_texts: What happens to a text longer than the model reads: ``"refuse"`` raises, ``"window"`` reads it
                in windows and takes the mean over the tokens of all.

        Raises:
            BadInput: ``dimensions`` is not between 1 and the model's, ``texts`` holds something else than strings, or a
                text is too long and was to be refused.
        """
        return self._encode_texts(texts, "query", dimensions, long_texts)

    def encode_document(
        self, texts: str | Sequence[str], *, dimensions: int | None = None, long_texts: LongTexts = "refuse"
    ) -> Floats:
        """Vectors of passages; everything else as in :meth:`encode_query`."""
        return self._encode_texts(texts, "document", dimensions, long_texts)

    def encode_ids(
        self, ids: Sequence[Sequence[int]], *, kind: Literal["query", "document"] = "document",
        dimensions: int | None = None, long_texts: LongTexts = "refuse",
    ) -> Floats:  # fmt: skip
        """Vectors of texts that are tokens of this model already: float32 [N, D] of length 1.

        Args:
            ids: Of each text, as the model's tokenizer gives them, without special tokens and prompt, which are added.
            kind: As what they are read: questions or passages.
            dimensions, long_texts: As in :meth:`encode_query`.

        Raises:
            BadInput: An id is not in the model's vocabulary; and as in :meth:`encode_query`.
        """
        before = self.tokenizer.n_leading
        # Without the space at its end, which belongs to the text's first token.
        framed = self.tokenizer.encode(self.prompts.get(kind, "").rstrip())
        head, tail = np.split(framed, [len(framed) - (self.tokenizer.n_special - before)])
        whole: list[NDArray[np.int32]] = []
        for n, text in enumerate(ids):
            if not all(0 <= one < self._config.vocab_size for one in text):
                raise BadInput(f"Text {n} has a token id outside of {self.name}'s 0 to {self._config.vocab_size - 1}.")
            whole.append(np.concatenate((head, np.array(text, np.int32), tail)))
        return self._encode(len(whole), lambda begin, end: whole[begin:end], dimensions, long_texts)

    def encode_tokens(
        self, texts: Sequence[str], *, kind: Literal["query", "document"] = "document"
    ) -> list[TokenVectors]:
        """Vectors of the tokens of each text, each seen in the context of its whole text.

        The model's own prompt goes before each text; its tokens and the special ones are left out of the result. A
        text longer than the model reads is seen in windows.

        Args:
            texts: Any texts.
            kind: As what they are read: questions or passages.
        """
        prompt = self.prompts.get(kind, "")
        pieces: list[tuple[int, int, str]] = []  # text, where in it the piece starts, the piece
        for n, text in enumerate(texts):
            pieces += [(n, start, text[start:end]) for start, end in self._readable(text, prompt)]
        ids = self.tokenizer.encode_batch([prompt + piece for _, _, piece in pieces])
        found: dict[int, tuple[Floats, NDArray[np.int32]]] = {}
        for batch in _batches([len(i) for i in ids]):
            hidden_TH, cu_seqlens = self._hidden([ids[n] for n in batch])
            for n, first in zip(batch, cu_seqlens, strict=False):
                _, start, piece = pieces[n]
                # A token that begins in the prompt (with the space before the text, say) and ends in the text counts.
                spans_T2 = np.maximum(self.tokenizer.spans(prompt + piece) - np.int32(len(prompt)), np.int32(0))
                own_T = spans_T2[:, 1] > spans_T2[:, 0]
                begin = first + self.tokenizer.n_leading
                vectors_TH = hidden_TH[begin : begin + len(spans_T2)][own_T]
                normalise(vectors_TH)
                found[n] = (vectors_TH, spans_T2[own_T] + np.int32(start))
        results = []
        for n in range(len(texts)):
            mine = [found[i] for i, piece in enumerate(pieces) if piece[0] == n]
            results.append(TokenVectors(np.concatenate([v for v, _ in mine]), np.concatenate([s for _, s in mine])))
        return results

    def _readable(self, text: str, prompt: str) -> list[tuple[int, int]]:
        """The text as stretches that the model can read at once: itself, as a rule."""
        if len(self.tokenizer.encode(prompt + text)) <= self.max_length:
            return [(0, len(text))]
        middle = len(text) // 2
        borders = [int(start) for start in self.tokenizer.spans(text)[:, 0] if 0 < start < len(text)]
        cut = min(borders, key=lambda start: abs(start - middle), default=0)
        if not cut:
            raise BadInput(f"The prompt of {self.name} leaves no room for a text within {self.max_length} tokens.")
        right = [(cut + start, cut + end) for start, end in self._readable(text[cut:], prompt)]
        return self._readable(text[:cut], prompt) + right

    def _encode_texts(
        self, texts: str | Sequence[str], kind: str, dimensions: int | None, long_texts: LongTexts
    ) -> Floats:
        several = [texts] if isinstance(texts, str) else list(texts)
        for i, text in enumerate(several):
            if not isinstance(text, str):
                raise BadInput(f"Text {i} is of type {type(text).__name__}; only strings can be encoded.")
        prompt = self.prompts.get(kind, "")

        def tokenise(begin: int, end: int) -> list[NDArray[np.int32]]:
            return self.tokenizer.encode_batch([prompt + text for text in several[begin:end]])

        vectors_ND = self._encode(len(several), tokenise, dimensions, long_texts)
        return vectors_ND[0] if isinstance(texts, str) else vectors_ND

    def _encode(
        self, n_texts: int, ids_of: Callable[[int, int], list[NDArray[np.int32]]], dimensions: int | None,
        long_texts: LongTexts,
    ) -> Floats:  # fmt: skip
        """[N, D]. ``ids_of(begin, end)``: the tokens of some of the texts, special ones and prompt included."""
        width = self.dimensions if dimensions is None else dimensions
        if isinstance(width, bool) or not isinstance(width, int) or not 1 <= width <= self.dimensions:
            raise BadInput(f"dimensions is {dimensions!r}; {self.name} gives 1 to {self.dimensions}.")
        if long_texts not in ("refuse", "window"):
            raise BadInput(f"long_texts is {long_texts!r}; accepted: refuse, window.")
        out_ND = np.empty((n_texts, width), np.float32)
        for begin in range(0, n_texts, _SLAB):
            end = min(n_texts, begin + _SLAB)
            out_ND[begin:end] = self._encode_slab(ids_of(begin, end), begin, long_texts)[:, :width]
        if width < self.dimensions:
            normalise(out_ND)
        return out_ND

    def _encode_slab(self, ids: list[NDArray[np.int32]], first: int, long_texts: LongTexts) -> Floats:
        """[N, H], each of length 1."""
        windows: list[NDArray[np.int32]] = []
        starts: list[int] = []  # a text's first window
        for n, i in enumerate(ids):
            if len(i) > self.max_length and long_texts == "refuse":
                raise BadInput(
                    f"Text {first + n} has {len(i)} tokens; {self.name} reads at most {self.max_length}. "
                    'Pass long_texts="window" to average over windows of it.'
                )
            starts.append(len(windows))
            windows += self._windows(i)
        lengths = [len(window) for window in windows]
        means = np.empty((len(windows), self.dimensions), np.float32)
        for batch in _batches(lengths):
            hidden_TH, cu_seqlens = self._hidden([windows[n] for n in batch])
            means[batch] = pool(hidden_TH, cu_seqlens, self._pooling, normalise=False)
        # A text's only window has a share of exactly 1, so that its bits do not depend on the texts beside it.
        totals = np.maximum(np.add.reduceat(lengths, starts), 1)
        shares = np.array(lengths) / np.repeat(totals, np.diff([*starts, len(windows)]))
        means *= shares[:, None].astype(np.float32)
        vectors: Floats = np.add.reduceat(means, starts, axis=0)
        normalise(vectors)
        return vectors

    def _windows(self, ids: NDArray[np.int32]) -> list[NDArray[np.int32]]:
        """A text's tokens as windows that the model can read, special tokens around each: itself, as a rule.

        The prompt stands in the first window only, so that together they say the text once.
        """
        if len(ids) <= self.max_length:
            return [ids]
        before, n_special = self.tokenizer.n_leading, self.tokenizer.n_special
        head, inner, tail = np.split(ids, [before, len(ids) - (n_special - before)])
        room = self.max_length - n_special
        return [np.concatenate((head, inner[at : at + room], tail)) for at in range(0, len(inner), room)]

    def _hidden(self, ids: list[NDArray[np.int32]]) -> tuple[Floats, NDArray[np.int32]]:
        """[T, H]: the last layer's output over packed texts, valid until the next pass, and where each text starts."""
        lengths = [len(i) for i in ids]
        cu_seqlens = np.zeros(len(ids) + 1, np.int32)
        np.cumsum(lengths, out=cu_seqlens[1:])
        n_tokens = int(cu_seqlens[-1])
        offset, eps = self._config.position_offset, self._config.norm_eps
        positions = np.concatenate([np.arange(offset, offset + n, dtype=np.int32) for n in lengths])
        d, f = self._config.d_model, self._config.d_ff
        hidden, mixed, qkv, middle = self._arrays(n_tokens, (d, d, 3 * d, f))
        reduced = self.precision != "f32"
        norm = self._embed_norm
        embed(
            np.concatenate(ids), positions, self._word_VH, self._position_PH, self._type_NH,
            norm.gain_H, norm.bias_H, eps, out_TH=hidden,
        )  # fmt: skip
        for layer in self._layers:
            linear(hidden, layer.qkv, out_TN=qkv)
            encode_attention(qkv, cu_seqlens, self._config.n_heads, reduced=reduced, out_TH=mixed)
            linear(mixed, layer.out, residual_TN=hidden, out_TN=hidden)
            layer_norm(hidden, layer.attention_norm.gain_H, layer.attention_norm.bias_H, eps, out_TH=hidden)
            linear(hidden, layer.up, activation="gelu", out_TN=middle)
            linear(middle, layer.down, residual_TN=hidden, out_TN=hidden)
            layer_norm(hidden, layer.norm.gain_H, layer.norm.bias_H, eps, out_TH=hidden)
        return hidden, cu_seqlens

    def _arrays(self, n_tokens: int, widths: Sequence[int]) -> list[Floats]:
        """This thread's activation memory, [T, width] each, reused from batch to batch."""
        size = n_tokens * sum(widths)
        memory: Floats | None = getattr(self._memory, "floats", None)
        if memory is None or memory.size < size:
            memory = np.empty(max(size, BATCH_TOKENS * sum(widths)), np.float32)
            self._memory.floats = memory
        arrays, begin = [], 0
        for width in widths:
            arrays.append(memory[begin : begin + n_tokens * width].reshape(n_tokens, width))
            begin += n_tokens * width
        return arrays


def _fastest(four_bit: bool, width: int) -> Kind:
    """The fastest precision that keeps quality, by the instruction set and the model alone."""
    if dispatch.table().isa == "fallback":
        return "f32"
    if four_bit or (dispatch.int8_dot() and width <= _WIDEST_AT_INT8):
        return "int8"
    return "bf16" if dispatch.bf16_dot() else "f32"


def _batches(lengths: list[int]) -> Iterator[list[int]]:
    """Indices of texts of similar length, about BATCH_TOKENS tokens together, the longest first."""
    batch: list[int] = []
    tokens = 0
    for n in sorted(range(len(lengths)), key=lambda n: -lengths[n]):
        if batch and tokens + lengths[n] > BATCH_TOKENS:
            yield batch
            batch, tokens = [], 0
        batch.append(n)
        tokens += lengths[n]
    if batch:
        yield batch


def _floats(tensor: Floats | Q4Tensor) -> Floats:
    return tensor.dequantise() if isinstance(tensor, Q4Tensor) else np.ascontiguousarray(tensor, np.float32)


def _norm(checkpoint: EncoderCheckpoint, name: str) -> _Norm:
    return _Norm(_floats(checkpoint.tensors[f"{name}.weight"]), _floats(checkpoint.tensors[f"{name}.bias"]))


def normalise(vectors_ND: Floats) -> None:
    """Scales every row to length 1, in place; a row of zeros stays."""
    norms = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    vectors_ND /= np.maximum(norms, np.float32(1e-12))
