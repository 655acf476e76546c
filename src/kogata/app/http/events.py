"""Server-sent events: an answer that is sent while it is made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from kogata.app.http.errors import ApiError

_encode = msgspec.json.Encoder().encode

DONE = b"data: [DONE]\n\n"


def data(value: object) -> bytes:
    """An event."""
    return b"data: " + _encode(value) + b"\n\n"


def comment(text: str) -> bytes:
    """A line that clients pass over: it shows proxies and them that we are alive."""
    return f": {text}\n\n".encode()


class EventStream(Response):
    """Events until there are no more, or until the client is gone.

    Args:
        events: What is sent.
        close: Called at the end in any case.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], close: Callable[[], None]) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def write() -> None:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for event in self._events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

        async def leave() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        writing, gone = asyncio.ensure_future(write()), asyncio.ensure_future(leave())
        try:
            await asyncio.wait({writing, gone}, return_when=asyncio.FIRST_COMPLETED)
            if writing.done():
                writing.result()
        except asyncio.CancelledError:  # the server is told to end, and has waited long enough
            await _end(writing)
            ended = data(ApiError(503, "The server is being stopped.", code="server_stopping").body())
            with suppress(OSError):
                await send({"type": "http.response.body", "body": ended})
        finally:
            self._close()
            await _end(writing)
            await _end(gone)


async def _end(task: asyncio.Future[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError, OSError):
        await task
