"""`kogata models`: what is here, what is recommended, fetching and removing."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from kogata.app.progress import Meter
from kogata.app.show import columns
from kogata.app.terminal import Screen, human_bytes, print_json, safe_line
from kogata.errors import BadInput

if TYPE_CHECKING:
    from kogata.weights.recommended import Kind
    from kogata.weights.stored import Stored

OK = 0
_DAY = 86_400.0


def show(*, as_json: bool) -> int:
    """The models that are here, and those that are recommended."""
    from kogata.weights.stored import recommended_with_state, stored

    here, recommended = stored(), recommended_with_state()
    if as_json:
        print_json({"fetched": [one.to_dict() for one in here], "recommended": recommended})
        return OK
    screen = Screen()
    if here:
        screen.line(("Fetched", "bold"))
        columns(screen, [_row(one) for one in here], right=(2,))
        screen.line("")
    screen.line(("Recommended", "bold"))
    rows = []
    for model in recommended:
        along = model["source"] is None
        size = "comes along" if along else human_bytes(model["download_bytes"])
        memory = human_bytes(model["memory_bytes"])
        notes = [model["purpose"], model["licence"], *(["terms to accept on the hub"] if model["gated"] else [])]
        rows.append([model["name"], "" if along else model["state"], size, memory, "; ".join(notes)])
    columns(screen, rows, right=(2, 3), head=("", "", "download", "memory", "what for; licence"))
    screen.line("")
    screen.flow([("kogata models fetch NAME fetches one, kogata run NAME too. Any model of the hub can be named by its "
                  "id, owner/name.", "dim")])  # fmt: skip
    return OK


def fetch(names: Sequence[str], *, as_json: bool) -> int:
    """Fetch models into the hub's cache; what is here already is not fetched again.

    Raises:
        BadInput: A name is that of a file or folder.
        KogataError: One cannot be fetched.
    """
    from kogata.weights.recommended import named
    from kogata.weights.stored import stored

    before = {one.name: one.nbytes for one in stored() if not one.missing}
    fetched = []
    for name in names:
        fetch_with_progress(name, _kind(name), quiet=as_json)
        known = named(name)
        source = name if known is None or known.source is None else known.source
        found = next((one for one in stored() if one.name.lower() == source.lower()), None)
        fetched.append({"name": name, "bytes": 0 if found is None else found.nbytes, "was_here": source in before})
        if not as_json:
            said = "came with Kogata" if found is None else f"is here: {human_bytes(found.nbytes)}"
            print(f"{safe_line(name)} {said}.")
    if as_json:
        print_json({"fetched": fetched})
    return OK


def remove(names: Sequence[str], *, yes: bool, as_json: bool) -> int:
    """Take fetched models off the disk, after asking.

    Raises:
        BadInput: One is not here, or the answer is no.
        KogataError: One cannot be removed.
    """
    from kogata.weights import stored

    removed = []
    for name in names:
        asks = not yes and not as_json and sys.stdin is not None and sys.stdin.isatty()
        if asks and not click.confirm(f"Remove {safe_line(name)} from this machine?", err=True):
            raise BadInput("Nothing more was removed.")
        freed = stored.remove(name)
        removed.append({"name": name, "freed_bytes": freed})
        if not as_json:
            print(f"{safe_line(name)} is removed: {human_bytes(freed)} are free again.")
    if as_json:
        print_json({"removed": removed})
    return OK


def fetch_with_progress(name: str, kind: Kind, *, quiet: bool) -> None:
    """What a command that takes a model does first: fetch it, where it is a hub's and not here.

    Raises:
        KogataError: There is no such model, or it cannot be fetched.
    """
    from kogata.weights import fetch

    with Meter(f"Fetching {safe_line(name)}", shown=human_bytes, quiet=quiet) as meter:
        fetch(name, kind, meter)


def _kind(name: str) -> Kind:
    """Whether a name is that of an embedder: only the recommended ones are told apart before they are here."""
    from kogata.weights.recommended import named

    known = named(name)
    return "writer" if known is None else known.kind


def _row(one: Stored) -> list[str]:
    state = f"{human_bytes(one.missing)} to come" if one.missing else _ago(one.used)
    return [one.short or one.name, one.kind, human_bytes(one.nbytes), state]


def _ago(used: float | None) -> str:
    if used is None:
        return ""
    days = int((time.time() - used) // _DAY)
    return "used today" if days < 1 else f"used {days:,} day{'s' if days > 1 else ''} ago"
