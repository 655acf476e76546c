"""A running `kogata serve` of a test's own: its process, its folders, and plain requests to it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

SECONDS = 30.0


class Server:
    """`kogata serve` on a free port, with a data folder of its own.

    Args:
        place: A new folder for its data.
        arguments: Of the command.
        environment: Beside the test's own.
    """

    def __init__(self, place: Path, *arguments: str | Path, environment: dict[str, str] | None = None) -> None:
        self.data = place / "data"
        self.index = self.data / "kogata" / "index.sqlite"
        self.uploads = self.data / "kogata" / "uploads-index.sqlite"
        self.errors = place / "stderr"
        own = {"XDG_DATA_HOME": str(self.data), "XDG_CACHE_HOME": str(place / "cache"), **(environment or {})}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("KOGATA_")}
        place.mkdir(parents=True, exist_ok=True)
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "kogata.app.cli", "serve", "--port", "0", "--log", "json", *map(str, arguments)],
                stdout=subprocess.PIPE, stderr=errors, text=True, env={**inherited, **own},
            )  # fmt: skip
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline()
        assert self.said.startswith("Kogata is ready at "), self.errors.read_text()
        self.url = self.said.split("API: ")[1].removesuffix("/v1\n")
        self.port = int(self.url.rpartition(":")[2])
        self.http = httpx.Client(base_url=self.url, timeout=SECONDS)

    def indexed(self, documents: int) -> None:
        """Wait until so many documents are indexed and nothing is being done."""

        def done() -> bool:
            status = self.http.get("/v1/status").json()
            now = status["indexing"]
            return status["documents"] == documents and now["phase"] == "done" and not now["running"]

        until(done, f"{documents} documents are indexed")

    def engine(self) -> int:
        """The engine's process id."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return next(int(pid) for pid in children if b"serve.engine" in command_of(int(pid)))

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return self.http.post(path, json=body, **options)

    def raw(self, sent: bytes, *, answers: int = 1, seconds: float = 5.0) -> bytes:
        """What comes back for these bytes: so many answers, or less where the server closes or falls silent."""
        received = b""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=seconds)
        with connection, suppress(TimeoutError, ConnectionError):
            connection.sendall(sent)
            while received.count(b"HTTP/1.1 ") < answers and (piece := connection.recv(65536)):
                received += piece
            connection.settimeout(0.1)
            while piece := connection.recv(65536):  # the rest of the last one
                received += piece
        return received

    def fine(self) -> None:
        """The next good request succeeds."""
        found = self.post("/v1/search", {"query": "tide gauge", "k": 1})
        assert (found.status_code, len(found.json()["hits"])) == (200, 1), found.text

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Its exit code."""
        self.http.close()
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(timeout=15)
        finally:
            self.process.kill()
            assert self.process.stdout is not None
            self.process.stdout.close()


def until(true: Any, what: str, seconds: float = SECONDS) -> None:
    """Wait until it is so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def command_of(pid: int) -> bytes:
    """A process's command line; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
