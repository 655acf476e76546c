"""GGUF files by name: on disk, and in models of the Hugging Face hub, whose repositories hold one for each storage.

Two ways of writing are common and both are taken: ``owner/name:Q8_0``, the storage as the file's name ends with it (so
llama.cpp, Ollama and vLLM have it), and the file itself, ``owner/name/file.gguf`` or ``owner/name:file.gguf``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from kogata.errors import ModelError
from kogata.weights import download, hub
from kogata.weights.download import Progress
from kogata.weights.gguf_file import parts_of

_FILE = re.compile(r"((?:[^/:]+)/(?:[^/:]+))[/:](.+\.gguf)", re.IGNORECASE)
_TAG = re.compile(r"((?:[^/:]+)/(?:[^/:]+)):([A-Za-z0-9][\w.-]{0,63})")
_PART = re.compile(r"-\d{5}-of-\d{5}$")
_STORAGE = re.compile(r"(I?Q|TQ|BF|F|MXFP)\d\w*", re.IGNORECASE)
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
        whole = wholes(path.name for path in directory.glob("*.gguf"))
    except OSError:
        return None
    if len(whole) > 1:
        raise ModelError(f"{directory} holds several GGUF files; name one of {_listed(whole)}.")
    return directory / whole[0] if whole else None


def is_gguf_id(source: str) -> bool:
    """Whether a model's name means a GGUF file of a hub model."""
    found = _FILE.fullmatch(source) or _TAG.fullmatch(source)
    return found is not None and hub.is_hub_id(found[1]) and not {"", ".", ".."} & set(found[2].split("/"))


def split_id(source: str) -> tuple[str, str]:
    """A name that :func:`is_gguf_id` takes: the hub id, and its file's name or, without its end, the storage."""
    found = _FILE.fullmatch(source) or _TAG.fullmatch(source)
    assert found is not None, "is_gguf_id told so"
    return found[1], found[2]


def cached(source: str) -> Path | None:
    """A GGUF file of a hub model, if the cache has it and all its parts."""
    hub_id, which = split_id(source)
    directory = hub.snapshot(hub_id)
    if directory is None:
        return None
    names = [path.relative_to(directory).as_posix() for path in directory.rglob("*.gguf")]
    whole = [whole_of(which)] if which.lower().endswith(".gguf") else of_tag(wholes(names), which)
    if len(whole) == 1 and all(part.exists() for part in parts_of(directory / whole[0])):
        return directory / whole[0]
    return None


def fetch(source: str, offline_hint: str, progress: Progress | None = None) -> Path:
    """A GGUF file of a hub model, asked for over the network only if the cache does not have it.

    Args:
        source: ``owner/name:Q8_0``, ``owner/name/file.gguf`` or ``owner/name:file.gguf``.
        offline_hint: What to do where the hub cannot be reached.
        progress: Told how far the download is; without it the hub's own bar is drawn.

    Raises:
        ModelError: There is no such model or file, or it is not in the cache while the hub is out of reach.
    """
    if (found := cached(source)) is not None:
        return found
    hub_id, which = split_id(source)
    with hub.refusals(hub_id, offline_hint):
        return _download(hub_id, which, progress)


def _download(hub_id: str, which: str, progress: Progress | None) -> Path:
    """The file, or the first of those that it was split into, once all are there."""
    from huggingface_hub import HfApi, hf_hub_download

    info = HfApi().model_info(hub_id, files_metadata=True, timeout=hub.SECONDS_TO_ANSWER)
    siblings = info.siblings or []
    present = [file.rfilename for file in siblings]
    parts = [part.as_posix() for part in parts_of(Path(_chosen(hub_id, which, present)))]
    if absent := [part for part in parts if part not in present]:
        raise ModelError(
            f"The model {hub_id} has no such file on the Hugging Face hub: {absent[0]}.",
            hint=f"It has {_listed(wholes(present))}." if wholes(present) else None,
        )
    with download.shown(hub_id, progress) as tell:
        large = download.large_files(siblings, parts)
        download.fetch_large(hub_id, info.sha or "main", large, tell)
    with download.without_bars():
        first, *_ = [Path(hf_hub_download(hub_id, part, etag_timeout=hub.SECONDS_TO_ANSWER)) for part in parts]
        return first


def _chosen(hub_id: str, which: str, present: list[str]) -> str:
    """The name of the file that is meant."""
    if which.lower().endswith(".gguf"):
        return whole_of(which)
    whole = wholes(present)
    matching = of_tag(whole, which)
    if len(matching) == 1:
        return matching[0]
    if not whole:
        raise ModelError(f"The model {hub_id} has no GGUF files on the hub.")
    found = "several files" if matching else "no file"
    raise ModelError(f"The model {hub_id} has {found} of the kind {which!r}; name one of {_listed(matching or whole)}.")


def whole_of(name: str) -> str:
    """The name of a GGUF file; of a split one that of the first part."""
    return parts_of(Path(name))[0].as_posix()


def typed(hub_id: str, name: str, names: Iterable[str]) -> str:
    """What is typed for a GGUF file: its storage where that says which of ``names`` it is, else the file."""
    stem = _PART.sub("", Path(name).stem)
    tag = re.split(r"[-.]", stem)[-1]
    if _STORAGE.fullmatch(tag) and of_tag(wholes(names), tag) == [name]:
        return f"{hub_id}:{tag}"
    return f"{hub_id}/{name}"


def wholes(names: Iterable[str]) -> list[str]:
    """The names of GGUF files of language models: of a split one the first part, and no image encoders."""
    found = (name for name in names if name.lower().endswith(".gguf") and "mmproj" not in name.lower())
    return sorted(name for name in found if parts_of(Path(name))[0] == Path(name))


def of_tag(names: Iterable[str], tag: str) -> list[str]:
    """Those that end with a storage: ``model-Q8_0.gguf``, ``model.q8_0-00001-of-00002.gguf``, ``Q8_0/model.gguf``."""
    end = re.compile(rf"(^|.*[-._/]){re.escape(tag)}((-\d{{5}}-of-\d{{5}})?\.gguf|/.*)", re.IGNORECASE)
    return [name for name in names if end.fullmatch(name)]


def _listed(names: list[str]) -> str:
    more = len(names) - _MOST_LISTED
    return ", ".join(names[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")
