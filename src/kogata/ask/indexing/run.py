"""One indexing run: find files, make what changed searchable by words, then by meaning.

    survey     which files are new, changed, moved, vanished (survey.py)
    words      parse in worker processes, cut into passages, store: one transaction a document
    meaning    embed what has no vector yet, a batch a transaction; then refresh the segments

A run may be killed anywhere: the next one surveys again and does what is left.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from kogata.ask import documents
from kogata.ask.indexing.report import Progress, ProgressEvent, Report, Stopwatch
from kogata.ask.indexing.survey import Survey, Task, survey
from kogata.ask.store.manifest import refresh_segments
from kogata.ask.store.rows import EmbedderInfo, FolderRow, check_embedder
from kogata.ask.store.schema import shown
from kogata.ask.store.status import SkippedFile, read_plan
from kogata.ask.store.writer import COVERED, FileStat, Writer
from kogata.errors import KogataError

if TYPE_CHECKING:
    from kogata.run.encoder import Encoder

T = TypeVar("T")

BATCH = 64
"""Passages embedded and committed together: about a second of work, which is what a kill may cost."""


REFRESH_EVERY = 16_384
"""Vectors after which they go into segments, so that searches during a long run need not read them one by one."""


MERGE_SHARE = 5
"""The word index is made one piece after a run that touched a fifth of the documents; FTS5 merges by itself before."""


class Run:
    """A run over some of the known folders. The caller holds the lock.

    Args:
        writer: The open index.
        embedder: Gives the embedder when the first file or passage needs it (loading one takes a while).
        source: The model as it was asked for, kept so that later runs find it again.
        progress: Called in this thread as things get done.
        workers: Parser processes; None: as many as there are cores.
    """

    def __init__(
        self, writer: Writer, embedder: Callable[[], Encoder], source: str, progress: Progress | None = None,
        workers: int | None = None,
    ) -> None:  # fmt: skip
        self.writer = writer
        self.watch = Stopwatch()
        self._load = embedder
        self._source = source
        self._loaded: Encoder | None = None
        self._tell = progress or (lambda event: None)
        self._workers = workers
        self.added = self.changed = self.chunks = self.words_only = self.embedded = 0
        self._kept: list[SkippedFile] = []

    def run(self, folders: Sequence[FolderRow]) -> Report:
        """Bring these folders up to date and compute the vectors that are missing."""
        with self.watch.stage("survey"):
            found = survey(self.writer, folders, self._counting)
        self._plan(folders, found.tasks)
        self._words(found.tasks)
        self._plan(folders, ())
        self._meaning()
        with self.watch.stage("tidy"):
            touched = self.added + self.changed + len(found.removed)
            self.writer.tidy(merge=touched > 0 and touched * MERGE_SHARE >= self.writer.n_documents())
        report = self._report(found, folders)
        self._tell(ProgressEvent("done", report.added + report.changed, len(found.tasks)))
        return report

    def _plan(self, folders: Sequence[FolderRow], tasks: Sequence[Task]) -> None:
        """Note what is to be read, so that the status of a run that was stopped can say what is left."""
        before = read_plan(self.writer.db)
        known = {row.id for row in self.writer.folders()} - {folder.id for folder in folders}
        plan = {folder: note for folder, note in before.items() if folder in known}
        now = time.time_ns()
        plan |= {folder: (files, now) for folder, files in Counter(task.folder for task in tasks).items()}
        if plan != before:
            notes = json.dumps([(folder, files, since) for folder, (files, since) in plan.items()])
            with self.writer.transaction() as db:
                db.execute("INSERT OR REPLACE INTO meta VALUES ('reading', ?)", (notes,))

    def _counting(self, files: int) -> None:
        self._tell(ProgressEvent("counting", files, 0))

    def _embedder(self) -> Encoder:
        if self._loaded is None:
            with self.watch.stage("model"):
                loaded = self._load()
                check_embedder(self.writer.embedder(), loaded.identity, loaded.name)
                self._loaded = loaded
        return self._loaded

    # --- pass 1

    def _words(self, tasks: Sequence[Task]) -> None:
        if not tasks:
            return
        self._embedder()
        progress = _Reading(len(tasks), sum(task.file.size for task in tasks), self._tell)
        with documents.ParserPool(self._workers) as pool:
            again = self._read(pool, tasks, progress, last_try=False)
            self._read(pool, again, progress, last_try=True)

    def _read(
        self, pool: documents.ParserPool, tasks: Sequence[Task], progress: _Reading, *, last_try: bool
    ) -> list[Task]:
        """Parse and store; returns the files that changed while they were read."""
        again: list[Task] = []
        queue = ((number, task.file.path) for number, task in enumerate(tasks))
        for number, outcome in self._timed(pool.parse_many(queue), "parse"):
            task = tasks[number]
            if isinstance(outcome, documents.Refusal):
                if outcome.code == "changed" and not last_try:
                    again.append(task)
                    continue
                self._refuse(task, outcome)
            else:
                try:
                    self._store(task, outcome)
                except (KogataError, MemoryError):
                    raise
                except Exception as error:  # one bad file never stops the run
                    self._refuse(task, documents.Refusal("corrupt", f"It could not be stored: {error}."))
            progress.step(task)
        return again

    def _timed(self, results: Iterator[T], stage: str) -> Iterator[T]:
        """The same results; the time spent waiting for them counts as ``stage``."""
        while True:
            with self.watch.stage(stage):
                try:
                    result = next(results)
                except StopIteration:
                    return
            yield result

    def _store(self, task: Task, document: documents.Document) -> None:
        tokenizer = self._embedder().tokenizer

        def count(texts: list[str]) -> list[int]:
            with self.watch.stage("tokenise"):
                return tokenizer.count(texts)

        with self.watch.stage("chunk"):
            chunks = documents.chunk(document, count)
        with self.watch.stage("tokenise"):
            coverage = [tokenizer.coverage(document.text[chunk.start : chunk.end]) for chunk in chunks]
        file = FileStat(task.file.path, document.size, document.mtime_ns)
        with self.watch.stage("words"):
            self.writer.put(file, task.folder, documents.PARSERS, document, chunks, coverage)
        self.chunks += len(chunks)
        self.words_only += sum(share < COVERED for share in coverage)
        if task.known:
            self.changed += 1
        else:
            self.added += 1

    def _refuse(self, task: Task, refusal: documents.Refusal) -> None:
        if refusal.code == "changed" and task.searchable:
            # Its earlier version stays searchable, and the next run tries again.
            reason = "It changed while it was being read; its earlier version is kept."
            self._kept.append(SkippedFile(task.file.path, "changed", reason))
            return
        file = FileStat(task.file.path, refusal.size or task.file.size, refusal.mtime_ns or task.file.mtime_ns)
        hash_ = bytes.fromhex(refusal.hash) if refusal.hash else None
        self.writer.refuse(file, task.folder, documents.PARSERS, task.kind, refusal.code, refusal.reason, hash_)

    # --- pass 2

    def _meaning(self) -> None:
        total = self.writer.n_waiting()
        while waiting := self.writer.waiting(BATCH):
            embedder = self._embedder()
            with self.watch.stage("embed"):
                vectors = embedder.encode_document([row.passage for row in waiting], long_texts="window")
            with self.watch.stage("vectors"):
                info = EmbedderInfo(embedder.identity, embedder.name, embedder.dimensions, self._source)
                self.writer.put_vectors([row.chunk for row in waiting], vectors, info)
            self.embedded += len(waiting)
            self._tell(ProgressEvent("meaning", self.embedded, total))
            if self.embedded % REFRESH_EVERY < BATCH <= self.embedded:
                self._segments()
        self._segments()

    def _segments(self) -> None:
        with self.watch.stage("segments"):
            refresh_segments(self.writer)

    def _report(self, found: Survey, folders: Sequence[FolderRow]) -> Report:
        rows = self.writer.documents()
        ids = {folder.id for folder in folders}
        mine = [row for row in rows if row.folder_id in ids]
        skipped = [SkippedFile(row.path, row.code, row.reason or "") for row in mine if row.code is not None]
        with_files = {row.folder_id for row in mine}
        return Report(
            added=self.added,
            changed=self.changed,
            moved=found.moved,
            removed=len(found.removed),
            unchanged=found.unchanged,
            skipped=tuple(sorted([*skipped, *self._kept], key=lambda file: file.path)),
            missing=tuple(found.missing),
            empty=tuple(row.path for row in folders if row.id not in with_files and row.path not in found.missing),
            left_out=dict(found.left_out),
            chunks=self.chunks,
            embedded=self.embedded,
            words_only=self.words_only,
            waiting=self.writer.n_waiting(),
            seconds=dict(self.watch.seconds),
        )


class _Reading:
    """Progress of pass 1, in files and bytes."""

    def __init__(self, files: int, size: int, tell: Progress) -> None:
        self.files, self.size, self.tell = files, size, tell
        self.done = self.done_bytes = 0

    def step(self, task: Task) -> None:
        self.done += 1
        self.done_bytes += task.file.size
        self.tell(ProgressEvent("reading", self.done, self.files, self.done_bytes, self.size, shown(task.file.path)))
