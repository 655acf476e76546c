"""What the linker may pick for everybody, and the kernels on the other architecture."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parents[2] / "csrc"
FLAGS = ["-std=c++20", "-O3", "-fno-exceptions", "-fno-rtti", "-ffp-contract=off", "-fvisibility=hidden", "-fPIC", "-c"]
UNITS = {
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avxvnni": ["-mavx2", "-mfma", "-mf16c", "-mavxvnni"],
    "avx512bf16": [
        "-mavx512f",
        "-mavx512bw",
        "-mavx512vl",
        "-mavx512dq",
        "-mfma",
        "-mf16c",
        "-mavx512vnni",
        "-mavx512bf16",
        "-mavx512vbmi",
        "-mgfni",
    ],
}


@pytest.mark.skipif(not (shutil.which("g++") and shutil.which("nm")), reason="g++ and nm are not both here")
@pytest.mark.parametrize("unit", UNITS)
def test_no_weak_symbol_leaves_an_isa_unit(unit, tmp_path):
    """An inline function compiled for AVX-512 and picked by the linker would trap on every other processor."""
    import platform

    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("these units are for x86-64")
    target = tmp_path / "unit.o"
    subprocess.run(["g++", *FLAGS, *UNITS[unit], str(CSRC / f"isa_{unit}.cpp"), "-o", str(target)], check=True)
    symbols = subprocess.run(["nm", "-C", str(target)], capture_output=True, text=True, check=True).stdout
    weak = [line for line in symbols.splitlines() if line[17:18] in "VvWwu"]
    assert not weak
    assert f"kernels_{unit}" in symbols


def build(compiler: str, flags: list[str], isas: dict[str, list[str]], tmp_path: Path) -> Path:
    """The driver with the given units and everything below the bindings."""
    objects = []
    for name, options in isas.items():
        objects.append(tmp_path / f"{name}.o")
        subprocess.run(
            [compiler, *FLAGS, *flags, *options, str(CSRC / f"isa_{name}.cpp"), "-o", str(objects[-1])], check=True
        )
    program = tmp_path / "kernel_check"
    plain = [CSRC / f"{name}.cpp" for name in ("dispatch", "pool", "linear", "elementwise", "attend", "pages")]
    sources = [str(path) for path in (CSRC / "tests" / "kernel_check.cpp", *plain, *objects)]
    subprocess.run([compiler, "-std=c++20", "-O1", "-g", *flags, *sources, "-o", str(program), "-pthread"], check=True)
    return program


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("g++"), reason="g++ on Linux is not here")
def test_kernels_under_address_and_undefined_behaviour_sanitizers(tmp_path):
    avx512 = UNITS["avx512bf16"][:-1]
    units = {"scalar": [], **UNITS, "avx512vnni": avx512}
    program = build("g++", ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"], units, tmp_path)
    done = subprocess.run([str(program)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "scalar" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("aarch64-linux-gnu-g++") and shutil.which("qemu-aarch64")),
    reason="aarch64-linux-gnu-g++ and qemu-aarch64 are not both here",
)
def test_aarch64_kernels_under_an_emulator(tmp_path):
    units = {"scalar": [], "neon": ["-march=armv8-a"], "neondot": ["-march=armv8.2-a+dotprod"]}
    program = build("aarch64-linux-gnu-g++", ["-static"], units, tmp_path)
    done = subprocess.run(["qemu-aarch64", str(program)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "neondot" in done.stdout
