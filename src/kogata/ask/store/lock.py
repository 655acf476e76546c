"""One writer at a time, said by name.

The lock is the operating system's (flock), on ``<index>.lock``: it vanishes with the process that holds it, however
that ends. The text in the file only tells others who it is. Readers never take it.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from kogata.errors import LockedError, StoreError


class WriterLock:
    """Context manager that holds the writer's lock of an index.

    Raises (on entering):
        LockedError: Another process or thread holds it; the message says which and since when.
        StoreError: The lock file cannot be made.
    """

    def __init__(self, index: Path) -> None:
        self.path = index.with_name(index.name + ".lock")
        self._fd = -1

    def __enter__(self) -> WriterLock:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        except OSError as error:
            place = os.fsencode(self.path).decode("utf-8", "replace")
            raise StoreError(f"The index cannot be written: {place}: {error.strerror}.") from error
        try:
            _lock(fd)
        except OSError:
            message = _holder(fd)
            os.close(fd)
            hint = "Wait until it has finished, or stop it. Searching works meanwhile."
            raise LockedError(message, hint=hint) from None
        self._fd = fd
        holder = {"pid": os.getpid(), "since": time.time(), "command": _command()}
        with suppress(OSError):  # a full disk: the lock holds all the same, it only has no name on it
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps(holder).encode(), 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The file stays: removing it would let two others lock two different files of the same name.
        if self._fd >= 0:
            with suppress(OSError):
                os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = -1


def _command() -> str:
    words = [os.path.basename(sys.argv[0] or "python"), *sys.argv[1:]]
    text = shlex.join(words).encode("utf-8", "replace").decode()
    return text if len(text) <= 200 else text[:199] + "…"


def _holder(fd: int) -> str:
    try:
        holder = json.loads(os.pread(fd, 65536, 0))
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(holder["since"])))
        pid, command = int(holder["pid"]), str(holder["command"])
    except (OSError, ValueError, KeyError, TypeError):
        return "Another process is writing to this index."
    return f"Another process is writing to this index: `{command}` (process {pid}), since {since}."


if sys.platform == "win32":
    import msvcrt

    def _lock(fd: int) -> None:
        # Windows locks bytes against reading too: take one far behind the text.
        os.lseek(fd, 1 << 30, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
