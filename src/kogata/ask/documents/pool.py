"""Worker processes that parse files, so that a hostile one cannot take the indexer down.

Each worker has a thread here that owns it: hands it a file, waits for the reply, and ends it when the clock runs out.
The thread lives as long as its worker (Linux's parent-death signal follows the thread that started a process, not the
process).
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from kogata.ask.documents.model import Document, Limits, Refusal
from kogata.ask.documents.worker import read_frame, write_frame
from kogata.errors import DocumentError

Key = TypeVar("Key", bound=Hashable)

_START_SECONDS = 60.0


class _Died(Exception):
    """The worker ended without a reply."""


@dataclass(slots=True)
class _Call:
    """One run of parse_many: where its results go, and whether anybody still waits for them."""

    results: queue.SimpleQueue[tuple[Any, Document | Refusal | BaseException]] = field(
        default_factory=queue.SimpleQueue
    )
    is_cancelled: bool = False


class ParserPool:
    """Parses files in processes of its own.

    A file that crashes its worker, hangs, or asks for too much memory becomes a :class:`Refusal`; a fresh worker takes
    the next. Workers are started when there is work, kept for the next files, and end with the pool or with this
    process, whichever comes first.

    Args:
        workers: How many processes; by default as many as this process may use cores, at most 8.
        limits: What each file may cost.
    """

    def __init__(self, workers: int | None = None, limits: Limits | None = None) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._n_workers = min(cores, 8) if workers is None else workers
        if self._n_workers < 1:
            raise ValueError(f"workers is {workers}; it must be at least 1.")
        self._limits = limits or Limits()
        self._jobs: queue.SimpleQueue[tuple[Any, bytes, _Call] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._workers: set[_Worker] = set()
        self._lock = threading.Lock()
        self._is_closed = False

    def __enter__(self) -> ParserPool:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def parse_many(self, files: Iterable[tuple[Key, bytes | str | Path]]) -> Iterator[tuple[Key, Document | Refusal]]:
        """Parse files; outcomes come as they are ready, not in the order of the input.

        ``files`` is read only a little ahead of the outcomes taken, so it may be long or endless.

        Raises:
            DocumentError: when no worker process can be started at all.
        """
        if self._is_closed:
            raise ValueError("The pool is closed.")
        call = _Call()
        waiting, source, n_pending = True, iter(files), 0
        try:
            while True:
                while waiting and n_pending < 2 * self._n_workers:
                    try:
                        key, path = next(source)
                    except StopIteration:
                        waiting = False
                        break
                    self._jobs.put((key, os.fsencode(path), call))
                    n_pending += 1
                    if len(self._threads) < min(self._n_workers, n_pending):
                        self._start_thread()
                if n_pending == 0:
                    return
                key, outcome = call.results.get()
                n_pending -= 1
                if isinstance(outcome, BaseException):
                    raise outcome
                yield key, outcome
        finally:
            call.is_cancelled = True

    def close(self) -> None:
        """End the workers at once, in the middle of a file if need be."""
        with self._lock:
            self._is_closed = True
            workers = list(self._workers)
        for _ in self._threads:
            self._jobs.put(None)
        for worker in workers:
            worker.kill()
        for thread in self._threads:
            thread.join(10)
        self._threads.clear()

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._serve, name="kogata-parser", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self) -> None:
        worker: _Worker | None = None
        try:
            while (job := self._jobs.get()) is not None:
                key, path, call = job
                if call.is_cancelled or self._is_closed:
                    continue
                try:
                    if worker is None:
                        worker = self._start_worker()
                    outcome, worker = self._run(worker, path)
                    call.results.put((key, outcome))
                except BaseException as error:  # it belongs to whoever waits for the result
                    call.results.put((key, error))
        finally:
            if worker is not None:
                self._end(worker)

    def _start_worker(self) -> _Worker:
        worker = _Worker(self._limits)
        with self._lock:
            if not self._is_closed:
                self._workers.add(worker)
                return worker
        worker.kill()
        worker.end()
        raise DocumentError("Reading documents was stopped.")

    def _end(self, worker: _Worker) -> None:
        with self._lock:
            self._workers.discard(worker)
        worker.end()

    def _run(self, worker: _Worker, path: bytes) -> tuple[Document | Refusal, _Worker | None]:
        try:
            reply = worker.ask({"path": os.fsdecode(path)}, self._limits.seconds)
        except _Died:
            self._end(worker)
            return self._explain(worker), None
        outcome: Document | Refusal
        if "document" in reply:
            outcome = Document.from_dict(reply["document"])
        else:
            outcome = Refusal(**reply["refusal"])
        if reply.get("tired"):
            self._end(worker)
            return outcome, None
        return outcome, worker

    def _explain(self, worker: _Worker) -> Refusal:
        if worker.was_late or worker.status == -getattr(signal, "SIGXCPU", 0):
            return Refusal(
                "timeout", f"Reading it took more than the {self._limits.seconds:g} seconds one file may take."
            )
        if self._is_closed:
            return Refusal("changed", "Reading it was stopped.")
        status = worker.status
        name = signal.Signals(-status).name if status is not None and status < 0 else f"exit status {status}"
        return Refusal("crashed", f"The process that read it broke down ({name}); the file is damaged or malicious.")


class _Worker:
    """One worker process; used by the thread that made it, killed by anybody."""

    def __init__(self, limits: Limits) -> None:
        self.was_late = False
        self.status: int | None = None
        # -P: a json.py in the folder being indexed must not be imported. A process group of its own: Ctrl-C in the
        # terminal reaches this process, which ends its workers in order.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "kogata.ask.documents.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_THREAD_LIMIT": "1"},
            process_group=0 if os.name == "posix" else None,
        )
        try:
            self.ask({"limits": asdict(limits)}, _START_SECONDS)
        except _Died:
            self.end()
            raise DocumentError(
                f"The process that reads documents cannot start (status {self.status}).",
                hint="Run `kogata doctor`; if memory is limited, raise the limit.",
            ) from None

    def ask(self, message: Any, seconds: float) -> Any:
        """The reply to a message.

        Raises:
            _Died: no reply in time, or the process ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        clock = threading.Timer(seconds, self._too_late)
        clock.daemon = True
        clock.start()
        try:
            write_frame(self._process.stdin, message)  # type: ignore[arg-type]
            reply = read_frame(self._process.stdout)  # type: ignore[arg-type]
        except (OSError, ValueError):
            reply = None
        finally:
            clock.cancel()
        if reply is None:
            raise _Died
        return reply

    def _too_late(self) -> None:
        self.was_late = True
        self.kill()

    def kill(self) -> None:
        """End the process at once, with whatever it has started (tesseract)."""
        with contextlib.suppress(OSError):
            if os.name == "posix" and self._process.returncode is None:
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()

    def end(self) -> None:
        """Let the process end, or make it."""
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        try:
            self.status = self._process.wait(2)
        except subprocess.TimeoutExpired:
            self.kill()
            self.status = self._process.wait()
