"""Pages on disk: what was read of a prompt also serves after a restart.

A file holds one full page, of all layers, and is named by its link in the chain of hashes that
:mod:`kogata.run.cache.prefixes` knows prefixes by: so finding a page is opening a file, and what another model, other
arithmetic or another salt computed has another name. The file carries its link and a SHA-256 of all that it holds:
one that was cut off, changed or renamed is never served, and is removed. Processes may share a folder.

A thread of its own writes, and keeps the folder below its bound by removing what was not used for longest; a few others
read.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import os
import re
import shutil
import stat
import struct
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kogata.errors import BadInput

__all__ = ["PageStore"]

MOST_BYTES = 10_000_000_000
"""Of a folder, where no bound is given."""

MOST_QUEUED = 64_000_000
"""Bytes that wait to be written. A page for which there is no room is not kept: nothing waits for the disk."""

SPARED_BYTES = 1_000_000_000
"""Of the disk, which others need."""

READERS = 4
"""Threads that read: a page is as long to check as to read."""

_STALE_SECONDS = 600.0  # after which a half-written file belongs to nobody
_MAGIC = b"KogataP1"
_HEAD = struct.Struct("<8s32sQ32s")  # magic, link, bytes that follow, SHA-256 of these three and of the bytes
_PAGE_FILE = re.compile(r"[0-9a-f]{64}\.page")
_HALF_FILE = re.compile(r"\.[0-9a-f]{64}-.*\.part")

_log = logging.getLogger("kogata.run")


class PageStore:
    """A folder of pages. One thread calls it.

    Args:
        directory: Made where it is not there. Nobody else may write to it: who can, can change what a model reads.
        most_bytes: Of all pages in it; 10 GB where it is not given.

    Raises:
        BadInput: The directory cannot be used.
    """

    def __init__(self, directory: str | os.PathLike[str], most_bytes: int | None = None) -> None:
        self._directory = Path(directory).expanduser()
        self._most_bytes = MOST_BYTES if most_bytes is None else most_bytes
        self._make_directory()
        self._lock = threading.Lock()
        self._queued = 0
        self._said: set[str] = set()
        self._names: set[str] = set()  # which were there when last looked at, or are on their way
        self._bytes = 0
        self._keep_bound()
        self._thread = ThreadPoolExecutor(1, "pages")  # the interpreter waits for it before it ends
        self._readers = ThreadPoolExecutor(READERS, "pages")

    def __contains__(self, link: bytes) -> bool:
        return f"{link.hex()}.page" in self._names or self._path(link).exists()

    def put(self, link: bytes, parts: Sequence[NDArray[np.uint8]]) -> None:
        """Keep a page, if it is not there and there is room for it in the queue.

        Args:
            link: What it is known by.
            parts: Its bytes, a part for each group of layers; they are copied.
        """
        name = f"{link.hex()}.page"
        n_bytes = sum(part.nbytes for part in parts)
        with self._lock:
            if name in self._names or (self._queued and self._queued + n_bytes > MOST_QUEUED):
                return
            self._names.add(name)
            self._queued += n_bytes
        body = np.concatenate([part.reshape(-1) for part in parts])
        self._thread.submit(self._write, link, body)

    def get(self, link: bytes, n_bytes: int) -> NDArray[np.uint8] | None:
        """The bytes of a page as they were put there, one part after the other; None where there is no such page.

        Args:
            link: What it is known by.
            n_bytes: How many there must be.
        """
        path = self._path(link)
        try:
            found = path.stat()
            if not stat.S_ISREG(found.st_mode):
                return None
            if found.st_size == _HEAD.size + n_bytes:
                data = path.read_bytes()
                if data[: _HEAD.size] == _head(link, memoryview(data)[_HEAD.size :]):
                    return np.frombuffer(data, np.uint8, offset=_HEAD.size)
            self._say("read", f"{path} is damaged; it is removed and computed again")
            path.unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            self._say("read", f"{path} cannot be read: {error.strerror or error}")
        with self._lock:
            self._names.discard(path.name)
        return None

    def get_all(self, links: Sequence[bytes], n_bytes: int) -> Iterator[NDArray[np.uint8] | None]:
        """As :meth:`get`, of several pages in order, which are read and checked side by side."""
        return self._readers.map(self.get, links, itertools.repeat(n_bytes))

    def used(self, links: Iterable[bytes]) -> None:
        """These pages of one text, its first page first, were used last."""
        self._thread.submit(self._touch, list(links))

    def close(self) -> None:
        """Wait until everything is written. Nothing may be put there afterwards."""
        self._readers.shutdown(wait=True)
        self._thread.shutdown(wait=True)

    def _say(self, about: str, line: str) -> None:
        """Once: a full disk stays full for a while, and where one page is damaged others are."""
        if about not in self._said:
            self._said.add(about)
            _log.warning(line)

    def _path(self, link: bytes) -> Path:
        return self._directory / f"{link.hex()}.page"

    def _make_directory(self) -> None:
        directory = self._directory
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if os.name == "posix" and directory.stat().st_mode & stat.S_IWOTH:
                raise BadInput(f"{directory} can be written to by everybody on this machine; name one of your own.")
            handle, name = tempfile.mkstemp(dir=directory, prefix=".")
            os.close(handle)
            os.unlink(name)
        except FileExistsError:
            raise BadInput(f"{directory} is a file; prefixes need a directory.") from None
        except (OSError, ValueError) as error:
            raise BadInput(f"{directory} cannot be written to: {getattr(error, 'strerror', error)}.") from None

    # --- in the thread that writes, but for the first look

    def _write(self, link: bytes, body: NDArray[np.uint8]) -> None:
        path = self._path(link)
        handle = half = None
        try:
            handle, half = tempfile.mkstemp(dir=self._directory, prefix=f".{link.hex()}-", suffix=".part")
            with os.fdopen(handle, "wb") as file:
                file.write(_head(link, body.data))
                file.write(body.data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(half, path)
            self._bytes += _HEAD.size + body.nbytes
            self._said.discard("write")
            if self._bytes > self._bound():
                self._keep_bound()
        except OSError as error:
            if half is not None:
                with contextlib.suppress(OSError):
                    os.unlink(half)
            with self._lock:
                self._names.discard(path.name)
            self._say("write", f"prefixes are not kept in {self._directory}: {error.strerror or error}")
        finally:
            with self._lock:
                self._queued -= body.nbytes

    def _touch(self, links: list[bytes]) -> None:
        """What is deeper counts as older: without what it hangs on it would serve nobody."""
        now = time.time()
        for place, link in enumerate(links):
            with contextlib.suppress(OSError):
                os.utime(self._path(link), (now, now - place / 1000))

    def _bound(self) -> int:
        """Bytes that all pages may have now."""
        with contextlib.suppress(OSError):
            return min(self._most_bytes, self._bytes + shutil.disk_usage(self._directory).free - SPARED_BYTES)
        return self._most_bytes

    def _keep_bound(self) -> None:
        """Look at what is there, also of other processes, and remove what was not used for longest where that is more
        than may be; of half-written files those that nobody writes any more."""
        pages: list[tuple[int, int, str]] = []
        with os.scandir(self._directory) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if _PAGE_FILE.fullmatch(entry.name):
                        found = entry.stat(follow_symlinks=False)
                        pages.append((found.st_mtime_ns, found.st_size, entry.name))
                    elif _HALF_FILE.fullmatch(entry.name) and entry.stat().st_mtime < time.time() - _STALE_SECONDS:
                        os.unlink(entry.path)
        self._bytes = sum(size for _, size, _ in pages)
        bound = self._bound()
        gone = set()
        if self._bytes > bound:
            pages.sort()
            for _, size, name in pages:
                if self._bytes <= bound * 7 // 8:  # so that not every page has to look
                    break
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._directory / name)
                self._bytes -= size
                gone.add(name)
        with self._lock:
            self._names = {name for _, _, name in pages} - gone


def _head(link: bytes, body: memoryview) -> bytes:
    """What stands before a page's bytes."""
    told = _HEAD.pack(_MAGIC, link, body.nbytes, bytes(32))
    found = hashlib.sha256(told)
    found.update(body)
    return told[:-32] + found.digest()
