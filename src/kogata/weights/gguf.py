"""Decoders in GGUF files, llama.cpp's format: the tensors under our names, read when they are looked up.

TQ1_0, TQ2_0, Q8_0, Q4_0, F16, BF16 and F32 are taken exactly as they are. All other types are multiplied out, and the
checkpoint says which, since they have to be rounded again for the kernels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kogata.config import DecoderConfig
from kogata.config.decoder_gguf import settings
from kogata.config.decoder_hf import LINEARS
from kogata.config.parameters import shown
from kogata.errors import ModelError
from kogata.text.gguf_vocabulary import tokenizer_json
from kogata.text.hf_text import HfTextTokenizer
from kogata.weights import ternary
from kogata.weights.checkpoint import DecoderCheckpoint
from kogata.weights.gguf_file import GgufFile, block_of, open_gguf
from kogata.weights.identity import digest_of, identity_of
from kogata.weights.safetensors import to_f32
from kogata.weights.tensors import FloatTensor, Q4Tensor, Q8Tensor, TernaryTensor

__all__ = ["load_file"]

_FLOATS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_TERNARY = ("TQ1_0", "TQ2_0")
_CODED = ("Q4_0", "Q8_0")
#: Numbers that are looked over at a time.
_CHUNK = 2**22
#: Rows that tell whether the floats of a BitNet are ternary.
_SAMPLE = 16
_LARGEST_TEMPLATE = 2**20

_LINEARS = {
    "attn.q": "attn_q", "attn.k": "attn_k", "attn.v": "attn_v", "attn.out": "attn_output",
    "ffn.gate": "ffn_gate", "ffn.up": "ffn_up", "ffn.down": "ffn_down",
}  # fmt: skip
_NORMS = {
    "attn.norm": "attn_norm", "attn.q_norm": "attn_q_norm", "attn.k_norm": "attn_k_norm",
    "attn.sub_norm": "attn_sub_norm", "attn.post_norm": "post_attention_norm",
    "ffn.norm": "ffn_norm", "ffn.sub_norm": "ffn_sub_norm", "ffn.post_norm": "post_ffw_norm",
}  # fmt: skip
_WHOLE = {"embed": "token_embd", "norm": "output_norm", "head": "output"}
_FREQUENCIES = "rope_freqs.weight"

#: Tokens that end a turn, which llama.cpp goes by too: headers name one or two of those that a model was trained with.
_ENDS = (
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "<|eom_id|>", "<EOT>",
    "</s>", "<eos>",
)  # fmt: skip
_CONTROL = 3


def load_file(path: Path, name: str | None = None) -> tuple[DecoderCheckpoint, str]:
    """The decoder in a GGUF file.

    Args:
        path: The file, or any of those that it was split into.
        name: What to call it; the file's name if not given.

    Returns:
        The checkpoint, and the ``tokenizer.json`` of its vocabulary.

    Raises:
        ModelError: Something is missing, damaged, contradictory or not supported.
    """
    file, where = open_gguf(path)
    try:
        return _load(file, where, name or path.name)
    except ModelError as error:
        if str(path.parent) in str(error):
            raise
        raise ModelError(f"{path}: {error}", hint=error.hint) from None


def _load(file: GgufFile, where: Mapping[str, GgufFile], name: str) -> tuple[DecoderCheckpoint, str]:
    tensors = GgufTensors(where, file.told, file.path)
    config = tensors.config
    content = tokenizer_json(file.told)
    tokenizer = HfTextTokenizer(content)
    if tokenizer.vocab_size > config.vocab_size:
        raise ModelError(
            f"{file.path} has a vocabulary of {tokenizer.vocab_size} tokens, but weights for {config.vocab_size} only."
        )
    vocabulary = _Vocabulary(file.told)
    template = file.told.get("tokenizer.chat_template")
    if template is not None and (not isinstance(template, str) or len(template) > _LARGEST_TEMPLATE):
        raise ModelError(f"{file.path} has a chat template that is no text of up to 1 MB.")
    files = {str(each.path): each for each in where.values()}.values()
    facts = {
        "weights": [digest_of(each.path, each.data, partial(tensors.inspect, each)) for each in files],
        "config": config.to_dict(),
    }
    checkpoint = DecoderCheckpoint(
        name=name,
        config=config,
        tensors=tensors,
        tokenizer=tokenizer,
        chat_template=template,
        bos_token=vocabulary.text(vocabulary.bos),
        eos_token=vocabulary.text(vocabulary.eos),
        bos_id=vocabulary.bos if vocabulary.begins else None,
        stop_ids=vocabulary.ends,
        identity=identity_of(facts),
        requantised=tensors.requantised,
    )
    return checkpoint, content


class GgufTensors(Mapping[str, "FloatTensor | TernaryTensor | Q4Tensor | Q8Tensor"]):
    """Kogata's tensor names over GGUF files, each read when it is looked up.

    Args:
        where: Their tensor names -> the file that holds it.
        told: The header's values.
        place: The file, for errors.

    Attributes:
        config: What the model is.
        requantised: Its matrices whose type no kernel reads -> that type.

    Raises:
        ModelError: A tensor is missing, unexpected, or has another type or shape than the header says.
    """

    def __init__(self, where: Mapping[str, GgufFile], told: Mapping[str, Any], place: Path) -> None:
        self._where = where
        self._place = place
        if "token_embd.weight" not in where or len(where["token_embd.weight"].shape("token_embd.weight")) != 2:
            raise ModelError(f"{place} is not a language model: it has no matrix 'token_embd.weight'.")
        self._ternary_floats = str(told.get("general.architecture")).startswith("bitnet")
        found = {ours for ours, theirs in _linears(where) if self._is_ternary(theirs)}
        vocab_size = where["token_embd.weight"].shape("token_embd.weight")[0]
        self.config = DecoderConfig(**settings(told, vocab_size, where, found, self._factors()))
        self._names = {parameter.name: _theirs(parameter.name) for parameter in self.config.parameters()}
        # llama.cpp's converter makes the two halves of a rotated pair neighbours.
        self._interleaved = told.get("general.architecture") == "llama"
        self.requantised: dict[str, str] = {}
        for parameter in self.config.parameters():
            self._check(parameter.name, parameter.shape)
        self._check_unexpected()

    def __getitem__(self, name: str) -> FloatTensor | TernaryTensor | Q4Tensor | Q8Tensor:
        theirs = self._names[name]
        file = self._where[theirs]
        kind, shape = file.kind(theirs), file.shape(theirs)
        rows_NB = file[theirs]
        part = name.split(".", 2)[-1].rsplit(".", 1)[0]
        if self._interleaved and part in ("attn.q", "attn.k"):
            rows_NB = self._halves(rows_NB.reshape(shape[0], -1))
        if kind in _FLOATS:
            stored = rows_NB.view(_FLOATS[kind]).reshape(shape)
            tensor = ternary.detected(stored, kind) if len(shape) == 2 else None
            if tensor is None and self.config.is_quantised(name.removesuffix(".weight")) and len(shape) == 2:
                raise ModelError(f"The tensor {theirs!r} in {file.path} is ternary in some rows only.")
            return self._scaled(theirs, to_f32(stored, kind) if tensor is None else tensor)
        blocks_NGB = rows_NB.reshape(shape[0], -1, block_of(kind)[1])
        if kind in _TERNARY:
            return self._scaled(theirs, ternary.ggml_blocks(blocks_NGB))
        if kind == "Q4_0":
            return self._scaled(theirs, Q4Tensor(blocks_NGB))
        if kind == "Q8_0":
            return self._scaled(theirs, Q8Tensor(blocks_NGB))
        return self._scaled(theirs, _multiplied_out(rows_NB, kind, f"The tensor {theirs!r} in {file.path}"))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def inspect(self, file: GgufFile) -> None:
        """Refuse what would silently spoil every result: numbers that are not finite, and codes that do not exist.

        Types that are multiplied out are looked over when they are.
        """
        for theirs in self._names.values():
            if self._where[theirs] is not file:
                continue
            kind, rows_NB = file.kind(theirs), file[theirs]
            if kind in _FLOATS:
                numbers, dtype = rows_NB.reshape(-1).view(_FLOATS[kind]), kind
            elif kind in _TERNARY or kind in _CODED:
                blocks_NGB = rows_NB.reshape(len(rows_NB), -1, block_of(kind)[1])
                if kind in _TERNARY and not ternary.ggml_codes_are_ternary(blocks_NGB):
                    raise ModelError(f"The tensor {theirs!r} in {file.path} holds codes other than -1, 0 and 1.")
                scales = blocks_NGB[:, :, -2:] if kind in _TERNARY else blocks_NGB[:, :, :2]
                numbers, dtype = np.ascontiguousarray(scales).view("<f2").reshape(-1), "F16"
            else:
                continue
            for start in range(0, len(numbers), _CHUNK):
                if not np.isfinite(to_f32(numbers[start : start + _CHUNK], dtype)).all():
                    raise ModelError(f"The tensor {theirs!r} in {file.path} holds numbers that are not finite.")

    def _halves(self, rows_NB: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The rows of each head in our order: the first elements of all pairs, then the second."""
        n, size = rows_NB.shape
        pairs = rows_NB.reshape(-1, self.config.d_head // 2, 2, size)
        return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(n, size)

    def _scaled(
        self, theirs: str, tensor: FloatTensor | TernaryTensor | Q4Tensor | Q8Tensor
    ) -> FloatTensor | TernaryTensor | Q4Tensor | Q8Tensor:
        """The tensor times its ``.scale``, where it has one."""
        beside = theirs.removesuffix("weight") + "scale"
        if not theirs.endswith(".weight") or beside not in self._where:
            return tensor
        scale = self._floats(beside)
        if scale.size != 1 or not np.isfinite(scale).all():
            raise ModelError(f"The tensor {beside!r} in {self._place} is not one number.")
        if isinstance(tensor, TernaryTensor):
            return TernaryTensor(tensor.shape, tensor.scales_NG * scale.reshape(()), tensor.unpack)
        dense = tensor if isinstance(tensor, np.ndarray) else tensor.dequantise()
        return np.asarray(dense * scale.reshape(()), np.float32)

    def _floats(self, theirs: str) -> FloatTensor:
        file = self._where[theirs]
        kind = file.kind(theirs)
        if kind not in _FLOATS:
            raise ModelError(f"The tensor {theirs!r} in {file.path} is stored as {kind}, not {' or '.join(_FLOATS)}.")
        return to_f32(file[theirs].reshape(-1).view(_FLOATS[kind]), kind)

    def _factors(self) -> tuple[float, ...]:
        if _FREQUENCIES not in self._where:
            return ()
        factors = tuple(self._floats(_FREQUENCIES).tolist())
        return () if set(factors) == {1.0} else factors

    def _is_ternary(self, theirs: str) -> bool:
        file = self._where[theirs]
        kind, shape = file.kind(theirs), file.shape(theirs)
        if kind not in _FLOATS or not self._ternary_floats or len(shape) != 2:
            return kind in _TERNARY
        rows = np.linspace(0, shape[0] - 1, min(shape[0], _SAMPLE)).astype(int)
        return ternary.detected(file[theirs][rows].view(_FLOATS[kind]), kind) is not None

    def _check(self, name: str, shape: tuple[int, ...]) -> None:
        theirs = self._names[name]
        if theirs not in self._where:
            raise ModelError(
                f"{self._place} lacks the tensor {theirs!r}, which its header ({self.config.architecture}, "
                f"{self.config.n_layers} layers) calls for."
            )
        file = self._where[theirs]
        if file.shape(theirs) != shape:
            raise ModelError(
                f"The tensor {theirs!r} in {file.path} has shape {list(file.shape(theirs))}, "
                f"but its header makes it {list(shape)}."
            )
        kind = file.kind(theirs)
        if len(shape) == 1:
            self._floats(theirs)
        elif kind not in (*_FLOATS, *_TERNARY, *_CODED):
            if not _can_multiply_out(kind):
                raise ModelError(f"The tensor {theirs!r} in {file.path} is stored as {kind}, which cannot be read.")
            self.requantised[name] = kind

    def _check_unexpected(self) -> None:
        used = set(self._names.values())
        for name in self._where:
            known = name in used or f"{name.removesuffix('scale')}weight" in used or name.endswith(".attn_rot_embd")
            if name.startswith("blk.") and not known:
                raise ModelError(f"{self._place} holds the tensor {shown(name)}, which its header does not call for.")


class _Vocabulary:
    """The tokens that begin and end texts.

    Attributes:
        bos, eos: Their ids, or None.
        begins: Whether every text begins with the first of them.
        ends: All tokens that end a text.
    """

    def __init__(self, told: Mapping[str, Any]) -> None:
        self._tokens: list[str] = told["tokenizer.ggml.tokens"]
        types: list[int] = told.get("tokenizer.ggml.token_type", [])
        sentencepiece = told["tokenizer.ggml.model"] == "llama"
        self._told = told
        # What llama.cpp assumes where the header is silent.
        self.bos = self._id("bos", 1 if sentencepiece else None)
        self.eos = self._id("eos", 2 if sentencepiece else None)
        assumed = sentencepiece or told.get("tokenizer.ggml.pre") in ("llama-bpe", "llama3", "llama-v3", "falcon3")
        begins = told.get("tokenizer.ggml.add_bos_token", assumed)
        self.begins = bool(begins) and self.bos is not None
        named = [self.eos, self._id("eot"), self._id("eom")]
        controls = [place for place, kind in enumerate(types) if kind == _CONTROL and self._tokens[place] in _ENDS]
        self.ends = tuple(dict.fromkeys(place for place in (*named, *controls) if place is not None))

    def text(self, place: int | None) -> str:
        return "" if place is None else self._tokens[place]

    def _id(self, name: str, assumed: int | None = None) -> int | None:
        place = self._told.get(f"tokenizer.ggml.{name}_token_id")
        if place is None:
            return assumed if assumed is not None and assumed < len(self._tokens) else None
        if type(place) is not int or not 0 <= place < len(self._tokens):
            raise ModelError(f"The file's {name} token is {shown(place)}, but its last is {len(self._tokens) - 1}.")
        return place


def _theirs(name: str) -> str:
    stem, kind = name.rsplit(".", 1)
    if stem in _WHOLE:
        return f"{_WHOLE[stem]}.{kind}"
    _, layer, part = stem.split(".", 2)
    return f"blk.{layer}.{(_LINEARS | _NORMS)[part]}.{kind}"


def _linears(where: Mapping[str, GgufFile]) -> Iterator[tuple[str, str]]:
    """Our names and theirs of the linears that are there."""
    if "output.weight" in where:
        yield "head", "output.weight"
    for theirs in where:
        parts = theirs.split(".")
        if len(parts) == 4 and parts[0] == "blk" and parts[3] == "weight":
            for ours in LINEARS:
                if _LINEARS[ours] == parts[2]:
                    yield f"layers.{parts[1]}.{ours}", theirs


def _can_multiply_out(kind: str) -> bool:
    import gguf

    return gguf.GGMLQuantizationType[kind] in gguf.quants._type_traits


def _multiplied_out(rows_NB: NDArray[np.uint8], kind: str, what: str) -> FloatTensor:
    """float32 [N, K] of a type that the gguf package knows."""
    import gguf

    with np.errstate(all="ignore"):  # what is not finite is refused below
        found = gguf.quants.dequantize(np.ascontiguousarray(rows_NB), gguf.GGMLQuantizationType[kind])
    values = np.ascontiguousarray(found, np.float32)
    if not np.isfinite(values).all():
        raise ModelError(f"{what} holds numbers that are not finite.")
    return values
