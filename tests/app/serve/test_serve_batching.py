"""Texts embedded together against the same texts embedded alone: bit for bit."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, Future
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kogata
from kogata.app.serve.batching import SLAB_CHARS, Batcher
from kogata.app.serve.engine import _then
from kogata.errors import BadInput

TOO_LONG = "tide " * 520

texts = st.text(st.sampled_from("ab é潮位。\n"), max_size=60) | st.sampled_from(["", "what is a tide", "tide " * 90])
calls = st.tuples(
    st.lists(texts | st.just(TOO_LONG), max_size=4),
    st.sampled_from(["query", "document"]),
    st.sampled_from(["refuse", "window"]),
)


@pytest.fixture(scope="module")
def encoder() -> kogata.Encoder:
    return kogata.Encoder()


@settings(max_examples=12, deadline=None)
@given(st.lists(calls, min_size=1, max_size=6), st.data())
def test_each_caller_gets_what_it_would_get_alone(
    encoder: kogata.Encoder, groups: list[Any], data: st.DataObject
) -> None:
    cancelled = data.draw(st.sets(st.integers(0, len(groups) - 1)))
    batcher = Batcher(encoder)
    try:
        futures = [batcher.submit(*call) for call in groups]
        for number in cancelled:
            futures[number].cancel()
        for number, ((several, kind, long_texts), future) in enumerate(zip(groups, futures, strict=True)):
            alone = encoder.encode_query if kind == "query" else encoder.encode_document
            try:
                error = future.exception(timeout=60)
            except CancelledError:
                assert number in cancelled
                continue
            if error is None:
                np.testing.assert_array_equal(future.result(), alone(several, long_texts=long_texts))
            else:
                with pytest.raises(BadInput) as expected:
                    alone(several, long_texts=long_texts)
                assert (type(error), str(error)) == (BadInput, str(expected.value))
    finally:
        batcher.close()


def test_another_kind_of_call_waits_for_two_slabs_at_most(encoder: kogata.Encoder) -> None:
    slabs = 30
    batcher = Batcher(encoder)
    try:
        encoded: list[str] = []
        asked = threading.Event()
        encode = batcher._encode

        def counted(texts: list[Any], job: Any) -> Any:
            encoded.append(job.kind)
            asked.wait(10)
            return encode(texts, job)

        batcher._encode = counted  # type: ignore[method-assign]
        large = batcher.submit(["tide gauge " * (SLAB_CHARS // 11)] * slabs, "document", "window")
        question = batcher.submit(["what is a tide"], "query")
        asked.set()
        question.result(timeout=60)
        before = encoded.index("query")
        assert before <= 2, f"{before} slabs of documents came before the question"
        large.cancel()
    finally:
        batcher.close()


class FakeEncoder:
    """Vectors of one dimension, made at once."""

    dimensions = 1

    def encode_query(self, texts: list[str], **_: Any) -> Any:
        return np.full((len(texts), 1), 2, np.float32)

    def encode_document(self, texts: list[str], **_: Any) -> Any:
        return np.array([[len(text)] for text in texts], np.float32)


def test_calls_that_need_two_kinds_of_vectors_do_not_wait_for_each_other() -> None:
    """As reranking does: query and documents of several calls, all of them waiting before the first is encoded."""
    batcher = Batcher(FakeEncoder())  # type: ignore[arg-type]
    try:
        outcomes = [
            _then(
                [batcher.submit(["tide"], "query"), batcher.submit(["a" * number], "document")],
                lambda query_1D, vectors_ND: (vectors_ND @ query_1D[0]).tobytes(),
            )
            for number in range(1, 200)
        ]
        products = [float(np.frombuffer(outcome.result(timeout=10), np.float32)[0]) for outcome in outcomes]
        assert products == [2.0 * number for number in range(1, 200)]
    finally:
        batcher.close()


def test_what_is_cancelled_takes_all_its_texts_along() -> None:
    sources: list[Future[Any]] = [Future(), Future()]
    outcome = _then(sources, lambda first, second: b"")
    sources[0].set_result(1)
    assert not outcome.done()
    outcome.cancel()
    assert sources[1].cancelled()


def test_a_small_call_does_not_wait_for_a_large_one(encoder: kogata.Encoder) -> None:
    batcher = Batcher(encoder)
    try:
        large = batcher.submit(["The gauge is read every ten minutes. " * 8] * 300, "document")
        small = batcher.submit(["tide"], "document")
        np.testing.assert_array_equal(small.result(timeout=60)[0], encoder.encode_document("tide"))
        assert not large.done()
        large.cancel()
    finally:
        batcher.close()
