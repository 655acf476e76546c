"""The safetensors reader against the safetensors library: the same tensors, or a ModelError and nothing else."""

from __future__ import annotations

import json
import math
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kogata.errors import ModelError
from kogata.weights.safetensors import DTYPES, SafetensorsFile, open_sharded

BASIC = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


def raw(header: bytes | dict[str, Any], data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def read_all(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    file = SafetensorsFile(path)
    return {name: file[name] for name in file}


def theirs(path: Path) -> dict[str, tuple[str, list[int], bytes]] | None:
    """What the library makes of the file: (dtype, shape, bytes) of each tensor, or None where it refuses."""
    try:
        entries = safetensors.deserialize(path.read_bytes())
    except safetensors.SafetensorError:
        return None
    return {name: (entry["dtype"], list(entry["shape"]), bytes(entry["data"])) for name, entry in entries}


def agrees(path: Path) -> bool:
    """Whether the reader accepted the file; then it gave what the library gives."""
    expected = theirs(path)
    try:
        file = SafetensorsFile(path)
        found = {name: (file.dtype(name), list(file.shape(name)), file[name].tobytes()) for name in file}
    except ModelError:
        return False
    assert found == expected
    return True


shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
numpy_dtypes = st.sampled_from(["?", "u1", "i1", "u2", "i2", "f2", "u4", "i4", "f4", "u8", "i8", "f8"]).map(np.dtype)
arrays = numpy_dtypes.flatmap(lambda dtype: hnp.arrays(dtype, shapes))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tensors=st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=6), arrays, max_size=5))
def test_reads_what_the_library_wrote(tmp_path: Path, tensors: dict[str, np.ndarray[Any, Any]]) -> None:
    tensors.pop("__metadata__", None)
    path = tmp_path / "a.safetensors"
    safetensors.numpy.save_file(tensors, path, metadata={"format": "np"})
    file = SafetensorsFile(path)
    assert set(file) == set(tensors)
    assert len(file) == len(tensors)
    for name, expected in tensors.items():
        found = file[name]
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape == file.shape(name)
        assert found.tobytes() == expected.tobytes()
        assert found.flags.aligned
        assert not found.flags.writeable
    assert agrees(path)


def test_half_precisions_become_the_same_floats_as_in_torch(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    values = torch.tensor([[0.0, -0.0, 1.0, 3.14159, -65504.0, 1e-7, 6e-8]])
    tensors = {name: values.to(getattr(torch, name)) for name in ("bfloat16", "float16", "float32", "float64")}
    save_file(tensors, tmp_path / "a.safetensors")
    file = SafetensorsFile(tmp_path / "a.safetensors")
    assert file.dtype("bfloat16") == "BF16"
    assert file["bfloat16"].dtype == np.uint16
    for name, tensor in tensors.items():
        found = file.f32(name)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, tensor.float().numpy())


def test_whole_numbers_are_no_weights(tmp_path: Path) -> None:
    safetensors.numpy.save_file({"ids": np.arange(3)}, tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match="'ids' is stored as I64"):
        SafetensorsFile(tmp_path / "a.safetensors").f32("ids")


def test_unpadded_headers_give_aligned_arrays(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32)
    for pad in range(8):
        header = json.dumps({"a": BASIC}).encode() + b" " * pad
        (tmp_path / "a.safetensors").write_bytes(raw(header, values.tobytes()))
        found = SafetensorsFile(tmp_path / "a.safetensors")["a"]
        assert found.flags.aligned
        np.testing.assert_array_equal(found.reshape(-1), values)


LIES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "seven bytes": (b"1234567", "too short"),
    "no header": (bytes(8), "does not begin"),
    "header beyond the file": ((1000).to_bytes(8, "little") + b"{}", "cut off.*1000 bytes, 2 are left"),
    "header of 2^63": ((2**63).to_bytes(8, "little") + b"{}", "claims 9223372036854775808 bytes"),
    "header of 40 MB": ((40 * 2**20).to_bytes(8, "little") + b"{}", "more than"),
    "an array": (raw(b"[]"), "does not begin with"),
    "leading space": (raw(b" {}"), "does not begin with"),
    "not json": (raw(b"{nope}"), "not accepted"),
    "not utf-8": (raw(b'{"\xff":1}'), "UTF-8"),
    "lone surrogate": (raw(b'{"\\ud800":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'), "not accepted"),
    "nested bomb": (raw(b'{"a":' * 200_000 + b"1" + b"}" * 200_000), "not accepted"),
    "list bomb": (raw(b'{"a":' + b"[" * 500_000 + b"]" * 500_000 + b"}"), "not accepted"),
    "long number": (raw(b'{"a":' + b"9" * 100_000 + b"}"), "number 99999999999999999999 is out of range"),
    "twice": (raw(b'{"a":1,"a":2}'), "appears twice"),
    "not an entry": (raw({"a": 1}), "'a' is not described"),
    "extra field": (raw({"a": BASIC | {"x": 1}}, bytes(24)), "exactly dtype, shape and data_offsets"),
    "missing field": (raw({"a": {"dtype": "F32", "shape": [2]}}), "exactly dtype, shape and data_offsets"),
    "unknown type": (raw({"a": BASIC | {"dtype": "F5"}}, bytes(24)), "unknown type 'F5'.*BF16"),
    "type not a string": (raw({"a": BASIC | {"dtype": ["F32"]}}, bytes(24)), "unknown type"),
    "negative size": (raw({"a": BASIC | {"shape": [-2, -3]}}, bytes(24)), "out of range"),
    "fraction": (raw({"a": BASIC | {"shape": [2.0, 3]}}, bytes(24)), "2.0 is not a whole number"),
    "not a number": (raw(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,0]}}'), "NaN is not a whole number"),
    "infinite": (raw(b'{"a":{"dtype":"F32","shape":[1e999],"data_offsets":[0,0]}}'), "not a whole number"),
    "truth value": (raw({"a": BASIC | {"shape": [True]}}, bytes(24)), "no shape"),
    "nine dimensions": (raw({"a": BASIC | {"shape": [1] * 9}}, bytes(24)), "no shape of up to 8"),
    "too few bytes": (raw({"a": BASIC | {"shape": [2, 4]}}, bytes(24)), r"needs 32 bytes as F32 \[2, 4\].*give 24"),
    "too large": (raw({"a": BASIC | {"shape": [2**40, 2**40]}}, bytes(24)), "needs"),
    "size zero and huge": (raw(b'{"a":{"dtype":"F32","shape":[0,99999999999999999],"data_offsets":[0,0]}}'), "range"),
    "offsets reversed": (raw({"a": BASIC | {"data_offsets": [24, 0]}}, bytes(24)), "needs 24 bytes.*-24"),
    "offsets of three": (raw({"a": BASIC | {"data_offsets": [0, 24, 24]}}, bytes(24)), "no two data_offsets"),
    "negative offset": (raw({"a": BASIC | {"data_offsets": [-24, 0]}}, bytes(24)), "out of range"),
    "cut off": (raw({"a": BASIC}, bytes(23)), "cut off: the tensors need 24 bytes, 23 are left"),
    "bytes left over": (raw({"a": BASIC}, bytes(25)), "1 bytes follow"),
    "gap": (raw({"a": BASIC, "b": BASIC | {"data_offsets": [28, 52]}}, bytes(52)), "'b' begins at byte 28.*not at 24"),
    "overlap": (raw({"a": BASIC, "b": BASIC | {"data_offsets": [20, 44]}}, bytes(44)), "'b' begins at byte 20"),
    "same place": (raw({"a": BASIC, "b": BASIC}, bytes(24)), "begins at byte 0"),
    "late start": (raw({"a": BASIC | {"data_offsets": [8, 32]}}, bytes(32)), "'a' begins at byte 8.*not at 0"),
    "metadata list": (raw({"__metadata__": [1], "a": BASIC}, bytes(24)), "__metadata__"),
    "metadata numbers": (raw({"__metadata__": {"a": 1}}), "__metadata__"),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_refused_and_named(tmp_path: Path, lie: str) -> None:
    content, message = LIES[lie]
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    started = time.perf_counter()
    with pytest.raises(ModelError, match=message) as caught:
        SafetensorsFile(path)
    assert time.perf_counter() - started < 2.0
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_truth_values_are_checked_when_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(raw({"a": {"dtype": "BOOL", "shape": [2], "data_offsets": [0, 2]}}, b"\x01\x02"))
    with pytest.raises(ModelError, match="neither 0 nor 1"):
        SafetensorsFile(path)["a"]


def test_order_in_the_header_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(raw({"b": BASIC | {"data_offsets": [24, 48]}, "a": BASIC}, bytes(range(48))))
    assert agrees(path)


json_numbers = st.sampled_from([0, 1, 2, 3, 4, 8, 16, 24, -1, 2**31, 2**32, 2**48, 2**63, 10**30]) | st.integers()
header_values = st.recursive(
    st.none() | st.booleans() | json_numbers | st.floats() | st.sampled_from([*DTYPES, "F8_E4M3", ""]),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
header_entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*DTYPES]) | header_values,
        "shape": st.lists(json_numbers, max_size=3) | header_values,
        "data_offsets": st.tuples(st.integers(0, 24), st.integers(0, 24)) | header_values,
    },
    optional={"x": header_values},
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(
    header=st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), header_entries | header_values, max_size=3),
    data=st.binary(max_size=48),
)
def test_any_header_gives_the_librarys_tensors_or_a_model_error(
    tmp_path: Path, header: dict[str, Any], data: bytes
) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(raw(header, data))
    agrees(path)


def sample(rng: random.Random) -> bytes:
    tensors = {}
    for i in range(rng.randint(1, 4)):
        shape = [rng.randint(0, 4) for _ in range(rng.randint(0, 3))]
        dtype = rng.choice(["<f4", "<f2", "|u1", "<i8", "|b1"])
        tensors[f"t{i}"] = np.zeros(math.prod(shape), dtype).reshape(shape)
    return safetensors.numpy.save(tensors)


def damage(rng: random.Random, content: bytes) -> bytes:
    """One to three small changes, mostly in the header, where they matter."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(min(len(changed), 300)) if changed else 0
        what = rng.randrange(5)
        if what == 0 and changed:
            changed[at] ^= 1 << rng.randrange(8)
        elif what == 1 and changed:
            changed[at] = rng.choice(b'0123456789{}[]",:-. \x00\xff')
        elif what == 2:
            del changed[at : at + rng.randint(1, 20)]
        elif what == 3:
            changed[at:at] = bytes(rng.choice(b'0123456789{}[]",:e-') for _ in range(rng.randint(1, 4)))
        else:
            del changed[rng.randrange(len(changed) + 1) :]
    return bytes(changed)


def hammer(path: Path, seed: int, rounds: int) -> int:
    rng = random.Random(seed)
    accepted = 0
    for _ in range(rounds):
        path.write_bytes(damage(rng, sample(rng)))
        accepted += agrees(path)
    return accepted


def test_damaged_files(tmp_path: Path) -> None:
    # Some damage only renames a tensor or changes its values: such files are still read.
    assert 0 < hammer(tmp_path / "a.safetensors", seed=1, rounds=1_200) < 600


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 6))
def test_many_damaged_files(tmp_path: Path, seed: int) -> None:
    hammer(tmp_path / "a.safetensors", seed, rounds=15_000)


def shards(folder: Path, weight_map: object) -> Path:
    folder.mkdir(exist_ok=True)
    safetensors.numpy.save_file({"a": np.ones(2, np.float32)}, folder / "m-1.safetensors")
    safetensors.numpy.save_file({"b": np.zeros(2, np.float32)}, folder / "m-2.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


def test_shards(tmp_path: Path) -> None:
    where = open_sharded(shards(tmp_path, {"a": "m-1.safetensors", "b": "m-2.safetensors"}))
    assert {name: file.path.name for name, file in where.items()} == {"a": "m-1.safetensors", "b": "m-2.safetensors"}
    np.testing.assert_array_equal(where["a"]["a"], [1, 1])
    np.testing.assert_array_equal(where["b"]["b"], [0, 0])


@pytest.mark.parametrize(
    "name",
    ["../m-1.safetensors", "/etc/passwd", "x/../m-1.safetensors", "sub/m.safetensors", "..", "", "m-1.bin",
     "a\0.safetensors", "C:\\m.safetensors", ".safetensors", 3, None, ["m-1.safetensors"]],
)  # fmt: skip
def test_shards_elsewhere_are_refused(tmp_path: Path, name: object) -> None:
    index = shards(tmp_path / "model", {"a": name})
    safetensors.numpy.save_file({"a": np.ones(2, np.float32)}, tmp_path / "m-1.safetensors")
    with pytest.raises(ModelError, match="not a safetensors file beside it"):
        open_sharded(index)


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"c": "m-1.safetensors"}, "m-1.safetensors holds 'c', but it does not"),
        ({"a": "m-3.safetensors"}, "m-3.safetensors does not exist"),
        ({}, "lacks a 'weight_map'"),
        ([], "lacks a 'weight_map'"),
        (None, "lacks a 'weight_map'"),
    ],
)
def test_indexes_that_contradict_their_files(tmp_path: Path, weight_map: object, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        open_sharded(shards(tmp_path, weight_map))
