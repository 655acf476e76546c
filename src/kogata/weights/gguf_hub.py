"""GGUF files by name: on disk, and in models of the Hugging Face hub, whose repositories hold one for each storage.

Two ways of writing are common and both are taken: ``owner/name:Q8_0``, the storage as the file's name ends with it (so
llama.cpp, Ollama and vLLM have it), and the file itself, ``owner/name/file.gguf`` or ``owner/name:file.gguf``.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from pathlib import Path

from kogata.errors import ModelError
from kogata.weights import hub
from kogata.weights.gguf_file import parts_of

_FILE = re.compile(r"((?:[^/:]+)/(?:[^/:]+))[/:](.+\.gguf)", re.IGNORECASE)
_TAG = re.compile(r"((?:[^/:]+)/(?:[^/:]+)):([A-Za-z0-9][\w.-]{0,63})")
_MOST_LISTED = 20


def is_gguf(path: Path) -> bool:
    """Whether a file is one, by its name or its first bytes."""
    try:
        if not path.is_file():  # opening a pipe would wait for somebody to write
            return False
        if path.suffix.lower() == ".gguf":
            return True
        with path.open("rb") as file:
            return file.read(4) == b"GGUF"
    except OSError:
        return False


def only_file(directory: Path) -> Path | None:
    """The GGUF file of a directory that holds no other kind of model, or None.

    Raises:
        ModelError: It holds several.
    """
    if any((directory / name).exists() for name in ("config.json", "kogata.json")):
        return None
    try:
        whole = _wholes(path.name for path in directory.glob("*.gguf"))
    except OSError:
        return None
    if len(whole) > 1:
        raise ModelError(f"{directory} holds several GGUF files; name one of {_listed(whole)}.")
    return directory / whole[0] if whole else None


def is_gguf_id(source: str) -> bool:
    """Whether a model's name means a GGUF file of a hub model."""
    found = _FILE.fullmatch(source) or _TAG.fullmatch(source)
    return found is not None and hub.is_hub_id(found[1]) and not {"", ".", ".."} & set(found[2].split("/"))


def fetch(source: str, offline_hint: str) -> Path:
    """A GGUF file of a hub model, asked for over the network only if the cache does not have it.

    Args:
        source: ``owner/name:Q8_0``, ``owner/name/file.gguf`` or ``owner/name:file.gguf``.
        offline_hint: What to do where the hub cannot be reached.

    Raises:
        ModelError: There is no such model or file, or it is not in the cache while the hub is out of reach.
    """
    named = _FILE.fullmatch(source)
    if named is not None:
        return _fetch_file(named[1], named[2], offline_hint)
    tagged = _TAG.fullmatch(source)
    assert tagged is not None, "is_gguf_id told so"
    hub_id, tag = tagged[1], tagged[2]
    from huggingface_hub import HfApi, snapshot_download

    with contextlib.suppress(OSError):
        cached = Path(snapshot_download(hub_id, local_files_only=True))
        whole = _of_tag(_wholes(path.relative_to(cached).as_posix() for path in cached.rglob("*.gguf")), tag)
        if len(whole) == 1 and all(part.exists() for part in parts_of(cached / whole[0])):
            return cached / whole[0]
    with hub.refusals(hub_id, offline_hint):
        files = HfApi().model_info(hub_id, timeout=hub.SECONDS_TO_ANSWER).siblings or []
    present = _wholes(file.rfilename for file in files)
    matching = _of_tag(present, tag)
    if len(matching) != 1:
        if not present:
            raise ModelError(f"The model {hub_id} has no GGUF files on the hub.")
        which = "several files" if matching else "no file"
        raise ModelError(
            f"The model {hub_id} has {which} of the kind {tag!r}; name one of {_listed(matching or present)}."
        )
    return _fetch_file(hub_id, matching[0], offline_hint)


def _fetch_file(hub_id: str, name: str, offline_hint: str) -> Path:
    """The file, or the first of those that it was split into, once all are there."""
    from huggingface_hub import hf_hub_download

    parts = [part.as_posix() for part in parts_of(Path(name))]
    with contextlib.suppress(OSError):
        first, *_ = [Path(hf_hub_download(hub_id, part, local_files_only=True)) for part in parts]
        return first
    with hub.refusals(hub_id, offline_hint):
        first, *_ = [Path(hf_hub_download(hub_id, part, etag_timeout=hub.SECONDS_TO_ANSWER)) for part in parts]
        return first


def _wholes(names: Iterable[str]) -> list[str]:
    """The names of GGUF files of language models: of a split one the first part, and no image encoders."""
    found = (name for name in names if name.lower().endswith(".gguf") and "mmproj" not in name.lower())
    return sorted(name for name in found if parts_of(Path(name))[0] == Path(name))


def _of_tag(names: Iterable[str], tag: str) -> list[str]:
    """Those that end with a storage: ``model-Q8_0.gguf``, ``model.q8_0-00001-of-00002.gguf``, ``Q8_0/model.gguf``."""
    end = re.compile(rf"(^|.*[-._/]){re.escape(tag)}((-\d{{5}}-of-\d{{5}})?\.gguf|/.*)", re.IGNORECASE)
    return [name for name in names if end.fullmatch(name)]


def _listed(names: list[str]) -> str:
    more = len(names) - _MOST_LISTED
    return ", ".join(names[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")
