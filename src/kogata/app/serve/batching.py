"""Texts that arrive together are embedded together.

A single text of thirty tokens leaves most of a kernel's tile empty; sixteen of them fill it. So one thread takes what
waits, a share of every call, oldest first, and encodes it in one go. A vector does not depend on the batch it was
made in (the row contract), so nobody sees the difference but the clock.

Shapes: N texts of a call, D dimensions of the model.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from kogata.run.encoder import Encoder, LongTexts, TokenVectors

Floats = npt.NDArray[np.float32]

SLAB_CHARS = 8_192
"""Characters encoded in one go: a tenth of a second or two, which is what a newcomer waits at most for his turn."""


@dataclass
class _Job:
    texts: Sequence[str]
    kind: str
    long_texts: LongTexts
    future: Future[Floats]
    parts: list[Floats] = field(default_factory=list)
    done: int = 0


class Batcher:
    """An encoder for many callers at once, in place of :class:`kogata.Encoder` wherever texts are encoded."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    def __getattr__(self, name: str) -> Any:
        """Everything that is not encoding: name, identity, dimensions, tokenizer, …"""
        return getattr(self._encoder, name)

    def submit(self, texts: Sequence[str], kind: str, long_texts: LongTexts = "refuse") -> Future[Floats]:
        """A future of the texts' vectors, float32 [N, D], each of length 1. Cancelling it takes them out of the queue.

        Args:
            texts: Strings.
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

    def encode_document(self, texts: Sequence[str], **options: Any) -> Floats:
        """Vectors of passages being indexed: between the batches above, not among them."""
        return self._encoder.encode_document(texts, **options)

    def encode_tokens(self, texts: Sequence[str], *, kind: Any = "document") -> list[TokenVectors]:
        return self._encoder.encode_tokens(texts, kind=kind)

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
                first = waiting[0]
                self._slab([job for job in waiting if (job.kind, job.long_texts) == (first.kind, first.long_texts)])
                waiting = [job for job in waiting if not job.future.done()]

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
                    _add(job, self._encode([""] * job.done + texts, job)[job.done :])
                except Exception as error:
                    if job.future.set_running_or_notify_cancel():
                        job.future.set_exception(error)

    def _encode(self, texts: Sequence[str], job: _Job) -> Floats:
        encode: Callable[..., Floats] = (
            self._encoder.encode_query if job.kind == "query" else self._encoder.encode_document
        )
        return encode(texts, long_texts=job.long_texts)


def _first(texts: Sequence[str], chars: int) -> list[str]:
    """The first texts of about so many characters together, at least one."""
    taken: list[str] = []
    for text in texts:
        if taken and len(text) > chars:
            break
        taken.append(text)
        chars -= len(text)
    return taken


def _add(job: _Job, part: Floats) -> None:
    job.parts.append(part)
    job.done += len(part)
    if job.done == len(job.texts) and job.future.set_running_or_notify_cancel():
        job.future.set_result(np.concatenate(job.parts))
