"""What macOS says about the machine, through ``sysctlbyname`` (no subprocess)."""

from __future__ import annotations

import sys


def sysctl_text(name: str) -> str | None:
    """A string value, e.g. ``machdep.cpu.brand_string``; None where there is none."""
    raw = _sysctl(name, 4096)
    return raw.split(b"\0")[0].decode("utf-8", "replace").strip() if raw else None


def sysctl_int(name: str) -> int | None:
    """An integer value of 4 or 8 bytes, e.g. ``hw.memsize``; None where there is none."""
    raw = _sysctl(name, 8)
    return int.from_bytes(raw, sys.byteorder) if raw else None


def _sysctl(name: str, size: int) -> bytes | None:
    if sys.platform != "darwin":
        return None
    import ctypes
    import ctypes.util

    library = ctypes.CDLL(ctypes.util.find_library("c") or "libc.dylib")
    buffer, length = ctypes.create_string_buffer(size), ctypes.c_size_t(size)
    if library.sysctlbyname(name.encode(), buffer, ctypes.byref(length), None, 0) != 0:
        return None
    return buffer.raw[: length.value]
