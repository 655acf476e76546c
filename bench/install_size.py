"""What `pip install .` costs: time, size of the environment by package, and that no torch is in it.

    python bench/install_size.py [--cached]

Installs into a fresh virtual environment in a temporary folder, without pip's cache unless `--cached`. The time
includes downloading, so it says as much about the connection as about the package; building is timed apart.
Goal: under 450 MB with the interim model's package.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

import _facts

ROOT = Path(__file__).resolve().parents[1]
GOAL_MB = 450
LARGEST = 15


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--cached", action="store_true", help="let pip use its cache of downloads")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "venv"
        venv.create(home, with_pip=True)
        python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
        empty_mb = size(home)
        pip = [str(python), "-m", "pip", "install", "--quiet", *([] if given.cached else ["--no-cache-dir"])]
        whole_s = timed([*pip, str(ROOT)])
        again_s = timed([*pip, "--no-deps", "--force-reinstall", str(ROOT)])
        site = Path(run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('platlib'))"]).strip())
        packages = sorted(((size(path), path.name) for path in site.iterdir()), reverse=True)
        installed = {
            row["name"].lower() for row in json.loads(run([str(python), "-m", "pip", "list", "--format=json"]))
        }
        unwanted = sorted(installed & {"torch", "transformers", "sentence-transformers", "onnxruntime"})
        doctor = json.loads(run([str(python), "-m", "kogata.app.cli", "doctor", "--json"]))
        total_mb = size(home)
    print(f"pip install .            {whole_s:6.1f} s")
    print(f"  of that, the package   {again_s:6.1f} s (build and install, dependencies there)")
    print(f"environment              {total_mb:6.1f} MB (goal {GOAL_MB}); an empty one with pip {empty_mb:.1f} MB")
    for megabytes, name in packages[:LARGEST]:
        print(f"  {name:22} {megabytes:6.1f} MB")
    print(f"packages: {len(installed)}; native kernels: {doctor['kernels']['native']}; unwanted: {unwanted or 'none'}")
    _facts.write(
        "install_size",
        {
            "cached": given.cached,
            "install_s": round(whole_s, 1),
            "package_s": round(again_s, 1),
            "environment_mb": round(total_mb, 1),
            "empty_environment_mb": round(empty_mb, 1),
            "goal_mb": GOAL_MB,
            "packages_mb": {name: round(megabytes, 1) for megabytes, name in packages[:LARGEST]},
            "n_packages": len(installed),
            "native": doctor["kernels"]["native"],
            "unwanted": unwanted,
        },
    )
    if unwanted or total_mb > GOAL_MB:
        sys.exit(1)


def size(path: Path) -> float:
    """Megabytes on disk (as allocated), links not followed."""
    if not path.is_dir() or path.is_symlink():
        return path.lstat().st_blocks * 512 / 1e6
    inside = sum(entry.lstat().st_blocks for entry in path.rglob("*") if not entry.is_symlink())
    return (inside + path.lstat().st_blocks) * 512 / 1e6


def timed(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - start


def run(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
