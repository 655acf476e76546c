"""A model that writes, for Python: load it, let it continue a text, talk with it, look at its logits."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from numbers import Real
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from kogata.errors import BadInput
from kogata.ops.attend import PageKind
from kogata.plan import this_machine
from kogata.run.cache import PAGE, PageStore, pages_within, pool_bytes
from kogata.run.cache import Sequence as CachedText
from kogata.run.decoder import STEP_ROWS, Decoder, Step
from kogata.run.engine import Engine
from kogata.run.sampling import SamplingParams
from kogata.text.chat import ChatTemplate
from kogata.weights import load_decoder
from kogata.weights.packed import PackedDecoder, Quantise, pack_decoder

__all__ = ["Model", "load"]


class Model:
    """A decoder-only model, ready to run in this process.

    Args:
        packed: What to run.
        threads: For all kernels of this process; by default what affinity and the container's quota allow.
        context: Most tokens of a text; by default what the model was made for.
        kv: Storage of keys and values: "bf16", "int8" (half of it), or "f32".
        memory: Bytes that weights, keys and values may take together; by default keys and values may take half of what
            is free when the model is loaded.
        cache_dir: A folder in which what was read of texts is kept, for the next time that a text begins alike, also
            in another process. Nobody else may write to it.
        cache_size: Most bytes of it; by default 10 GB.

    Attributes:
        store: That folder, or None.

    Raises:
        BadInput: An option is not accepted, the memory does not hold the weights and a page of keys and values, or the
            folder cannot be used.
    """

    def __init__(
        self,
        packed: PackedDecoder,
        *,
        threads: int | None = None,
        context: int | None = None,
        kv: PageKind = "bf16",
        memory: int | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        cache_size: int | None = None,
    ) -> None:
        if context is not None and not 1 <= context <= packed.config.context:
            raise BadInput(f"context is {context}; {packed.name} takes 1 to {packed.config.context:,} tokens.")
        if memory is not None and not isinstance(memory, Real):
            raise BadInput(f"memory is {memory!r}; accepted: a number of bytes.")
        if kv not in ("bf16", "int8", "f32"):
            raise BadInput(f"kv is {kv!r}; accepted: bf16, int8, f32.")
        self.packed = packed
        self.tokenizer = packed.tokenizer
        self.decoder = Decoder(packed, threads=threads, context=context)
        page = pool_bytes(packed.config, kv, 1)
        if memory is not None and not memory >= packed.nbytes + page:
            raise BadInput(
                f"memory is {memory / 1e6:,.1f} MB; the weights of {packed.name} take {packed.nbytes / 1e6:,.1f} MB "
                f"and keys and values of {PAGE} tokens {page / 1e6:,.1f} MB."
            )
        self.kv: PageKind = kv
        free = this_machine().available_bytes
        self._for_pages = None if free is None else free // 2
        if memory is not None:
            self._for_pages = memory - packed.nbytes
        self.store = None if cache_dir is None else PageStore(cache_dir, cache_size)

    @cached_property
    def engine(self) -> Engine:
        """What continues this model's texts, one as long as the context at a time; made on first use."""
        return Engine(
            self.decoder, self.tokenizer, self.packed.stop_ids, kv=self.kv, n_tokens=self.room(), store=self.store
        )  # fmt: skip

    def room(self, n_texts: int = 1) -> int:
        """Tokens that may have keys and values at once: so many texts as long as the context, or what memory holds."""
        most = n_texts * -(-self.decoder.context // PAGE)
        if self._for_pages is None:
            return most * PAGE
        return max(pages_within(self.packed.config, self.kv, self._for_pages, most), 1) * PAGE

    @property
    def longest(self) -> int:
        """Most tokens of one text, prompt and answer: what the context takes, where memory holds it."""
        return min(self.decoder.context, self.room())

    @property
    def name(self) -> str:
        """How people call it."""
        return self.packed.name

    def tokens(self, text: str) -> NDArray[np.int32]:
        """int32 [n]: a text as the model reads it, the token that every text begins with included.

        What looks like a control token in the text is text.
        """
        ids = self.tokenizer.encode(text)
        if self.packed.bos_id is None:
            return ids
        return np.concatenate(([np.int32(self.packed.bos_id)], ids)).astype(np.int32)

    @overload
    def generate(self, prompt: str, *, stream: Literal[False] = False, **params: Any) -> str: ...
    @overload
    def generate(self, prompt: str, *, stream: Literal[True], **params: Any) -> Iterator[str]: ...

    def generate(self, prompt: str, *, stream: bool = False, **params: Any) -> str | Iterator[str]:
        """The text that follows.

        Args:
            prompt: What the model continues.
            stream: Give it in pieces, as it is written.
            params: As of :class:`kogata.run.sampling.SamplingParams`: temperature, top_p, seed, stop, max_tokens, …

        Raises:
            BadInput: A parameter is not accepted, or the prompt is longer than the context.

        >>> kogata.load("path/to/model").generate("Once upon a time", max_tokens=20, seed=1)  # doctest: +SKIP
        """
        return self._written(self.tokens(prompt), stream, params)

    @overload
    def chat(self, messages: Sequence[Mapping[str, Any]], *, stream: Literal[False] = False, **params: Any) -> str: ...
    @overload
    def chat(self, messages: Sequence[Mapping[str, Any]], *, stream: Literal[True], **params: Any) -> Iterator[str]: ...

    def chat(
        self, messages: Sequence[Mapping[str, Any]], *, stream: bool = False, **params: Any
    ) -> str | Iterator[str]:
        """The assistant's answer to a conversation.

        Args:
            messages: Each with ``role`` ("system", "user", "assistant") and ``content``.
            stream, params: As of :meth:`generate`.

        Raises:
            ModelError: The model has no chat template.
            BadInput: The messages or a parameter are not accepted, or they are longer than the context.
        """
        return self._written(self.template.render_ids(messages, self.tokenizer), stream, params)

    @cached_property
    def template(self) -> ChatTemplate:
        """What turns a conversation into a prompt.

        Raises:
            ModelError: The model has none.
        """
        return ChatTemplate(self.packed.chat_template, bos=self.packed.bos_token, eos=self.packed.eos_token)

    def _written(self, prompt: NDArray[np.int32], stream: bool, params: Mapping[str, Any]) -> str | Iterator[str]:
        sampling = SamplingParams(**params)
        if sampling.n != 1:
            raise BadInput(f"n is {sampling.n}; here one answer is given at a time.")
        answers = self.engine.submit(prompt, sampling)
        pieces = (piece.text for _, piece in self.engine.run(answers) if piece.text)
        return pieces if stream else "".join(pieces)

    def logits(self, tokens: Sequence[int] | NDArray[np.int32]) -> NDArray[np.float32]:
        """float32 [T, V]: for each token of a text, the logits of the one after it.

        Raises:
            BadInput: There is no token, one that is not in the vocabulary, or more than the context takes.
        """
        ids = np.asarray(tokens, np.int32)
        if ids.ndim != 1 or not len(ids):
            raise BadInput("logits takes the ids of a text: a list of at least one whole number.")
        pool = self.decoder.pool(len(ids) + PAGE, self.kv)
        text = CachedText()
        logits = []
        for at in range(0, len(ids), STEP_ROWS):
            part = ids[at : at + STEP_ROWS]
            pool.reserve(text, at + len(part))
            logits.append(self.decoder.forward(Step([text], [part], [len(part)]), pool))
        return np.concatenate(logits)


def load(
    model: str | os.PathLike[str],
    *,
    quantise: Quantise = "auto",
    threads: int | None = None,
    context: int | None = None,
    kv: PageKind = "bf16",
    memory: int | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    cache_size: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Model:
    """A model that writes.

    Args:
        model: A directory in Hugging Face's layout or of ``kogata convert``, a GGUF file, or a hub id.
        quantise: Storage of weights that are not ternary, as of :func:`kogata.weights.pack_decoder`.
        threads, context, kv, memory, cache_dir, cache_size: As of :class:`Model`.
        progress: Told how many weights are packed, of how many, where the model is not converted yet.

    Raises:
        ModelError: There is no such model, or it is damaged or of a kind that cannot be run.
        BadInput: An option is not accepted.
    """
    found = load_decoder(model)
    if isinstance(found, PackedDecoder):
        if quantise != "auto":
            raise BadInput(f"quantise is {quantise!r}, but {found.name} is converted already.")
        packed = found
    else:
        packed = pack_decoder(found, quantise=quantise, progress=progress)
    return Model(
        packed, threads=threads, context=context, kv=kv, memory=memory, cache_dir=cache_dir, cache_size=cache_size
    )
