"""csrc/unigram.cpp built with the address and undefined-behaviour sanitizers, fed random bytes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"


@pytest.mark.slow
def test_random_bytes_under_sanitizers(tmp_path: Path) -> None:
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    program = tmp_path / "fuzz"
    checks = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-D_GLIBCXX_ASSERTIONS"]
    flags = ["-std=c++20", "-O1", "-g", *checks]
    sources = [HERE / "unigram_fuzz.cpp", CSRC / "unigram.cpp"]
    subprocess.run([compiler, *flags, f"-I{CSRC}", *sources, "-o", program], check=True)
    done = subprocess.run([program], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
