"""A directory in Hugging Face's layout: what encoders and decoders have in common."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from kogata.errors import ModelError
from kogata.weights.files import map_file, read_object, read_text
from kogata.weights.identity import digest_of
from kogata.weights.safetensors import SafetensorsFile, open_sharded

#: Of the largest published tokenizers, 35 MB is the most.
_LARGEST_TOKENIZER = 256 * 2**20


def read_config(directory: Path) -> dict[str, Any]:
    """The object of ``config.json``.

    Raises:
        ModelError: There is none, or it cannot be read.
    """
    path = directory / "config.json"
    if not path.exists():
        raise ModelError(f"{directory} is not a model: it has no config.json.")
    return read_object(path)


def optional_object(directory: Path, file_name: str) -> dict[str, Any]:
    """The object of an optional file, empty where it is not there.

    Raises:
        ModelError: It is there and cannot be read.
    """
    path = directory / file_name
    return read_object(path) if path.exists() else {}


def read_tokenizer(directory: Path) -> str:
    """The text of ``tokenizer.json``.

    Raises:
        ModelError: There is none, or it cannot be read.
    """
    path = directory / "tokenizer.json"
    if not path.exists():
        raise ModelError(
            f"{directory} has no tokenizer.json.",
            hint="Make one with transformers: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR).",
        )
    return read_text(path, _LARGEST_TOKENIZER)


def open_weights(directory: Path) -> dict[str, SafetensorsFile]:
    """Each tensor's name -> the file that holds it: ``model.safetensors``, or what its index names.

    Raises:
        ModelError: There is none that can be read.
    """
    single, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    if single.exists():
        file = SafetensorsFile(single)
        return dict.fromkeys(file, file)
    if index.exists():
        return open_sharded(index)
    raise _no_weights(directory)


def weight_digests(where: dict[str, SafetensorsFile], inspect: Callable[[SafetensorsFile], None]) -> list[str]:
    """A digest of each file in the order of their names.

    Args:
        where: What :func:`open_weights` gave.
        inspect: Looks a file's tensors over, raising ModelError; called for files whose digest is not remembered.
    """
    files = {file.path.name: file for file in where.values()}
    return [digest_of(file.path, file.data, partial(inspect, file)) for _, file in sorted(files.items())]


def file_digest(path: Path) -> str:
    """The digest of a file that needs no looking over."""
    return digest_of(path, map_file(path), lambda: None)


def _no_weights(directory: Path) -> ModelError:
    present = sorted(path.name for path in directory.iterdir())
    pickled = [name for name in present if name.endswith((".bin", ".pt", ".pth", ".ckpt"))]
    others = [name for name in present if name.endswith((".h5", ".onnx", ".msgpack"))]
    if pickled:
        return ModelError(
            f"{directory} has its weights only in {pickled[0]}, a pickle, which Kogata never loads: "
            "it could run any code.",
            hint="Convert it where you trust it: AutoModel.from_pretrained(DIR).save_pretrained(DIR) in transformers "
            "writes model.safetensors.",
        )
    seen = f" (there is {others[0]}, which cannot be read)" if others else ""
    return ModelError(f"{directory} has no model.safetensors{seen}.")
