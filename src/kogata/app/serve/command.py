"""`kogata serve`: bind, start the engine, say where it is, serve until Ctrl-C."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from kogata.app.models import fetch_with_progress
from kogata.app.progress import ProgressLine
from kogata.app.serve.link import Link
from kogata.app.serve.messages import Progress, Start, Writer
from kogata.app.terminal import safe_line
from kogata.errors import BadInput, KogataError, StoreError

if TYPE_CHECKING:
    import uvicorn

    from kogata.app.progress import Pace

log = logging.getLogger("kogata.serve")

START_SECONDS = 120.0
WRITER_SECONDS = 3600.0
"""A model that writes may have to be fetched and packed first."""

STOP_SECONDS = 10
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True)
class Options:
    """What `kogata serve` was told; see its help."""

    paths: Sequence[str]
    host: str
    port: int
    api_key: Sequence[str]
    allow_host: Sequence[str]
    allow_origin: Sequence[str]
    max_upload: int
    max_requests: int
    log: str
    place: str | None
    model: str | None
    precision: str
    threads: int | None
    writer: Writer | None


def run(
    paths: Sequence[str], *, max_upload: int, log: str, writer: str | None, writing: Mapping[str, Any], **told: Any
) -> int:  # fmt: skip
    """Serve until Ctrl-C or SIGTERM.

    Args:
        paths: What to index and keep current.
        max_upload: In megabytes.
        log: "auto", or one of the styles.
        writer: The model that writes; None for none.
        writing: How it runs: the other fields of :class:`~kogata.app.serve.messages.Writer`.
        told: The other :class:`Options`.

    Raises:
        BadInput: The port is taken, a path does not exist, or an option is not accepted.
        KogataError: The engine cannot be started.
    """
    if log == "auto":
        log = "off" if sys.stderr.isatty() else "json"
    model = None if writer is None else Writer(writer, **writing)
    options = Options(paths, max_upload=max_upload * 1_000_000, log=log, writer=model, **told)
    for path in options.paths:
        if not os.path.lexists(os.path.expanduser(path)):
            raise BadInput(f"There is no file or folder {path}.")
    with _bound(options.host, options.port) as listener:
        if writer is not None:
            fetch_with_progress(writer, "writer", quiet=log != "text")
        _log_to_stderr(options.log)
        with ProgressLine(quiet=log != "text") as line:
            asyncio.run(_serve(options, listener, _Shown(line)))
    return 0


class _Shown:
    """The indexing's progress on the terminal, once the server has said where it is."""

    def __init__(self, line: ProgressLine) -> None:
        self._line = line
        self.on = False
        self.pace: Pace | None = None
        self._said: str | None = None

    def __call__(self, state: Progress) -> None:
        if self.pace is not None:
            self.pace.seen(state, time.monotonic())
        if self.on:
            self._line(state)
        if state.error and state.error != self._said:
            self._line.clear()
            log.warning("indexing: %s", state.error)
        self._said = state.error


async def _serve(options: Options, listener: socket.socket, shown: _Shown) -> None:
    from kogata.ask.store.schema import resolve

    # Beside the index and named after it: never a folder that a person keeps files in. The index's name does not come
    # first, because what begins with that is the index itself to the watch.
    index = resolve(options.place)
    uploads = index.with_name(f"uploads-{index.name}")
    start = Start(
        options.place, tuple(os.fsencode(os.path.abspath(os.path.expanduser(path))) for path in options.paths),
        _manual(), str(uploads), options.model, options.precision, options.threads, writer=options.writer,
    )  # fmt: skip
    link = Link(start, shown)
    await link.open()  # it imports and loads its model while we import and bind ours
    try:
        keys = _keys(options)
        server = _server(options, keys, link, uploads, shown)
        for name in ("SIGINT", "SIGTERM"):
            with suppress(NotImplementedError):  # Windows has no such handlers: Ctrl-C is a KeyboardInterrupt there
                asyncio.get_running_loop().add_signal_handler(getattr(signal, name), _end, server)
        serving = asyncio.ensure_future(server._serve(sockets=[listener]))
        ready = asyncio.ensure_future(link.wait_ready(START_SECONDS if options.writer is None else WRITER_SECONDS))
        # Served from now on: until the engine is ready the page says so, and requests are answered with 503.
        await asyncio.wait({serving, ready}, return_when=asyncio.FIRST_COMPLETED)
        try:
            if ready.done():
                ready.result()
                _say_ready(options.host, listener.getsockname()[1], next(iter(keys), None))
                shown.on = True
        except KogataError:
            server.should_exit = True
            raise
        finally:
            ready.cancel()
            await serving
    finally:
        await link.close()


def _server(options: Options, keys: Sequence[str], link: Link, uploads: Path, shown: _Shown) -> uvicorn.Server:
    import uvicorn

    from kogata.app.http.application import application
    from kogata.app.http.context import Context
    from kogata.app.http.documents import sweep
    from kogata.app.http.guard import Limits, Rules

    sweep(uploads)
    context = Context(link, uploads)
    shown.pace = context.pace
    names = {options.host.lower(), socket.gethostname().lower(), *(name.lower() for name in options.allow_host)}
    limits = Limits(upload=options.max_upload, in_flight=options.max_requests)
    rules = Rules(frozenset(keys), frozenset(names), frozenset(options.allow_origin), limits)
    app: Any = application(context, rules, _request_log(options.log))
    return uvicorn.Server(
        uvicorn.Config(
            app, http="h11", ws="none", lifespan="off", access_log=False, log_config=None, server_header=False,
            timeout_keep_alive=30, timeout_graceful_shutdown=STOP_SECONDS, backlog=1024,
            h11_max_incomplete_event_size=2 * limits.header_bytes,
        )
    )  # fmt: skip


def _end(server: uvicorn.Server) -> None:
    """The first signal lets requests finish, the second does not."""
    server.force_exit = server.should_exit
    server.should_exit = True


def _bound(host: str, port: int) -> socket.socket:
    """A listening socket, so that a port that is taken is said before anything is fetched or loaded."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (socket.gaierror, UnicodeError, OverflowError) as error:
        raise BadInput(f"There is no address {host!r} to serve on: {error}.") from None
    # TCP by name: asyncio sets TCP_NODELAY only then, and without that every answer waits 40 ms for an acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if os.name == "posix":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise BadInput(
                f"Port {port} of {host} is taken, perhaps by another kogata serve.",
                hint="Name another with --port, or 0 for any that is free.",
            ) from None
        raise BadInput(f"{host} port {port} cannot be served on: {error.strerror}.") from None
    listener.listen(1024)
    return listener


def _keys(options: Options) -> tuple[str, ...]:
    """The keys that are accepted: those given, or one of our own, kept for the next time.

    Only loopback goes without; a server that has another name there is behind a proxy, which others can reach.
    """
    if options.api_key:
        for key in options.api_key:
            if len(key) < 8 or not key.isascii() or not key.isprintable():
                raise BadInput("An API key has at least 8 characters, all of them printable ASCII.")
        return tuple(options.api_key)
    if options.host.lower() in _LOOPBACK and not options.allow_host:
        return ()
    from platformdirs import user_data_path

    path = user_data_path("kogata", appauthor=False) / "api-key"
    with suppress(OSError):
        kept = path.read_text().strip()
        if len(kept) >= 8:
            return (kept,)
    key = secrets.token_urlsafe(24)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".api-key-")  # for its owner only
        with os.fdopen(handle, "w") as file:
            file.write(key + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise StoreError(f"The API key cannot be kept in {path}: {error.strerror}.") from error
    return (key,)


def _say_ready(host: str, port: int, key: str | None) -> None:
    """Where the page and the API are: for a person, on stdout."""
    shown = _reachable(host)
    base = f"http://{f'[{shown}]' if ':' in shown else shown}:{port}"
    page = f"{base}/#key={quote(key, safe='')}" if key else base
    print(f"Kogata is ready at {page}      API: {base}/v1", flush=True)


def _reachable(host: str) -> str:
    """An address that others can open; for "all addresses" the one towards the network."""
    if host not in ("0.0.0.0", "::", ""):
        return host
    family, far = (socket.AF_INET6, "2001:db8::1") if host == "::" else (socket.AF_INET, "192.0.2.1")
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((far, 9))  # sends nothing: it only picks the way
        return str(probe.getsockname()[0])
    return socket.gethostname()


def _manual() -> str | None:
    """Kogata's own documentation: beside the package in an installation, or in the source tree."""
    import kogata

    package = Path(kogata.__file__).parent
    return next((str(path) for path in (package / "docs", package.parents[1] / "docs") if path.is_dir()), None)


def _log_to_stderr(style: str) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLines() if style == "json" else logging.Formatter("kogata: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO if style != "off" else logging.WARNING)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


class _JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"time": round(record.created, 3), "level": record.levelname.lower(), "message": record.getMessage()}
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _request_log(style: str) -> Callable[[dict[str, Any]], None]:
    """Takes one record for each request."""
    requests = logging.getLogger("kogata.requests")

    def as_json(record: dict[str, Any]) -> None:
        requests.info("request", extra={"fields": record})

    def as_text(record: dict[str, Any]) -> None:
        requests.info(
            "%s %s %s %s %s ms %s", record["client"], record["method"], safe_line(record["path"]), record["status"],
            record["ms"], record["id"],
        )  # fmt: skip

    return {"json": as_json, "text": as_text}.get(style, lambda record: None)
