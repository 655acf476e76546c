"""What ``kogata status`` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kogata.app.show import left_out, near, reasons, table
from kogata.app.terminal import Screen, count, human_bytes, safe

if TYPE_CHECKING:
    from kogata.ask.store.catalogue import Entry
    from kogata.ask.store.status import Status
    from kogata.ask.store.verify import Verification

_HOW = {"meaning": "words and meaning", "waiting": "words; meaning to come", "words": "words only"}


def print_status(screen: Screen, status: Status) -> None:
    """The index in a few lines."""
    segments = f" + {human_bytes(status.bytes_segments)} of mapped vectors" if status.bytes_segments else ""
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in status.kinds.items())
    embedder = (
        f"{safe(status.embedder.name)}, {status.embedder.dimensions} dimensions" if status.embedder else "none yet"
    )
    table(
        screen,
        [
            ("Index", f"{near(status.place)}  ({human_bytes(status.bytes_index)}{segments})"),
            ("Embedder", embedder),
            (
                "Documents",
                f"{status.documents:,}  ({human_bytes(status.bytes_documents)}{': ' if kinds else ''}{kinds})",
            ),
            ("Passages", f"{status.chunks:,}  ({_passages(status)})"),
        ],
    )
    screen.line()
    screen.line((count(len(status.folders), "folder"), "bold"))
    for folder in status.folders:
        skipped = f", {folder.skipped:,} not indexed" if folder.skipped else ""
        unread = f", {folder.unread:,} not read yet" if folder.unread else ""
        gone = [(" (not there now)", "warn")] if folder.missing else []
        without = f", without {' '.join(safe(glob) for glob in folder.exclude)}" if folder.exclude else ""
        purposely = f"; left out on purpose: {left_out(folder.left_out)}" if folder.left_out else ""
        held = f": {count(folder.documents, 'document')}, {human_bytes(folder.bytes)}"
        detail = held + skipped + unread + without + purposely
        screen.flow([(near(folder.path), "path"), *gone, (detail, "")], first="  ", indent="    ")
    if status.unread:
        screen.line()
        left = f"{count(status.unread, 'file is', 'files are')} not read yet"
        screen.flow([(left, "warn"), (": the last run was stopped, or is still at it; `kogata index` carries on.", "")])
    if status.skipped:
        screen.line()
        screen.line((f"Not indexed: {count(len(status.skipped), 'file')}", "warn"))
        reasons(screen, status.skipped, files=False)
        screen.flow([("`kogata status --skipped` says why for each.", "dim")])


def _passages(status: Status) -> str:
    parts = [f"{status.vectors:,} by words and meaning"]
    if status.words_only:
        parts.append(f"{status.words_only:,} by words only")
    if status.waiting:
        parts.append(f"{status.waiting:,} waiting for meaning: `kogata index` carries on")
    return ", ".join(parts)


def print_skipped(screen: Screen, status: Status) -> None:
    """Every file that is not searchable, by reason."""
    if not status.skipped:
        screen.line("Every file was indexed.")
    reasons(screen, status.skipped, files=True)


def print_files(screen: Screen, files: Sequence[Entry]) -> None:
    """A line for every file: how it can be found, or why not."""
    for file in files:
        if file.state == "skipped":
            how, style = f"not indexed: {file.reason or file.code}", "warn"
        else:
            how, style = f"{_HOW[file.state]}, {count(file.passages, 'passage')}", ""
            if file.reason:
                how += f" ({file.reason})"
        screen.flow([(near(file.path), "path"), (": " + how, style)], indent="    ")
    if not files:
        screen.line("No file is known yet.")


def print_verification(screen: Screen, found: Verification) -> None:
    """Whether the index is sound, and what to do if not."""
    if not found.index and not found.mended:
        screen.line("The index is sound.")
    for line in (*found.index, *found.mended):
        screen.flow([(line, "")], first="  ", indent="    ")
    if found.index:
        screen.flow([("The index is damaged. Move it away and index again; your documents are not touched.", "warn")])
    elif found.mended:
        screen.flow([("`kogata index` makes that anew; your documents are not touched.", "warn")])
