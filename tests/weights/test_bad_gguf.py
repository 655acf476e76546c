"""GGUF files that are broken, lying, hostile or of another kind: each refused with a sentence, and soon."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gguf_writer import Kind, write_gguf
from kogata.errors import ModelError
from kogata.weights import TernaryTensor, load_decoder, load_encoder
from kogata.weights.gguf_file import GgufFile
from kogata.weights.packed import pack_decoder

Tiny = Callable[..., tuple[Path, Any]]
Edit = Callable[[dict[str, Any], dict[str, Any]], None]


@pytest.fixture
def made(tiny_decoder: Tiny, tmp_path: Path) -> Callable[..., Path]:
    """Writes a GGUF file of a tiny Qwen 3, changed before it is written."""
    directory, _ = tiny_decoder("qwen3", num_hidden_layers=2, head_dim=16)

    def write(edit: Edit | None = None, **how: Any) -> Path:
        return write_gguf(directory, tmp_path / "model.gguf", edit=edit, **how)

    return write


def refused(path: Path, message: str) -> ModelError:
    started = time.process_time()
    with pytest.raises(ModelError, match=message) as caught:
        load_decoder(path)
    assert time.process_time() - started < 5
    assert len(str(caught.value)) < 1000
    assert str(path) in str(caught.value) or str(path.parent) in str(caught.value)
    return caught.value


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def number(key: str, value: int) -> bytes:
    return text(key) + struct.pack("<II", 4, value)


def info(name: str, sizes: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset)


def file_of(
    values: list[bytes], infos: list[bytes], data: bytes = b"", version: int = 3, n_values: int | None = None,
    n_infos: int | None = None,
) -> bytes:  # fmt: skip
    counts = len(infos) if n_infos is None else n_infos, len(values) if n_values is None else n_values
    head = b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join(values) + b"".join(infos)
    return head + b"\0" * (-len(head) % 32) + data


FULL = [number("a", 1), text("b") + struct.pack("<I", 8) + text("c")]
ARRAY = text("list") + struct.pack("<I", 9)

HEADERS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "three bytes": (b"GGU", "is not a GGUF file"),
    "another magic": (b"GGML" + b"\0" * 100, "does not begin with 'GGUF'"),
    "magic only": (b"GGUF", "cut off within its header"),
    "version 1": (file_of(FULL, [], version=1), "it has version 1; 2 and 3 are accepted"),
    "version 4": (file_of(FULL, [], version=4), "it has version 4"),
    "version 0": (file_of(FULL, [], version=0), "it has version 0"),
    "big-endian": (file_of(FULL, [], version=0x03000000), "it is big-endian"),
    "2^63 tensors": (file_of(FULL, [], n_infos=2**63), f"claims {2**63} tensors"),
    "2^63 values": (file_of(FULL, [], n_values=2**63), f"claims {2**63} values"),
    "a few values too many": (file_of(FULL, [], n_values=9), "cut off within its header"),
    "a few tensors too many": (file_of(FULL, [], n_infos=9), "cut off within its header"),
    "a key of 2^60 bytes": (file_of([struct.pack("<Q", 2**60)], []), f"claims {2**60} bytes"),
    "a key of 60,000 bytes": (file_of([struct.pack("<Q", 60_000)], []), "cut off within its header"),
    "a key of no characters": (file_of([text(b"\xff\xfe") + struct.pack("<II", 4, 1)], []), "not UTF-8"),
    "a text of 2^60 bytes": (file_of([text("a") + struct.pack("<IQ", 8, 2**60)], []), f"claims {2**60} bytes"),
    "twice the same key": (file_of([FULL[0], FULL[0]], []), "the value 'a' is there twice"),
    "an unknown type": (file_of([text("a") + struct.pack("<I", 13)], []), "'a' has the unknown type 13"),
    "a list of 2^60": (file_of([ARRAY + struct.pack("<IQ", 4, 2**60)], []), "more than accepted"),
    "a list of 2^20 texts": (file_of([ARRAY + struct.pack("<IQ", 8, 2**20)], []), "cut off within its header"),
    "a list of lists": (file_of([ARRAY + struct.pack("<IQ", 9, 1) + ARRAY], []), "not accepted in lists"),
    "a list of nothing known": (file_of([ARRAY + struct.pack("<IQ", 77, 1)], []), "list of the type 77"),
    "alignment 0": (file_of([number("general.alignment", 0)], []), "alignment is 0, no power of 2"),
    "alignment 3": (file_of([number("general.alignment", 3)], []), "alignment is 3, no power of 2"),
    "alignment 2^31": (file_of([number("general.alignment", 2**31)], []), "no power of 2 up to"),
    "alignment a text": (
        file_of([text("general.alignment") + struct.pack("<I", 8) + text("32")], []),
        "alignment is '32'",
    ),
    "no rank": (file_of(FULL, [text("t") + struct.pack("<I", 2**31)]), f"has {2**31} dimensions"),
    "sizes of 2^64": (file_of(FULL, [info("t", (2**63, 2**63))]), "out of range"),
    "sizes whose product wraps to 0": (file_of(FULL, [info("t", (2**32, 2**32))]), "out of range"),
    "a size of 0": (file_of(FULL, [info("t", (0, 8))]), "out of range"),
    "an unknown kind": (file_of(FULL, [info("t", (8,), 99)], bytes(64)), "'t' has the unknown type 99"),
    "a kind that was taken back": (file_of(FULL, [info("t", (32,), 4)], bytes(64)), "the unknown type 4"),
    "Microsoft's own kind": (file_of(FULL, [info("t", (128,), 36)], bytes(64)), "as I2_S, whose bytes lie diff"),
    "half a block": (file_of(FULL, [info("t", (48,), 8)], bytes(64)), "rows of 48, but Q8_0 comes in blocks of 32"),
    "beyond the end": (file_of(FULL, [info("t", (8,))], bytes(31)), "is cut off: 't' ends at byte"),
    "an offset of 2^63": (file_of(FULL, [info("t", (8,), 0, 2**63)], bytes(64)), "is cut off"),
    "an odd offset": (file_of(FULL, [info("t", (8,), 0, 8)], bytes(64)), "byte 8 of the data, no multiple of 32"),
    "overlapping tensors": (
        file_of(FULL, [info("t", (16,)), info("u", (8,), 0, 32)], bytes(64)),
        "the tensors 't' and 'u' overlap",
    ),
    "twice the same tensor": (
        file_of(FULL, [info("t", (8,)), info("t", (8,), 0, 32)], bytes(64)),
        "the tensor 't' is there twice",
    ),
    "nothing inside": (file_of([], []), "not a language model"),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_headers(tmp_path: Path, name: str) -> None:
    content, message = HEADERS[name]
    path = tmp_path / "a.gguf"
    path.write_bytes(content)
    refused(path, message)


def test_version_2_is_the_same(made: Callable[..., Path]) -> None:
    path = made()
    data = bytearray(path.read_bytes())
    data[4:8] = struct.pack("<I", 2)
    path.write_bytes(data)
    load_decoder(path)


def test_a_header_without_end(tmp_path: Path) -> None:
    """A sparse file of 2^40 bytes, all zeros behind counts that are allowed, and texts of 16 MB each."""
    path = tmp_path / "a.gguf"
    for kind, body in (("values", text("a") + struct.pack("<IIQ", 9, 8, 2**22)), ("tensors", b"")):
        with path.open("wb") as file:
            counts = (0, 1) if kind == "values" else (100_000, 0)
            file.write(b"GGUF" + struct.pack("<IQQ", 3, *counts) + body)
            file.truncate(2**40)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        refused(path, "is there twice|not a language model|cut off")
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(f"{kind}: {grown:.0f} MB more")
        assert grown < 1000


def test_cut_off_anywhere(made: Callable[..., Path]) -> None:
    path = made()
    whole = path.read_bytes()
    for size in [*range(0, 400, 7), *range(400, len(whole), 1501), len(whole) - 33]:
        path.write_bytes(whole[:size])
        refused(path, r"is empty|is not a GGUF file|is cut off|it is cut off within its header")


def test_any_bit_of_the_header_turned(made: Callable[..., Path]) -> None:
    path = made()
    whole = path.read_bytes()
    ends = whole.index(b"token_embd.weight") + 4000
    rng = random.Random(0)
    seen: dict[str, int] = {}
    for _ in range(600):
        data = bytearray(whole)
        data[rng.randrange(ends)] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            pack_decoder(load_decoder(path))  # type: ignore[arg-type]
            seen["loaded"] = seen.get("loaded", 0) + 1
        except ModelError:
            seen["refused"] = seen.get("refused", 0) + 1
    print(seen)
    assert seen["refused"] > 50


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=1000, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_behind_the_magic(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(b"GGUF\3\0\0\0" + tail)
    with contextlib.suppress(ModelError):
        GgufFile(path)


# What the header says of the model


def says(**changes: Any) -> Edit:
    def edit(values: dict[str, Any], _: dict[str, Any]) -> None:
        for key, value in changes.items():
            name = key.replace("__", ".")
            values.pop(name, None)
            if value is not None:
                values[name] = value

    return edit


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general__architecture": "mamba"}, "'mamba' cannot be run; of GGUF files Kogata runs llama, qwen2, "),
        ({"qwen3__block_count": None}, "lacks qwen3.block_count"),
        ({"qwen3__block_count": 3}, r"lacks the tensor 'blk.2.attn_norm.weight'.*3 layers"),
        ({"qwen3__block_count": 1}, "holds the tensor 'blk.1.attn_norm.weight', which its header does not call for"),
        ({"qwen3__block_count": 2**31}, "n_layers is 2147483648; 1 to 1,000"),
        ({"qwen3__block_count": "2"}, "n_layers must be a whole number, not '2'"),
        ({"qwen3__block_count": [2, 2]}, r"n_layers must be a whole number, not \[2, 2\]"),
        ({"qwen3__embedding_length": 48}, r"'token_embd.weight'.*\[262, 32\].*\[262, 48\]"),
        ({"qwen3__feed_forward_length": 40}, r"'blk.0.ffn_gate.weight'.*\[48, 32\].*\[40, 32\]"),
        ({"qwen3__attention__head_count": 2}, r"'blk.0.attn_q.weight'.*\[64, 32\].*\[32, 32\]"),
        ({"qwen3__attention__head_count": 0}, "n_heads is 0"),
        ({"qwen3__attention__head_count_kv": 3}, "3 key and value heads do not divide 4"),
        ({"qwen3__attention__value_length": 8}, "attention.value_length is 8, but its weights make it 16"),
        ({"qwen3__rope__dimension_count": 8}, "rope.dimension_count is 8"),
        ({"qwen3__vocab_size": 300}, "vocab_size is 300, but its weights make it 262"),
        ({"qwen3__attention__layer_norm_rms_epsilon": None}, "norm_eps is None"),
        ({"qwen3__attention__layer_norm_rms_epsilon": float("nan")}, "norm_eps is nan"),
        ({"qwen3__rope__freq_base": float("inf")}, "rope theta is inf"),
        ({"qwen3__rope__freq_base": "big"}, "rope theta is 'big'"),
        ({"qwen3__rope__scaling__type": "longrope"}, "type 'longrope' cannot be run"),
        ({"qwen3__rope__scaling__factor": -1.0}, "rope factor is -1"),
        ({"qwen3__context_length": 0}, "context is 0"),
        ({"qwen3__expert_count": 8}, "qwen3.expert_count is 8, which cannot be run"),
        ({"qwen3__final_logit_softcapping": 30.0}, "final_logit_softcapping is 30.0, which cannot be run"),
        ({"tokenizer__ggml__tokens": None}, "has no vocabulary"),
        ({"tokenizer__ggml__model": "no_vocab"}, "kind 'no_vocab'"),
        ({"tokenizer__ggml__pre": "superbpe"}, "rules named 'superbpe'"),
        ({"tokenizer__ggml__tokens": ["a"] * 262}, "."),
        ({"tokenizer__ggml__tokens": [str(i) for i in range(263)], "tokenizer__ggml__token_type": [1] * 263}, "."),
        ({"tokenizer__ggml__token_type": ["a"] * 262}, "not one type for each token"),
        ({"tokenizer__ggml__merges": [1, 2]}, "."),
        ({"tokenizer__ggml__merges": ["nothing known"]}, "."),
        ({"tokenizer__ggml__eos_token_id": 262}, "eos token is 262, but its last is 261"),
        ({"tokenizer__ggml__bos_token_id": "1"}, "bos token is '1'"),
        ({"tokenizer__chat_template": 5}, "chat template that is no text"),
        ({"tokenizer__chat_template": "x" * 2**21}, "chat template that is no text of up to 1 MB"),
    ],
)  # fmt: skip
def test_a_header_that_contradicts_the_tensors(
    made: Callable[..., Path], changes: dict[str, Any], message: str
) -> None:  # fmt: skip
    refused(made(says(**changes)), message)


def test_another_architecture_than_it_says(made: Callable[..., Path], tiny_decoder: Tiny, tmp_path: Path) -> None:
    refused(made(architecture="llama"), "holds the tensor 'blk.0.attn_k_norm.weight'")
    refused(made(architecture="gemma3"), "lacks the tensor 'blk.0.post_attention_norm.weight'")
    refused(made(architecture="bitnet"), "lacks the tensor 'blk.0.attn_sub_norm.weight'")


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("token_embd.weight", None, "no matrix 'token_embd.weight'"),
        ("token_embd.weight", np.ones(8, np.float32), "no matrix 'token_embd.weight'"),
        ("output_norm.weight", None, "lacks the tensor 'output_norm.weight'"),
        ("blk.1.ffn_up.weight", None, "lacks the tensor 'blk.1.ffn_up.weight'"),
        ("blk.1.ffn_up.weight", np.ones((32, 48), np.float32), r"has shape \[32, 48\], but its header .* \[48, 32\]"),
        ("blk.1.ffn_up.weight", np.ones((48, 32), np.int8), "stored as I8, which cannot be read"),
        ("blk.1.attn_norm.weight", np.ones(32, np.int32), "stored as I32, not F32 or F16 or BF16"),
        ("blk.1.ffn_gate_inp.weight", np.ones((2, 32), np.float32), "holds the tensor 'blk.1.ffn_gate_inp.weight'"),
        ("blk.0.attn_q.bias", np.ones(64, np.float32), "lacks the tensor 'blk.0.attn_k.bias'"),
        ("rope_freqs.weight", np.ones(5, np.float32) * 2, "5 factors for 8 pairs"),
        ("rope_freqs.weight", np.full(8, np.nan, np.float32), "rope factors is nan"),
        ("rope_freqs.weight", np.ones(8, np.int8), "stored as I8"),
        ("blk.0.ffn_up.weight", np.full((48, 32), np.nan, np.float32), "'blk.0.ffn_up.weight'.*not finite"),
        ("blk.0.attn_norm.weight", np.full(32, np.inf, np.float32), "'blk.0.attn_norm.weight'.*not finite"),
    ],
)  # fmt: skip
def test_tensors(made: Callable[..., Path], name: str, tensor: Any, message: str) -> None:
    def edit(_: dict[str, Any], tensors: dict[str, Any]) -> None:
        tensors.pop(name, None)
        if tensor is not None:
            tensors[name] = tensor

    refused(made(edit), message)


@pytest.mark.parametrize("kind", [Kind.Q8_0, Kind.Q4_0, Kind.TQ1_0, Kind.TQ2_0])
def test_scales_that_are_not_finite(tiny_decoder: Tiny, tmp_path: Path, kind: Kind) -> None:
    directory, _ = tiny_decoder("qwen2", hidden_size=256, num_hidden_layers=1)
    path = write_gguf(directory, tmp_path / "a.gguf", lambda name, _: kind if "attn_q.w" in name else None)
    load_decoder(path)
    entry = GgufFile(path)
    at = entry["blk.0.attn_q.weight"].ctypes.data - entry.data.ctypes.data
    size = {"Q8_0": 34, "Q4_0": 18, "TQ1_0": 54, "TQ2_0": 66}[kind.name]
    data = bytearray(path.read_bytes())
    where = at + 3 * size + (size - 2 if "TQ" in kind.name else 0)
    data[where : where + 2] = np.float16("inf").tobytes()
    path.write_bytes(data)
    refused(path, "'blk.0.attn_q.weight' in .* holds numbers that are not finite")


def test_codes_that_are_not_ternary(tiny_decoder: Tiny, tmp_path: Path) -> None:
    directory, _ = tiny_decoder("qwen2", hidden_size=256, num_hidden_layers=1)
    path = write_gguf(directory, tmp_path / "a.gguf", lambda name, _: Kind.TQ2_0 if "attn_q.w" in name else None)
    found = load_decoder(path).tensors["layers.0.attn.q.weight"]  # type: ignore[union-attr]
    assert isinstance(found, TernaryTensor)
    entry = GgufFile(path)
    data = bytearray(path.read_bytes())
    data[entry["blk.0.attn_q.weight"].ctypes.data - entry.data.ctypes.data] |= 3
    path.write_bytes(data)
    refused(path, "'blk.0.attn_q.weight' in .* holds codes other than -1, 0 and 1")


def test_a_scale_that_is_none(made: Callable[..., Path]) -> None:
    def edit(_: dict[str, Any], tensors: dict[str, Any]) -> None:
        tensors["blk.0.ffn_up.scale"] = np.array([1, 2], np.float32)

    with pytest.raises(ModelError, match=r"'blk.0.ffn_up.scale' in .* is not one number"):
        pack_decoder(load_decoder(made(edit)))  # type: ignore[arg-type]


# Files


def test_parts_that_are_missing_or_of_something_else(tiny_decoder: Tiny, tmp_path: Path) -> None:
    from test_gguf_decoders import split

    directory, _ = tiny_decoder("qwen3", num_hidden_layers=1)
    parts = split(directory, tmp_path / "parts", 3)
    load_decoder(parts[0])
    kept = parts[1].read_bytes()
    parts[1].write_bytes(parts[2].read_bytes())
    refused(parts[0], r"says that it is part 2 \(from 0\) of 3, but by its name it is part 1 of 3")
    parts[1].unlink()
    refused(parts[0], r"model-00002-of-00003.gguf does not exist")
    parts[1].write_bytes(kept)
    alone = tmp_path / "alone.gguf"
    alone.write_bytes(parts[0].read_bytes())
    refused(alone, r"says that it is part 0 \(from 0\) of 3, but by its name it is part 0 of 1")


def test_folders_and_files_that_are_none(made: Callable[..., Path], tmp_path: Path) -> None:
    path = made()
    with pytest.raises(ModelError, match="is a file; a model is the directory"):
        load_encoder(path)
    with pytest.raises(ModelError, match="is a file; a model is the directory"):
        load_decoder(__file__)
    folder = tmp_path / "several"
    folder.mkdir()
    for name in ("b.gguf", "a.gguf", "mmproj-a.gguf"):
        (folder / name).write_bytes(path.read_bytes())
    with pytest.raises(ModelError, match=r"several holds several GGUF files; name one of a\.gguf, b\.gguf\."):
        load_decoder(folder)
    (folder / "b.gguf").unlink()
    assert load_decoder(folder).name == "a.gguf"
    blob = tmp_path / "sha256-0123"  # as other programs keep them
    blob.write_bytes(path.read_bytes())
    assert load_decoder(blob).name == "sha256-0123"
    for name in ("pipe", "pipe.gguf"):
        os.mkfifo(tmp_path / name)
        refused(tmp_path / name, "is a file; a model is the directory")
    (tmp_path / "folder.gguf").mkdir()
    refused(tmp_path / "folder.gguf", "is not a model: it has no config.json")
