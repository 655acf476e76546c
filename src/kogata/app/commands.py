"""What each command does: open the index, call it, print. Options arrive as the person gave them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from kogata.app.terminal import Screen, count, print_json
from kogata.errors import BadInput

if TYPE_CHECKING:
    from kogata.ask.index import Index
    from kogata.ask.indexing.report import Report
    from kogata.run.encoder import Precision

OK, FAILED, NOT_FOUND = 0, 1, 3

_MANY = 20  # documents that `kogata forget` asks about on a terminal


def index(
    paths: Sequence[str],
    *,
    exclude: Sequence[str],
    watch: bool,
    rebuild: bool,
    as_json: bool,
    **opening: Any,
) -> int:
    """Index paths, or refresh, or rebuild; then, with ``watch``, stay."""
    from kogata.app.progress import ProgressLine

    if exclude and not paths:
        raise BadInput("--exclude goes with the folders it is for.", hint="kogata index FOLDER --exclude GLOB")
    if rebuild and paths:
        raise BadInput("--rebuild makes the vectors of everything that is known anew, and takes no path.")
    with _open(**opening) as opened:
        _warn_if_fallback()
        try:
            with ProgressLine(quiet=as_json) as progress:
                if rebuild:
                    report = opened.rebuild(progress=progress)
                elif paths:
                    report = opened.add(paths, exclude=exclude or None, progress=progress)
                else:
                    report = opened.refresh(progress=progress)
            _print_report(report, opened, as_json)
            if watch:
                _watch(opened, as_json)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_what_is_kept(opened)) from None
    return OK


def _what_is_kept(opened: Index) -> str:
    """What a run that was stopped leaves, in half a sentence."""
    from kogata.ask.store.status import read_unread

    unread = sum(read_unread(opened.store.db).values()) if opened.path.exists() else 0
    left = f"; {count(unread, 'file is', 'files are')} not read yet, `kogata index` carries on" if unread else ""
    return "everything indexed so far is kept" + left


def _watch(opened: Index, as_json: bool) -> None:
    """Report every run that changes something, until Ctrl-C."""
    if not as_json:
        _tell("watching for changes; Ctrl-C stops")
    for report in opened.watch():
        if report.added or report.changed or report.moved or report.removed or report.embedded or report.missing:
            _print_report(report, opened, as_json)


def _print_report(report: Report, opened: Index, as_json: bool) -> None:
    from kogata.app.indexing import print_report

    if as_json:
        print_json(report.to_dict())
    else:
        print_report(Screen(), report, str(opened.path))
    sys.stdout.flush()


def search(
    query: str, *, words: bool, meaning: bool, as_json: bool, k: int, where: dict[str, Any], **opening: Any
) -> int:
    """Print the passages that fit best."""
    from kogata.app.results import print_search

    if words and meaning:
        raise BadInput("Give --words or --meaning, or neither to search by both.")
    with _open(**opening) as opened:
        result = opened.search(query, k, "words" if words else "meaning" if meaning else "hybrid", **where)
    if not words:
        _warn_if_fallback()
    if as_json:
        print_json(result.to_dict())
    else:
        print_search(Screen(), result)
    return OK if result.hits else NOT_FOUND


def ask(
    query: str, *, writer: str | None, loading: dict[str, Any], sampling: dict[str, Any], as_json: bool, k: int,
    where: dict[str, Any], **opening: Any,
) -> int:  # fmt: skip
    """Print an answer and its sources, or what comes nearest."""
    from kogata.app.results import print_answer

    if writer is None and any(value is not None for value in (*loading.values(), *sampling.values())):
        raise BadInput(
            "--context, --memory, --temperature, --max-tokens and --seed go with --writer: they say how it writes."
        )
    with _open(**opening) as opened:
        if writer is not None:
            from kogata.app import writing

            _warn_if_fallback()
            loading["threads"] = opening["threads"]
            told = {name: value for name, value in sampling.items() if value is not None}
            return writing.ask(
                writer, lambda: opened.find(query, k, **where), as_json=as_json, loading=loading, sampling=told
            )
        answer = opened.ask(query, k, **where)
    _warn_if_fallback()
    if as_json:
        print_json(answer.to_dict())
    else:
        print_answer(Screen(), answer)
    return OK if answer.found else NOT_FOUND


def mcp(**opening: Any) -> int:
    """Serve the index to an assistant until stdin ends."""
    try:
        from kogata.app import mcp as protocol
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("mcp", "pydantic"):
            raise
        message = "The Model Context Protocol needs its SDK, which is not installed."
        raise BadInput(message, hint="pip install 'kogata[mcp]'") from None
    with _open(**opening) as opened:
        return protocol.run(opened)


def status(*, skipped: bool, files: bool, verify: bool, place: str | None, as_json: bool) -> int:
    """Print what is in the index, or a list, or whether it is sound."""
    from kogata.app import state

    with _open(place) as opened:
        if verify:
            from kogata.ask.store.verify import verify as check

            found = check(opened.store)
            if as_json:
                print_json(found.to_dict())
            else:
                state.print_verification(Screen(), found)
            return FAILED if found.index or found.mended else OK
        now = opened.status()
        listed = None
        if files:
            from kogata.ask.store.catalogue import read_entries

            _, listed = read_entries(opened.store, limit=-1)
    if as_json:
        print_json({**now.to_dict(), **({} if listed is None else {"files": [file.to_dict() for file in listed]})})
    elif listed is not None:
        state.print_files(Screen(), listed)
    elif skipped:
        state.print_skipped(Screen(), now)
    else:
        state.print_status(Screen(), now)
    return OK


def forget(paths: Sequence[str], *, yes: bool, place: str | None, as_json: bool) -> int:
    """Take documents out, after asking where many would go."""
    with _open(place) as opened:
        if not yes and sys.stdin is not None and sys.stdin.isatty() and not as_json:
            number = _how_many(opened, paths)
            question = f"Remove {count(number, 'document')} from the index?"
            if number > _MANY and not click.confirm(question, err=True):
                raise BadInput("Nothing was removed.")
        gone = opened.forget(paths)
    if as_json:
        print_json({"forgotten": gone})
    else:
        Screen().flow([(f"{count(gone, 'document')} removed from the index", "bold"), ("; no file was touched.", "")])
    return OK


def _how_many(opened: Index, paths: Sequence[str]) -> int:
    from kogata.ask.index import absolute
    from kogata.ask.paths import under

    wanted = [absolute(path) for path in paths]
    rows = opened.store.documents()
    return sum(row.code is None and any(under(row.path, path) for path in wanted) for row in rows)


def _open(
    place: str | None, model: str | None = None, precision: Precision = "auto", threads: int | None = None
) -> Index:
    from kogata.ask.index import Index

    if threads is not None and threads < 1:
        raise BadInput(f"--threads is {threads}, and has to be at least 1.")
    return Index(place, model=model, precision=precision, threads=threads)


def _warn_if_fallback() -> None:
    """One line where there are no native kernels: everything works, slowly."""
    from kogata.ops import dispatch

    if dispatch.table().isa == "fallback":
        _tell(f"no native kernels here ({dispatch.why_not_native()}); running on the slow fallback.")


def _tell(line: str) -> None:
    sys.stderr.write(f"kogata: {line}\n")
    sys.stderr.flush()
