"""What the http process and the engine process say to each other.

Each message is a msgpack frame of its own: four bytes of length, then the body. Nothing is pickled. The http process
sends :class:`Call` and :class:`Cancel`; the engine sends :class:`Ready` once, then :class:`Done` or :class:`Failed` for
each call in any order, with any number of :class:`Part` before where the answer comes in parts, and :class:`Progress`
whenever an indexing run moves.
"""

from __future__ import annotations

import struct
from typing import Any, BinaryIO

import msgspec

HEAD = struct.Struct("<I")


class Writer(msgspec.Struct):
    """A model that writes; all as of :func:`kogata.load`."""

    model: str
    kv: str = "bf16"
    context: int | None = None
    quantise: str = "auto"
    memory: int | None = None
    cache_dir: str | None = None
    cache_size: int | None = None


class Start(msgspec.Struct, tag=True):
    """The first message: what to serve.

    Attributes:
        index: The index file; None for the default place.
        paths: Folders and files to index and keep current; bytes, since names need not be UTF-8.
        manual: Kogata's own documentation: indexed where the index knows no folder and none is given.
        uploads: The folder that uploaded files are kept in.
        model, precision, threads: As of :class:`kogata.Index`.
        first: Whether no earlier life of the engine has made the paths known.
        writer: The model that writes; None for none.
    """

    index: str | None
    paths: tuple[bytes, ...]
    manual: str | None
    uploads: str
    model: str | None
    precision: str
    threads: int | None
    first: bool = True
    writer: Writer | None = None


class Call(msgspec.Struct, tag=True):
    """Run a method of the engine (engine.py) with these arguments."""

    id: int
    method: str
    arguments: dict[str, Any]


class Cancel(msgspec.Struct, tag=True):
    """Nobody waits for this call any more."""

    id: int


class Ready(msgspec.Struct, tag=True):
    """The engine can be called."""

    pid: int


class Part(msgspec.Struct, tag=True):
    """A part of a call's answer, as its method says; more will come."""

    id: int
    body: bytes


class Done(msgspec.Struct, tag=True):
    """A call's result: JSON or raw vectors, as its method says."""

    id: int
    body: bytes


class Failed(msgspec.Struct, tag=True):
    """A call's error. ``kind`` is the name of a class of :mod:`kogata.errors`, or "internal"."""

    id: int
    kind: str
    message: str
    hint: str | None = None


class Progress(msgspec.Struct, tag=True):
    """How far the indexing is.

    Attributes:
        running: Whether a run is going on.
        phase: As of :class:`kogata.ask.indexing.report.ProgressEvent`; None before the first run.
        error: Why the last run failed; None where it did not.
        runs: How many runs have ended.
    """

    running: bool = False
    phase: str | None = None
    done: int = 0
    total: int = 0
    bytes_done: int = 0
    bytes_total: int = 0
    path: str = ""
    error: str | None = None
    runs: int = 0


ToEngine = Start | Call | Cancel
FromEngine = Ready | Part | Done | Failed | Progress

_encoder = msgspec.msgpack.Encoder()
decode_to_engine = msgspec.msgpack.Decoder(ToEngine).decode
decode_from_engine = msgspec.msgpack.Decoder(FromEngine).decode


def frame(message: ToEngine | FromEngine) -> bytes:
    """The message as it goes over the wire."""
    body = _encoder.encode(message)
    return HEAD.pack(len(body)) + body


def read_frame(stream: BinaryIO) -> bytes | None:
    """The body of the next frame; None at the end of the stream.

    Raises:
        EOFError: The stream ended inside a frame.
    """
    head = stream.read(HEAD.size)
    if not head:
        return None
    if len(head) < HEAD.size:
        raise EOFError("the stream ended inside a frame")
    (size,) = HEAD.unpack(head)
    body = stream.read(size)
    if len(body) < size:
        raise EOFError("the stream ended inside a frame")
    return body
