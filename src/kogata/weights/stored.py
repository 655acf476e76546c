"""Models on this machine: what lies in the hub's cache, whole or half fetched, and what came along."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kogata.config.encoder import ENCODERS
from kogata.errors import BadInput, ModelError
from kogata.weights import download, gguf_hub, hub
from kogata.weights.gguf_file import parts_of
from kogata.weights.recommended import RECOMMENDED, Kind, named, near, short_name


@dataclass(frozen=True, slots=True)
class Stored:
    """A model that is here.

    Attributes:
        name: What is typed: a hub id, or that and a GGUF file.
        kind: Whether it writes or embeds.
        nbytes: On this disk. Of GGUF files those of the file alone.
        missing: Bytes that are still to be fetched; 0 where it is whole.
        used: When it was last read, in seconds since 1970; None where nothing says.
    """

    name: str
    kind: Kind
    nbytes: int
    missing: int
    used: float | None

    @property
    def short(self) -> str | None:
        """Its short name, if it has one."""
        return short_name(self.name)

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name, "short_name": self.short, "kind": self.kind, "bytes": self.nbytes,
            "missing_bytes": self.missing, "last_used": self.used,
        }  # fmt: skip


def stored() -> list[Stored]:
    """The models in the hub's cache that can be run here, by name."""
    return sorted((one for folder in _folders() for one in _of_folder(folder)), key=lambda one: one.name.lower())


def remove(name: str) -> int:
    """Take a model off the disk.

    Args:
        name: As :func:`stored` names it, or its short name.

    Returns:
        The bytes that are free again.

    Raises:
        BadInput: It is not here, or came with Kogata.
        ModelError: Another process is fetching it, or it cannot be removed.
    """
    known = named(name)
    if known is not None and known.source is None:
        raise BadInput(f"{name} came with Kogata and stays.")
    source = name if known is None or known.source is None else known.source
    found = next((one for one in stored() if one.name.lower() == source.lower()), None)
    if found is None:
        alike = near(name, [one.name for one in stored()])
        hint = f"Is {' or '.join(alike)} meant?" if alike else "`kogata models` lists what is here."
        if Path(name).expanduser().exists():
            hint = "What Kogata did not fetch it does not remove: delete the folder or file yourself."
        raise BadInput(f"There is no fetched model {name[:200]!r}.", hint=hint)
    hub_id = gguf_hub.split_id(found.name)[0] if gguf_hub.is_gguf_id(found.name) else found.name
    folder = download.model_folder(hub_id)
    before = _size(folder)
    try:
        with contextlib.ExitStack() as locks:
            for file in download.pending(folder):
                locks.enter_context(download.locked(hub_id, file.sha256))
            if gguf_hub.is_gguf_id(found.name):
                _remove_file(folder, found.name)
            else:
                _remove_all(folder)
    except TimeoutError:
        raise ModelError(f"{found.name} is being fetched by another process.") from None
    except OSError as error:
        raise ModelError(f"{found.name} cannot be removed: {error.strerror or error}.") from None
    return before - _size(folder)


def _folders() -> Iterator[Path]:
    from huggingface_hub import constants

    with contextlib.suppress(OSError):
        yield from Path(constants.HF_HUB_CACHE).expanduser().glob("models--*--*")


def _hub_id(folder: Path) -> str:
    return folder.name.removeprefix("models--").replace("--", "/", 1)


def _of_folder(folder: Path) -> Iterator[Stored]:
    """What of a model's folder can be run: itself, or each of its GGUF files."""
    hub_id = _hub_id(folder)
    directory = hub.snapshot(hub_id)
    pending = download.pending(folder)
    if directory is not None and (kind := hub.architecture(directory)) in (*hub.WRITERS, *ENCODERS):
        to_come = sum(file.size - _length(download.part_of(folder, file.sha256)) for file in pending)
        if hub.missing(directory) is None or to_come:
            yield Stored(hub_id, "embedder" if kind in ENCODERS else "writer", _size(folder), to_come, _used(folder))
    names = [] if directory is None else [path.relative_to(directory).as_posix() for path in directory.rglob("*.gguf")]
    coming = {file.name: file for file in pending if file.name.lower().endswith(".gguf")}
    firsts = sorted({gguf_hub.whole_of(name) for name in [*names, *coming] if "mmproj" not in name.lower()})
    for first in firsts:
        here = to_come = 0
        used: list[float] = []
        for part in (part.as_posix() for part in parts_of(Path(first))):
            if part in names and directory is not None:
                here += _length(directory / part)
                used.append((directory / part).stat().st_atime)
            elif part in coming:
                have = _length(download.part_of(folder, coming[part].sha256))
                here, to_come = here + have, to_come + coming[part].size - have
        name = gguf_hub.typed(hub_id, first, [*names, *coming])
        yield Stored(name, "writer", here, to_come, max(used, default=None))


def _remove_all(folder: Path) -> None:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    with contextlib.suppress(CacheNotFound):
        cache = scan_cache_dir(folder.parent)
        revisions = [
            revision.commit_hash for repo in cache.repos if repo.repo_path == folder for revision in repo.revisions
        ]
        if revisions:  # the client also knows what other models share
            cache.delete_revisions(*revisions).execute()
    if folder.exists():
        shutil.rmtree(folder)
    shutil.rmtree(folder.parent / ".locks" / folder.name, ignore_errors=True)


def _remove_file(folder: Path, name: str) -> None:
    """One GGUF file of a model, all its parts; the model's folder with the last one."""
    hub_id, which = gguf_hub.split_id(name)
    directory = hub.snapshot(hub_id)
    names = [] if directory is None else [path.relative_to(directory).as_posix() for path in directory.rglob("*.gguf")]
    pending = {file.name: file for file in download.pending(folder)}
    whole = gguf_hub.wholes([*names, *pending])
    first = gguf_hub.whole_of(which) if which.lower().endswith(".gguf") else gguf_hub.of_tag(whole, which)[0]
    parts = {part.as_posix() for part in parts_of(Path(first))}
    for part in parts & set(pending):
        download.forget(folder, pending[part].sha256)
    links = {path: path.resolve() for path in folder.glob("snapshots/*/**/*") if path.is_file()}
    gone = {link: blob for link, blob in links.items() if link.relative_to(folder).as_posix().split("/", 2)[2] in parts}
    for link in gone:
        link.unlink()
    for blob in set(gone.values()) - {blob for link, blob in links.items() if link not in gone}:
        blob.unlink(missing_ok=True)
    if not any(path.suffix.lower() == ".gguf" for path in links if path not in gone) and not download.pending(folder):
        _remove_all(folder)


def _size(folder: Path) -> int:
    """Bytes of a folder's files, those that are not links."""
    return sum(_length(path) for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _used(folder: Path) -> float | None:
    """When the largest of its files was last read."""
    files = [path.stat() for path in folder.glob("blobs/*") if path.is_file()]
    files += [path.stat() for path in folder.glob("snapshots/*/**/*.safetensors") if path.is_file()]
    return max(files, key=lambda one: one.st_size).st_atime if files else None


def _length(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


def recommended_with_state() -> list[dict[str, Any]]:
    """The recommended models, each with whether it is here."""
    here = {one.name: one for one in stored()}
    found = []
    for model in RECOMMENDED:
        have = here.get(model.source or "")
        state = "here" if model.source is None or (have and not have.missing) else "partly here" if have else "not here"
        found.append({**model.to_dict(), "state": state})
    return found
