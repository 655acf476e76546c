"""``kogata index`` and ``kogata forget``: what they say when they are done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kogata.app.show import left_out, near, reasons
from kogata.app.terminal import Screen, count, human_took

if TYPE_CHECKING:
    from kogata.ask.indexing.report import Report


def print_report(screen: Screen, report: Report, place: str) -> None:
    """What a run did, what is not in the index and why."""
    done = report.added + report.changed + report.moved + report.removed
    parts = [
        f"{number:,} {what}"
        for number, what in (
            (report.added, "new"),
            (report.changed, "changed"),
            (report.moved, "moved"),
            (report.removed, "removed"),
            (report.unchanged, "unchanged"),
        )
        if number
    ]
    total = report.added + report.changed + report.moved + report.unchanged
    took = human_took(sum(report.seconds.values()))
    if done:
        detail = f" ({', '.join(parts)})" if parts else ""
        passages = f"; {count(report.chunks, 'new passage')}" if report.chunks else ""
        screen.flow([(f"{count(total, 'document')} indexed", "bold"), (f"{detail}{passages}, in {took}.", "")])
    elif report.embedded:
        screen.flow([(count(report.embedded, "vector") + " computed", "bold"), (f" in {took}.", "")])
    elif total:
        screen.flow([("Nothing has changed", "bold"), (f": {count(total, 'document')} indexed.", "")])
    else:
        screen.flow([("Nothing was indexed.", "bold")])
    if report.words_only:
        screen.flow(
            [
                (
                    f"{count(report.words_only, 'passage')} can be found by words only: "
                    "the embedder does not know their script.",
                    "",
                )
            ]
        )
    if report.waiting:
        waits = count(report.waiting, "passage waits", "passages wait")
        screen.flow([(f"{waits} for meaning; `kogata index` carries on.", "warn")])
    for path in report.missing:
        screen.flow(
            [
                (near(path), "path"),
                (" is not there now; what was indexed from it is kept (`kogata forget` removes it).", ""),
            ]
        )
    for path in report.empty:
        screen.flow([(near(path), "path"), (" has nothing in it to index.", "")])
    if report.skipped:
        screen.line((f"Not indexed: {count(len(report.skipped), 'file')}", "warn"))
        reasons(screen, report.skipped, files=False)
        screen.flow([("`kogata status --skipped` says why for each.", "dim")])
    if report.left_out:
        screen.flow([(f"Left out on purpose: {left_out(report.left_out)}.", "dim")])
    if screen.is_terminal and report.added and not report.unchanged:
        screen.flow(
            [("The index is in ", "dim"), (near(place), "path"), (". Now ask: ", "dim"), ('kogata ask "…"', "bold")]
        )
