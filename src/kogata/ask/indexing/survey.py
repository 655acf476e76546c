"""What changed on disk since the last run: new, changed, moved and vanished files of the known folders."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from kogata.ask import documents
from kogata.ask.paths import under
from kogata.ask.store.rows import DocumentRow, FolderRow
from kogata.ask.store.schema import belongs_to
from kogata.ask.store.writer import FileStat, Writer
from kogata.errors import BadInput

RACY_NS = 2_000_000_000
"""A file written this shortly before it was read may have been written again within the clock's step: compare bytes."""

_MEANT = frozenset({"hidden", "left_out", "ignored", "excluded"})
"""What nobody expects to be indexed: counted, not listed."""

_TRY_AGAIN = frozenset({"changed", "unreadable", "memory", "crashed"})
"""Refusals that say more about the moment than about the file."""


@dataclass(frozen=True, slots=True)
class Task:
    """A file to read.

    Attributes:
        file: As it was when it was found.
        folder: Row of the folder it belongs to.
        kind: What its name promises.
        known: It is in the index already.
        searchable: An earlier version of it is searchable.
    """

    file: FileStat
    folder: int
    kind: str
    known: bool
    searchable: bool


@dataclass
class Survey:
    """The outcome; moved, touched and vanished files have been written to the index already."""

    tasks: list[Task] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)
    missing: list[bytes] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    moved: int = 0
    unchanged: int = 0


def content_of(path: bytes) -> bytes | None:
    """Hash of a file's bytes, as in ``documents.hash``; None when it cannot be read."""
    try:
        return bytes.fromhex(documents.hash_file(path))
    except OSError:
        return None


def survey(writer: Writer, folders: Sequence[FolderRow], counting: Callable[[int], None]) -> Survey:
    """Compare the folders with the index.

    Content is compared where size or time differ, so that a file that was only touched is not read again; a file at a
    new path whose content is that of a vanished one was moved, and keeps its passages and vectors.

    Args:
        writer: The open index.
        folders: Which to look at.
        counting: Called now and then with the number of files found so far.
    """
    result = Survey()
    ids = {folder.id for folder in folders}
    known = {row.path: row for row in writer.documents()}
    expected = {path for path, row in known.items() if row.folder_id in ids}
    roots = sorted((row.path for row in writer.folders()), key=len, reverse=True)
    forgotten = writer.forgotten()
    seen: set[bytes] = set()
    suspects: list[tuple[Task, DocumentRow]] = []
    n_found = 0

    for folder in folders:
        mine = {path for path in expected if known[path].folder_id == folder.id}
        found = None
        if not _is_gone(folder.path, any(known[path].code is None for path in mine)):
            with suppress(BadInput):  # it went away just now
                found = documents.discover([folder.path], exclude=folder.exclude)
        if found is None:
            writer.set_folder(folder.id, missing=True, left_out={})
            result.missing.append(folder.path)
            seen |= mine
            continue
        unwanted = [path for path in forgotten if path != folder.path and under(path, folder.path)]
        left_out: Counter[str] = Counter()
        for item in found:
            if belongs_to(writer.path, item.path):  # read as a document it would lose SQLite's locks
                continue
            if isinstance(item, documents.Skipped) and item.code in _MEANT:
                left_out[item.code] += 1
                continue
            owner = next((root for root in roots if under(item.path, root)), folder.path)
            if owner != folder.path or item.path in seen or any(under(item.path, path) for path in unwanted):
                continue
            seen.add(item.path)
            row = known.get(item.path)
            if isinstance(item, documents.Skipped):
                if item.code == "unreadable":
                    # What is inside cannot be seen, which does not mean that it is gone.
                    seen |= {path for path in mine if under(path, item.path)}
                if row is None or (row.code, row.reason, row.folder_id) != (item.code, item.reason, folder.id):
                    writer.refuse(FileStat(item.path, 0, 0), folder.id, documents.PARSERS, "", item.code, item.reason)
                continue
            n_found += 1
            if n_found % 256 == 0:
                counting(n_found)
            file = FileStat(item.path, item.size, item.mtime_ns)
            is_searchable = row is not None and row.code is None
            task = Task(file, folder.id, item.kind_guess or "", row is not None, is_searchable)
            if row is None or _must_read(row):
                result.tasks.append(task)
            elif (row.size, row.mtime_ns) == (file.size, file.mtime_ns) and not _racy(row):
                result.unchanged += row.code is None
                if row.folder_id != folder.id:
                    writer.touch(row.id, file, folder.id)
            elif row.size == file.size and row.hash is not None:
                suspects.append((task, row))
            else:
                result.tasks.append(task)
        writer.set_folder(folder.id, missing=False, left_out=left_out)
        result.left_out += left_out
    counting(n_found)

    for task, row in suspects:
        if content_of(task.file.path) == row.hash:
            writer.touch(row.id, task.file, task.folder)
            result.unchanged += row.code is None
        else:
            result.tasks.append(task)

    vanished = [known[path] for path in sorted(expected - seen)]
    moved = _moved(writer, result.tasks, vanished)
    result.moved = len(moved)
    result.tasks = [task for task in result.tasks if task.file.path not in moved]
    gone = set(moved.values())
    result.removed = [row.id for row in vanished if row.id not in gone and row.code is None]
    writer.remove([row.id for row in vanished if row.id not in gone])
    return result


def _is_gone(folder: bytes, had_documents: bool) -> bool:
    """Whether a folder is not there, or is the empty place where a disk used to be mounted."""
    if not os.path.lexists(folder):
        return True
    if not had_documents or not os.path.isdir(folder):
        return False
    try:
        with os.scandir(folder) as entries:
            return next(iter(entries), None) is None
    except OSError:
        return True


def _must_read(row: DocumentRow) -> bool:
    """Whether a file that was refused is worth another try though it did not change."""
    return row.code is not None and (row.code in _TRY_AGAIN or row.parser != documents.PARSERS)


def _racy(row: DocumentRow) -> bool:
    return row.code is None and row.mtime_ns > row.read_ns - RACY_NS


def _moved(writer: Writer, tasks: Sequence[Task], vanished: Sequence[DocumentRow]) -> dict[bytes, int]:
    """New path -> document, for files whose content is that of a vanished one; written to the index."""
    by_size: dict[int, list[DocumentRow]] = {}
    for row in vanished:
        if row.code is None and row.hash is not None:
            by_size.setdefault(row.size, []).append(row)
    moved: dict[bytes, int] = {}
    for task in tasks:
        candidates = by_size.get(task.file.size)
        if not candidates:
            continue
        content = content_of(task.file.path)
        for row in candidates:
            if row.hash == content and _suffix(row.path) == _suffix(task.file.path):
                writer.touch(row.id, task.file, task.folder)
                moved[task.file.path] = row.id
                candidates.remove(row)
                break
    return moved


def _suffix(path: bytes) -> bytes:
    return os.path.splitext(path)[1].lower()
