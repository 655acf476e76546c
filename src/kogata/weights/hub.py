"""Models of the Hugging Face hub: from its cache, or fetched once."""

from __future__ import annotations

import contextlib
import glob
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from kogata.config.decoder_hf import DECODERS
from kogata.config.encoder import ENCODERS
from kogata.errors import ModelError
from kogata.weights import download
from kogata.weights.directory import read_config
from kogata.weights.download import Progress, model_folder

WRITERS = (*DECODERS, "gemma3")
"""Architectures of models that write, as config.json names them."""

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


def snapshot(hub_id: str) -> Path | None:
    """The directory of a hub model in the cache, whole or not; None where there is none."""
    folder = model_folder(hub_id)
    with contextlib.suppress(OSError, ValueError):
        found = folder / "snapshots" / (folder / "refs" / "main").read_text(encoding="ascii").strip()
        return found if found.is_dir() else None
    return None


def fetch(hub_id: str, offline_hint: str, progress: Progress | None = None) -> Path:
    """The directory of a hub model, which is only asked for over the network if the cache does not have it.

    Args:
        hub_id: ``owner/name``.
        offline_hint: What to do where the hub cannot be reached.
        progress: Told how far the download is; without it the hub's own bar is drawn.

    Raises:
        ModelError: The model does not exist, may not be read, is of a kind that cannot be run, or is not in the cache
            while the hub is out of reach.
    """
    cached = snapshot(hub_id)
    lacks = "config.json" if cached is None else missing(cached)
    if cached is not None and lacks is None:
        return cached
    try:
        with refusals(hub_id, offline_hint):
            fetched = _download(hub_id, progress)
    except OutOfReach as error:
        if cached is None:
            raise
        raise ModelError(
            f"The model {hub_id} lacks {lacks}: its download was interrupted, and {error.why} now.",
            hint="The same command goes on where it stopped, once the hub is in reach.",
        ) from None
    if lacks := missing(fetched):
        raise ModelError(
            f"The model {hub_id} lacks {lacks}: the hub does not have it.",
            hint=f"If it is there as GGUF files, name one of them: {hub_id}:Q8_0, say.",
        )
    return fetched


def _download(hub_id: str, progress: Progress | None) -> Path:
    """What is read of a model: its small files by the hub's client, then, if it can be run, the large ones."""
    from huggingface_hub import HfApi, snapshot_download

    info = HfApi().model_info(hub_id, files_metadata=True, timeout=SECONDS_TO_ANSWER)
    siblings = info.siblings or []
    names = [file.rfilename for file in siblings]
    wanted = list(download.helpers().filter_repo_objects(names, allow_patterns=_WANTED, ignore_patterns=_UNWANTED))
    large = download.large_files(siblings, wanted)
    commit = info.sha or "main"
    download.check_room(hub_id, commit, large)
    later = [glob.escape(file.name) for file in large]
    get = partial(snapshot_download, hub_id, allow_patterns=_WANTED, etag_timeout=SECONDS_TO_ANSWER)
    with download.without_bars():
        directory = Path(get(ignore_patterns=[*_UNWANTED, *later]))
    check_architecture(directory)
    other = sum(file.size or 0 for file in siblings if file.rfilename in wanted and file.lfs is None)
    with download.shown(hub_id, progress) as tell:
        download.fetch_large(hub_id, commit, large, tell, other=other)
    with download.without_bars():
        return Path(get(ignore_patterns=_UNWANTED))


def architecture(directory: Path) -> str | None:
    """The ``model_type`` of a directory in Hugging Face's layout; None where nothing says."""
    from kogata.weights.huggingface import transformer_folder

    try:
        kind = read_config(directory / transformer_folder(directory)).get("model_type")
    except ModelError:
        return None
    return kind if isinstance(kind, str) else None


def check_architecture(directory: Path) -> None:
    """Refuse a model by its config before its weights are fetched.

    Raises:
        ModelError: Models of its kind cannot be run.
    """
    kind = architecture(directory)
    if kind is not None and kind not in (*WRITERS, *ENCODERS):
        raise ModelError(
            f"The architecture {kind[:80]!r} cannot be run; Kogata runs {', '.join(WRITERS)} and embeds with "
            f"{', '.join(ENCODERS)}."
        )


class OutOfReach(ModelError):
    """The hub was needed and does not answer.

    Args:
        hub_id: What was asked for.
        hint: What to do.
    """

    def __init__(self, hub_id: str, hint: str) -> None:
        from huggingface_hub.constants import HF_HUB_OFFLINE

        self.why = "HF_HUB_OFFLINE is set" if HF_HUB_OFFLINE else "the hub cannot be reached"
        message = "is neither a directory nor a model in the local cache of the Hugging Face hub, and"
        super().__init__(f"{hub_id} {message} {self.why}.", hint=hint)


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
    except ModelError:
        raise
    except GatedRepoError:
        raise ModelError(
            f"The model {hub_id} asks for its terms to be accepted first.",
            hint=f"Accept them at https://huggingface.co/{hub_id} and log in with: hf auth login",
        ) from None
    except RepositoryNotFoundError:
        raise ModelError(f"There is no model {hub_id} on the Hugging Face hub, or it is private.") from None
    except (OfflineModeIsEnabled, LocalEntryNotFoundError):
        raise OutOfReach(hub_id, offline_hint) from None
    except EntryNotFoundError:
        raise ModelError(f"The model {hub_id} has no such file on the Hugging Face hub.") from None
    except Exception as error:  # the library lets through whatever its HTTP client, hf-xet or the disk raise
        if download.broken_connection(error):
            raise OutOfReach(hub_id, offline_hint) from None
        raise ModelError(f"The model {hub_id} could not be fetched: {_sentence(error)}") from None


def missing(directory: Path) -> str | None:
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


def _sentence(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."
