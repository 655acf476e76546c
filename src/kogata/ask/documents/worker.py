"""The process that parses: reads requests from its standard input, writes outcomes to its standard output.

Frames are a four-byte big-endian length and that much JSON. The process limits itself before the first file (address
space, processor time, file size, no core dumps), runs at low priority, and dies with its parent: by Linux's
parent-death signal, and everywhere by the end of its standard input.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from typing import Any, BinaryIO

from kogata.ask.documents.model import Document, Limits, Refusal
from kogata.ask.documents.reading import attempt

_HEADER = 4


def read_frame(stream: BinaryIO) -> Any:
    """The next message, or None at the end of the stream (also in the middle of a message)."""
    header = stream.read(_HEADER)
    if len(header) < _HEADER:
        return None
    size = int.from_bytes(header, "big")
    body = stream.read(size)
    return json.loads(body) if len(body) == size else None


def write_frame(stream: BinaryIO, message: Any) -> None:
    """Send a message. Lone surrogates (paths that are not UTF-8) pass as JSON escapes."""
    try:
        body = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        body = json.dumps(message, separators=(",", ":")).encode()
    stream.write(len(body).to_bytes(_HEADER, "big") + body)
    stream.flush()


def main() -> None:
    """Serve until the standard input ends."""
    parent = os.getppid()
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # whatever a library prints must not end up among the replies
        os.dup2(nowhere, descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _die_with_parent(parent)
    hello = read_frame(requests)
    if hello is None:
        return
    limits = Limits(**hello["limits"])
    _restrict(limits)
    write_frame(replies, {"ready": os.getpid()})
    while (request := read_frame(requests)) is not None:
        _allow_seconds(limits.seconds)
        outcome = attempt(os.fsencode(request["path"]), limits)
        reply = _reply(outcome, limits)
        reply["tired"] = _grown(limits)
        try:
            write_frame(replies, reply)
        except BrokenPipeError:
            return
        del outcome, reply


def _reply(outcome: Document | Refusal, limits: Limits) -> dict[str, Any]:
    if isinstance(outcome, Document):
        return {"document": outcome.to_dict()}
    return {
        "refusal": {
            "code": outcome.code, "reason": outcome.reason.encode("utf-8", "replace").decode(), "hash": outcome.hash,
            "size": outcome.size, "mtime_ns": outcome.mtime_ns,
        }
    }  # fmt: skip


def _die_with_parent(parent: int) -> None:
    if sys.platform.startswith("linux"):
        import ctypes

        PR_SET_PDEATHSIG = 1
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the signal was asked for
            os._exit(0)


def _restrict(limits: Limits) -> None:
    with contextlib.suppress(OSError, AttributeError):
        os.nice(10)
    try:
        import resource
    except ImportError:  # Windows
        return
    wanted = (
        (resource.RLIMIT_AS, limits.memory_mb << 20),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 16 << 20),  # only Python's own compiled modules are ever written
        (resource.RLIMIT_NOFILE, 64),
    )
    for which, value in wanted:
        _, hard = resource.getrlimit(which)
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(which, (value, value))


def _allow_seconds(seconds: float) -> None:
    """Processor time for the next file, on top of what was used: a second line behind the parent's clock."""
    try:
        import resource
    except ImportError:
        return
    usage = resource.getrusage(resource.RUSAGE_SELF)
    until = int(usage.ru_utime + usage.ru_stime + seconds) + 2
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    if hard == resource.RLIM_INFINITY or until <= hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_CPU, (until, hard))


def _grown(limits: Limits) -> bool:
    """Whether so much address space is taken that the next file had better get a fresh process.

    Not by ru_maxrss: on Linux it starts at what the parent had when it started this process.
    """
    try:
        with open("/proc/self/statm", "rb") as file:
            pages = int(file.read().split()[0])
    except (OSError, ValueError, IndexError):
        return False
    return pages * os.sysconf("SC_PAGE_SIZE") > limits.memory_mb * (1 << 20) // 2


if __name__ == "__main__":
    main()
