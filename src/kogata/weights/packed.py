"""A decoder as it runs: its matrices packed for the kernels, and a directory that holds exactly that.

Such a directory is written once (`kogata convert`) and then mapped: nothing is unpacked or converted when it is opened.
``kogata.json`` holds the config and what each matrix is, ``model.safetensors`` their bytes, ``tokenizer.json`` is the
model's own. The tiling is the same for every instruction set, so a directory may be carried to another machine.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from kogata.config import DecoderConfig
from kogata.errors import BadInput, ModelError
from kogata.ops import dispatch
from kogata.ops.linear import Kind, PackedLinear, pack, packed_sizes
from kogata.text.hf_text import HfTextTokenizer
from kogata.text.tokenizer import TextTokenizer
from kogata.weights.checkpoint import DecoderCheckpoint
from kogata.weights.directory import file_digest, read_tokenizer
from kogata.weights.files import read_object, unreadable
from kogata.weights.identity import digest_of, identity_of
from kogata.weights.safetensors import DTYPES, SafetensorsFile, write_safetensors
from kogata.weights.tensors import Q4Tensor, Q8Tensor, TernaryTensor

if TYPE_CHECKING:
    from kogata.weights.download import Progress

__all__ = ["FORMAT", "PackedDecoder", "Quantise", "load_packed", "pack_decoder", "save_packed"]

Floats = NDArray[np.float32]
Weight = Floats | TernaryTensor | Q4Tensor | Q8Tensor
Quantise = Literal["auto", "f32", "bf16", "int8", "int4"]
Ternary = Literal["auto", "ternary", "trits"]

FORMAT = 1
NAME = "kogata.json"
GROUP = 32
"""Columns that share a scale in int4."""

_PARTS = ("data", "scales", "sums", "code_sums", "bias")
_TYPES = {"data": "U8", "scales": "F32", "sums": "F32", "code_sums": "I32", "bias": "F32"}
#: Linears that read the same input and become one product, where they are alike.
_FUSED = {"attn.qkv": ("attn.q", "attn.k", "attn.v"), "ffn.gate_up": ("ffn.gate", "ffn.up")}


@dataclass(frozen=True, eq=False)
class PackedDecoder:
    """A model that writes, ready for :class:`kogata.run.decoder.Decoder`.

    Attributes:
        name: How people call it.
        config: Its numbers.
        linears: ``embed``, ``head`` where it is not tied, and for each layer ``attn.qkv``, ``attn.out``,
            ``ffn.gate_up`` and ``ffn.down``; ``attn.q``, ``ffn.gate`` and so on where those are not alike.
        vectors: Gains of norms by the names of ``config.parameters()``, float32.
        tokenizer, chat_template, bos_token, eos_token, bos_id, stop_ids: As of :class:`DecoderCheckpoint`.
        identity: Hexadecimal hash of everything that decides what is computed, how weights are stored included.
        notes: Sentences about what packing changed, for people.
    """

    name: str
    config: DecoderConfig
    linears: Mapping[str, PackedLinear]
    vectors: Mapping[str, Floats]
    tokenizer: TextTokenizer
    chat_template: str | None
    bos_token: str
    eos_token: str
    bos_id: int | None
    stop_ids: tuple[int, ...]
    identity: str
    notes: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of all packed weights."""
        return sum(linear.nbytes for linear in self.linears.values()) + sum(v.nbytes for v in self.vectors.values())


def pack_decoder(
    checkpoint: DecoderCheckpoint, *, quantise: Quantise = "auto", head: Quantise = "auto", ternary: Ternary = "auto",
    progress: Progress = lambda done, total: None,
) -> PackedDecoder:  # fmt: skip
    """Packs a checkpoint.

    Args:
        checkpoint: What to pack.
        quantise: Storage of matrices that are not ternary: "f32", "bf16", "int8" (one scale a row), "int4" (groups of
            32), or "auto": what the file holds at 8 or 4 bits in groups of 32 stays as it is (also where that is the
            storage asked for), what it holds at few bits in another layout becomes int8, and all else bf16.
        head: Storage of the head and the embedding. "auto" is as ``quantise`` says, but int8 in a quantised model,
            where those two would outweigh all the rest.
        ternary: Storage of ternary matrices: two bits ("ternary") or five to a byte ("trits"); "auto" takes what is
            faster on this instruction set. Results are the same.
        progress: Told how many weights are packed, of how many.

    Raises:
        BadInput: An argument is none of these.
    """
    for name, value, accepted in (
        ("quantise", quantise, ("auto", "f32", "bf16", "int8", "int4")),
        ("head", head, ("auto", "f32", "bf16", "int8", "int4")),
        ("ternary", ternary, ("auto", "ternary", "trits")),
    ):
        if value not in accepted:
            raise BadInput(f"{name} is {value!r}; accepted: {', '.join(accepted)}.")
    packer = _Packer(checkpoint, quantise, head, ternary, progress)
    facts = {
        "checkpoint": checkpoint.identity,
        "linears": {name: [linear.kind, linear.group] for name, linear in packer.linears.items()},
    }
    return PackedDecoder(
        checkpoint.name, checkpoint.config, packer.linears, packer.vectors, checkpoint.tokenizer,
        checkpoint.chat_template, checkpoint.bos_token, checkpoint.eos_token, checkpoint.bos_id, checkpoint.stop_ids,
        identity_of(facts), packer.notes(),
    )  # fmt: skip


@dataclass
class _Packer:
    checkpoint: DecoderCheckpoint
    quantise: Quantise
    head: Quantise
    ternary: Ternary
    progress: Progress
    linears: dict[str, PackedLinear] = field(default_factory=dict)
    vectors: dict[str, Floats] = field(default_factory=dict)
    rounded: set[Kind] = field(default_factory=set)

    def __post_init__(self) -> None:
        config, tensors = self.checkpoint.config, self.checkpoint.tensors
        self.done, self.total = 0, sum(math.prod(one.shape) for one in config.parameters() if len(one.shape) == 2)
        ends = self.quantise if self.head == "auto" else self.head
        otherwise: Kind = "int8" if config.quantised and ends == "auto" else "bf16"
        auto: Kind = "trits" if dispatch.table().isa.startswith("avx512") else "ternary"
        self.codes: Kind = auto if self.ternary == "auto" else self.ternary
        self.linears["embed"] = self._pack({"embed": tensors["embed.weight"]}, False, ends, otherwise)
        for i in range(config.n_layers):
            self._layer(f"layers.{i}.")
        if not config.tied:
            self.linears["head"] = self._pack({"head": tensors["head.weight"]}, False, ends, otherwise)
        for parameter in config.parameters():
            if len(parameter.shape) == 1 and parameter.name.endswith("norm.weight"):
                self.vectors[parameter.name] = np.ascontiguousarray(tensors[parameter.name], np.float32)

    def _layer(self, layer: str) -> None:
        config, tensors = self.checkpoint.config, self.checkpoint.tensors
        for fused, parts in _FUSED.items():
            names = [layer + part for part in parts]
            bias = config.qkv_bias if fused == "attn.qkv" else config.ffn_bias
            weights = {name: tensors[f"{name}.weight"] for name in names}
            again = self.checkpoint.requantised
            alike = len({(type(w), getattr(w, "group", 0), f"{n}.weight" in again) for n, w in weights.items()}) == 1
            own_norms = config.linear_norms and any(map(config.is_quantised, names))
            if alike and not own_norms:
                self.linears[layer + fused] = self._pack(weights, bias, self.quantise)
            else:
                self.linears |= {name: self._pack({name: w}, bias, self.quantise) for name, w in weights.items()}
        for part, bias in ((f"{layer}attn.out", config.out_bias), (f"{layer}ffn.down", config.ffn_bias)):
            self.linears[part] = self._pack({part: tensors[f"{part}.weight"]}, bias, self.quantise)

    def notes(self) -> tuple[str, ...]:
        """What was rounded again, and to what."""
        layouts, kinds = set(self.checkpoint.requantised.values()), sorted(self.rounded)
        if not layouts:
            return ()
        count = len(self.checkpoint.requantised)
        return (
            f"{count} of its matrices are stored as {' and '.join(sorted(layouts))}, which Kogata has no kernels for: "
            f"they are rounded again, to {' and '.join(kinds)}.",
        )

    def _pack(
        self, weights: Mapping[str, Weight], bias: bool, asked: Quantise, otherwise: Kind = "bf16"
    ) -> PackedLinear:  # fmt: skip
        packed = self._packed(weights, bias, asked, otherwise)
        self.done += packed.n_out * packed.n_in
        self.progress(self.done, self.total)
        return packed

    def _packed(
        self, weights: Mapping[str, Weight], bias: bool, asked: Quantise, otherwise: Kind
    ) -> PackedLinear:  # fmt: skip
        """These matrices, one below the other: coded ones as they are where nothing else is asked for.

        Ternary weights of a model that was not trained with activations at 8 bits get such activations all the same;
        only "f32" multiplies them out.
        """
        names, several = list(weights), list(weights.values())
        biases = [np.asarray(self.checkpoint.tensors[f"{name}.bias"], np.float32) for name in names] if bias else []
        bias_N = np.concatenate(biases) if biases else None
        ternary = [weight for weight in several if isinstance(weight, TernaryTensor)]
        if len(ternary) == len(several) and (asked != "f32" or all(map(self.checkpoint.config.is_quantised, names))):
            stacked = _Stacked(ternary)
            group = 0 if stacked.scales_NG.shape[1] == 1 else stacked.shape[1] // stacked.scales_NG.shape[1]
            step = 20 if self.codes == "trits" else 16
            return pack(stacked, "ternary" if group % step else self.codes, group, bias_N)
        coded = [weight for weight in several if isinstance(weight, Q4Tensor | Q8Tensor)]
        if len(coded) == len(several) and asked in ("auto", coded[0].kind):
            return pack(_Stacked(coded), coded[0].kind, coded[0].group, bias_N)
        again = any(f"{name}.weight" in self.checkpoint.requantised for name in names)
        kind: Kind = asked if asked != "auto" else "int8" if again else otherwise
        if again:
            self.rounded.add(kind)
        matrices = [weight if isinstance(weight, np.ndarray) else weight.dequantise() for weight in several]
        matrix = matrices[0] if len(matrices) == 1 else np.concatenate(matrices)
        return pack(matrix, kind, GROUP if kind == "int4" else 0, bias_N)


class _Stacked:
    """Coded matrices of the same width and group, one below the other."""

    def __init__(self, parts: Sequence[TernaryTensor | Q4Tensor | Q8Tensor]) -> None:
        self._parts = parts
        self.shape = (sum(part.shape[0] for part in parts), parts[0].shape[1])
        self.scales_NG: Floats = np.concatenate([part.scales_NG for part in parts])

    def codes_i8(self) -> NDArray[np.int8]:
        return np.concatenate([part.codes_i8() for part in self._parts])


# --- the directory


def save_packed(model: PackedDecoder, tokenizer_json: str, directory: Path) -> None:
    """Writes a packed model's directory: whole, or not at all.

    Args:
        model: What to write.
        tokenizer_json: Its tokenizer's file.
        directory: Must not exist.

    Raises:
        BadInput: Something of this name is there already.
        ModelError: It cannot be written.
    """
    directory = Path(os.path.abspath(directory))
    if os.path.lexists(directory):
        raise BadInput(f"{directory} is there already; name a folder that is not.")
    half = directory.with_name(f".{directory.name}-{secrets.token_hex(4)}.part")
    arrays: dict[str, NDArray[Any]] = {}
    matrices = {}
    for name, linear in model.linears.items():
        matrices[name] = {"kind": linear.kind, "n_out": linear.n_out, "n_in": linear.n_in, "group": linear.group}
        stored = (linear.data_B, linear.scales, linear.sums_N, linear.code_sums_N, linear.bias_N)
        arrays |= {f"{name}.{part}": a for part, a in zip(_PARTS, stored, strict=True) if a is not None and a.size}
    arrays |= model.vectors
    told = {
        "format": FORMAT, "name": model.name, "config": model.config.to_dict(), "matrices": matrices,
        "bos_token": model.bos_token, "eos_token": model.eos_token, "bos_id": model.bos_id,
        "stop_ids": list(model.stop_ids), "chat_template": model.chat_template, "identity": model.identity,
    }  # fmt: skip
    try:
        half.mkdir(parents=True)
        write_safetensors(half / "model.safetensors", arrays)
        for file_name, text in (("tokenizer.json", tokenizer_json), (NAME, json.dumps(told, indent=1) + "\n")):
            with (half / file_name).open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        half.rename(directory)
    except OSError as error:
        raise ModelError(f"{directory} cannot be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(half, ignore_errors=True)


def load_packed(directory: Path) -> PackedDecoder:
    """The model in a directory that :func:`save_packed` wrote; its matrices stay in the mapped file.

    Raises:
        ModelError: Something is missing, damaged or contradictory, or a later version wrote it.
    """
    try:
        return _load(directory)
    except OSError as error:
        raise unreadable(directory, error) from None


def _load(directory: Path) -> PackedDecoder:
    path = directory / NAME
    told = read_object(path)
    if told.get("format") != FORMAT:
        raise ModelError(
            f"{path} has format {str(told.get('format'))[:40]}; this version reads {FORMAT}.",
            hint="Convert the model again, or use the version of Kogata that wrote it.",
        )
    config = DecoderConfig.from_dict(told.get("config"))
    file = SafetensorsFile(directory / "model.safetensors")
    matrices = told.get("matrices")
    if not isinstance(matrices, dict):
        raise ModelError(f"{path} lacks 'matrices'.")
    linears = {name: _linear(file, name, matrices.get(name), config, path) for name in _names(matrices, config, path)}
    vectors: dict[str, Floats] = {}
    for parameter in config.parameters():
        if len(parameter.shape) == 1 and parameter.name.endswith("norm.weight"):
            vectors[parameter.name] = _array(file, parameter.name, "F32", parameter.shape)
    digest = digest_of(file.path, file.data, lambda: _inspect(linears, vectors, file.path))
    strings = [told.get(name) for name in ("name", "bos_token", "eos_token", "identity")]
    template, bos, stops = told.get("chat_template"), told.get("bos_id"), told.get("stop_ids")
    ids = [*(stops if isinstance(stops, list) else [None]), *([] if bos is None else [bos])]
    if not all(isinstance(text, str) for text in strings) or not isinstance(template, str | None):
        raise ModelError(f"{path} lacks a name, a token or an identity that is text.")
    if not all(type(one) is int and 0 <= one < config.vocab_size for one in ids):
        raise ModelError(f"{path} names tokens that are not among the model's {config.vocab_size}.")
    facts = {"identity": told["identity"], "weights": digest, "tokenizer": file_digest(directory / "tokenizer.json")}
    return PackedDecoder(
        told["name"], config, linears, vectors, HfTextTokenizer(read_tokenizer(directory)), template,
        told["bos_token"], told["eos_token"], bos, tuple(stops or ()), identity_of(facts),
    )  # fmt: skip


def _names(matrices: Mapping[str, Any], config: DecoderConfig, path: Path) -> list[str]:
    """The matrices that there must be."""
    names = ["embed", *([] if config.tied else ["head"])]
    for i in range(config.n_layers):
        names += [f"layers.{i}.attn.out", f"layers.{i}.ffn.down"]
        for fused, parts in _FUSED.items():
            whole = f"layers.{i}.{fused}"
            names += [whole] if whole in matrices else [f"layers.{i}.{part}" for part in parts]
    if set(names) != set(matrices):
        odd = sorted(set(names) ^ set(matrices))[0]
        raise ModelError(f"{path} does not fit its own config: the matrix {odd!r} is missing or not called for.")
    return names


def _linear(file: SafetensorsFile, name: str, told: Any, config: DecoderConfig, path: Path) -> PackedLinear:
    try:
        kind, group = told["kind"], told["group"]
        n_out, n_in = told["n_out"], told["n_in"]
        if not all(type(number) is int for number in (group, n_out, n_in)) or (n_out, n_in) != _shape(name, config):
            raise ValueError(f"it is [{n_out}, {n_in}], but the config makes it {list(_shape(name, config))}")
        sizes = packed_sizes(kind, n_out, n_in, group)
    except (TypeError, KeyError, ValueError) as error:
        raise ModelError(f"{path} describes the matrix {name!r} wrongly: {str(error)[:200]}.") from None
    part = name.rsplit(".", 1)[-1]
    attention = part in ("qkv", "q", "k", "v")
    bias = config.qkv_bias if attention else config.out_bias if part == "out" else config.ffn_bias
    wanted = {**dict(zip(_PARTS, sizes, strict=False)), "bias": n_out if bias and "layers" in name else 0}
    empty = {part: np.empty(0, DTYPES[_TYPES[part]]) for part in _PARTS}
    arrays = {
        part: _array(file, f"{name}.{part}", _TYPES[part], (size,)) if size else empty[part]
        for part, size in wanted.items()
    }
    data_B, scales, sums_N, code_sums_N, bias_N = arrays.values()
    return PackedLinear(kind, n_out, n_in, group, data_B, scales, sums_N, code_sums_N, bias_N if bias_N.size else None)


def _shape(name: str, config: DecoderConfig) -> tuple[int, int]:
    heads, kv_heads = config.n_heads * config.d_head, config.n_kv_heads * config.d_head
    d = config.d_model
    return {
        "embed": (config.vocab_size, d), "head": (config.vocab_size, d), "qkv": (heads + 2 * kv_heads, d),
        "q": (heads, d), "k": (kv_heads, d), "v": (kv_heads, d), "out": (d, heads), "gate_up": (2 * config.d_ff, d),
        "gate": (config.d_ff, d), "up": (config.d_ff, d), "down": (d, config.d_ff),
    }[name.rsplit(".", 1)[-1]]  # fmt: skip


def _array(file: SafetensorsFile, name: str, dtype: str, shape: tuple[int, ...]) -> Any:
    if name not in file:
        raise ModelError(f"{file.path} lacks {name!r}.")
    if (file.dtype(name), file.shape(name)) != (dtype, shape):
        raise ModelError(
            f"{file.path}: {name!r} is {file.dtype(name)} {list(file.shape(name))}; {dtype} {list(shape)} is needed."
        )
    return file[name]


def _inspect(linears: Mapping[str, PackedLinear], vectors: Mapping[str, Floats], path: Path) -> None:
    """Refuse what would silently spoil every result."""
    floats = dict(vectors)
    for name, linear in linears.items():
        floats[name] = linear.scales
        if linear.bias_N is not None:
            floats[f"{name}.bias"] = linear.bias_N
        if linear.kind == "trits" and (linear.data_B > 242).any():
            raise ModelError(f"{path} is damaged: {name!r} has bytes that are not five ternary codes.")
    for name, array in floats.items():
        if not np.isfinite(array).all():
            raise ModelError(f"{path} is damaged: {name!r} holds numbers that are not finite.")
