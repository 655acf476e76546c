"""A route: what it accepts, what it answers, and how a request passes through it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from kogata.app.http.errors import ApiError, from_kogata, invalid
from kogata.errors import KogataError

Handler = Callable[..., Awaitable[Response]]

_encode = msgspec.json.Encoder().encode

CLIENT_GONE = 499
"""The status in logs of a request whose client went away, as nginx calls it."""


@dataclass(frozen=True)
class Endpoint:
    """One method of one path.

    Attributes:
        method, path: As Starlette spells them.
        handler: Takes the request, and the decoded body where there is one.
        summary, description: For the OpenAPI document.
        accepts: Type of the JSON body; None where there is none.
        answers: Type of the JSON answer; None where it is something else.
        status: Of a good answer.
        example: A body that works, for the OpenAPI document.
        parameters: Of the path and the query: (name, type, description) of each, and an example where there is one.
        name: Unique, for the OpenAPI document and its generated clients; the handler's where none is given.
        media_type: Of the answer.
        reads_body: The handler reads the body itself, as it arrives.
        unhurried: Whether the answer to this body may take as long as it takes: the handler sees that it goes on.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    description: str = ""
    accepts: Any = None
    answers: Any = None
    status: int = 200
    example: Any = None
    parameters: tuple[tuple[Any, ...], ...] = ()
    media_type: str = "application/json"
    reads_body: bool = False
    name: str = ""
    unhurried: Callable[[Any], bool] = lambda body: False

    def asgi(self, seconds: float) -> Callable[[Request], Awaitable[Response]]:
        """What Starlette calls.

        Args:
            seconds: How long an answer may take.
        """
        decoder = msgspec.json.Decoder(self.accepts) if self.accepts is not None else None

        async def serve(request: Request) -> Response:
            try:
                if self.reads_body:
                    return await self.handler(request)
                arguments = () if decoder is None else (decoder.decode(await _json_body(request)),)
                limit = None if arguments and self.unhurried(arguments[0]) else seconds
                return await _unless_gone(request, self.handler(request, *arguments), limit)
            except ApiError as error:
                return error.response()
            except ClientDisconnect:  # in the middle of its body
                return Response(status_code=CLIENT_GONE)
            except msgspec.DecodeError as error:
                return invalid(error).response()
            except UnicodeDecodeError:
                return ApiError(400, "The body is not UTF-8 text.", code="invalid_json").response()
            except KogataError as error:
                return from_kogata(error).response()
            except RecursionError:
                return ApiError(400, "The body is nested too deeply.", code="invalid_json").response()

        serve.__name__ = self.handler.__name__
        return serve


def as_json(value: Any, status: int = 200) -> Response:
    """An answer; bytes are JSON already."""
    return Response(value if isinstance(value, bytes) else _encode(value), status, media_type="application/json")


async def _json_body(request: Request) -> bytes:
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    # text/plain and forms are what a page elsewhere can send without asking first.
    if kind != "application/json" and not kind.endswith("+json"):
        raise ApiError(415, f"The body has to be application/json, not {kind[:100]!r}.", code="unsupported_media_type")
    return await request.body()


async def _unless_gone(request: Request, work: Awaitable[Response], seconds: float | None) -> Response:
    """The answer; the work is cancelled when its client goes away or it takes too long."""

    async def leave() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    answer, gone = asyncio.ensure_future(work), asyncio.ensure_future(leave())
    try:
        await asyncio.wait({answer, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        if gone.done():
            gone.result()  # raises what the guard refuses the rest of the body with
            return Response(status_code=CLIENT_GONE)
        raise ApiError(504, f"This took longer than {seconds:.0f} seconds and was given up.", code="timeout")
    finally:
        for task in (answer, gone):
            if not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError, KogataError):
                    await task
