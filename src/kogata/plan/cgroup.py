"""Limits a container sets (Linux control groups, versions 1 and 2): processor time and memory.

A process is subject to its own group and to every group above it, so the smallest limit on the way up counts.
Source: the kernel's Documentation/admin-guide/cgroup-v1 and cgroup-v2.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_SELF = Path("/proc/self/cgroup")
_UNLIMITED = 1 << 60  # version 1 writes "no limit" as a huge number of bytes


def cpu_quota() -> float | None:
    """Cores' worth of processor time granted, e.g. 1.5; None without a limit."""
    quotas = []
    for folder, version in _groups("cpu"):
        if version == 2:
            quota, _, period = (_read(folder / "cpu.max") or "").partition(" ")
        else:
            quota, period = _read(folder / "cpu.cfs_quota_us") or "", _read(folder / "cpu.cfs_period_us") or ""
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def memory() -> tuple[int | None, int | None]:
    """(limit, used) in bytes of the tightest group; (None, None) without a limit."""
    tightest: tuple[int | None, int | None] = (None, None)
    for folder, version in _groups("memory"):
        names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        limit, used = (_read(folder / name) or "" for name in names)
        if not limit.isdigit() or int(limit) >= _UNLIMITED:
            continue
        if tightest[0] is None or int(limit) < tightest[0]:
            tightest = int(limit), (int(used) if used.isdigit() else None)
    return tightest


def _groups(controller: str) -> Iterator[tuple[Path, int]]:
    """Folders of this process's group and of those above it, with the version of each."""
    if sys.platform != "linux":
        return
    for line in (_read(_SELF) or "").splitlines():
        _number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers == "":
            base, version = _ROOT, 2
        elif controller in controllers.split(","):
            base, version = _ROOT / controllers, 1
            if not base.is_dir():
                base = _ROOT / controller
        else:
            continue
        # Inside a container the named folder is often not visible and the container's own group is the root.
        parts = [part for part in group.split("/") if part not in ("", "..")]
        for depth in range(len(parts), -1, -1):
            folder = base.joinpath(*parts[:depth])
            if folder.is_dir():
                yield folder, version


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None
