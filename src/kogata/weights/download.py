"""Large files of the hub: fetched into its cache, and where a download was broken off, only the rest.

The hub's client begins each file anew: it gives the partial file of each attempt a name of its own, so that two
processes never write to one. Here it is named after the content it will have, two processes are kept apart by the
client's own lock, and what is wrong with a file after all is found by its hash. In the folder of a model::

    blobs/<sha256>.kogata.incomplete    the part that is here
    .kogata/<sha256>.json               {"file": name, "size": bytes} of each file that is to come

Both are gone once the file is whole; everything else is the client's layout.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from kogata.errors import ModelError
from kogata.weights.files import read_object

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

Progress = Callable[[int, int], None]
"""Called with the bytes that are here and those of the whole."""

PARTIAL = ".kogata.incomplete"
_NOTES = ".kogata"
_WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each new attempt, as long as none gets further."""

_LOCK_SECONDS = 0.5
_READ = 1 << 20
_SHA256 = re.compile("[0-9a-f]{64}")
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})


class LargeFile(NamedTuple):
    """A file that the hub keeps by its hash."""

    name: str
    size: int
    sha256: str


def large_files(siblings: Sequence[RepoSibling], wanted: Sequence[str]) -> list[LargeFile]:
    """Those of the files of a model that are fetched here.

    The others are left to the client: small ones, and names that lead out of the model's folder, which it refuses.
    """
    names = set(wanted)
    return [
        LargeFile(file.rfilename, file.lfs.size, file.lfs.sha256)
        for file in siblings
        if file.rfilename in names and _stays(file.rfilename)
        and file.lfs is not None and _SHA256.fullmatch(file.lfs.sha256)
    ]  # fmt: skip


def _stays(name: str) -> bool:
    """Whether a file of this name lies inside the folder it is put into, on any system."""
    return not ({"", ".", ".."} & set(re.split(r"[/\\]", name)) or ":" in name)


def model_folder(hub_id: str) -> Path:
    """Where the hub's cache keeps a model."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser() / f"models--{hub_id.replace('/', '--')}"


def pending(folder: Path) -> list[LargeFile]:
    """What is still to come of a model whose download was broken off."""
    found = []
    for path in sorted((folder / _NOTES).glob("*.json")):
        with contextlib.suppress(ModelError):
            note = read_object(path)
            if isinstance(note.get("file"), str) and isinstance(note.get("size"), int):
                found.append(LargeFile(note["file"], note["size"], path.stem))
    return [file for file in found if not (folder / "blobs" / file.sha256).exists()]


def part_of(folder: Path, sha256: str) -> Path:
    """The part of a file that is here."""
    return folder / "blobs" / (sha256 + PARTIAL)


def forget(folder: Path, sha256: str) -> None:
    """Take away what is here of a file that is not whole."""
    part_of(folder, sha256).unlink(missing_ok=True)
    _note(folder, sha256).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # there are others
        (folder / _NOTES).rmdir()


def fetch_large(hub_id: str, commit: str, files: Sequence[LargeFile], progress: Progress, *, other: int = 0) -> None:
    """Put files of a model into the hub's cache, those that are not there yet.

    Args:
        hub_id: ``owner/name``.
        commit: Of which they are.
        files: Which.
        progress: Told how far all of them are.
        other: Bytes of the model's other files, which are here.

    Raises:
        ModelError: The disk is too small, the connection keeps breaking, or what arrives is not what was announced.
        KeyboardInterrupt: With what is here already.
        Exception: What the hub's client raises where a file is refused.
    """
    folder = model_folder(hub_id)
    total = sum(file.size for file in files) + other
    absent = [file for file in files if not _present(folder, commit, file)]
    check_room(hub_id, commit, files)
    for file in absent:
        _write_note(folder, file)
    before = here = total - sum(file.size for file in absent)

    def tell(done: int) -> None:
        nonlocal here
        here = before + done
        progress(here, total)

    try:
        for file in absent:
            _fetch(hub_id, commit, file, tell)
            before = here = before + file.size
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{_of(here, total)} are here; the same command goes on from there") from None
    if absent:
        progress(here, total)


def check_room(hub_id: str, commit: str, files: Sequence[LargeFile]) -> None:
    """Whether the disk takes files of a commit, less what is here of them.

    Raises:
        ModelError: It does not.
    """
    folder = model_folder(hub_id)
    absent = [file for file in files if not _present(folder, commit, file)]
    needed = sum(file.size - _size(part_of(folder, file.sha256)) for file in absent)
    there = next((parent for parent in folder.parents if parent.exists()), None)
    free = shutil.disk_usage(there).free if there is not None else needed
    if needed > free:
        raise ModelError(
            f"{hub_id} takes {_megabytes(needed)} more on disk, and {_megabytes(free)} are free where it would go: "
            f"{there}.",
            hint="`kogata models` shows what is there; HF_HUB_CACHE=FOLDER keeps models elsewhere.",
        )


@contextlib.contextmanager
def shown(name: str, progress: Progress | None) -> Iterator[Progress]:
    """How far a download is: told to ``progress``, or where that is None shown by the hub's own bar."""
    if progress is not None:
        yield progress
        return
    with contextlib.ExitStack() as stack:
        bars: list[Any] = []

        def tell(done: int, total: int) -> None:
            if not bars:
                made = helpers().tqdm(desc=name, total=total, initial=done, unit="B", unit_scale=True)
                bars.append(stack.enter_context(made))
            bars[0].update(done - bars[0].n)

        yield tell


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """The hub's client draws no bars of its own meanwhile."""
    if helpers().are_progress_bars_disabled() or os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS"):
        yield  # so already; or the environment decides, and the client would warn
        return
    helpers().disable_progress_bars()
    try:
        yield
    finally:
        helpers().enable_progress_bars()


def helpers() -> Any:
    """The client's ``utils``: public by its documentation, not by its annotations."""
    from huggingface_hub import utils

    return utils


def broken_connection(error: BaseException) -> bool:
    """Whether an error is one of the network: the client's has been requests', httpx's and httpx2's, by version."""
    named = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, (ConnectionError, TimeoutError)) or bool(named & {"TransportError", "RequestException"})


def _fetch(hub_id: str, commit: str, file: LargeFile, tell: Callable[[int], None]) -> None:
    """One file, from where it was broken off."""
    folder = model_folder(hub_id)
    part = part_of(folder, file.sha256)
    part.parent.mkdir(parents=True, exist_ok=True)
    with locked(hub_id, file.sha256, lambda: tell(_size(part))):
        if not _present(folder, commit, file):
            with part.open("r+b" if part.exists() else "x+b") as out:
                transfer = _Transfer(hub_id, commit, file, out, tell)
                transfer.run()
            if transfer.digest.hexdigest() != file.sha256:
                part.unlink()
                raise ModelError(
                    f"{file.name} of {hub_id} arrived damaged: its hash is not the one the hub announced. It was "
                    "thrown away.",
                    hint="The same command fetches it anew.",
                )
            _put(part, folder, commit, file)
        forget(folder, file.sha256)


class _Transfer:
    """The bytes of a file on their way, over as many connections as it takes."""

    def __init__(
        self, hub_id: str, commit: str, file: LargeFile, out: BinaryIO, tell: Callable[[int], None]
    ) -> None:  # fmt: skip
        self._hub_id, self._commit, self._file = hub_id, commit, file
        self._out, self._tell = out, tell
        self.digest = hashlib.sha256()
        self._at = 0

    def run(self) -> None:
        """All of it, flushed to the disk."""
        self._take_up()
        furthest, failures = self._at, 0
        while self._at < self._file.size:
            why = "the connection ended early"
            try:
                self._receive()
            except ModelError:
                raise
            except Exception as error:
                status = getattr(getattr(error, "response", None), "status_code", None)
                if status == 416:  # what is here is no beginning of what is there
                    self._start_over()
                elif not (status in _PASSING or (status is None and broken_connection(error))):
                    raise
                why = str(status) if status else " ".join(str(error).split()) or type(error).__name__
            if self._at > furthest:
                furthest, failures = self._at, 0
            elif failures == len(_WAITS):
                raise ModelError(
                    f"{self._file.name} of {self._hub_id} could not be fetched whole: {why[:200]}. "
                    f"{_of(self._at, self._file.size)} are here.",
                    hint="The same command goes on from there.",
                )
            if self._at < self._file.size:
                time.sleep(_WAITS[failures])
                failures += 1
        self._out.flush()
        os.fsync(self._out.fileno())

    def _take_up(self) -> None:
        """What is here already counts, unless it is more than the whole."""
        if os.fstat(self._out.fileno()).st_size > self._file.size:
            self._start_over()
        while piece := self._out.read(_READ):
            self.digest.update(piece)
            self._at += len(piece)
        self._tell(self._at)

    def _start_over(self) -> None:
        self._out.seek(0)
        self._out.truncate()
        self.digest, self._at = hashlib.sha256(), 0

    def _receive(self) -> None:
        with _answer(self._hub_id, self._commit, self._file.name, self._at) as (begins, chunks):
            if begins != self._at:
                self._start_over()
            for chunk in chunks:
                if self._at + len(chunk) > self._file.size:
                    self._start_over()
                    raise ModelError(
                        f"{self._file.name} of {self._hub_id} is larger than the {self._file.size:,} bytes that the "
                        "hub announced; it was thrown away.",
                        hint="Try it again later.",
                    )
                try:
                    self._out.write(chunk)
                except OSError as error:
                    raise ModelError(
                        f"{self._file.name} of {self._hub_id} could not be written: {error.strerror}. "
                        f"{_of(self._at, self._file.size)} are here.",
                        hint="The same command goes on from there.",
                    ) from None
                self.digest.update(chunk)
                self._at += len(chunk)
                self._tell(self._at)


@contextlib.contextmanager
def _answer(hub_id: str, commit: str, name: str, at: int) -> Iterator[tuple[int, Iterator[bytes]]]:
    """A file's bytes from a place on, and the place where they begin: 0 where the server does not do parts."""
    from huggingface_hub import constants, hf_hub_url

    url = hf_hub_url(hub_id, name, revision=commit)
    # Compressed, the parts of a file would not be those of the file.
    headers = helpers().build_hf_headers(library_name="kogata") | {"Accept-Encoding": "identity"}
    if at:
        headers["Range"] = f"bytes={at}-"
    session = helpers().get_session()
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with contextlib.ExitStack() as stack:
        if hasattr(session, "stream"):  # httpx, since the client's version 1.0
            asked = session.stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True)
            response = stack.enter_context(asked)
            chunks = response.iter_bytes()
        else:
            response = stack.enter_context(session.get(url, headers=headers, timeout=timeout, stream=True))
            chunks = response.iter_content(1 << 16)
        helpers().hf_raise_for_status(response)
        yield _begins(response.status_code, response.headers), chunks


def _begins(status: int, headers: Mapping[str, str]) -> int:
    """Where the bytes of an answer begin in the file."""
    start = headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return int(start) if status == 206 and start.isdecimal() else 0


@contextlib.contextmanager
def locked(hub_id: str, key: str, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Nobody else fetches a file meanwhile; the lock is the client's, so that it is no other process of it either.

    Args:
        hub_id: ``owner/name``.
        key: The file's hash.
        waiting: Called now and then while another process has the lock. Without it nothing is waited for.

    Raises:
        TimeoutError: Another process has it.
    """
    folder = model_folder(hub_id)
    path = folder.parent / ".locks" / folder.name / f"{key}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(helpers().WeakFileLock(path, timeout=_LOCK_SECONDS))
                break
            except TimeoutError:
                if waiting is None:
                    raise
                waiting()
        yield


def _put(part: Path, folder: Path, commit: str, file: LargeFile) -> None:
    """A whole file to where the client looks for it: it makes the link itself; where there are none, it would copy."""
    from huggingface_hub.file_download import are_symlinks_supported

    linked = are_symlinks_supported(folder.parent)
    target = folder / "blobs" / file.sha256 if linked else folder / "snapshots" / commit / file.name
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(part, target)


def _present(folder: Path, commit: str, file: LargeFile) -> bool:
    return (folder / "blobs" / file.sha256).exists() or (folder / "snapshots" / commit / file.name).exists()


def _note(folder: Path, sha256: str) -> Path:
    return folder / _NOTES / f"{sha256}.json"


def _write_note(folder: Path, file: LargeFile) -> None:
    path = _note(folder, file.sha256)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"file": file.name, "size": file.size}), encoding="utf-8")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _of(done: int, total: int) -> str:
    return f"{_megabytes(done)} of {_megabytes(total)}"


def _megabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.0f} MB" if n_bytes >= 10_000_000 else f"{n_bytes:,} bytes"
