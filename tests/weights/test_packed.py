"""Packed directories: what is written is read back, mapped, and refused where it is damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from kogata.errors import BadInput, ModelError
from kogata.weights import DecoderCheckpoint, convert_decoder, load_decoder
from kogata.weights.packed import PackedDecoder, load_packed

Tiny = Callable[..., tuple[Path, Any]]


@pytest.fixture
def source(tiny_decoder: Tiny) -> Path:
    quantised = {"linear_class": "autobitlinear", "quantization_mode": "offline"}
    return tiny_decoder("bitnet", hidden_size=64, quantised=quantised)[0]


@pytest.mark.parametrize("quantise", ["auto", "int4", "f32"])
@pytest.mark.parametrize("kind", ["bitnet", "qwen2", "gemma3_text"])
def test_what_is_written_is_read_back(tiny_decoder: Tiny, tmp_path: Path, kind: str, quantise: Any) -> None:
    directory, _ = tiny_decoder(kind, hidden_size=64)
    made = convert_decoder(directory, tmp_path / "packed", quantise=quantise)
    read = load_decoder(tmp_path / "packed")
    assert isinstance(read, PackedDecoder)
    assert (read.name, read.config, read.bos_id, read.stop_ids) == (made.name, made.config, made.bos_id, made.stop_ids)
    assert set(read.linears) == set(made.linears)
    for name, linear in made.linears.items():
        other = read.linears[name]
        assert (other.kind, other.group) == (linear.kind, linear.group)
        np.testing.assert_array_equal(other.dense_NK, linear.dense_NK)
        assert other.data_B.ctypes.data % 64 == 0, "kernels read whole cache lines"
        assert not other.data_B.flags.writeable, "it is the mapped file"
        assert (other.bias_N is None) == (linear.bias_N is None)
    for name, vector in made.vectors.items():
        np.testing.assert_array_equal(read.vectors[name], vector)
    text = "The tide is high. 潮位"
    np.testing.assert_array_equal(read.tokenizer.encode(text), made.tokenizer.encode(text))
    assert load_file(tmp_path / "packed" / "model.safetensors"), "the format's own library reads it"


def test_identity_tells_storage_apart(source: Path, tmp_path: Path) -> None:
    two = convert_decoder(source, tmp_path / "two", ternary="ternary")
    five = convert_decoder(source, tmp_path / "five", ternary="trits")
    assert two.identity != five.identity
    assert load_packed(tmp_path / "two").identity == load_packed(tmp_path / "two").identity
    assert {made.linears["layers.0.ffn.down"].kind for made in (two, five)} == {"ternary", "trits"}


def test_nothing_is_overwritten_or_half_written(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(BadInput, match="there already"):
        convert_decoder(source, tmp_path / "there")
    convert_decoder(source, tmp_path / "packed")
    with pytest.raises(BadInput, match="converted already"):
        convert_decoder(tmp_path / "packed", tmp_path / "again")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kogata.weights.packed.write_safetensors", full)
    with pytest.raises(ModelError, match="No space left"):
        convert_decoder(source, tmp_path / "full")
    assert [path.name for path in tmp_path.iterdir() if "full" in path.name] == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "format 2; this version reads 1"),
        ({"format": None}, "format None"),
        ({"config": None}, "."),
        ({"config": {"architecture": "gpt9"}}, "."),
        ({"matrices": []}, "lacks 'matrices'"),
        ({"matrices": {"embed": {}}}, "missing or not called for"),
        ({"name": 5}, "lacks a name"),
        ({"chat_template": 5}, "lacks a name"),
        ({"stop_ids": [10**6]}, "names tokens"),
        ({"stop_ids": None}, "names tokens"),
        ({"bos_id": -1}, "names tokens"),
        ({"bos_id": "0"}, "names tokens"),
    ],
)
def test_a_description_that_lies_is_refused(source: Path, tmp_path: Path, change: dict[str, Any], said: str) -> None:
    convert_decoder(source, tmp_path / "packed")
    path = tmp_path / "packed" / "kogata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelError, match=said):
        load_packed(tmp_path / "packed")


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "f16"}, {"kind": 5}, {"kind": ["int8"]}, {"group": -1}, {"group": "x"}, {"n_out": 10**12}, {"n_in": 0},
        {"n_out": True}, {"group": 7},
    ],
)  # fmt: skip
def test_a_matrix_that_does_not_fit_is_refused(source: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    convert_decoder(source, tmp_path / "packed")
    path = tmp_path / "packed" / "kogata.json"
    told = json.loads(path.read_text())
    told["matrices"]["layers.0.attn.out"] |= change
    path.write_text(json.dumps(told))
    with pytest.raises(ModelError, match=r"attn\.out"):
        load_packed(tmp_path / "packed")


@pytest.mark.parametrize("keep", [0, 7, 100, 5000, -1])
def test_a_file_that_is_cut_short_is_refused(source: Path, tmp_path: Path, keep: int) -> None:
    convert_decoder(source, tmp_path / "packed")
    path = tmp_path / "packed" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError):
        load_packed(tmp_path / "packed")


def test_numbers_that_are_not_are_refused(source: Path, tmp_path: Path) -> None:
    made = convert_decoder(source, tmp_path / "packed", ternary="trits")
    path = tmp_path / "packed" / "model.safetensors"
    good = path.read_bytes()
    scales = made.linears["layers.1.ffn.down"].scales.tobytes()
    for old, new in (
        (scales, np.full(len(scales) // 4, np.nan, np.float32).tobytes()),
        (made.linears["layers.0.attn.out"].data_B.tobytes()[:64], bytes([255] * 64)),
    ):
        assert old in good
        path.write_bytes(good.replace(old, new))
        with pytest.raises(ModelError, match="damaged"):
            load_packed(tmp_path / "packed")


def test_missing_files(source: Path, tmp_path: Path) -> None:
    convert_decoder(source, tmp_path / "packed")
    (tmp_path / "packed" / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        load_packed(tmp_path / "packed")
    assert isinstance(load_decoder(source), DecoderCheckpoint)
