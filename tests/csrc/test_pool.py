"""The thread pool under millions of short jobs: no chunk lost, none run twice, no job that never ends."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
CSRC = HERE.parents[1] / "csrc"
COMPILER = shutil.which("c++") or shutil.which("g++")


@pytest.mark.slow
@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler here")
@pytest.mark.parametrize("threads", [2, 4])
def test_every_chunk_of_every_job_runs_once(threads: int, tmp_path: Path) -> None:
    program = tmp_path / "stress"
    sources = [str(HERE / "pool_stress.cpp"), str(CSRC / "pool.cpp")]
    subprocess.run([COMPILER, "-std=c++20", "-O2", "-pthread", f"-I{CSRC}", *sources, "-o", program], check=True)
    done = subprocess.run([program, str(threads), "20"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
