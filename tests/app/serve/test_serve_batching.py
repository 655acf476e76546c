"""Texts embedded together against the same texts embedded alone: bit for bit."""

from __future__ import annotations

from concurrent.futures import CancelledError
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kogata
from kogata.app.serve.batching import Batcher
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
