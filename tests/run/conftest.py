"""Engines of tiny random decoders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cached_texts import MODELS

from kogata.run.decoder import Decoder
from kogata.run.engine import Engine
from kogata.weights import DecoderCheckpoint, load_decoder
from kogata.weights.packed import pack_decoder

Tiny = Callable[..., tuple[Path, Any]]


@pytest.fixture
def model(tiny_decoder: Tiny, request: pytest.FixtureRequest) -> Callable[..., Engine]:
    directory, _ = tiny_decoder(max_position_embeddings=1024, **MODELS[request.param])
    checkpoint = load_decoder(directory)
    assert isinstance(checkpoint, DecoderCheckpoint)
    decoder = Decoder(pack_decoder(checkpoint))

    def make(**settings: Any) -> Engine:
        return Engine(decoder, checkpoint.tokenizer, **settings)

    return make
