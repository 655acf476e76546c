"""An hour of mixed load with one request in a hundred hostile: memory, statuses, and whether a document was lost.

    python bench/serve_soak.py [--minutes 60] [--clients 8]

Searches, questions, embeddings, lists, texts, uploads and removals in a fixed random order. Hostile: broken JSON, wrong
types, huge k, a body that is too large, paths that climb, rubbish on the socket. Memory of all processes is read every
ten seconds; at the end every document that was uploaded and not removed must be found by its own word.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import _facts
import startup
from _server import kogata_serve, post, resident_mb, running, send

PORT = 8433
HOSTILE = 0.01
KEEP = 200  # uploaded documents that are there at a time, about


def upload(name: str, text: str) -> bytes:
    edge = "kogata-bench-edge"
    body = (
        f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        f"Content-Type: text/plain\r\n\r\n{text}\r\n--{edge}--\r\n"
    ).encode()
    kind = f"multipart/form-data; boundary={edge}"
    head = f"POST /v1/documents HTTP/1.1\r\nHost: 127.0.0.1:{PORT}\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def bare(method: str, path: str) -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{PORT}\r\nContent-Length: 0\r\n\r\n".encode()


def hostile(dice: random.Random) -> bytes:
    """One of many bad requests."""
    broken = b'{"query": "a", "k": '
    head = f"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1:{PORT}\r\nContent-Type: application/json\r\n"
    return dice.choice(
        [
            f"{head}Content-Length: {len(broken)}\r\n\r\n".encode() + broken,
            f"{head}Content-Length: 64000000\r\n\r\n".encode(),
            post("/v1/search", {"query": 5}, PORT),
            post("/v1/search", {"query": "tide", "k": 10**9}, PORT),
            post("/v1/search", {"query": '"(NEAR* OR', "unknown": 1}, PORT),
            post("/v1/embeddings", {"input": ["a"], "dimensions": 10**6}, PORT),
            post("/v1/embeddings", {"input": ["word " * 2000]}, PORT),
            bare("GET", "/static/../../etc/passwd"),
            bare("GET", "/v1/documents/../../etc/passwd/file"),
            bare("GET", "/v1/documents/999999999/text?start=-1"),
            b"\x00\xff rubbish\r\n\r\n",
            upload("../../../escape.txt", "a name that climbs"),
        ]
    )


class Soak:
    """The clients, and what they have seen."""

    def __init__(self, seconds: float) -> None:
        self.ends = time.monotonic() + seconds
        self.statuses: dict[str, int] = {}
        self.uploaded: dict[str, str] = {}  # word -> name
        self.requests = 0
        self.hostile = 0

    async def client(self, seed: int) -> None:
        dice = random.Random(seed)
        connection = await asyncio.open_connection("127.0.0.1", PORT)
        while time.monotonic() < self.ends:
            self.requests += 1
            try:
                if dice.random() < HOSTILE:
                    self.hostile += 1
                    status, _ = await asyncio.wait_for(send(connection, hostile(dice)), 60)
                    connection[1].close()  # what a bad request leaves on a connection is nobody's business
                    connection = await asyncio.open_connection("127.0.0.1", PORT)
                else:
                    status = await asyncio.wait_for(self.good(connection, dice), 120)
                self.count(status)
            except (asyncio.IncompleteReadError, ConnectionError):
                self.count("closed")
                connection = await asyncio.open_connection("127.0.0.1", PORT)
        connection[1].close()

    async def good(self, connection: Any, dice: random.Random) -> int:
        kind = dice.choices(("search", "ask", "embed", "list", "upload", "remove"), (50, 10, 25, 8, 5, 2))[0]
        if kind == "upload" and len(self.uploaded) < KEEP:
            word = f"soakword{dice.randrange(10**12)}"
            status, _ = await send(connection, upload(f"{word}.txt", f"The {word} was seen at the harbour. " * 5))
            if status == 202:
                self.uploaded[word] = f"{word}.txt"
            return status
        if kind == "remove" and self.uploaded:
            word = dice.choice(list(self.uploaded))
            name = self.uploaded.pop(word)
            _, body = await send(connection, bare("GET", f"/v1/documents?q={name}"))
            found = json.loads(body)["documents"]
            if not found:  # not read yet: it stays
                self.uploaded[word] = name
                return 200
            status, _ = await send(connection, bare("DELETE", f"/v1/documents/{found[0]['id']}"))
            return status
        if kind == "embed":
            body: dict[str, Any] = {"input": [f"sentence {dice.random()}"] * dice.randrange(1, 9)}
            return (await send(connection, post("/v1/embeddings", body, PORT)))[0]
        if kind == "list":
            return (await send(connection, bare("GET", f"/v1/documents?offset={dice.randrange(100)}&limit=20")))[0]
        path = "/v1/ask" if kind == "ask" else "/v1/search"
        question = f"how do I allocate memory for array {dice.randrange(10**6)}"
        return (await send(connection, post(path, {"query": question}, PORT)))[0]

    def count(self, status: int | str) -> None:
        self.statuses[str(status)] = self.statuses.get(str(status), 0) + 1


async def soak(seconds: float, clients: int) -> dict[str, Any]:
    state = Soak(seconds)
    memory: list[float] = []

    async def watch() -> None:
        while time.monotonic() < state.ends:
            memory.append(resident_mb(PORT)["together"])
            print(f"{state.ends - time.monotonic():6.0f} s left  {memory[-1]:6.1f} MB  {state.statuses}", flush=True)
            await asyncio.sleep(10)

    await asyncio.gather(watch(), *(state.client(seed) for seed in range(clients)))
    await asyncio.sleep(15)  # what was uploaded last is read
    connection = await asyncio.open_connection("127.0.0.1", PORT)
    lost = []
    for word, name in state.uploaded.items():
        _, body = await send(connection, post("/v1/search", {"query": word, "mode": "words", "k": 1}, PORT))
        hits = json.loads(body)["hits"]
        if not hits or not hits[0]["path"].endswith(name):
            lost.append(name)
    quarter = max(1, len(memory) // 4)
    return {
        "seconds": seconds, "clients": clients, "requests": state.requests, "hostile": state.hostile,
        "statuses": state.statuses, "uploaded_there": len(state.uploaded), "lost": lost,
        "memory_mb": {"first": memory[0], "second_quarter": sum(memory[quarter : 2 * quarter]) / quarter,
                      "last_quarter": sum(memory[-quarter:]) / quarter, "peak": max(memory)},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--clients", type=int, default=8)
    given = parser.parse_args()
    _facts.require_native()
    with tempfile.TemporaryDirectory(prefix="kogata-bench-") as scratch:
        folder, index = Path(scratch) / "docs", Path(scratch) / "index.sqlite"
        folder.mkdir()
        for number, text in enumerate(startup.texts()[::10]):
            (folder / f"{number:05}.txt").write_text(text, encoding="utf-8")
        subprocess.run([*kogata_serve(0, index)[:3], "index", "--index", str(index), str(folder)], check=True)
        with running(kogata_serve(PORT, index, folder), PORT, "/health"):
            figures = asyncio.run(soak(60 * given.minutes, given.clients))
    print(json.dumps(figures, indent=1))
    _facts.write("serve_soak", figures)


if __name__ == "__main__":
    main()
