"""What Windows says about the machine, through kernel32."""

from __future__ import annotations

import sys

# winnt.h, PF_*_INSTRUCTIONS_AVAILABLE: it knows few of them.
_FEATURES = {"avx": 39, "avx2": 40, "avx512f": 41, "neon": 19, "asimddp": 43}


def isa_flags() -> set[str]:
    """Instruction sets that IsProcessorFeaturePresent knows of."""
    if sys.platform != "win32":
        return set()
    import ctypes

    present = ctypes.windll.kernel32.IsProcessorFeaturePresent
    return {name for name, number in _FEATURES.items() if present(number)}


def memory() -> tuple[int | None, int | None]:
    """(total, available) in bytes, from GlobalMemoryStatusEx."""
    if sys.platform != "win32":
        return None, None
    import ctypes

    class Status(ctypes.Structure):
        _fields_ = [
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *[(name, ctypes.c_ulonglong) for name in ("total", "available", "p1", "p2", "v1", "v2", "e")],
        ]

    status = Status()
    status.length = ctypes.sizeof(Status)
    if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None, None
    return int(status.total), int(status.available)
