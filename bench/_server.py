"""Servers to be measured, and a lean client: HTTP/1.1 over kept connections, so that the client costs little itself."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

KOGATA = [sys.executable, "-m", "kogata.app.cli"]


@contextmanager
def running(command: Sequence[str], port: int, health: str) -> Iterator[float]:
    """A server in a process of its own; gives the seconds until it answered."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{health}", timeout=5):
                    break
            except OSError:
                if process.poll() is not None:
                    raise SystemExit(f"{' '.join(command)} ended with {process.returncode}") from None
                time.sleep(0.01)
        yield time.perf_counter() - begin
    finally:
        process.terminate()
        process.wait(timeout=20)


def kogata_serve(
    port: int, index: Path, *paths: Path, threads: int | None = None, model: Path | None = None
) -> list[str]:
    """The command line of our server."""
    more = [] if threads is None else ["--threads", str(threads)]
    more += [] if model is None else ["--model", str(model)]
    return [*KOGATA, "serve", "--port", str(port), "--index", str(index), "--log", "off", *more, *map(str, paths)]


def resident_mb(port: int) -> dict[str, float]:
    """Resident megabytes of the process that listens on a port, and of its children."""
    listing = subprocess.run(["ps", "-eo", "pid,ppid,rss,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 3) for line in listing.splitlines()[1:]]
    (head,) = [row for row in rows if f"serve --port {port} " in row[3] + " "]
    family = {"http": int(head[2]) / 1024}
    for row in rows:
        if row[1] == head[0]:
            family["engine"] = family.get("engine", 0.0) + int(row[2]) / 1024
    return {**family, "together": sum(family.values())}


async def send(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], raw: bytes) -> tuple[int, bytes]:
    """A request on a kept connection: (status, body)."""
    reader, writer = connection
    writer.write(raw)
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    body = await reader.readexactly(int(length[1])) if length else b""
    if head.startswith(b"HTTP/1.0"):
        await reader.read()  # to its end: this server closes after each answer
    return int(head[9:12]), body


def post(path: str, body: object, port: int) -> bytes:
    """The bytes of a request."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


async def load(
    port: int, clients: int, seconds: float, request: Callable[[int], bytes]
) -> tuple[list[float], dict[int, int], float]:
    """So many clients, each sending its next request when the last is answered: (latencies, statuses, wall seconds)."""
    latencies: list[float] = []
    statuses: dict[int, int] = {}
    numbers = iter(range(10**9))
    begin = time.perf_counter()

    async def client() -> None:
        connection = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() - begin < seconds:
            asked = time.perf_counter()
            if connection[0].at_eof():  # a server that keeps no connections
                connection[1].close()
                connection = await asyncio.open_connection("127.0.0.1", port)
            status, _ = await send(connection, request(next(numbers)))
            latencies.append(time.perf_counter() - asked)
            statuses[status] = statuses.get(status, 0) + 1
        connection[1].close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return latencies, statuses, time.perf_counter() - begin
