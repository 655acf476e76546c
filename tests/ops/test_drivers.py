"""Kernels outside Python: with address and undefined-behaviour sanitizers, and for aarch64 under qemu."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
CSRC = HERE.parents[1] / "csrc"
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma", "-mf16c"]
X86_UNITS = {
    "scalar": [],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avxvnni": ["-mavx2", "-mfma", "-mf16c", "-mavxvnni"],
    "avx512vnni": [*AVX512, "-mavx512vnni"],
    "avx512bf16": [*AVX512, "-mavx512vnni", "-mavx512bf16"],
}
ARM_UNITS = {"scalar": [], "neon": ["-march=armv8-a"], "neondot": ["-march=armv8.2-a+dotprod"]}
#: What a family's driver calls besides the instruction sets' own units.
DRIVERS = {"score": [], "sample": ["sample.cpp", "dispatch.cpp", "pool.cpp"]}


def build(family: str, folder: Path, compiler: str, units: dict[str, list[str]], flags: list[str]) -> Path:
    common = [compiler, "-std=c++20", "-I", str(CSRC), "-ffp-contract=off", *flags]
    objects = [str(folder / f"{name}.o") for name in units]
    for (name, isa), target in zip(units.items(), objects, strict=True):
        subprocess.run([*common, *isa, "-c", str(CSRC / f"isa_{name}.cpp"), "-o", target], check=True)
    sources = [str(HERE / f"{family}_driver.cpp"), *(str(CSRC / name) for name in DRIVERS[family])]
    driver = folder / "driver"
    subprocess.run([*common, *sources, *objects, "-pthread", "-o", str(driver)], check=True)
    return driver


@pytest.mark.slow
@pytest.mark.parametrize("family", DRIVERS)
def test_sanitizers(family: str, tmp_path: Path) -> None:
    if platform.machine() != "x86_64" or shutil.which("g++") is None:
        pytest.skip("needs g++ on x86-64")
    flags = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    driver = build(family, tmp_path, "g++", X86_UNITS, flags)
    result = subprocess.run([str(driver)], check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("family", DRIVERS)
def test_aarch64_under_qemu(family: str, tmp_path: Path) -> None:
    compiler, qemu = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64")
    if compiler is None or qemu is None:
        pytest.skip("needs g++-aarch64-linux-gnu and qemu-user")
    driver = build(family, tmp_path, compiler, ARM_UNITS, ["-O2", "-static"])
    result = subprocess.run([qemu, "-cpu", "max", str(driver)], check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.split() == ["scalar", "neon", "neondot"]
