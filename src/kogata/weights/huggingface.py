"""Embedding models as Hugging Face and sentence-transformers lay them out in a directory.

Read are ``config.json``, ``model.safetensors`` (or its shards), ``tokenizer.json`` and ``tokenizer_config.json``; and,
where ``modules.json`` is there, the pooling, prompts and length that sentence-transformers would use. What Kogata would
compute differently is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kogata.config import EncoderConfig
from kogata.errors import ModelError
from kogata.text.hf import HfTokenizer
from kogata.weights.checkpoint import EncoderCheckpoint, Pooling
from kogata.weights.directory import (
    file_digest,
    open_weights,
    optional_object,
    read_config,
    read_tokenizer,
    weight_digests,
)
from kogata.weights.files import read_json, read_object, unreadable
from kogata.weights.hf_names import weight_names
from kogata.weights.identity import identity_of
from kogata.weights.safetensors import SafetensorsFile
from kogata.weights.tensors import FloatTensor, Q4Tensor

#: multilingual-e5-small, e5-base-v2 and their family were trained with these, but their configs do not say so.
_E5 = re.compile(r"(^|[/_-])e5-(small|base|large)(-v2|-unsupervised)?$")
_E5_PROMPTS = {"query": "query: ", "document": "passage: "}

_OLD_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


def load_directory(directory: Path, name: str | None = None) -> EncoderCheckpoint:
    """The embedding model in a directory.

    Args:
        directory: Where ``config.json`` or ``modules.json`` lies.
        name: What to call it (its hub id); the directory's name if not given.

    Raises:
        ModelError: Something is missing, damaged, contradictory or not supported.
    """
    try:
        return _load(directory, name or directory.resolve().name)
    except OSError as error:
        raise unreadable(directory, error) from None


def _load(directory: Path, name: str) -> EncoderCheckpoint:
    modules = _modules(directory)
    inside = directory / modules.transformer
    config = EncoderConfig.from_hf(read_config(inside))
    lengths = optional_object(inside, "sentence_bert_config.json")
    tokenizer = _tokenizer(inside, config, lowercase=lengths.get("do_lower_case") is True)
    where = open_weights(inside)
    tensors = HfTensors(where, config, inside)
    pooling = _pooling(directory, modules)
    prompts = _prompts(directory, name)
    max_length = _max_length(inside, config, lengths, tokenizer.n_special)
    facts = {
        "weights": weight_digests(where, tensors.check_numbers),
        "tokenizer": file_digest(inside / "tokenizer.json"),
        "lowercase": lengths.get("do_lower_case") is True,
        "config": config.to_dict(),
        "pooling": pooling,
        "normalize": modules.normalize,
        "prompts": prompts,
        "max_length": max_length,
    }
    return EncoderCheckpoint(
        name=name,
        config=config,
        tensors=tensors,
        tokenizer=tokenizer,
        pooling=pooling,
        normalize=modules.normalize,
        prompts=prompts,
        max_length=max_length,
        identity=identity_of(facts),
    )


def transformer_folder(directory: Path) -> str:
    """The folder of the transformer inside a model's directory: mostly the directory itself, ``""``.

    Raises:
        ModelError: ``modules.json`` is damaged or names what cannot be run.
    """
    return _modules(directory).transformer


class HfTensors(Mapping[str, "FloatTensor | Q4Tensor"]):
    """Kogata's tensor names over safetensors files, each converted to float32 when it is looked up.

    Args:
        where: Their tensor names -> the file that holds it.
        config: Decides which tensors there must be and their shapes.
        place: Where they lie, for errors.

    Raises:
        ModelError: A tensor is missing or has another shape than the config says.
    """

    def __init__(self, where: Mapping[str, SafetensorsFile], config: EncoderConfig, place: Path) -> None:
        self._where = where
        self._names = weight_names(where, config, place)
        self._parameters = {parameter.name: parameter for parameter in config.parameters()}
        for ours, theirs in self._names.items():
            found, wanted = where[theirs].shape(theirs), self._parameters[ours].shape
            if found != wanted:
                raise ModelError(
                    f"The tensor {theirs!r} in {where[theirs].path} has shape {list(found)}, "
                    f"but config.json makes it {list(wanted)}."
                )
            where[theirs].check_float(theirs)

    def __getitem__(self, name: str) -> FloatTensor:
        if name not in self._names:
            # DistilBERT has no token types: zeros add nothing.
            return np.zeros(self._parameters[name].shape, np.float32)
        theirs = self._names[name]
        return self._where[theirs].f32(theirs)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __len__(self) -> int:
        return len(self._parameters)

    def check_numbers(self, file: SafetensorsFile) -> None:
        """Refuse NaN and infinity in the tensors of one file: they would silently spoil every vector."""
        for theirs in self._names.values():
            if self._where[theirs] is file:
                file.check_finite(theirs)


class _Modules:
    """What ``modules.json`` says: where the transformer and its pooling lie, and whether vectors are normalised."""

    def __init__(self) -> None:
        self.transformer = ""
        self.pooling: str | None = None
        self.normalize = False


def _modules(directory: Path) -> _Modules:
    found = _Modules()
    path = directory / "modules.json"
    if not path.exists():
        return found
    content = read_json(path)
    if not isinstance(content, list) or not content:
        raise ModelError(f"{path} does not hold a list of modules.")
    order: list[str] = []
    for module in content:
        kind, place = (module.get("type"), module.get("path")) if isinstance(module, dict) else (None, None)
        if not isinstance(kind, str) or not isinstance(place, str):
            raise ModelError(f"{path} lists a module without 'type' and 'path'.")
        if place.startswith(("/", "\\")) or ".." in Path(place).parts or "\0" in place or ":" in place:
            raise ModelError(f"{path} names the folder {place!r}, which is not inside {directory}.")
        kind = kind.rsplit(".", 1)[-1]
        order.append(kind)
        if kind == "Transformer":
            found.transformer = place
        elif kind == "Pooling":
            found.pooling = place
        elif kind == "Normalize":
            found.normalize = True
        else:
            raise ModelError(
                f"The model has a module {kind!r}, which cannot be run; Transformer, Pooling and Normalize can."
            )
    if order not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise ModelError(
            f"The model's modules are {', '.join(order)}; Transformer, Pooling and perhaps Normalize are accepted."
        )
    return found


def _tokenizer(directory: Path, config: EncoderConfig, *, lowercase: bool) -> HfTokenizer:
    path, content = directory / "tokenizer.json", read_tokenizer(directory)
    try:
        tokenizer = HfTokenizer(content, lowercase=lowercase)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    if tokenizer.largest_id >= config.vocab_size:
        raise ModelError(
            f"{path} gives token ids up to {tokenizer.largest_id}, but the model has only {config.vocab_size} words."
        )
    return tokenizer


def _pooling(directory: Path, modules: _Modules) -> Pooling:
    if modules.pooling is None:
        return "mean"  # what sentence-transformers makes of a plain transformer
    path = directory / modules.pooling / "config.json"
    content = read_object(path)
    mode = content.get("pooling_mode")
    if mode is None:
        modes = [new for old, new in _OLD_POOLING.items() if content.get(old)] or ["mean"]
        mode = modes[0] if len(modes) == 1 else modes
    if isinstance(mode, list) and len(mode) == 1:
        mode = mode[0]
    if mode not in ("mean", "cls"):
        named = " + ".join(map(str, mode)) if isinstance(mode, list) else str(mode)
        raise ModelError(f"{path} asks for {named[:60]!r} pooling; 'mean' and 'cls' can be run.")
    if content.get("include_prompt") is False:
        raise ModelError(f"{path} leaves the prompt out of the pooling, which cannot be run.")
    return "mean" if mode == "mean" else "cls"


def _prompts(directory: Path, name: str) -> dict[str, str]:
    path = directory / "config_sentence_transformers.json"
    content = optional_object(directory, path.name)
    stored = content.get("prompts") or {}
    if not isinstance(stored, dict) or not all(isinstance(prompt, str) for prompt in stored.values()):
        raise ModelError(f"{path}: 'prompts' is not an object of strings.")
    if not any(stored.values()) and _E5.search(name.lower()):
        return dict(_E5_PROMPTS)
    default_name = content.get("default_prompt_name")
    if default_name is not None and default_name not in list(stored):
        raise ModelError(f"{path}: the default prompt {default_name!r} is not among its prompts.")
    default = stored[default_name] if default_name is not None else ""
    found = {"query": default, "document": default}
    # sentence-transformers looks for these names in this order.
    for kind, names in (("query", ("query",)), ("document", ("document", "passage", "corpus"))):
        found[kind] = next((stored[known] for known in names if known in stored), default)
    return found


def _max_length(directory: Path, config: EncoderConfig, lengths: Mapping[str, Any], n_special: int) -> int:
    length = config.context
    stated = lengths.get("max_seq_length")
    if stated is not None:
        if type(stated) is not int or not n_special < stated <= config.max_positions:
            raise ModelError(
                f"sentence_bert_config.json sets max_seq_length to {stated!r}; "
                f"{n_special + 1} to {config.context} tokens fit this model."
            )
        length = min(length, stated)
    else:
        known = optional_object(directory, "tokenizer_config.json").get("model_max_length")
        # Absent limits are written as 1e30.
        if isinstance(known, int | float) and n_special < known < length:
            length = int(known)
    if length <= n_special:
        raise ModelError(f"The model has room for {length} tokens, which leaves none for a text.")
    return length
