"""Models of the Hugging Face hub: from its cache, or fetched once."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from kogata.errors import ModelError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
SECONDS_TO_ANSWER = 10.0

#: What the two load_directory read, and nothing that could be code.
_WANTED = [
    "config.json",
    "generation_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*.safetensors",
    "*/config.json",
    "*_Transformer/*.json",
    "*_Transformer/model*.safetensors",
]
_UNWANTED = ["onnx/*", "openvino/*", "*/onnx/*", "*/openvino/*"]


def is_hub_id(source: str) -> bool:
    """Whether a model's name has the form ``owner/name``."""
    return bool(_HUB_ID.fullmatch(source)) and ".." not in source


def fetch(hub_id: str, offline_hint: str) -> Path:
    """The directory of a hub model, which is only asked for over the network if the cache does not have it.

    Args:
        hub_id: ``owner/name``.
        offline_hint: What to do where the hub cannot be reached.

    Raises:
        ModelError: The model does not exist, may not be read, or is not in the cache while the hub is out of reach.
    """
    from huggingface_hub import snapshot_download

    with contextlib.suppress(OSError):
        cached = Path(snapshot_download(hub_id, local_files_only=True))
        if not _missing(cached):
            return cached
    with refusals(hub_id, offline_hint):
        fetched = Path(
            snapshot_download(hub_id, allow_patterns=_WANTED, ignore_patterns=_UNWANTED, etag_timeout=SECONDS_TO_ANSWER)
        )
    if missing := _missing(fetched):
        # Out of reach of the hub, the library gives what an interrupted download left.
        raise ModelError(
            f"The model {hub_id} lacks {missing}: the hub does not have it, or its download was interrupted and the "
            "hub cannot be reached now.",
            hint=f"If it is there as GGUF files, name one of them: {hub_id}:Q8_0, say.",
        )
    return fetched


@contextlib.contextmanager
def refusals(hub_id: str, offline_hint: str) -> Iterator[None]:
    """Turns what the hub's client raises into sentences.

    Args:
        hub_id: ``owner/name``.
        offline_hint: What to do where the hub cannot be reached.

    Raises:
        ModelError: Whatever else was raised inside.
    """
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        yield
    except GatedRepoError:
        raise ModelError(
            f"The model {hub_id} asks for its terms to be accepted first.",
            hint=f"Accept them at https://huggingface.co/{hub_id} and log in with: hf auth login",
        ) from None
    except RepositoryNotFoundError:
        raise ModelError(f"There is no model {hub_id} on the Hugging Face hub, or it is private.") from None
    except (OfflineModeIsEnabled, LocalEntryNotFoundError):
        raise _out_of_reach(hub_id, offline_hint) from None
    except EntryNotFoundError:
        raise ModelError(f"The model {hub_id} has no such file on the Hugging Face hub.") from None
    except Exception as error:  # the library lets through whatever its HTTP client, hf-xet or the disk raise
        raise ModelError(f"The model {hub_id} could not be fetched: {_sentence(error)}") from None


def _missing(directory: Path) -> str | None:
    """What a snapshot lacks to be loaded."""
    from kogata.weights.huggingface import transformer_folder
    from kogata.weights.safetensors import shard_names

    try:
        inside = directory / transformer_folder(directory)
    except ModelError:
        return None  # whole or not, load_directory says what is wrong
    for name in ("config.json", "tokenizer.json"):
        if not (inside / name).exists():
            return name
    if (inside / "model.safetensors").exists():
        return None
    index = inside / "model.safetensors.index.json"
    if not index.exists():
        return "model.safetensors"
    try:
        names = shard_names(index)
    except ModelError:
        return None
    return next((name for name in names if not (inside / name).exists()), None)


def _out_of_reach(hub_id: str, hint: str) -> ModelError:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    why = "HF_HUB_OFFLINE is set" if HF_HUB_OFFLINE else "the hub cannot be reached"
    return ModelError(
        f"{hub_id} is neither a directory nor a model in the local cache of the Hugging Face hub, and {why}.",
        hint=hint,
    )


def _sentence(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."
