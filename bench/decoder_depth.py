"""Decoding and reading on in a long text beside llama.cpp: tokens a second by depth, and the share of the floor.

    python bench/decoder_depth.py [--shape 2B4T|150M] [--depths 4096 16384 65536] [--kv bf16 int8] [--threads 1 2]
    python bench/decoder_depth.py --shape 150M --depths 2048 --check

Random ternary weights of published shapes, ours as trits with an int8 head, llama.cpp's as TQ2_0 with a Q8_0 head, f16
and q8_0 keys and values, flash attention off and on (without it its values stay f16); its best setting counts. Each
side is a process of its own. At every depth one side after the other opens its context, is measured with every number
of threads and closes it, so that one long cache is in memory at a time (11 GB at most); three rounds, medians.
Prefill: 512 tokens at `--prefill-at`, a depth of the list; llama.cpp's f16 keys and values, since with q8_0 and flash
attention it takes minutes there.

Nobody reads 65,536 tokens first: our pages are filled with random keys and values, llama.cpp's with those of a short
text, repeated through its own saved state. That changes no time: both sides read every key and every value whatever it
is, in the same order, and none of them is zero, tiny or not a number, where arithmetic could differ. `--check` shows it
at a depth that can be read: each side's decoding after filling and after really reading random tokens.

The floor is the bytes of all weights and of all keys and values at that depth, over the bandwidth measured in the same
run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np

import _decoders
import _facts

ROUNDS, READ = 3, 512
LLAMA = [(kv, flash) for kv in ("f16", "q8_0") for flash in ("off", "on")]


def decoded(depth: int) -> int:
    """Tokens that are timed, fewer where each takes long."""
    return max(4, min(24, 2**18 // max(depth, 1)))


# --- the sides, each in its own process


def ours(shape: str, kv: str) -> None:
    from kogata.ops import dispatch
    from kogata.run.cache import PagePool, Sequence
    from kogata.run.decoder import Decoder, Step
    from kogata.run.speed import fill
    from kogata.weights.packed import pack_decoder

    packed = pack_decoder(_decoders.checkpoint(shape), ternary="trits", head="int8")
    decoder = Decoder(packed)
    config = decoder.config
    ids = np.random.default_rng(1).integers(0, config.vocab_size, 2**17).astype(np.int32)
    _decoders.answer(bytes=packed.nbytes)
    pool, text, depth = PagePool(config, "bf16", 0), Sequence(), 0

    def read(new: Any) -> None:
        decoder.forward(Step([text], [new], [1]), pool)

    for asked in _decoders.questions():
        took = 0.0
        match asked["what"]:
            case "open":
                depth, text = asked["depth"], Sequence()
                pool = decoder.pool(depth + READ + 64, kv)  # type: ignore[arg-type]
                if asked["read"]:
                    pool.reserve(text, depth)
                    for begin in range(0, depth, READ):
                        read(ids[begin : min(begin + READ, depth)])
                else:
                    fill(pool, text, depth, config)
                pool.reserve(text, depth + READ)
                read(ids[:1])
            case "close":
                pool, text = PagePool(config, "bf16", 0), Sequence()
            case what:
                dispatch.set_threads(asked["threads"])
                text.length = depth
                began = time.perf_counter()
                for part in [ids[:READ]] if what == "prefill" else ids[: decoded(depth), None]:
                    read(part)
                took = time.perf_counter() - began
        kv_bytes = pool.full.nbytes_of_page * (depth // 64)
        _decoders.answer(seconds=took, kv_bytes=kv_bytes)


def theirs(shape: str, kind: str, kv: str, flash: bool) -> None:
    from _llama import Llama

    path = _decoders.gguf(shape, kind).path
    model = Llama(path)
    ids = np.random.default_rng(1).integers(0, model.vocab_size, 2**17).astype(np.int32)
    config = _decoders.config(shape)
    values = 2 * config.n_layers * config.n_kv_heads * config.d_head
    of_value = {"f16": 2.0, "q8_0": 34 / 32}
    kv_bytes = values * (of_value[kv] + of_value[kv if flash else "f16"]) / 2
    _decoders.answer(bytes=path.stat().st_size)
    context, depth = None, 0
    for asked in _decoders.questions():
        took = 0.0
        match asked["what"]:
            case "open":
                depth = asked["depth"]
                context = model.context(depth + READ, flash=flash, kv=kv, rows=READ if asked["prefill"] else 64)
                context.threads(2)
                if asked["read"]:
                    for begin in range(0, depth, 64):
                        context.read(ids[begin : begin + 64])
                else:
                    context.deepen(ids, depth)
                context.read(ids[:1])
            case "close":
                assert context is not None
                context.close()
            case what:
                assert context is not None
                context.threads(asked["threads"])
                context.cut(depth)
                began = time.perf_counter()
                for part in [ids[:READ]] if what == "prefill" else ids[: decoded(depth), None]:
                    context.read(part)
                took = time.perf_counter() - began
        _decoders.answer(seconds=took, kv_bytes=kv_bytes * depth)


def check(sides: list[_decoders.Side], depth: int, threads: int) -> None:
    """Decoding after filling and after reading, by rounds."""
    print(f"depth {depth}, {threads} threads, ms a token: filled, read, and by how much the second is slower")
    for side in sides:
        found: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(ROUNDS):
            for read in (False, True):
                side.ask(what="open", depth=depth, prefill=False, read=read)
                seconds = [side.ask(what="decode", threads=threads)["seconds"] for _ in range(ROUNDS)]
                found[read].append(1e3 * statistics.median(seconds) / decoded(depth))
                side.ask(what="close")
        filled, read_ = (statistics.median(found[read]) for read in (False, True))
        print(f"  {side.name:40}{filled:9.3f}{read_:9.3f}{read_ / filled - 1:+8.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=_decoders.SIZES, default="2B4T")
    parser.add_argument("--depths", type=int, nargs="+", default=[4096, 16384, 65536], help="multiples of 64")
    parser.add_argument("--prefill-at", type=int, default=16384, metavar="DEPTH")
    parser.add_argument("--kv", nargs="+", choices=["bf16", "int8", "f32"], default=["bf16", "int8"], help="of ours")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--check", action="store_true", help="compare filled caches with read ones instead")
    parser.add_argument("--side", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        kind, *rest = given.side
        if kind == "ours":
            ours(*rest)
        else:
            theirs(*rest[:3], rest[3] == "on")
        return
    from kogata.ops import dispatch, measure

    _facts.require_native()
    sides = [_decoders.Side(__file__, f"kogata, {kv}", "ours", given.shape, kv) for kv in given.kv]
    sides += [
        _decoders.Side(__file__, f"llama.cpp TQ2_0, {kv}, flash {flash}", "theirs", given.shape, "TQ2_0", kv, flash)
        for kv, flash in LLAMA
    ]
    if given.check:
        check(sides, given.depths[0], given.threads[-1])
        return
    table: dict[str, Any] = {}
    for depth in given.depths:
        seconds: dict[tuple[str, str, int], list[float]] = {}
        held: dict[str, float] = {}
        bandwidths: dict[int, list[float]] = {threads: [] for threads in given.threads}
        whats = ["decode", "prefill"] if depth == given.prefill_at else ["decode"]
        for _ in range(ROUNDS):
            for threads in given.threads:
                dispatch.set_threads(threads)
                bandwidths[threads].append(measure.bandwidth())
            for side in sides:
                held[side.name] = side.ask(what="open", depth=depth, prefill="prefill" in whats, read=False)["kv_bytes"]
                for what in whats if "q8_0" not in side.name else ["decode"]:
                    for threads in given.threads:
                        took = side.ask(what=what, threads=threads)["seconds"]
                        seconds.setdefault((side.name, what, threads), []).append(took)
                side.ask(what="close")
        for threads in given.threads:
            bandwidth = statistics.median(bandwidths[threads])
            print(f"{given.shape}, depth {depth:,}, {threads} threads, {bandwidth:.1f} GB/s: tokens/s")
            rows: dict[str, dict[str, float]] = {}
            for side in sides:
                token = statistics.median(seconds[side.name, "decode", threads]) / decoded(depth)
                bytes_ = side.loaded["bytes"] + held[side.name]
                rows[side.name] = {
                    "decode_tokens_per_s": 1 / token, "bytes": bytes_, "floor_share": bytes_ / bandwidth / 1e9 / token
                }  # fmt: skip
                if read := seconds.get((side.name, "prefill", threads)):
                    rows[side.name]["prefill_tokens_per_s"] = READ / statistics.median(read)
            best = {
                rate: max(row.get(rate, 0.0) for name, row in rows.items() if name.startswith("llama"))
                for rate in ("decode_tokens_per_s", "prefill_tokens_per_s")
            }
            for name, row in rows.items():
                line = f"  {name:36}"
                for rate, most in best.items():
                    if rate not in row:
                        continue
                    row[rate.replace("tokens_per_s", "times_llama")] = row[rate] / most
                    line += f"{rate.split('_')[0]:>9}{row[rate]:8.2f} ({row[rate] / most:5.2f} x)"
                print(f"{line}   {row['floor_share']:4.0%} of floor", flush=True)
            table.setdefault(str(depth), {})[str(threads)] = {"bandwidth_gb_s": bandwidth, "sides": rows}
    for side in sides:
        side.close()
    _facts.write(f"decoder_depth_{given.shape}", {"depths": table})


if __name__ == "__main__":
    main()
