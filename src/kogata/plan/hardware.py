"""What this machine is: processor, cores we may use, instruction sets, caches, memory.

Pure Python over what the system says about itself: a few milliseconds, no numpy. Nothing here decides anything: kernels
are chosen by ``csrc/dispatch.cpp`` from cpuid; this is what ``kogata doctor`` and benchmarks
report. Bandwidth and arithmetic peaks are measured elsewhere (``kogata.ops.measure``).

Every probe answers ``None`` (or an empty tuple) where the system does not say: a container without ``/proc``, a
Windows without the call.
"""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kogata.plan import cgroup, macos, windows

# The names used here and by KOGATA_ISA, against those in /proc/cpuinfo and macOS's sysctl.
_ISA_NAMES = {
    "avx": "avx",
    "avx1.0": "avx",
    "avx2": "avx2",
    "fma": "fma",
    "f16c": "f16c",
    "avx_vnni": "avxvnni",
    "avx512f": "avx512f",
    "avx512bw": "avx512bw",
    "avx512dq": "avx512dq",
    "avx512vl": "avx512vl",
    "avx512_vnni": "avx512vnni",
    "avx512vnni": "avx512vnni",
    "avx512_bf16": "avx512bf16",
    "avx512_fp16": "avx512fp16",
    "amx_int8": "amxint8",
    "amx_bf16": "amxbf16",
    "asimd": "neon",
    "neon": "neon",
    "advsimd": "neon",
    "asimddp": "dotprod",
    "feat_dotprod": "dotprod",
    "i8mm": "i8mm",
    "feat_i8mm": "i8mm",
    "bf16": "bf16",
    "feat_bf16": "bf16",
    "sve": "sve",
    "sve2": "sve2",
}
_ISA_ORDER = tuple(dict.fromkeys(_ISA_NAMES.values()))


@dataclass(frozen=True)
class Cache:
    """One level of the processor's data caches.

    Attributes:
        level: 1, 2, 3, …
        bytes: Size of one such cache.
        shared_by: Logical cores that share one, or None where the system does not say.
    """

    level: int
    bytes: int
    shared_by: int | None


@dataclass(frozen=True)
class Hardware:
    """A machine, as far as it can be known without measuring.

    Attributes:
        system: Operating system and its release, e.g. ``"Linux 6.1"``.
        arch: ``"x86_64"``, ``"aarch64"``, ``"arm64"``, …
        cpu: The processor's name.
        logical_cores: Logical cores of the machine.
        physical_cores: Physical cores of the machine, or None.
        allowed_cores: Logical cores this process may run on (affinity).
        quota_cores: Processor time a container grants, in cores (may be fractional), or None without a limit.
        isa: Instruction sets that matter here, by name, e.g. ``("avx2", "fma", "avx512vnni")``.
        caches: Data and unified caches, smallest level first.
        memory_bytes: Memory of the machine, or the container's limit where that is lower; None if unknown.
        available_bytes: Memory that can be taken now without swapping, within the same limit; None if unknown.
    """

    system: str
    arch: str
    cpu: str
    logical_cores: int
    physical_cores: int | None
    allowed_cores: int
    quota_cores: float | None
    isa: tuple[str, ...]
    caches: tuple[Cache, ...]
    memory_bytes: int | None
    available_bytes: int | None

    @property
    def usable_cores(self) -> int:
        """Threads worth starting: affinity cut by the quota, at least 1."""
        if self.quota_cores is None:
            return self.allowed_cores
        return max(1, min(self.allowed_cores, round(self.quota_cores)))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "usable_cores": self.usable_cores}


def this_machine() -> Hardware:
    """Ask the system what it runs on."""
    logical = os.cpu_count() or 1
    total, available = _memory()
    limit, used = cgroup.memory()
    if limit is not None and (total is None or limit < total):
        total = limit
        free = max(0, limit - (used or 0))
        available = free if available is None else min(available, free)
    info = _cpuinfo()
    return Hardware(
        system=f"{platform.system()} {platform.release()}".strip(),
        arch=platform.machine() or "unknown",
        cpu=_cpu_name(info),
        logical_cores=logical,
        physical_cores=_physical_cores(info),
        allowed_cores=_allowed_cores(logical),
        quota_cores=cgroup.cpu_quota(),
        isa=_isa(info),
        caches=_caches(),
        memory_bytes=total,
        available_bytes=available,
    )


# --- processor --------------------------------------------------------------------------------------------------------


def _cpuinfo() -> list[dict[str, str]]:
    """/proc/cpuinfo, one dict per logical core; empty outside Linux."""
    if sys.platform != "linux":
        return []
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    cores = []
    for part in text.split("\n\n"):
        lines = (line.partition(":") for line in part.splitlines())
        fields = {key.strip().lower(): value.strip() for key, colon, value in lines if colon}
        if fields:
            cores.append(fields)
    return cores


def _cpu_name(info: list[dict[str, str]]) -> str:
    for core in info:
        for key in ("model name", "cpu model", "hardware", "model"):
            if core.get(key):
                return " ".join(core[key].split())
    if sys.platform == "darwin":
        name = macos.sysctl_text("machdep.cpu.brand_string")
        if name:
            return name
    return os.environ.get("PROCESSOR_IDENTIFIER") or platform.processor() or platform.machine() or "unknown"


def _allowed_cores(logical: int) -> int:
    if hasattr(os, "sched_getaffinity"):
        try:
            return max(1, len(os.sched_getaffinity(0)))
        except OSError:
            return logical
    return logical


def _physical_cores(info: list[dict[str, str]]) -> int | None:
    pairs = {(core["physical id"], core["core id"]) for core in info if "physical id" in core and "core id" in core}
    if pairs:
        return len(pairs)
    if sys.platform == "linux":  # Arm's cpuinfo has no core ids: count distinct sibling lists
        siblings = set()
        for path in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/topology/thread_siblings_list"):
            text = _read(path)
            if text:
                siblings.add(text)
        return len(siblings) or None
    if sys.platform == "darwin":
        return macos.sysctl_int("hw.physicalcpu")
    return None


def _isa(info: list[dict[str, str]]) -> tuple[str, ...]:
    flags: set[str] = set()
    for core in info[:1]:
        flags.update((core.get("flags") or core.get("features") or "").lower().split())
    if sys.platform == "darwin":
        for name in ("machdep.cpu.features", "machdep.cpu.leaf7_features"):
            flags.update((macos.sysctl_text(name) or "").lower().split())
        for name in ("AdvSIMD", "FEAT_DotProd", "FEAT_I8MM", "FEAT_BF16"):
            if macos.sysctl_int(f"hw.optional.arm.{name}") or (
                name == "AdvSIMD" and macos.sysctl_int("hw.optional.neon")
            ):
                flags.add(name.lower())
    elif sys.platform == "win32":
        flags.update(windows.isa_flags())
    known = {_ISA_NAMES[flag] for flag in flags if flag in _ISA_NAMES}
    return tuple(name for name in _ISA_ORDER if name in known)


def _caches() -> tuple[Cache, ...]:
    found: dict[int, Cache] = {}
    if sys.platform == "linux":
        for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index[0-9]*")):
            level, size = _read(folder / "level"), _read(folder / "size")
            if _read(folder / "type") not in ("Data", "Unified") or not level or not size:
                continue
            number = _bytes(size)
            if number and level.isdigit():
                found[int(level)] = Cache(int(level), number, _count(_read(folder / "shared_cpu_list")))
    elif sys.platform == "darwin":
        for level, name in ((1, "hw.l1dcachesize"), (2, "hw.l2cachesize"), (3, "hw.l3cachesize")):
            number = macos.sysctl_int(name)
            if number:
                found[level] = Cache(level, number, None)
    return tuple(found[level] for level in sorted(found))


# --- memory -----------------------------------------------------------------------------------------------------------


def _memory() -> tuple[int | None, int | None]:
    """(total, available) in bytes, of the machine."""
    if sys.platform == "linux":
        fields = {}
        for line in (_read(Path("/proc/meminfo")) or "").splitlines():
            key, _, value = line.partition(":")
            fields[key] = _bytes(value.replace("kB", "K").replace(" ", ""))
        return fields.get("MemTotal"), fields.get("MemAvailable")
    if sys.platform == "darwin":
        return macos.sysctl_int("hw.memsize"), None
    if sys.platform == "win32":
        return windows.memory()
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), None
    except (ValueError, OSError):
        return None, None


# --- small readers ----------------------------------------------------------------------------------------------------


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _bytes(text: str) -> int | None:
    """``"32K"``, ``"2048K"``, ``"1M"`` -> bytes."""
    scale = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:].upper(), 1)
    digits = text.rstrip("KMGkmg")
    return int(digits) * scale if digits.isdigit() else None


def _count(cpu_list: str | None) -> int | None:
    """How many cores ``"0-3,8"`` names."""
    if not cpu_list:
        return None
    total = 0
    for part in cpu_list.split(","):
        low, _, high = part.partition("-")
        if not low.isdigit() or (high and not high.isdigit()):
            return None
        total += int(high or low) - int(low) + 1
    return total
