"""Decoders as Hugging Face lays them out in a directory.

Read are ``config.json``, ``generation_config.json``, ``model.safetensors`` (or its shards), ``tokenizer.json``,
``tokenizer_config.json`` and ``chat_template.jinja``. What Kogata would compute differently is refused by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from kogata.config import DecoderConfig, Parameter
from kogata.config.decoder_hf import Quantisation, quantisation
from kogata.config.parameters import shown
from kogata.errors import ModelError
from kogata.text.hf_text import HfTextTokenizer
from kogata.text.tokenizer import TextTokenizer
from kogata.weights import ternary
from kogata.weights.checkpoint import DecoderCheckpoint
from kogata.weights.directory import (
    file_digest,
    open_weights,
    optional_object,
    read_config,
    read_tokenizer,
    weight_digests,
)
from kogata.weights.files import read_text, unreadable
from kogata.weights.hf_decoder_names import decoder_names, stored_head
from kogata.weights.identity import identity_of
from kogata.weights.safetensors import SafetensorsFile
from kogata.weights.tensors import FloatTensor, TernaryTensor

_LARGEST_TEMPLATE = 2**20
_MOST_STOP_IDS = 1_000
_POST_PROCESSOR = re.compile(r'"post_processor"\s*:\s*')


def load_directory(directory: Path, name: str | None = None) -> DecoderCheckpoint:
    """The decoder in a directory.

    Args:
        directory: Where ``config.json`` lies.
        name: What to call it (its hub id); the directory's name if not given.

    Raises:
        ModelError: Something is missing, damaged, contradictory or not supported.
    """
    try:
        return _load(directory, name or directory.resolve().name)
    except OSError as error:
        raise unreadable(directory, error) from None


def _load(directory: Path, name: str) -> DecoderCheckpoint:
    stored = read_config(directory)
    config, layout = DecoderConfig.from_hf(stored), quantisation(stored)
    where = open_weights(directory)
    if config.tied and _has_another_head(where, directory):
        config = replace(config, tied=False)
    tensors = DecoderTensors(where, config, layout, directory)
    content = read_tokenizer(directory)
    tokenizer = _text_tokenizer(directory, content, config)
    told = optional_object(directory, "tokenizer_config.json")
    facts = {
        "weights": weight_digests(where, tensors.inspect),
        "layout": asdict(layout) if layout else None,
        "tokenizer": file_digest(directory / "tokenizer.json"),
        "config": config.to_dict(),
    }
    eos = _token(told, "eos_token")
    return DecoderCheckpoint(
        name=name,
        config=config,
        tensors=tensors,
        tokenizer=tokenizer,
        chat_template=_chat_template(directory, told),
        bos_token=_token(told, "bos_token"),
        eos_token=eos,
        bos_id=_bos_id(content, config.vocab_size),
        stop_ids=_stop_ids(directory, stored, tokenizer.id_of(eos) if eos else None, config.vocab_size),
        identity=identity_of(facts),
    )


class DecoderTensors(Mapping[str, "FloatTensor | TernaryTensor"]):
    """Kogata's tensor names over safetensors files, each read when it is looked up.

    Args:
        where: Their tensor names -> the file that holds it.
        config: Decides which tensors there must be and their shapes.
        layout: How quantised linears are stored, where there are any.
        place: Where the files lie, for errors.

    Raises:
        ModelError: A tensor is missing, unexpected, or has another type or shape than the config says.
    """

    def __init__(
        self, where: Mapping[str, SafetensorsFile], config: DecoderConfig, layout: Quantisation | None, place: Path
    ) -> None:
        self._where = where
        self._config = config
        self._layout = layout
        self._names = decoder_names(where, config, place)
        self._scales: dict[str, float] = {}
        for parameter in config.parameters():
            if layout and parameter.lowest_precision == "ternary":
                self._check_quantised(parameter, layout)
            else:
                where[self._names[parameter.name]].check_float(self._names[parameter.name])
                self._check_shape(parameter.name, parameter.shape)

    def __getitem__(self, name: str) -> FloatTensor | TernaryTensor:
        theirs = self._names[name]
        file = self._where[theirs]
        if self._layout and self._config.is_quantised(name.removesuffix(".weight")):
            return self._quantised(name, self._layout)
        if len(file.shape(theirs)) == 2:
            found = ternary.detected(file[theirs], file.dtype(theirs))
            return file.f32(theirs) if found is None else found
        # Gemma stores its norms' distance from 1.
        if self._config.architecture == "gemma3_text" and theirs.endswith("norm.weight") and ".rms_" not in theirs:
            return file.f32(theirs) + np.float32(1.0)
        return file.f32(theirs)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def inspect(self, file: SafetensorsFile) -> None:
        """Refuse what would silently spoil every result: numbers that are not finite, and codes that do not exist."""
        for theirs in self._names.values():
            if self._where[theirs] is not file:
                continue
            if file.dtype(theirs) != "U8":
                file.check_finite(theirs)
            elif not ternary.packed_codes_are_ternary(file[theirs]):
                raise ModelError(f"The tensor {theirs!r} in {file.path} holds codes other than -1, 0 and 1.")

    def _quantised(self, name: str, layout: Quantisation) -> TernaryTensor:
        theirs = self._names[name]
        file = self._where[theirs]
        stored_NK, dtype = file[theirs], file.dtype(theirs)
        if dtype == "U8":
            return ternary.packed(stored_NK, self._scales[name])
        if layout.mode == "offline":
            return ternary.unpacked(stored_NK, dtype, self._scales[name])
        return ternary.binary_master(stored_NK, dtype) if layout.binary else ternary.master(stored_NK, dtype)

    def _check_quantised(self, parameter: Parameter, layout: Quantisation) -> None:
        theirs, (n, k) = self._names[parameter.name], parameter.shape
        file = self._where[theirs]
        if layout.mode == "online":
            file.check_float(theirs)
            self._check_shape(parameter.name, (n, k))
            return
        if file.dtype(theirs) == "U8":
            if n % 4:
                raise ModelError(f"The tensor {theirs!r} in {file.path} packs {n} rows, which are no multiple of 4.")
            self._check_shape(parameter.name, (n // 4, k))
        elif layout.linear_class == "bitlinear":
            raise ModelError(
                f"The tensor {theirs!r} in {file.path} is stored as {file.dtype(theirs)}; "
                "config.json says 'bitlinear', whose weights are packed in U8."
            )
        else:
            file.check_float(theirs)
            self._check_shape(parameter.name, (n, k))
        self._scales[parameter.name] = self._scale(f"{theirs}_scale", layout)

    def _check_shape(self, name: str, wanted: tuple[int, ...]) -> None:
        theirs = self._names[name]
        found = self._where[theirs].shape(theirs)
        if found != wanted:
            raise ModelError(
                f"The tensor {theirs!r} in {self._where[theirs].path} has shape {list(found)}, "
                f"but config.json makes it {list(wanted)}."
            )

    def _scale(self, theirs: str, layout: Quantisation) -> float:
        """What a code is multiplied by: ``weight_scale`` or, for ``bitlinear``, one over it."""
        if theirs not in self._where:
            raise ModelError(f"The quantised model lacks the tensor {theirs!r}.")
        file = self._where[theirs]
        stored = file.f32(theirs).reshape(-1)
        if len(stored) != 1 or not np.isfinite(stored[0]) or stored[0] <= 0:
            raise ModelError(f"The tensor {theirs!r} in {file.path} is not one number above 0.")
        return 1.0 / float(stored[0]) if layout.linear_class == "bitlinear" else float(stored[0])


def _has_another_head(where: Mapping[str, SafetensorsFile], place: Path) -> bool:
    """Whether a head is stored that is not the embedding: then the two are not tied, whatever the config says."""
    names = stored_head(where, place)
    if names is None:
        return False
    embedding, head = ((where[name], name) for name in names)
    kinds = [(file.dtype(name), file.shape(name)) for file, name in (embedding, head)]
    return kinds[0] != kinds[1] or not np.array_equal(embedding[0][embedding[1]], head[0][head[1]])


def _text_tokenizer(directory: Path, content: str, config: DecoderConfig) -> TextTokenizer:
    path = directory / "tokenizer.json"
    try:
        tokenizer = HfTextTokenizer(content)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    # Gemma 3's text models have control tokens of the multimodal ones, which no text comes to.
    beyond = set(range(config.vocab_size, tokenizer.vocab_size)) - set(tokenizer.special_ids)
    if beyond:
        raise ModelError(
            f"{path} gives token ids up to {max(beyond)}, but the model has only {config.vocab_size} words."
        )
    return tokenizer


def _chat_template(directory: Path, told: Mapping[str, Any]) -> str | None:
    """The template of chats: a file of its own, or one of the tokenizer's settings, where ``default`` goes first."""
    path = directory / "chat_template.jinja"
    if path.exists():
        return read_text(path, _LARGEST_TEMPLATE)
    found = told.get("chat_template")
    if found is None:  # as processors of multimodal models keep it
        found = optional_object(directory, "chat_template.json").get("chat_template")
    if isinstance(found, list):
        try:
            named = {str(entry["name"]): entry["template"] for entry in found}
        except (TypeError, KeyError):
            raise ModelError("tokenizer_config.json lists a chat template without 'name' and 'template'.") from None
        found = named.get("default", next(iter(named.values()), None))
    if found is not None and not isinstance(found, str):
        raise ModelError("tokenizer_config.json's 'chat_template' is neither text nor a list of named texts.")
    if found is not None and len(found) > _LARGEST_TEMPLATE:
        raise ModelError("The model's chat template is larger than 1 MB, which none needs.")
    return found


def _token(told: Mapping[str, Any], name: str) -> str:
    """The text of a special token, empty where there is none."""
    found = told.get(name)
    if isinstance(found, Mapping):
        found = found.get("content")
    if found is not None and not isinstance(found, str):
        raise ModelError(f"tokenizer_config.json's {name!r} is neither text nor an object with 'content'.")
    return found or ""


def _bos_id(content: str, vocab_size: int) -> int | None:
    """The id that texts begin with: what tokenizer.json's post-processor puts there, which alone decides it."""
    key = _POST_PROCESSOR.search(content)  # a quoted word cannot stand inside a string, so this is the key
    found: Any = json.JSONDecoder().raw_decode(content, key.end())[0] if key else None
    try:
        for step in (found or {}).get("processors") or [found or {}]:
            if step.get("type") == "TemplateProcessing" and "SpecialToken" in (step["single"] or [{}])[0]:
                name = step["single"][0]["SpecialToken"]["id"]
                return _check_id(step["special_tokens"][name]["ids"][0], "begins texts with", vocab_size)
    except (AttributeError, KeyError, IndexError, TypeError):
        raise ModelError("tokenizer.json's 'post_processor' is not one that can be read.") from None
    return None


def _stop_ids(directory: Path, stored: Mapping[str, Any], eos_id: int | None, vocab_size: int) -> tuple[int, ...]:
    """The ids that end a text: of generation_config.json, else of config.json, else the tokenizer's."""
    inner = stored.get("text_config")
    places = (
        optional_object(directory, "generation_config.json"),
        stored,
        inner if isinstance(inner, Mapping) else {},
        {"eos_token_id": eos_id},
    )
    found: Any = next((ids for place in places if (ids := place.get("eos_token_id")) is not None), [])
    ids = found if isinstance(found, list) else [found]
    if len(ids) > _MOST_STOP_IDS:
        raise ModelError(f"The model names {len(ids)} tokens that end a text; {_MOST_STOP_IDS} are enough.")
    return tuple(dict.fromkeys(_check_id(token, "ends texts with", vocab_size) for token in ids))


def _check_id(token: object, does: str, vocab_size: int) -> int:
    if type(token) is not int or not 0 <= token < vocab_size:
        raise ModelError(f"The model {does} token {shown(token)}, but has words 0 to {vocab_size - 1} only.")
    return token
