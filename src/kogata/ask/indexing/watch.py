"""Keeping the index current while files change.

Events only say that something happened somewhere: the run that follows surveys the folders as always, so a burst, a
rename or a lost event costs nothing but time. Folders that come and go (disks, network shares) are looked for on a
timer, and so are single files, whose editors replace them by rename.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from kogata.ask.indexing.report import Report
from kogata.errors import LockedError

DEBOUNCE_MS = 1_000
"""How long a burst may last before it is acted on."""

TICK_MS = 2_000
"""How often folders that were away and single files are looked at."""

Signature = tuple[int, int, int] | None


Refresh = Callable[[], Report]


def watch(refresh: Refresh, known: Callable[[], list[bytes]], own: Path, stop: threading.Event) -> Iterator[Report]:
    """Reports of the first refresh, then of each one that changed something, until ``stop`` is set.

    Args:
        refresh: Brings the known folders up to date.
        known: The folders and single files that are known at the moment.
        own: The index itself: what is written to it and beside it is no change.
        stop: Ends the watch when it is set.
    """
    yield refresh()
    while not stop.is_set():
        roots = known()
        folders = [root for root in roots if os.path.isdir(root)]
        if folders:
            yield from _while_the_same(refresh, known, own, folders, stop)
        else:
            before = _signatures(roots)
            stop.wait(TICK_MS / 1000)
            if _signatures(roots) != before:
                yield from _refreshed(refresh, stop)


def _while_the_same(
    refresh: Refresh, known: Callable[[], list[bytes]], own: Path, folders: list[bytes], stop: threading.Event
) -> Iterator[Report]:
    """Refresh on every change, until the known folders, or those of them that are there, are no longer the same."""
    import watchfiles

    roots, beside = known(), os.fsencode(own)

    def counts(_: watchfiles.Change, path: str) -> bool:
        # The index itself may lie in a folder that it indexes.
        return not os.fsencode(path).startswith(beside)

    state: dict[bytes, Signature] = {}  # unlike any, so that what happened before the watch began is seen too
    events = watchfiles.watch(
        *map(os.fsdecode, folders), watch_filter=counts, debounce=DEBOUNCE_MS, rust_timeout=TICK_MS,
        yield_on_timeout=True, stop_event=stop, ignore_permission_denied=True,
    )  # fmt: skip
    try:
        for changes in events:
            now = _signatures(roots)
            if changes or now != state:
                yield from _refreshed(refresh, stop)
                state = now
            if known() != roots or [root for root in roots if os.path.isdir(root)] != folders:
                return
    except FileNotFoundError:  # a folder went away while the watch was set up
        stop.wait(TICK_MS / 1000)


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
