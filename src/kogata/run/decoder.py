"""Tokens to logits: decoder-only models on our own kernels, without torch.

One forward pass takes any mix of texts: the beginnings of some, the next token of others, their rows packed together. A
row's result does not depend on the others (the row contract), so nobody sees which batch it was in.

Shapes: T rows of a step, S texts, M pages of a text, H d_model, A n_heads * d_head, C n_kv_heads * d_head,
F d_ff, V vocabulary, R rows whose logits are asked for, D d_head, P positions.
"""

from __future__ import annotations

from collections.abc import Sequence as Several
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from kogata.errors import BadInput, ModelError
from kogata.ops import dispatch
from kogata.ops.attend import PageKind, attend_pages, rotate_and_write
from kogata.ops.elementwise import rms_norm
from kogata.ops.linear import PackedLinear, linear, take
from kogata.run.cache import PagePool, Sequence
from kogata.run.rope import rope_tables
from kogata.weights.packed import PackedDecoder

__all__ = ["STEP_ROWS", "Decoder", "Step"]

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Norm = tuple[Floats, float]

STEP_ROWS = 512
"""Most rows that go through the layers together: what the activations' memory is made for."""

FEED_ROWS = 256
"""Most rows that go through a feed-forward together: between its linears they take most memory, and for the products
more rows are no faster."""

REPEATED_TEXTS = 64
"""Most texts whose next tokens are computed by repeating recorded calls: for more, the interpreter costs little."""

MOST_RECORDINGS = 8
"""Of one pool: for different numbers of texts and lengths of page tables."""

TABLE_STEP = 16
"""Pages by which the tables of a step grow, so that the calls recorded for it serve 1,024 tokens."""

FIRST_POSITIONS = 4096
"""Rotary positions that are computed at first; the tables grow as texts do."""


@dataclass(frozen=True)
class Step:
    """The rows of one forward pass.

    Attributes:
        texts: The texts, with pages reserved for what they get.
        ids: The new tokens of each.
        logits_of: How many of each text's last rows need logits: 1 as a rule, 0 while its beginning comes in parts.
    """

    texts: Several[Sequence]
    ids: Several[Several[int] | Ints]
    logits_of: Several[int]


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of a step, packed; see :mod:`kogata.ops.attend.pages`."""

    ids_T: Ints
    positions_T: Ints
    cu_rows_S1: Ints
    lengths_S: Ints
    full_SM: Ints
    window_SM: Ints

    @property
    def arrays(self) -> tuple[Ints, ...]:
        """All of them."""
        return self.ids_T, self.positions_T, self.cu_rows_S1, self.lengths_S, self.full_SM, self.window_SM


@dataclass(frozen=True)
class _Recorded:
    """The layers' calls for one token of each text, with the arrays that they read and the one they leave."""

    calls: dispatch.Recording
    rows: _Rows
    hidden_TH: Floats


@dataclass(frozen=True)
class _Projection:
    """Linears that read the same input and write side by side: one product where nothing stands between."""

    parts: tuple[tuple[PackedLinear, Norm | None], ...]

    @property
    def is_one_call(self) -> bool:
        """Whether nothing is done but a product."""
        return len(self.parts) == 1 and self.parts[0][1] is None

    def __call__(self, x: Floats, out: Floats, **before_and_after: Any) -> None:
        if self.is_one_call:
            linear(x, self.parts[0][0], out_TN=out, **before_and_after)
            return
        norm, residual = before_and_after.pop("norm", None), before_and_after.pop("residual_TN", None)
        if norm is not None and before_and_after.get("glu") is None:
            x = rms_norm(x, *norm)
            norm = None
        begin = 0
        for packed, own in self.parts:
            end = begin + packed.n_out
            if norm is not None:  # behind a gated unit: the two norms are one after the other
                raise ModelError("A norm of a linear's own behind a gated unit and its norm cannot be run.")
            result = linear(x, packed, norm=own, **before_and_after)
            out[:, begin:end] = result if residual is None else result + residual[:, begin:end]
            begin = end


@dataclass(frozen=True)
class _Layer:
    attention_norm: Norm
    qkv: _Projection
    q_gain: Floats | None
    k_gain: Floats | None
    out_norm: Norm | None  # before the linear
    out: _Projection
    post_attention: Norm | None
    feed_norm: Norm
    gate_up: _Projection
    down_norm: Norm | None
    down: _Projection
    post_feed: Norm | None
    rope: int  # which of the tables
    window: int  # 0: full attention


class Decoder:
    """A model that continues texts, ready to run.

    Args:
        model: What to run.
        threads: For all kernels of this process; by default what affinity and the container's quota allow.
        context: Most tokens of a text; by default what the model was made for.

    Raises:
        ModelError: Its heads have a width that attention cannot take.
    """

    def __init__(self, model: PackedDecoder, *, threads: int | None = None, context: int | None = None) -> None:
        if threads is not None:
            dispatch.set_threads(threads)
        config = model.config
        if not 16 <= config.d_head <= 256 or config.d_head % 8:
            raise ModelError(
                f"{model.name} has heads {config.d_head} wide; what can be run is multiples of 8 from 16 to 256."
            )
        self.name = model.name
        self.identity = model.identity
        self.config = config
        self.context = config.context if context is None else context
        self._embed = model.linears["embed"]
        self._layers = [self._wire(model, i) for i in range(config.n_layers)]
        self._norm = model.vectors["norm.weight"], config.norm_eps
        self._head = _Projection(((model.linears["embed" if config.tied else "head"], self._own_norm(model, "head")),))
        self._ropes: list[tuple[Floats, Floats]] = []
        self._memory: dict[str, Floats] = {}
        self._can_record = all(
            projection.is_one_call
            for layer in self._layers
            for projection in (layer.qkv, layer.out, layer.gate_up, layer.down)
        )
        self._recorded: WeakKeyDictionary[PagePool, dict[tuple[Any, ...], _Recorded]] = WeakKeyDictionary()

    def pool(self, n_tokens: int, kind: PageKind = "bf16") -> PagePool:
        """Memory for the keys and values of so many tokens."""
        return PagePool(self.config, kind, -(-n_tokens // 64))

    def forward(self, step: Step, pool: PagePool) -> Floats:
        """Logits, float32 [R, V], of the rows that were asked for, in order; the texts are longer afterwards.

        Raises:
            BadInput: A token is outside the vocabulary, or a text would become longer than the context.
        """
        rows = self._rows(step)
        n_texts, n_rows = len(step.texts), len(rows.ids_T)
        if n_rows == 0:
            return np.empty((0, self.config.vocab_size), np.float32)
        if n_rows == n_texts <= REPEATED_TEXTS and self._can_record and dispatch.table().isa != "fallback":
            hidden_TH = self._repeat(rows, pool)
        else:
            hidden_TH = self._through_layers(rows, pool)
        ends = rows.cu_rows_S1[1:].tolist()
        for text, length in zip(step.texts, rows.lengths_S.tolist(), strict=True):
            text.length = length
        wanted = [row for end, n in zip(ends, step.logits_of, strict=True) for row in range(end - n, end)]
        logits_RV = np.empty((len(wanted), self.config.vocab_size), np.float32)
        if wanted:
            self._head(np.ascontiguousarray(hidden_TH[wanted]), logits_RV, norm=self._norm)
        return logits_RV

    def _rows(self, step: Step) -> _Rows:
        counts = [len(ids) for ids in step.ids]
        ids_T = np.concatenate([np.asarray(ids, np.int32) for ids in step.ids])
        if len(ids_T) and (ids_T.min() < 0 or ids_T.max() >= self.config.vocab_size):
            raise BadInput(f"A token is outside of {self.name}'s 0 to {self.config.vocab_size - 1}.")
        ends = [text.length + count for text, count in zip(step.texts, counts, strict=True)]
        if max(ends) > self.context:
            raise BadInput(f"A text of {max(ends):,} tokens is longer than {self.name}'s context of {self.context:,}.")
        return _Rows(
            ids_T,
            np.concatenate([np.arange(e - n, e, dtype=np.int32) for e, n in zip(ends, counts, strict=True)]),
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
            np.array(ends, np.int32),
            _table([text.pages for text in step.texts]),
            _table([text.window for text in step.texts]),
        )

    def _repeat(self, rows: _Rows, pool: PagePool) -> Floats:
        """The last hidden states of one token of each text: the calls of an earlier step like this one, on the same
        arrays, without the interpreter between them."""
        several = self._recorded.setdefault(pool, {})
        n_positions = len(self._tables(int(rows.lengths_S.max()))[0][0])
        alike = (n_positions, *(array.shape for array in rows.arrays))
        if (recorded := several.get(alike)) is not None:
            for kept, array in zip(recorded.rows.arrays, rows.arrays, strict=True):
                kept[...] = array
            recorded.calls.repeat()
            return recorded.hidden_TH
        calls = dispatch.Recording()
        with calls:
            hidden_TH = self._through_layers(rows, pool)
        if len(several) >= MOST_RECORDINGS:
            del several[next(iter(several))]
        several[alike] = _Recorded(calls, rows, hidden_TH)
        return hidden_TH

    def _through_layers(self, rows: _Rows, pool: PagePool) -> Floats:
        """The last hidden states."""
        config, n_rows = self.config, len(rows.ids_T)
        shape = (config.n_heads, config.n_kv_heads, config.d_head)
        heads, kv_heads = config.n_heads * config.d_head, config.n_kv_heads * config.d_head
        ropes = self._tables(int(rows.lengths_S.max()))

        n_fed, width = min(n_rows, FEED_ROWS), heads + 2 * kv_heads
        # Attention and feed-forward take turns in one place.
        work = self._scratch("work", max(n_rows * (width + heads), n_fed * 2 * config.d_ff))
        qkv = work[: n_rows * width].reshape(n_rows, width)
        mixed = work[n_rows * width : n_rows * (width + heads)].reshape(n_rows, heads)
        middle = work[: n_fed * 2 * config.d_ff].reshape(n_fed, 2 * config.d_ff)
        hidden = take(self._embed, rows.ids_T, factor=config.embed_scale)
        for i, layer in enumerate(self._layers):
            cos_PD2, sin_PD2 = ropes[layer.rope]
            pages = pool.layer_pages[i]
            where = (pool.kind, rows.window_SM if layer.window else rows.full_SM, rows.cu_rows_S1)
            layer.qkv(hidden, qkv, norm=layer.attention_norm)
            rotate_and_write(
                qkv, rows.positions_T, cos_PD2, sin_PD2, pages, *where, *shape, layer.q_gain, layer.k_gain,
                config.norm_eps,
            )  # fmt: skip
            attend_pages(qkv, pages, *where, rows.lengths_S, *shape, config.attention_scale, layer.window, mixed)
            self._add(hidden, layer.out, mixed, layer.post_attention, norm=layer.out_norm)
            for begin in range(0, n_rows, FEED_ROWS):
                fed = hidden[begin : begin + FEED_ROWS]
                between = middle[: len(fed)]
                layer.gate_up(fed, between, norm=layer.feed_norm)
                self._add(fed, layer.down, between, layer.post_feed, norm=layer.down_norm, glu=config.activation)
        return hidden

    def _add(self, hidden: Floats, projection: _Projection, x: Floats, post: Norm | None, **before: Any) -> None:
        """hidden += post(projection(x))."""
        if post is None:
            projection(x, hidden, residual_TN=hidden, **before)
            return
        given = self._scratch("given", hidden.size).reshape(hidden.shape)
        projection(x, given, **before)
        rms_norm(given, *post, residual_TH=hidden, out_TH=hidden)

    def _tables(self, n_positions: int) -> list[tuple[Floats, Floats]]:
        """The tables of rotary positions, at least so many; 128,000 of them would take 64 MB."""
        if not self._ropes or len(self._ropes[0][0]) < n_positions:
            size = min(self.context, max(FIRST_POSITIONS, 1 << (n_positions - 1).bit_length()))
            several = [rope for rope in (self.config.rope, self.config.window_rope) if rope is not None]
            self._ropes = [rope_tables(rope, self.config.d_head, size, self.context) for rope in several]
        return self._ropes

    def _scratch(self, name: str, size: int) -> Floats:
        """Memory for so many numbers, reused from step to step."""
        memory = self._memory.get(name)
        if memory is None or memory.size < size:
            memory = self._memory[name] = np.empty(size, np.float32)
        return memory[:size]

    # --- wiring

    def _wire(self, model: PackedDecoder, i: int) -> _Layer:
        config, vectors, layer = self.config, model.vectors, f"layers.{i}."

        def norm(name: str) -> Norm:
            return vectors[f"{layer}{name}.weight"], config.norm_eps

        def project(*names: str) -> _Projection:
            """The linear of the first name, or where that is not there those of the others."""
            whole = layer + names[0]
            parts = [whole] if whole in model.linears else [layer + name for name in names[1:]]
            return _Projection(tuple((model.linears[part], self._own_norm(model, part)) for part in parts))

        window = config.pattern[i] == "W"
        return _Layer(
            attention_norm=norm("attn.norm"),
            qkv=project("attn.qkv", "attn.q", "attn.k", "attn.v"),
            q_gain=vectors[f"{layer}attn.q_norm.weight"] if config.qk_norm else None,
            k_gain=vectors[f"{layer}attn.k_norm.weight"] if config.qk_norm else None,
            out_norm=norm("attn.sub_norm") if config.sub_norms else None,
            out=project("attn.out"),
            post_attention=norm("attn.post_norm") if config.post_norms else None,
            feed_norm=norm("ffn.norm"),
            gate_up=project("ffn.gate_up", "ffn.gate", "ffn.up"),
            down_norm=norm("ffn.sub_norm") if config.sub_norms else None,
            down=project("ffn.down"),
            post_feed=norm("ffn.post_norm") if config.post_norms else None,
            rope=1 if window and config.window_rope is not None else 0,
            window=config.window if window else 0,
        )

    def _own_norm(self, model: PackedDecoder, name: str) -> Norm | None:
        """The norm that a quantised linear has of its own."""
        if not (self.config.linear_norms and self.config.is_quantised(name)):
            return None
        return model.vectors[f"{name}.norm.weight"], self.config.linear_norm_eps


def _table(pages: Several[Several[int]]) -> Ints:
    """int32 [S, M]: the pages of several texts, zeros behind them.

    M grows in steps, so that it stays the same for a while as texts do.
    """
    longest = max(len(several) for several in pages)
    table_SM = np.zeros((len(pages), -(-longest // TABLE_STEP) * TABLE_STEP), np.int32)
    for row, several in zip(table_SM, pages, strict=True):
        row[: len(several)] = several
    return table_SM
