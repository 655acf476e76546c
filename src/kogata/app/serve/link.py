"""The http process's end: start the engine, call it, and start it again when it dies."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from msgspec.structs import replace

from kogata import errors
from kogata.app.serve.messages import (
    HEAD,
    Call,
    Cancel,
    Done,
    Failed,
    FromEngine,
    Part,
    Progress,
    Ready,
    Start,
    decode_from_engine,
    frame,
)

PATIENCE = (0.0, 0.5, 2.0, 10.0)
"""Seconds before the engine is started again: at once the first time, longer when it keeps dying."""

STEADY_SECONDS = 60.0
"""An engine that has lived this long counts as sound again."""

log = logging.getLogger("kogata.serve")


class EngineGone(errors.KogataError):
    """The engine died, or is not there yet: worth another try in a moment."""


class EngineFault(errors.KogataError):
    """The engine met an error of its own: a defect."""


class Parts:
    """The parts of an answer, as the engine makes them: iterate over them, and close it in any case.

    Attributes:
        result: The call's own result, once the parts have ended.

    Raises, where the next part is asked for:
        KogataError: As of :meth:`Link.call`.
    """

    def __init__(self, cancel: Callable[[], None]) -> None:
        self._cancel = cancel
        self._came: asyncio.Queue[bytes | Done | errors.KogataError] = asyncio.Queue()
        self._over = False
        self.result = b""

    def __aiter__(self) -> Parts:
        return self

    async def __anext__(self) -> bytes:
        if self._over:
            raise StopAsyncIteration
        match await self._came.get():
            case bytes(part):
                return part
            case Done(body=body):
                self._over, self.result = True, body
                raise StopAsyncIteration
            case errors.KogataError() as error:
                self._over = True
                raise error
        raise AssertionError

    def close(self) -> None:
        """Nobody wants the rest of it."""
        if not self._over:
            self._over = True
            self._cancel()

    def put(self, what: bytes | Done | errors.KogataError) -> None:
        """What comes next."""
        self._came.put_nowait(what)


class Link:
    """The engine, as the event loop sees it.

    Args:
        start: What the engine is to serve.
        progress: Takes every change of the indexing's state.
    """

    def __init__(self, start: Start, progress: Callable[[Progress], None] = lambda state: None) -> None:
        self._start = start
        self._tell = progress
        self.progress = Progress()
        self.restarts = 0
        self.problem: errors.KogataError | None = None
        self._refused: errors.KogataError | None = None  # why the engine did not start, as it says itself
        self._ready = asyncio.Event()
        self._was_ready = False
        self._over = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._calls: dict[int, asyncio.Future[bytes]] = {}
        self._streams: dict[int, Parts] = {}
        self._ids = itertools.count(1)
        self._keeper: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether the engine can be called now."""
        return self._ready.is_set()

    @property
    def pid(self) -> int | None:
        """The engine's process."""
        return None if self._process is None else self._process.pid

    async def open(self) -> None:
        """Start the engine; it becomes ready by itself."""
        self._keeper = asyncio.create_task(self._keep())

    async def wait_ready(self, seconds: float) -> None:
        """Return when the engine is ready.

        Raises:
            KogataError: It cannot be started; the message is the engine's own.
            EngineGone: It was not ready in time.
        """
        waits = [asyncio.ensure_future(self._ready.wait()), asyncio.ensure_future(self._over.wait())]
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if self.problem is not None:
            raise self.problem
        if not self.ready:
            raise EngineGone("The engine is not ready.")

    async def close(self) -> None:
        """End the engine: it finishes the step it is at."""
        if self._keeper is not None:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
        if self._process is not None and self._process.returncode is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                await asyncio.wait_for(self._process.wait(), 8)
            except TimeoutError:
                await self._kill()

    async def call(self, method: str, **arguments: Any) -> bytes:
        """What the engine's method answers. Cancelling the task cancels the call.

        Raises:
            KogataError: What the engine raised, by the class of its name.
            EngineGone: The engine is not there, or died meanwhile.
            EngineFault: The engine met a defect.
        """
        to_engine = self._to_engine()
        id_ = next(self._ids)
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._calls[id_] = future
        try:
            to_engine.write(frame(Call(id_, method, arguments)))
            await to_engine.drain()
            return await future
        except (ConnectionError, RuntimeError) as error:
            raise EngineGone("The engine went away.") from error
        except asyncio.CancelledError:
            with suppress(ConnectionError, RuntimeError):
                to_engine.write(frame(Cancel(id_)))
            raise
        finally:
            self._calls.pop(id_, None)

    def stream(self, method: str, **arguments: Any) -> Parts:
        """What the engine's method answers, in parts. Closing it cancels the call.

        Raises:
            EngineGone: The engine is not there.
        """
        to_engine = self._to_engine()
        id_ = next(self._ids)

        def cancel() -> None:
            self._streams.pop(id_, None)
            with suppress(ConnectionError, RuntimeError):
                to_engine.write(frame(Cancel(id_)))

        parts = self._streams[id_] = Parts(cancel)
        try:
            to_engine.write(frame(Call(id_, method, arguments)))
        except (ConnectionError, RuntimeError) as error:
            self._streams.pop(id_, None)
            raise EngineGone("The engine went away.") from error
        return parts

    def _to_engine(self) -> asyncio.StreamWriter:
        if not self.ready or self._process is None or self._process.stdin is None:
            raise EngineGone("The engine is not ready.")
        return self._process.stdin

    # --- keeping it alive

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            began = loop.time()
            try:
                await self._live()
            except Exception:  # no processes or files to be had, a message that cannot be read
                log.exception("the engine cannot be talked to")
                await self._kill()
            if not self._was_ready:  # with what we were told it cannot work; later, whatever it is may pass
                cannot = EngineFault("The engine could not be started; what it printed says why.")
                self.problem = self._refused or cannot
                self._over.set()
                return
            if self._refused is not None:
                log.error("the engine could not be started: %s", self._refused)
                self._refused = None
            failures = 0 if loop.time() - began > STEADY_SECONDS else failures + 1
            self.restarts += 1
            code = None if self._process is None else self._process.returncode
            log.error("the engine ended with code %s; starting it again", code)
            await asyncio.sleep(PATIENCE[min(failures, len(PATIENCE)) - 1] if failures else 0.0)

    async def _live(self) -> None:
        """One life of the engine, from its start to its end."""
        # It reads files of all origins: the key of our door is none of its business.
        inherited = {name: value for name, value in os.environ.items() if name != "KOGATA_API_KEY"}
        # It ends when its stdin closes, however we end.
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "kogata.app.serve.engine",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env={**inherited, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(frame(self._start))
            while True:
                try:
                    (size,) = HEAD.unpack(await process.stdout.readexactly(HEAD.size))
                    body = await process.stdout.readexactly(size)
                except (asyncio.IncompleteReadError, ConnectionError):
                    break
                self._take(decode_from_engine(body))
        finally:
            self._ready.clear()
            for future in self._calls.values():
                if not future.done():
                    future.set_exception(EngineGone("The engine went away while it was at this."))
            for parts in self._streams.values():
                parts.put(EngineGone("The engine went away while it was at this."))
            self._streams.clear()
            if self.progress.running:
                self._moved(Progress(phase=self.progress.phase, runs=self.progress.runs))
        await process.wait()

    def _take(self, message: FromEngine) -> None:
        match message:
            case Ready():
                self._ready.set()
                self._was_ready = True
            case Progress():
                if message.phase is not None:  # the paths are known before the first run begins
                    self._start = replace(self._start, first=False)
                self._moved(message)
            case Failed(id=0):
                self._refused = _as_error(message)
            case Part(id=id_, body=body):
                if id_ in self._streams:
                    self._streams[id_].put(body)
            case Done(id=id_) | Failed(id=id_) if id_ in self._streams:
                self._streams.pop(id_).put(message if isinstance(message, Done) else _as_error(message))
            case Done(id=id_) | Failed(id=id_):
                future = self._calls.get(id_)
                if future is not None and not future.done():
                    if isinstance(message, Done):
                        future.set_result(message.body)
                    else:
                        future.set_exception(_as_error(message))

    def _moved(self, state: Progress) -> None:
        self.progress = state
        with suppress(OSError):  # a terminal that was closed
            self._tell(state)

    async def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


def _as_error(failed: Failed) -> errors.KogataError:
    kind = getattr(errors, failed.kind, None)
    if isinstance(kind, type) and issubclass(kind, errors.KogataError):
        return kind(failed.message, hint=failed.hint)
    return EngineFault(failed.message, hint=failed.hint)
