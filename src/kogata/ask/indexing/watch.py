"""Keeping the index current while files change.

Events only say that something happened somewhere: the run that follows surveys the folders as always, so a burst, a
rename or a lost event costs nothing but time. Folders that come and go (disks, network shares) are looked for on a
timer, and so are single files, whose editors replace them by rename.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kogata.ask.indexing.report import Report
from kogata.errors import LockedError

DEBOUNCE_MS = 1_000
"""How long a burst may last before it is acted on."""

TICK_MS = 2_000
"""How often folders that were away and single files are looked at."""

POLL_SECONDS = 60.0
"""How often everything is looked at where the system gives no events."""

Signature = tuple[int, int, int] | None


Refresh = Callable[[], Report]


@dataclass(frozen=True)
class _Either:
    """Set while one of two events is."""

    one: threading.Event
    other: threading.Event

    def is_set(self) -> bool:
        return self.one.is_set() or self.other.is_set()

    def wait(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not self.is_set() and time.monotonic() < end:
            time.sleep(0.05)
        return self.is_set()


def watch(
    refresh: Refresh, known: Callable[[], list[bytes]], own: Path, stop: threading.Event,
    wake: threading.Event | None = None,
) -> Iterator[Report]:  # fmt: skip
    """Reports of the first refresh, then of each one that changed something, until ``stop`` is set.

    Args:
        refresh: Brings the known folders up to date.
        known: The folders and single files that are known at the moment.
        own: The index itself: what is written to it and beside it is no change.
        stop: Ends the watch when it is set.
        wake: Has everything looked at now, whenever it is set; it is cleared then.
    """
    wake = wake or threading.Event()
    told = _Either(stop, wake)
    yield refresh()
    while not stop.is_set():
        if wake.is_set():
            wake.clear()
            yield from _refreshed(refresh, stop)
        roots = known()
        folders = [root for root in roots if os.path.isdir(root)]
        if folders:
            yield from _while_the_same(refresh, known, own, folders, stop, told)
        else:
            before = _signatures(roots)
            told.wait(TICK_MS / 1000)
            if _signatures(roots) != before:
                yield from _refreshed(refresh, stop)


def _while_the_same(
    refresh: Refresh, known: Callable[[], list[bytes]], own: Path, folders: list[bytes], stop: threading.Event,
    told: _Either,
) -> Iterator[Report]:  # fmt: skip
    """Refresh on every change, until the known folders, or those of them that are there, are no longer the same."""
    roots = known()
    state: dict[bytes, Signature] = {}  # unlike any, so that what happened before the watch began is seen too
    for changed in _bursts(folders, os.fsencode(own), told):
        now = _signatures(roots)
        if changed or now != state:
            yield from _refreshed(refresh, stop)
            state = now
        if known() != roots or [root for root in roots if os.path.isdir(root)] != folders:
            return


def _bursts(folders: list[bytes], own: bytes, told: _Either) -> Iterator[bool]:
    """After each burst of events and each tick, whether something changed; ends when it is told to, or cannot watch."""
    import watchfiles

    def counts(_: watchfiles.Change, path: str) -> bool:
        # The index itself may lie in a folder that it indexes.
        return not os.fsencode(path).startswith(own)

    try:
        for changes in watchfiles.watch(
            *map(os.fsdecode, folders), watch_filter=counts, debounce=DEBOUNCE_MS, rust_timeout=TICK_MS,
            yield_on_timeout=True, stop_event=told, ignore_permission_denied=True,
        ):  # fmt: skip
            yield bool(changes)
    except FileNotFoundError:  # a folder went away while the watch was set up
        told.wait(TICK_MS / 1000)
    except (OSError, RuntimeError, UnicodeError):  # more folders than the system watches; names that are not UTF-8
        if not told.wait(POLL_SECONDS):
            yield True


def _refreshed(refresh: Refresh, stop: threading.Event) -> Iterator[Report]:
    """Refresh, and tell if anything came of it; while another process writes, wait for it."""
    while not stop.is_set():
        try:
            report = refresh()
        except LockedError:
            stop.wait(TICK_MS / 1000)
            continue
        if report.added or report.changed or report.moved or report.removed or report.embedded or report.missing:
            yield report
        return


def _signatures(roots: list[bytes]) -> dict[bytes, Signature]:
    """What tells a single file from its next version, and a folder that is there from one that is not."""
    found: dict[bytes, Signature] = {}
    for root in roots:
        try:
            status = os.stat(root)
        except OSError:
            found[root] = None
            continue
        if stat.S_ISDIR(status.st_mode):
            found[root] = (status.st_dev, status.st_ino, 0)
        else:
            found[root] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return found
