"""`kogata serve --writer`: tokens a second of one and of eight streams, and how soon a long prompt is answered.

    python bench/serve_writing.py [--shape 2B4T|150M] [--prompt 8192] [--tokens 64]
    python bench/serve_writing.py --shape tiny --prompt 1024          # the demonstration model, to try the script

The model is a published shape with random ternary weights, converted; what it writes is noise, so prompts are token ids
and an answer has exactly so many tokens. Streams: OpenAI's server-sent events over HTTP, prompts of 32 tokens, all
different; the rate is all tokens of all streams over the time from the first request to the last token. First tokens: a
prompt that nobody sent before, the same again, and that prompt with 256 tokens more, as a conversation that goes on.
Three rounds, everything in turn; medians. Then the last prompt is sent to a server with `--cache-dir`, and once more
after a restart of that. The client runs on the same cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import _decoders
import _facts
from _server import kogata_serve, post, resident_mb, running

PORT, ROUNDS, STREAMS = 8433, 3, 8
SHORT, MORE = 32, 256


@dataclass(frozen=True)
class Stream:
    """An answer: when its first text and its end came, in seconds after it was asked for, and its tokens."""

    first: float
    seconds: float
    tokens: int
    cached: int


async def stream(prompt: list[int], n_tokens: int) -> Stream:
    """One answer. An event is a line; the borders of HTTP's chunks are lines that are none."""
    body = {
        "prompt": prompt, "max_tokens": n_tokens, "temperature": 0, "ignore_eos": True, "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT, limit=2**20)
    began = time.perf_counter()
    writer.write(post("/v1/completions", body, PORT))
    first, usage = 0.0, None
    async for line in reader:
        if line.startswith(b"HTTP/1.1 ") and not line.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"The server says {line.decode()}{(await reader.read(2000)).decode()}")
        if not line.startswith(b"data: "):
            continue
        if line.startswith(b"data: [DONE]"):
            break
        event = json.loads(line.removeprefix(b"data: "))
        if event.get("error"):
            raise SystemExit(f"The server says {event['error']}")
        first = first or time.perf_counter() - began
        usage = event.get("usage") or usage
    taken = time.perf_counter() - began
    writer.close()
    assert usage is not None
    assert usage["completion_tokens"] == n_tokens, usage
    return Stream(first, taken, n_tokens, usage["prompt_tokens_details"]["cached_tokens"])


def together(prompts: list[list[int]], n_tokens: int) -> float:
    """Tokens a second of all of these at once."""

    async def all_of_them() -> list[Stream]:
        return await asyncio.gather(*(stream(prompt, n_tokens) for prompt in prompts))

    began = time.perf_counter()
    answers = asyncio.run(all_of_them())
    return sum(answer.tokens for answer in answers) / (time.perf_counter() - began)


def measured(command: list[str], cache_dir: Path, given: argparse.Namespace, vocabulary: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)

    def text(n_tokens: int) -> list[int]:
        return [int(token) for token in rng.integers(256, vocabulary, n_tokens)]

    def first(prompt: list[int]) -> Stream:
        return asyncio.run(stream(prompt, 4))

    rates: dict[int, list[float]] = {1: [], STREAMS: []}
    waits: dict[str, list[Stream]] = {}
    prompt: list[int] = []
    with running(command, PORT, "/health") as started:
        together([text(SHORT)], 4)
        for _ in range(ROUNDS):
            for n, found in rates.items():
                found.append(together([text(SHORT) for _ in range(n)], given.tokens))
            prompt = text(given.prompt)
            for name, one in (("new", prompt), ("again", prompt), ("goes on", prompt + text(MORE))):
                waits.setdefault(name, []).append(first(one))
        memory = resident_mb(PORT)
    keeping = [*command, "--cache-dir", str(cache_dir)]
    for name in ("new, kept", "restarted"):
        with running(keeping, PORT, "/health"):
            together([text(SHORT)], 4)
            waits[name] = [first(prompt)]
    new = statistics.median(one.first for one in waits["new"])
    return {
        "start_s": started,
        "memory_mb": memory,
        "tokens_per_s": {str(n): statistics.median(found) for n, found in rates.items()},
        "first_token": {
            name: {
                "seconds": statistics.median(one.first for one in several),
                "share_of_new": statistics.median(one.first for one in several) / new,
                "cached_tokens": several[-1].cached,
            }
            for name, several in waits.items()
        },
    }


def show(figures: dict[str, Any], given: argparse.Namespace) -> None:
    rates = figures["tokens_per_s"]
    one, several = rates["1"], rates[str(STREAMS)]
    print(f"{given.shape}: started in {figures['start_s']:.1f} s; {figures['memory_mb']['together']:.0f} MB at the end")
    print(f"  1 stream {one:.1f} tokens/s, {STREAMS} streams {several:.1f}: {several / one:.2f} times (goal: 4)")
    for name, row in figures["first_token"].items():
        share = f"{row['share_of_new']:7.1%}{'  (goal: under 3 %)' if name == 'again' else ''}"
        print(
            f"  {given.prompt} tokens, {name:16}{1e3 * row['seconds']:10.1f} ms{share}, {row['cached_tokens']} reused"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=[*_decoders.SIZES, "tiny"], default="2B4T")
    parser.add_argument("--prompt", type=int, default=8192, help="tokens of the long prompt")
    parser.add_argument("--tokens", type=int, default=64, help="of each stream")
    given = parser.parse_args()
    _facts.require_native()
    if given.shape == "tiny":
        model, vocabulary, context = "tiny", 4096, 2048
    else:
        model = str(_decoders.converted(given.shape))
        vocabulary, context = _decoders.config(given.shape).vocab_size, given.prompt + 1024
    with tempfile.TemporaryDirectory(prefix="kogata-bench-") as scratch:
        nothing = Path(scratch) / "nothing"  # else Kogata's own documentation would be indexed meanwhile
        nothing.mkdir()
        command = kogata_serve(PORT, Path(scratch) / "index.sqlite", nothing)
        command += ["--writer", model, "--context", str(context)]
        figures = measured(command, Path(scratch) / "prefixes", given, vocabulary)
    show(figures, given)
    if given.shape != "tiny":
        _facts.write(f"serve_writing_{given.shape}", {"prompt": given.prompt, "tokens": given.tokens, **figures})


if __name__ == "__main__":
    main()
