"""How long a person waits: `kogata --help`, and cold `kogata search` and `kogata ask` on an index of 10,000 passages.

    python bench/startup.py [--runs 11] [--index FILE]

Each command runs in a process of its own, in turn, so that all see the same machine; medians are reported. "Cold" means
a new process, not a cold disk. The first run makes the index from ../shared/data (a few minutes) under the user's cache
folder; later runs reuse it. Limits: help under 0.3 s, search under 0.6 s.
"""

from __future__ import annotations

import argparse
import gzip
import json
import lzma
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import _facts

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "kogata-bench"
KOGATA = [sys.executable, "-m", "kogata.app.cli"]
PASSAGES = 10_000
LIMITS = {"kogata --help": 0.3, "kogata search (English)": 0.6, "kogata search (Japanese)": 0.6}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=11)
    options.add_argument("--index", type=Path, default=CACHE / "startup-10k.sqlite")
    given = options.parse_args()
    _facts.require_native()
    make_index(given.index)
    place = ["--index", str(given.index)]
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "python -c 'import numpy'": [sys.executable, "-c", "import numpy"],
        "kogata --help": [*KOGATA, "--help"],
        "kogata search --words": [*KOGATA, "search", *place, "--words", "allocate memory for an array"],
        "kogata search (English)": [*KOGATA, "search", *place, "how do I allocate memory for an array"],
        "kogata search (Japanese)": [*KOGATA, "search", *place, "漫画家が生まれた町はどこですか"],
        "kogata ask (English)": [*KOGATA, "ask", *place, "How is an array constructor declared?"],
        "kogata ask (Japanese)": [*KOGATA, "ask", *place, "手塚治虫はどこで生まれましたか"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    memory: dict[str, int] = {}
    for turn in range(given.runs + 1):  # the first turn warms the disk cache and does not count
        for name, command in commands.items():
            took, peak = timed(command)
            if turn:
                seconds[name].append(took)
                memory[name] = max(memory.get(name, 0), peak)
    rows = {
        name: {
            "median_s": round(statistics.median(times), 4),
            "min_s": round(min(times), 4),
            "max_s": round(max(times), 4),
            "peak_rss_mb": round(memory[name] / 1e6, 1),
            "limit_s": LIMITS.get(name),
        }
        for name, times in seconds.items()
    }
    print(f"{'':28}{'median':>9}{'min':>9}{'max':>9}{'memory':>10}   limit")
    for name, row in rows.items():
        figures = "".join(f"{row[key]:8.3f}s" for key in ("median_s", "min_s", "max_s"))
        within = "ok" if row["median_s"] < (row["limit_s"] or 0) else "MISSED"
        limit = "" if row["limit_s"] is None else f"{row['limit_s']} s {within}"
        print(f"{name:28}{figures}{row['peak_rss_mb']:7.0f} MB   {limit}")
    _facts.write("startup", {"passages": PASSAGES, "runs": given.runs, "commands": rows})


def timed(command: list[str]) -> tuple[float, int]:
    """(wall seconds, peak resident bytes) of a command; not finding anything (exit code 3) is a result too."""
    with tempfile.TemporaryFile() as sink:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        took = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in (0, 3):
            sink.seek(0)
            sys.exit(f"{' '.join(command)} failed with {process.returncode}:\n{sink.read().decode()}")
    return took, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def make_index(place: Path) -> None:
    """10,000 short files of real text, half English and half Japanese, a passage each."""
    if place.exists():
        status = json.loads(run([*KOGATA, "status", "--index", str(place), "--json"]).stdout)
        if status["chunks"] >= PASSAGES and not status["waiting"]:
            return
    with tempfile.TemporaryDirectory() as folder:
        for number, text in enumerate(texts()):
            (Path(folder) / f"{number:05}.txt").write_text(text, encoding="utf-8")
        place.parent.mkdir(parents=True, exist_ok=True)
        print(f"making an index of {PASSAGES:,} passages in {place}", file=sys.stderr)
        subprocess.run([*KOGATA, "index", "--index", str(place), folder], check=True, stdout=subprocess.DEVNULL)


def texts() -> list[str]:
    """Half documentation in English, half encyclopaedia in Japanese."""
    data = _facts.data()
    with gzip.open(data / "cppdocs" / "cppdocs.jsonl.gz", "rt", encoding="utf-8") as lines:
        english = [f"{row['title']}. {row['text'][:400]}" for row in islice(map(json.loads, lines), PASSAGES // 2)]
    with lzma.open(data / "japanese_text" / "jaquad.jsonl.xz", "rt", encoding="utf-8") as lines:
        passages = dict.fromkeys(row["passage"][:150] for row in map(json.loads, lines))
    japanese = list(islice((f"{text}({number})" for number in range(9) for text in passages), PASSAGES // 2))
    return english + japanese


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=True, capture_output=True, text=True)


if __name__ == "__main__":
    main()
