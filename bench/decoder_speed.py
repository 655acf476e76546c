"""Prefill and decoding of ternary models beside llama.cpp: tokens a second, and the share of the machine's floor.

    python bench/decoder_speed.py [--shape 2B4T|150M] [--threads 1 2] [--kinds TQ2_0 Q4_0]

Random ternary weights of published shapes. Each side is a process of its own that is asked in turn, three rounds, the
median counts. Decoding: about a second of tokens one after another from an empty context, after four that are not
counted, since each side has waited for the others; sampling is left out on both sides. Prefill: 512 tokens at once, the
logits of the last alone. llama.cpp is llama-cpp-python's, built from source on this machine, its embedding and head at
8 bits (Q8_0), with flash attention off and on. Ours are mapped from what `kogata convert` writes. The floor of decoding
is the bytes of all weights over the bandwidth of reading those mapped weights (for the 150M shape, which half fits a
large cache, of 256 MB of other memory), measured right after it; prefill is compared with the int8 peak.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import _decoders
import _facts

DECODED = {"2B4T": 24, "150M": 192}  # about a second
WARM, PREFILLED, ROUNDS = 4, 512, 3


# --- the sides, each in its own process


def ours(folder: str) -> None:
    import kogata
    from kogata.ops import dispatch, measure
    from kogata.run.cache import Sequence
    from kogata.run.decoder import Step
    from kogata.run.speed import weights_of_a_token

    began = time.perf_counter()
    model = kogata.load(folder, context=4096)
    weights = weights_of_a_token(model.packed)
    _decoders.answer(load_s=time.perf_counter() - began, bytes=sum(array.nbytes for array in weights))
    ids = np.random.default_rng(1).integers(0, model.packed.config.vocab_size, PREFILLED)
    pool = model.decoder.pool(1024)
    for asked in _decoders.questions():
        dispatch.set_threads(asked["threads"])
        if asked["what"] == "bandwidth":
            _decoders.answer(bandwidth=measure.bandwidth(weights))
            continue
        text = Sequence()
        pool.reserve(text, PREFILLED)

        def read(ids: NDArray[np.int64], text: Sequence = text) -> None:
            model.decoder.forward(Step([text], [ids], [1]), pool)

        _decoders.answer(seconds=_timed(read, ids, asked))
        pool.release(text)


def theirs(path: str, flash: bool) -> None:
    from _llama import Context, Llama

    began = time.perf_counter()
    model = Llama(Path(path))
    _decoders.answer(load_s=time.perf_counter() - began, bytes=Path(path).stat().st_size)
    ids = np.random.default_rng(1).integers(0, model.vocab_size, PREFILLED).astype(np.int32)
    contexts: dict[int, Context] = {}
    for asked in _decoders.questions():
        threads = asked["threads"]
        if threads not in contexts:
            contexts[threads] = model.context(1024, flash=flash, rows=PREFILLED)
            contexts[threads].threads(threads)
        context = contexts[threads]
        context.cut(0)
        _decoders.answer(seconds=_timed(context.read, ids, asked))


def _timed(read: Callable[[Any], object], ids: NDArray[Any], asked: dict[str, Any]) -> float:
    """Seconds of reading all these tokens at once, or of a token, one after another."""
    if asked["what"] == "prefill":
        began = time.perf_counter()
        read(ids)
        return time.perf_counter() - began
    for n in range(WARM):
        read(ids[n : n + 1])
    began = time.perf_counter()
    for n in range(WARM, WARM + asked["tokens"]):
        read(ids[n : n + 1])
    return (time.perf_counter() - began) / asked["tokens"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=_decoders.SIZES, default="2B4T")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--kinds", nargs="*", default=["TQ2_0", "Q4_0"], help="of llama.cpp")
    parser.add_argument("--side", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        kind, *rest = given.side
        if kind == "ours":
            ours(*rest)
        else:
            theirs(rest[0], rest[1] == "on")
        return
    from kogata.ops import dispatch, measure

    _facts.require_native()
    own = [
        _decoders.Side(
            __file__, f"kogata {ternary}, {head} head", "ours",
            str(_decoders.converted(given.shape, ternary=ternary, head=head)),
        )
        for ternary, head in (("ternary", "int8"), ("trits", "int8"), ("trits", "int4"))
    ]  # fmt: skip
    sides = [*own]
    for kind in given.kinds:
        file = _decoders.gguf(given.shape, kind)
        sides += [
            _decoders.Side(__file__, f"llama.cpp {kind}, flash {flash}", "theirs", str(file.path), flash)
            for flash in ("off", "on")
        ]
    config = _decoders.config(given.shape)
    n_weights = sum(int(np.prod(p.shape)) for p in config.parameters() if "layers" in p.name)
    table: dict[str, Any] = {}
    for threads in given.threads:
        seconds: dict[tuple[str, str], list[float]] = {}
        shares: dict[str, list[float]] = {}
        bandwidths, peaks = [], []
        for _ in range(ROUNDS):
            dispatch.set_threads(threads)
            peaks.append(measure.peaks()["int8"])
            for side in sides:
                decode = side.ask(what="decode", threads=threads, tokens=DECODED[given.shape])["seconds"]
                seconds.setdefault((side.name, "decode"), []).append(decode)
                # At once, since the bandwidth changes with what neighbours do; over the model's own weights, if ours.
                mapped = side if side in own else own[0]
                bandwidths.append(mapped.ask(what="bandwidth", threads=threads)["bandwidth"])
                floor = side.loaded["bytes"] / bandwidths[-1] / 1e9
                shares.setdefault(side.name, []).append(floor / decode)
            for side in sides:
                prefill = side.ask(what="prefill", threads=threads)["seconds"]
                seconds.setdefault((side.name, "prefill"), []).append(prefill)
        bandwidth, peak = statistics.median(bandwidths), statistics.median(peaks)
        print(f"{given.shape}, {threads} threads: {bandwidth:.1f} GB/s, int8 peak {peak:.0f} GOP/s")
        for side in sides:
            decode = statistics.median(seconds[side.name, "decode"])
            prefill = statistics.median(seconds[side.name, "prefill"])
            row = {
                "decode_tokens_per_s": 1 / decode, "prefill_tokens_per_s": PREFILLED / prefill,
                "bytes": side.loaded["bytes"], "decode_floor_share": statistics.median(shares[side.name]),
                "prefill_peak_share": 2 * n_weights * PREFILLED / prefill / 1e9 / peak, "load_s": side.loaded["load_s"],
            }  # fmt: skip
            table.setdefault(str(threads), {"bandwidth_gb_s": bandwidth, "int8_gop_s": peak})[side.name] = row
            decoding = f"{row['decode_tokens_per_s']:7.1f}/s ({row['decode_floor_share']:4.0%} of floor)"
            prefilling = f"{row['prefill_tokens_per_s']:7.1f}/s ({row['prefill_peak_share']:4.0%} of peak)"
            print(f"  {side.name:32} decode {decoding}   prefill {prefilling}")
    for side in sides:
        side.close()
    _facts.write(f"decoder_speed_{given.shape}", {"threads": table})


if __name__ == "__main__":
    main()
