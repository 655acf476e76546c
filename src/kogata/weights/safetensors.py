"""Reading safetensors: the tensors stay in the mapped file, and no bound is taken on trust.

The format (github.com/huggingface/safetensors): 8 bytes little-endian header length, a JSON object
``name -> {dtype, shape, data_offsets}``, then the data, which the offsets cover from end to end without gap or overlap.
The library's own numpy loader copies everything, so files are mapped here instead.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kogata.errors import ModelError
from kogata.weights.files import map_file, read_object
from kogata.weights.tensors import FloatTensor

#: A thousand layers need 2 MB of header.
_LARGEST_HEADER = 32 * 2**20
_LARGEST_NUMBER = 2**48
_MOST_DIMENSIONS = 8
_LINE = 64  # bytes of a cache line

#: Type names of the format -> how numpy holds them. bfloat16 crosses as uint16: numpy has no such type.
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype("<u1"),
    "I8": np.dtype("<i1"),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "F32": np.dtype("<f4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F64": np.dtype("<f8"),
}

#: Those that weights may have.
FLOATS = ("F64", "F32", "F16", "BF16")
#: Numbers that are looked over at a time.
_CHUNK = 2**22


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a tensor lies.

    Attributes:
        dtype: A key of :data:`DTYPES`.
        shape: Its sizes.
        start, end: Bytes in the mapped file.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class SafetensorsFile(Mapping[str, NDArray[Any]]):
    """A safetensors file as a mapping ``name -> array`` of read-only views into the mapped file.

    bfloat16 tensors are uint16 arrays of the same bits: :meth:`dtype` tells, :meth:`f32` converts.

    Args:
        path: The file.

    Attributes:
        path: The file.
        data: uint8, all its bytes, mapped.

    Raises:
        ModelError: The file cannot be read or is not a well-formed safetensors file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = map_file(path)
        self._entries = _read_header(self.data, path)

    def __getitem__(self, name: str) -> NDArray[Any]:
        entry = self._entries[name]
        flat = self.data[entry.start : entry.end]
        if entry.dtype == "BOOL" and (flat > 1).any():
            raise ModelError(f"{self.path} is damaged: {name!r} holds truth values that are neither 0 nor 1.")
        array = flat.view(DTYPES[entry.dtype]).reshape(entry.shape)
        # The data starts at a multiple of 8 unless whoever wrote the header did not pad it.
        return array if array.flags.aligned else array.copy()

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def dtype(self, name: str) -> str:
        """The tensor's type in the format's own terms, for example ``"BF16"``."""
        return self._entries[name].dtype

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's sizes, without touching its data."""
        return self._entries[name].shape

    def check_float(self, name: str) -> None:
        """Raises ModelError if the tensor does not hold floating point numbers."""
        kind = self.dtype(name)
        if kind not in FLOATS:
            raise ModelError(f"{self.path}: {name!r} is stored as {kind}; {', '.join(FLOATS)} is accepted for weights.")

    def check_finite(self, name: str) -> None:
        """Raises ModelError if the tensor holds NaN or infinity, or what float32 makes infinity of."""
        flat, kind = self[name].reshape(-1), self.dtype(name)
        for start in range(0, len(flat), _CHUNK):
            if not np.isfinite(to_f32(flat[start : start + _CHUNK], kind)).all():
                raise ModelError(f"The tensor {name!r} in {self.path} holds numbers that are not finite.")

    def f32(self, name: str) -> FloatTensor:
        """The tensor as float32: a view where it is stored so, otherwise a converted copy.

        Raises:
            ModelError: The tensor does not hold floating point numbers.
        """
        self.check_float(name)
        return to_f32(self[name], self.dtype(name))


def to_f32(array: NDArray[Any], dtype: str) -> FloatTensor:
    """Numbers as float32, themselves where they are.

    Args:
        array: As :class:`SafetensorsFile` gives them.
        dtype: Their type in the format's terms, one of :data:`FLOATS`.
    """
    if dtype == "F32":
        return array
    if dtype == "BF16":
        wide = array.astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite, which the caller refuses
        return array.astype(np.float32)


def write_safetensors(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes a file of arrays and waits until it is on the disk.

    Data starts at a multiple of 64 bytes, and arrays that are whole cache lines come first, so that all of those do.

    Args:
        path: The file; replaced if it is there.
        arrays: uint8, int32 or float32.

    Raises:
        OSError: It cannot be written.
    """
    names = {np.dtype(np.uint8): "U8", np.dtype(np.int32): "I32", np.dtype(np.float32): "F32"}
    ordered = sorted(arrays.items(), key=lambda item: item[1].nbytes % _LINE != 0)
    header: dict[str, Any] = {}
    at = 0
    for name, array in ordered:
        header[name] = {
            "dtype": names[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [at, at + array.nbytes],
        }
        at += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % _LINE)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, array in ordered:
            file.write(np.ascontiguousarray(array).data)
        file.flush()
        os.fsync(file.fileno())


def open_sharded(index: Path) -> dict[str, SafetensorsFile]:
    """Which of the files of a ``model.safetensors.index.json`` holds each tensor.

    Args:
        index: The index; its files must lie beside it.

    Raises:
        ModelError: The index or a file is not well-formed, names a file elsewhere, or contradicts the files.
    """
    weight_map = _weight_map(index)
    files = {file_name: SafetensorsFile(index.parent / file_name) for file_name in shard_names(index)}
    where: dict[str, SafetensorsFile] = {}
    for name, file_name in weight_map.items():
        if name not in files[file_name]:
            raise ModelError(f"{index} says that {file_name} holds {name!r}, but it does not.")
        where[name] = files[file_name]
    return where


def shard_names(index: Path) -> list[str]:
    """The files that a ``model.safetensors.index.json`` names, all of them beside it.

    Raises:
        ModelError: The index is not well-formed or names a file elsewhere.
    """
    return sorted(set(_weight_map(index).values()))


def _weight_map(index: Path) -> dict[str, str]:
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{index} lacks a 'weight_map'.")
    for file_name in weight_map.values():
        if not isinstance(file_name, str) or not _plain(file_name):
            raise ModelError(f"{index} names {_short(file_name)}, which is not a safetensors file beside it.")
    return weight_map


def _plain(file_name: str) -> bool:
    return file_name.endswith(".safetensors") and not set(file_name) & set("/\\\0:") and not file_name.startswith(".")


def _read_header(data: NDArray[np.uint8], path: Path) -> dict[str, Entry]:
    if len(data) < 8:
        raise _bad(path, "it is too short for a header")
    length = int.from_bytes(data[:8].tobytes(), "little")
    if length > _LARGEST_HEADER:
        raise _bad(path, f"its header claims {length} bytes, more than the {_LARGEST_HEADER} accepted")
    if length > len(data) - 8:
        raise _bad(path, f"it is cut off: the header claims {length} bytes, {len(data) - 8} are left in the file")
    header = data[8 : 8 + length].tobytes()
    if not header.startswith(b"{"):
        raise _bad(path, "its header does not begin with '{'")
    try:
        content = json.loads(
            header.decode(),
            object_pairs_hook=_unique,
            parse_int=_natural,
            parse_float=_no_float,
            parse_constant=_no_float,
        )
    except UnicodeDecodeError:
        raise _bad(path, "its header is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise _bad(path, f"its header is not accepted: {error}") from None
    metadata = content.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _bad(path, "its '__metadata__' is not an object of strings")
    entries = {name: _entry(name, value, path) for name, value in content.items()}
    _check_cover(entries, len(data) - 8 - length, path)
    start = 8 + length
    return {name: Entry(e.dtype, e.shape, start + e.start, start + e.end) for name, e in entries.items()}


def _entry(name: str, value: object, path: Path) -> Entry:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise _bad(path, f"{_short(name)} is not described by exactly dtype, shape and data_offsets")
    kind, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(kind, str) or kind not in DTYPES:
        raise _bad(path, f"{_short(name)} has the unknown type {_short(kind)}; known are {', '.join(DTYPES)}")
    if not isinstance(shape, list) or len(shape) > _MOST_DIMENSIONS or not all(type(size) is int for size in shape):
        raise _bad(path, f"{_short(name)} has no shape of up to {_MOST_DIMENSIONS} sizes")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(offset) is int for offset in offsets):
        raise _bad(path, f"{_short(name)} has no two data_offsets")
    start, end = offsets
    wanted = math.prod(shape) * DTYPES[kind].itemsize
    if end - start != wanted:
        raise _bad(path, f"{_short(name)} needs {wanted} bytes as {kind} {shape}, but its offsets give {end - start}")
    return Entry(kind, tuple(shape), start, end)


def _check_cover(entries: dict[str, Entry], size: int, path: Path) -> None:
    at = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start != at:
            reason = f"{_short(name)} begins at byte {entry.start} of the data, not at {at} where the one before ends"
            raise _bad(path, reason)
        at = entry.end
    if at > size:
        raise _bad(path, f"it is cut off: the tensors need {at} bytes, {size} are left in the file")
    if at < size:
        raise _bad(path, f"{size - at} bytes follow the last tensor")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name appears twice")
    for name in found:
        name.encode()  # a lone surrogate is a UnicodeEncodeError, and so a ValueError
    return found


def _natural(digits: str) -> int:
    if digits.startswith("-") or len(digits) > 15 or int(digits) > _LARGEST_NUMBER:
        raise ValueError(f"the number {digits[:20]} is out of range")
    return int(digits)


def _no_float(digits: str) -> float:
    raise ValueError(f"{digits[:20]} is not a whole number")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _bad(path: Path, reason: str) -> ModelError:
    return ModelError(f"{path} is not a usable safetensors file: {reason}.")
