"""The sampler outside Python: with address and undefined-behaviour sanitizers, and for aarch64 under qemu."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma", "-mf16c"]
X86_UNITS = {
    "scalar": [],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avxvnni": ["-mavx2", "-mfma", "-mf16c", "-mavxvnni"],
    "avx512vnni": [*AVX512, "-mavx512vnni"],
    "avx512bf16": [*AVX512, "-mavx512vnni", "-mavx512bf16"],
}
ARM_UNITS = {"scalar": [], "neon": ["-march=armv8-a"], "neondot": ["-march=armv8.2-a+dotprod"]}


def build(folder: Path, compiler: str, units: dict[str, list[str]], flags: list[str]) -> Path:
    common = [compiler, "-std=c++20", "-I", str(ROOT / "csrc"), "-ffp-contract=off", *flags]
    objects = [str(folder / f"{name}.o") for name in units]
    for (name, isa), target in zip(units.items(), objects, strict=True):
        subprocess.run([*common, *isa, "-c", str(ROOT / "csrc" / f"isa_{name}.cpp"), "-o", target], check=True)
    sources = [str(ROOT / "csrc" / name) for name in ("sample.cpp", "dispatch.cpp", "pool.cpp")]
    driver = folder / "driver"
    source = str(ROOT / "tests" / "ops" / "sample_driver.cpp")
    subprocess.run([*common, source, *sources, *objects, "-pthread", "-o", str(driver)], check=True)
    return driver


@pytest.mark.slow
def test_sanitizers(tmp_path: Path) -> None:
    if platform.machine() != "x86_64" or shutil.which("g++") is None:
        pytest.skip("needs g++ on x86-64")
    flags = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    driver = build(tmp_path, "g++", X86_UNITS, flags)
    result = subprocess.run([str(driver)], check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
def test_aarch64_under_qemu(tmp_path: Path) -> None:
    compiler, qemu = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64")
    if compiler is None or qemu is None:
        pytest.skip("needs g++-aarch64-linux-gnu and qemu-user")
    driver = build(tmp_path, compiler, ARM_UNITS, ["-O2", "-static"])
    result = subprocess.run([qemu, "-cpu", "max", str(driver)], check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.split() == ["scalar", "neon", "neondot"]
