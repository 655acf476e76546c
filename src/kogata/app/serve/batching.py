"""Texts that arrive together are embedded together.

A single text of thirty tokens leaves most of a kernel's tile empty; sixteen of them fill it. So one thread takes what
waits, a share of every call, oldest first, and encodes it in one go. A vector does not depend on the batch it was
made in (the row contract), so nobody sees the difference but the clock.

Shapes: N texts of a call, D dimensions of the model.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from kogata.run.encoder import Encoder, LongTexts

Floats = npt.NDArray[np.float32]
Texts = Sequence[str] | Sequence[list[int]]

SLAB_CHARS = 8_192
"""Characters encoded in one go: a tenth of a second or two, which is what a newcomer waits at most for his turn."""


@dataclass
class _Job:
    texts: Texts
    kind: str
    long_texts: LongTexts
    future: Future[Floats]
    parts: list[Floats] = field(default_factory=list)
    done: int = 0

    @property
    def key(self) -> tuple[str, LongTexts, type]:
        """What jobs that are encoded in one go have in common."""
        return self.kind, self.long_texts, type(self.texts[0])


class Batcher:
    """An encoder for many callers at once, in place of :class:`kogata.Encoder` wherever texts are encoded."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    def __getattr__(self, name: str) -> Any:
        """Everything that is not batched: name, identity, dimensions, tokenizer, encode_tokens, …"""
        return getattr(self._encoder, name)

    def submit(self, texts: Texts, kind: str, long_texts: LongTexts = "refuse") -> Future[Floats]:
        """A future of the texts' vectors, float32 [N, D], each of length 1. Cancelling it takes them out of the queue.

        Args:
            texts: All of them strings, or all lists of token ids.
            kind: "query" or "document".
            long_texts: As of :meth:`kogata.Encoder.encode_query`.
        """
        future: Future[Floats] = Future()
        if texts:
            self._queue.put(_Job(texts, kind, long_texts, future))
        else:
            future.set_result(np.empty((0, self._encoder.dimensions), np.float32))
        return future

    def encode_query(self, text: str, *, long_texts: LongTexts = "refuse", **_: Any) -> Floats:
        """The vector of one question, [D], made together with whatever else waits."""
        vector: Floats = self.submit([text], "query", long_texts).result()[0]
        return vector

    def close(self) -> None:
        """Ends the thread after what it is at."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        waiting: list[_Job] = []
        while True:
            try:
                job = self._queue.get(block=not waiting)
                if job is None:
                    return
                waiting.append(job)
                continue  # take all that waits before anything is encoded
            except queue.Empty:
                pass
            waiting = [job for job in waiting if not job.future.cancelled()]
            if waiting:
                key = waiting[0].key
                slab = [job for job in waiting if job.key == key]
                self._slab(slab)
                # What is left of them goes behind the others, which get their turn after one slab.
                others = [job for job in waiting if job.key != key]
                waiting = others + [job for job in slab if not job.future.done()]

    def _slab(self, jobs: Sequence[_Job]) -> None:
        """Encode a share of each job, and finish those that are complete."""
        share = max(1, SLAB_CHARS // len(jobs))
        taken = [(job, _first(job.texts[job.done :], share)) for job in jobs]
        try:
            vectors_ND = self._encode([text for _, texts in taken for text in texts], jobs[0])
            parts = np.split(vectors_ND, np.cumsum([len(texts) for _, texts in taken])[:-1])
            for (job, _), part in zip(taken, parts, strict=True):
                _add(job, part)
        except Exception:
            for job, texts in taken:  # one of them is at fault: the others must not suffer for it
                try:
                    # Texts that are done stand as empty ones, so that the error names the caller's number.
                    empty = type(texts[0])()
                    _add(job, self._encode([empty] * job.done + texts, job)[job.done :])
                except Exception as error:
                    if job.future.set_running_or_notify_cancel():
                        job.future.set_exception(error)

    def _encode(self, texts: list[Any], job: _Job) -> Floats:
        kind, long_texts, form = job.key
        if form is not str:
            return self._encoder.encode_ids(texts, kind=cast("Any", kind), long_texts=long_texts)
        encode = self._encoder.encode_query if kind == "query" else self._encoder.encode_document
        return encode(texts, long_texts=long_texts)


def _first(texts: Texts, size: int) -> list[Any]:
    """The first texts of about so many characters (or tokens) together, at least one."""
    taken: list[Any] = []
    for text in texts:
        if taken and len(text) > size:
            break
        taken.append(text)
        size -= len(text)
    return taken


def _add(job: _Job, part: Floats) -> None:
    job.parts.append(part)
    job.done += len(part)
    if job.done == len(job.texts) and job.future.set_running_or_notify_cancel():
        job.future.set_result(np.concatenate(job.parts))
