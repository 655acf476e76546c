"""Loading a converted model, and the memory it takes beside its weights and its keys and values.

    python bench/decoder_memory.py [--shapes 2B4T 150M] [--tokens 2048]

Folders of `kogata convert` of published shapes with random ternary weights, made once. Each figure comes from a process
of its own; medians of five, of one where the disk is read. Memory is resident memory by /proc (Linux): pages of the
model's mapped file are counted apart, since they are the disk cache's and are shared by processes. "beyond" is what is
neither those nor keys and values: the interpreter, numpy, the tokenizer, activations, logits.

    load          opening the folder: the first time a file is seen (all of it is read, checked and hashed), then with
                  its pages in the disk cache, and after they were dropped from it (cold)
    first token   `kogata run` from the start of the process to its end after one token
    convert       from a checkpoint as BitNet 2B4T's is published; the peak, and how much of it is not mapped files
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import _decoders
import _facts

RUNS = 5
KOGATA = [sys.executable, "-m", "kogata.app.cli"]


# --- the process that is looked at


def observed(folder: str, kv: str, n_tokens: int) -> None:
    """Loads, reads a prompt of nearly so many tokens and writes some; tells its memory after each."""
    from kogata.ops.attend import page_bytes
    from kogata.run.model import load
    from kogata.run.sampling import SamplingParams

    imported = resident(folder)
    began = time.perf_counter()
    model = load(folder, kv=kv)  # type: ignore[arg-type]
    told: dict[str, Any] = {"load_s": time.perf_counter() - began, "weights": model.packed.nbytes}
    told |= {"imported": imported, "loaded": resident(folder)}
    if n_tokens:
        config = model.packed.config
        ids = np.random.default_rng(0).integers(0, config.vocab_size, n_tokens - 16)
        answers = model.engine.submit(ids, SamplingParams(max_tokens=16, ignore_eos=True, temperature=0.0))
        assert sum(1 for _ in model.engine.run(answers)) == 16
        pages = -(-n_tokens // 64)
        told["kv"] = pages * page_bytes(kv, config.d_head) * config.n_kv_heads * config.n_layers  # type: ignore[arg-type]
        told["written"] = resident(folder)
    _decoders.answer(**told)


def resident(folder: str) -> dict[str, int]:
    """Bytes of this process in memory: all, and those of the model's mapped file."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    maps = Path("/proc/self/smaps").read_text(encoding="utf-8")
    where = re.escape(str(Path(folder, "model.safetensors").resolve()))
    mapped = re.findall(rf"{where}\n(?:[A-Z].*\n)*?Rss: +(\d+) kB", maps)
    return {"all": _kilobytes(status, "VmRSS"), "mapped": 1024 * sum(map(int, mapped))}


def _kilobytes(status: str, name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", status)
    return 0 if found is None else 1024 * int(found[1])


# --- looking


def observe(folder: Path, kv: str, n_tokens: int, *, cold: bool = False, home: str | None = None) -> dict[str, Any]:
    """What :func:`observed` tells."""
    if cold:
        drop(folder)
    environment = os.environ if home is None else {**os.environ, "XDG_CACHE_HOME": home}
    command = [sys.executable, __file__, "--side", str(folder), kv, str(n_tokens)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def drop(folder: Path) -> None:
    """Takes a folder's files out of the disk cache."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def first_token(folder: Path) -> float:
    began = time.perf_counter()
    command = [*KOGATA, "run", str(folder), "Once upon a time", "--max-tokens", "1", "--context", "4096"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def converting(shape: str) -> dict[str, float]:
    """Seconds and peak bytes of `kogata convert`."""
    source = _decoders.published(shape)
    with tempfile.TemporaryDirectory(dir=_decoders.CACHE, prefix="converted-") as scratch:
        began = time.perf_counter()
        command = [*KOGATA, "convert", str(source), f"{scratch}/out"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        peak = own = 0
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
            peak, own = max(peak, _kilobytes(status, "VmHWM")), max(own, _kilobytes(status, "RssAnon"))
            time.sleep(0.01)
        assert process.returncode == 0
        seconds = time.perf_counter() - began
    of_files = sum(path.stat().st_size for path in source.iterdir())
    return {"seconds": seconds, "peak": peak, "peak_not_mapped": own, "source": of_files}


def measured(shape: str, n_tokens: int) -> dict[str, Any]:
    folder = _decoders.converted(shape)
    home = tempfile.mkdtemp(prefix="kogata-bench-")
    try:
        first = observe(folder, "bf16", 0, home=home)
    finally:
        shutil.rmtree(home)
    warm = [observe(folder, "bf16", 0) for _ in range(RUNS)]
    found: dict[str, Any] = {
        "load_first_s": first["load_s"],
        "load_warm_s": statistics.median(one["load_s"] for one in warm),
        "load_cold_s": observe(folder, "bf16", 0, cold=True)["load_s"],
        "first_token_s": statistics.median(first_token(folder) for _ in range(RUNS)),
    }
    drop(folder)
    found["first_token_cold_s"] = first_token(folder)
    found |= {"weights": warm[0]["weights"], "imported": warm[0]["imported"]["all"]}
    found["idle_beyond"] = statistics.median(one["loaded"]["all"] - one["loaded"]["mapped"] for one in warm)
    print(
        f"{shape}: load {found['load_first_s']:.2f} s the first time, then {found['load_warm_s']:.2f} s, cold "
        f"{found['load_cold_s']:.2f} s; first token {found['first_token_s']:.2f} s, cold "
        f"{found['first_token_cold_s']:.2f} s\n  weights {mb(found['weights'])}; imported {mb(found['imported'])}; "
        f"loaded, beyond the mapped file {mb(found['idle_beyond'])} (goal: under 120)"
    )
    for kv in ("bf16", "int8"):
        several = [observe(folder, kv, n_tokens) for _ in range(3)]
        one = sorted(several, key=lambda one: one["written"]["all"])[1]
        held = one["weights"] + one["kv"]
        found[kv] = row = {
            "kv": one["kv"], "resident": one["written"]["all"], "mapped": one["written"]["mapped"],
            "beyond": one["written"]["all"] - one["written"]["mapped"] - one["kv"],
            "times_weights_and_kv": one["written"]["all"] / held,
        }  # fmt: skip
        print(
            f"  {n_tokens} tokens, {kv}: keys and values {mb(row['kv'])}, resident {mb(row['resident'])}, "
            f"{row['times_weights_and_kv']:.2f} times weights + KV (goal: 1.10); beyond {mb(row['beyond'])}"
        )
    found["convert"] = made = converting(shape)
    print(
        f"  convert: {made['seconds']:.1f} s from {mb(made['source'])}, peak {mb(made['peak'])}, "
        f"{mb(made['peak_not_mapped'])} without mapped files",
        flush=True,
    )
    return found


def mb(n: float) -> str:
    return f"{n / 1e6:,.0f} MB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=_decoders.SIZES, default=list(_decoders.SIZES))
    parser.add_argument("--tokens", type=int, default=2048, help="of the text whose memory is looked at")
    parser.add_argument("--side", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        observed(given.side[0], given.side[1], int(given.side[2]))
        return
    _facts.require_native()
    _facts.write(
        "decoder_memory", {"tokens": given.tokens, **{one: measured(one, given.tokens) for one in given.shapes}}
    )


if __name__ == "__main__":
    main()
