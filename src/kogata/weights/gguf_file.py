"""Reading GGUF: the tensors stay in the mapped file, and no bound is taken on trust.

The format (github.com/ggml-org/ggml/blob/master/docs/gguf.md), all of it little-endian: ``GGUF``, version, how many
tensors and values, the values (key, type, value), the tensors (name, sizes, type, offset), then the data from the next
multiple of the alignment on. The ``gguf`` package's own reader believes every count and every offset, so headers are
read here; the package says how large the blocks of each type are, and multiplies them out.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kogata.config.parameters import shown
from kogata.errors import ModelError
from kogata.weights.files import map_file

#: Gemma's vocabulary of 262,144 words takes 6 MB.
_LARGEST_HEADER = 256 * 2**20
_MOST_VALUES = 10_000
_MOST_ELEMENTS = 4 * 2**20  # of all arrays together
_MOST_TENSORS = 100_000
_LONGEST_NAME = 65_535
_LONGEST_TEXT = 16 * 2**20
_LARGEST_NUMBER = 2**48
_MOST_DIMENSIONS = 4
_LARGEST_ALIGNMENT = 2**20

#: Types of values -> how struct reads them.
_NUMBERS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"
}  # fmt: skip
_STRING, _ARRAY = 8, 9

#: A type of Microsoft's own, whose bytes lie differently depending on the machine that wrote them.
_I2_S = 36

_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a tensor lies.

    Attributes:
        kind: Its type in the format's own terms, for example ``"Q8_0"``.
        shape: Its sizes, rows before columns.
        row_bytes: Bytes of one row, that is of as many elements as the last size says.
        start, end: Bytes in the mapped file.
    """

    kind: str
    shape: tuple[int, ...]
    row_bytes: int
    start: int
    end: int


class GgufFile(Mapping[str, NDArray[np.uint8]]):
    """A GGUF file as a mapping ``name -> bytes``: uint8 [rows, bytes of a row], read-only views into the mapped file.

    Args:
        path: The file.

    Attributes:
        path: The file.
        data: uint8, all its bytes, mapped.
        told: The header's values by their keys; arrays are lists.

    Raises:
        ModelError: The file cannot be read or is not a well-formed GGUF file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = map_file(path)
        header = _Header(self.data, path)
        self.told = header.told
        self._entries = header.entries

    def __getitem__(self, name: str) -> NDArray[np.uint8]:
        entry = self._entries[name]
        return self.data[entry.start : entry.end].reshape(-1, entry.row_bytes)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def kind(self, name: str) -> str:
        """The tensor's type in the format's own terms, for example ``"Q8_0"``."""
        return self._entries[name].kind

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's sizes, rows before columns, without touching its data."""
        return self._entries[name].shape


def open_gguf(path: Path) -> tuple[GgufFile, dict[str, GgufFile]]:
    """The file that says what the model is, and which file holds each tensor.

    Args:
        path: A GGUF file, or any of those that a large one was split into (``NAME-00001-of-00003.gguf``).

    Raises:
        ModelError: A file is missing or not well-formed, or they are not parts of one model.
    """
    files = [GgufFile(part) for part in parts_of(path)]
    where: dict[str, GgufFile] = {}
    for i, file in enumerate(files):
        count, number = file.told.get("split.count", 1) or 1, file.told.get("split.no", 0)
        if (count, number) != (len(files), i):
            raise ModelError(
                f"{file.path} says that it is part {shown(number)} (from 0) of {shown(count)}, "
                f"but by its name it is part {i} of {len(files)}."
            )
        for name in file:
            if name in where:
                raise ModelError(f"Both {where[name].path} and {file.path} hold the tensor {shown(name)}.")
            where[name] = file
    return files[0], where


def parts_of(path: Path) -> list[Path]:
    """The files that a split model's file belongs together with, itself included; itself alone where it is whole."""
    found = _SHARD.fullmatch(path.name)
    if found is None or not 1 <= int(found[2]) <= int(found[3]):
        return [path]
    return [path.with_name(f"{found[1]}-{i:05}-of-{found[3]}.gguf") for i in range(1, int(found[3]) + 1)]


@cache
def block_of(kind: str) -> tuple[int, int]:
    """How many elements a block of a type has, and how many bytes.

    Raises:
        KeyError: There is no such type.
    """
    import gguf

    elements, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    return int(elements), int(size)


class _Header:
    """Everything before the data.

    Args:
        data: The file's bytes.
        path: The file, for errors.

    Attributes:
        told: The values by their keys.
        entries: The tensors by their names.
    """

    def __init__(self, data: NDArray[np.uint8], path: Path) -> None:
        self._path = path
        self._size = len(data)
        self._view = data.data[:_LARGEST_HEADER]
        self._at = 0
        self._elements = 0
        if bytes(self._view[:4]) != b"GGUF":
            raise ModelError(f"{path} is not a GGUF file: it does not begin with 'GGUF'.")
        self._at = 4
        self._check_version(self._number("<I"))
        n_tensors, n_values = self._number("<Q"), self._number("<Q")
        for n, most, what in ((n_tensors, _MOST_TENSORS, "tensors"), (n_values, _MOST_VALUES, "values")):
            if n > most:
                raise self._bad(f"it claims {n} {what}, more than the {most} accepted")
        self.told: dict[str, Any] = {}
        for _ in range(n_values):
            key = self._text(_LONGEST_NAME)
            if key in self.told:
                raise self._bad(f"the value {shown(key)} is there twice")
            self.told[key] = self._value(key, self._number("<I"))
        infos: dict[str, tuple[tuple[int, ...], int, int]] = {}
        for _ in range(n_tensors):
            name = self._text(_LONGEST_NAME)
            if name in infos:
                raise self._bad(f"the tensor {shown(name)} is there twice")
            infos[name] = self._info(name)
        alignment = self.told.get("general.alignment", 32)
        if type(alignment) is not int or not 1 <= alignment <= _LARGEST_ALIGNMENT or alignment & (alignment - 1):
            raise self._bad(f"its alignment is {shown(alignment)}, no power of 2 up to {_LARGEST_ALIGNMENT}")
        start = -(-self._at // alignment) * alignment
        self.entries = {name: self._entry(name, *info, start, alignment) for name, info in infos.items()}
        self._check_apart()

    def _check_version(self, version: int) -> None:
        if version in (2, 3):
            return
        if version and not version & 0xFFFF:
            raise self._bad("it is big-endian, which no processor that Kogata runs on reads")
        raise self._bad(f"it has version {version}; 2 and 3 are accepted")

    def _info(self, name: str) -> tuple[tuple[int, ...], int, int]:
        """Sizes, type and offset of a tensor."""
        n_dimensions = self._number("<I")
        if n_dimensions > _MOST_DIMENSIONS:
            raise self._bad(f"{shown(name)} has {n_dimensions} dimensions, more than the {_MOST_DIMENSIONS} accepted")
        sizes = [self._number("<Q") for _ in range(n_dimensions)]
        if math.prod(sizes) > _LARGEST_NUMBER or max(sizes, default=1) > _LARGEST_NUMBER or 0 in sizes:
            raise self._bad(f"{shown(name)} has sizes that are out of range: {shown(sizes)}")
        return tuple(reversed(sizes)), self._number("<I"), self._number("<Q")

    def _entry(
        self, name: str, shape: tuple[int, ...], number: int, offset: int, data: int, alignment: int
    ) -> Entry:  # fmt: skip
        import gguf

        if number == _I2_S:
            raise ModelError(
                f"{self._path} holds {shown(name)} as I2_S, whose bytes lie differently depending on the machine that "
                "wrote them, so that nobody else can read them.",
                hint="Take the model's safetensors (microsoft/bitnet-b1.58-2B-4T), or a GGUF file of type TQ1_0 or "
                "TQ2_0, which hold the same weights.",
            )
        try:
            kind = gguf.GGMLQuantizationType(number).name
            elements, block_bytes = block_of(kind)
        except (ValueError, KeyError):
            raise self._bad(f"{shown(name)} has the unknown type {number}") from None
        columns = shape[-1] if shape else 1
        if columns % elements:
            raise self._bad(f"{shown(name)} has rows of {columns}, but {kind} comes in blocks of {elements}")
        if offset % alignment:
            raise self._bad(f"{shown(name)} begins at byte {offset} of the data, no multiple of {alignment}")
        row_bytes = columns // elements * block_bytes
        start = data + offset
        end = start + math.prod(shape) // columns * row_bytes
        if end > self._size:
            raise self._bad(f"it is cut off: {shown(name)} ends at byte {end}, but the file at {self._size}")
        return Entry(kind, shape, row_bytes, start, end)

    def _check_apart(self) -> None:
        done, before = 0, ""
        for name, entry in sorted(self.entries.items(), key=lambda item: item[1].start):
            if entry.start < done:
                raise self._bad(f"the tensors {shown(before)} and {shown(name)} overlap")
            done, before = entry.end, name

    def _value(self, key: str, kind: int) -> Any:
        if kind in _NUMBERS:
            return self._number(_NUMBERS[kind])
        if kind == _STRING:
            return self._text(_LONGEST_TEXT)
        if kind != _ARRAY:
            raise self._bad(f"the value {shown(key)} has the unknown type {kind}")
        kind, n = self._number("<I"), self._number("<Q")
        self._elements += n
        if self._elements > _MOST_ELEMENTS:
            raise self._bad(f"with {shown(key)} its lists have {self._elements} elements, more than accepted")
        if kind in _NUMBERS:
            dtype = np.dtype(_NUMBERS[kind])
            return np.frombuffer(self._take(n * dtype.itemsize), dtype).tolist()
        if kind == _STRING:
            return [self._text(_LONGEST_TEXT) for _ in range(n)]
        raise self._bad(f"the value {shown(key)} is a list of the type {kind}, which is not accepted in lists")

    def _number(self, layout: str) -> Any:
        return struct.unpack(layout, self._take(struct.calcsize(layout)))[0]

    def _text(self, longest: int) -> str:
        length = self._number("<Q")
        if length > longest:
            raise self._bad(f"a text in its header claims {length} bytes, more than the {longest} accepted")
        try:
            return str(self._take(length), "utf-8")
        except UnicodeDecodeError:
            raise self._bad("a text in its header is not UTF-8") from None

    def _take(self, n: int) -> memoryview:
        end = self._at + n
        if end > len(self._view):
            if self._size > _LARGEST_HEADER:
                raise self._bad(f"its header is larger than {_LARGEST_HEADER / 2**20:.0f} MB, which none needs")
            raise self._bad("it is cut off within its header")
        found = self._view[self._at : end]
        self._at = end
        return found

    def _bad(self, reason: str) -> ModelError:
        return ModelError(f"{self._path} is not a usable GGUF file: {reason}.")
