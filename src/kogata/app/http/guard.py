"""Who may call, how much, and for how long: everything that is decided before a route sees a request.

A page on the internet can make a browser send requests to 127.0.0.1. Two things tell it from our own page: the Host it
names (a rebound domain is not one of ours; a bare IP address cannot be rebound) and its Origin. Beyond loopback a key
is asked for as well. Limits are on headers, bodies, their pace, and requests in flight.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import re
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from kogata.app.http.errors import ApiError
from kogata.app.http.metrics import Metrics

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_REQUEST_ID = re.compile(r"[\w.:-]{1,64}")
_PORT = re.compile(r":\d{1,5}$")
_METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH"})  # others are counted as one
_OPEN = ("/health",)
_UPLOADS = "/v1/documents"
_SLOWEST = 50_000  # bytes a second of a body that may take longer
_PAGE = ("/", "/favicon.ico")

ALWAYS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"x-frame-options": b"DENY",
}


@dataclass(frozen=True)
class Limits:
    """What one server takes.

    Attributes:
        body: Bytes of a request's body; uploads have their own.
        upload: Bytes of an upload.
        header_bytes, headers: Of a request.
        in_flight: Requests at once; more are answered with 429.
        bodies: Bytes of bodies that requests hold in memory together; uploads are on the disk.
        body_seconds: Pause between two pieces of a body; all of it has ten times as long, and a second for each 50 kB.
        seconds: For an answer.
        silence: Seconds between two signs of life of an answer that a model writes: it may take much longer.
    """

    body: int = 16_000_000
    upload: int = 500_000_000
    bodies: int = 256_000_000
    headers: int = 100
    header_bytes: int = 32_768
    in_flight: int = 512
    body_seconds: float = 20.0
    seconds: float = 120.0
    silence: float = 300.0


@dataclass(frozen=True)
class Rules:
    """Who may call.

    Attributes:
        keys: One of them `Authorization: Bearer` has to carry; none where nothing is asked for.
        hosts: Names that Host may have beside loopback's and IP addresses.
        origins: Origins of other pages that may call.
        limits: How much.
    """

    keys: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    limits: Limits = field(default_factory=Limits)


class Guard:
    """ASGI middleware around all routes.

    Args:
        app: The routes.
        rules: Who may call, and how much.
        metrics: Where requests are counted.
        log: Takes one record for each request.
    """

    def __init__(self, app: App, rules: Rules, metrics: Metrics, log: Callable[[dict[str, Any]], None]) -> None:
        self._app = app
        self._rules = rules
        self._metrics = metrics
        self._log = log
        self._in_flight = 0
        self._bodies = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        headers = _headers(scope)
        given = headers.get("x-request-id", "")
        id_ = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = id_
        origin = headers.get("origin")
        extra = {**ALWAYS, b"x-request-id": id_.encode()}
        if origin in self._rules.origins:
            extra |= {b"access-control-allow-origin": str(origin).encode(), b"vary": b"Origin"}
        status = 0

        async def send_with(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                present = {name for name, _ in message["headers"]}
                own = [(name, value) for name, value in extra.items() if name not in present]
                message = {**message, "headers": [*message["headers"], *own]}
            await send(message)

        self._in_flight += 1
        self._metrics.in_flight.set(self._in_flight)
        try:
            self._check(scope, headers)
            if origin in self._rules.origins and scope["method"] == "OPTIONS":
                await _preflight(send_with)
            else:
                await self._app(scope, self._limited(scope, receive), send_with)
        except ApiError as error:
            if status:  # the answer has begun: all that is left is to cut it off
                raise
            await error.response()(scope, receive, send_with)
        finally:
            self._in_flight -= 1
            self._bodies -= scope["state"].get("body", 0)
            self._metrics.in_flight.set(self._in_flight)
            seconds = time.perf_counter() - began
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.seen(scope["method"] if scope["method"] in _METHODS else "other", route, status, seconds)
            self._log(
                {
                    "id": id_, "client": (scope.get("client") or ("",))[0], "method": scope["method"],
                    "path": scope["path"], "status": status, "ms": round(1000 * seconds, 1),
                }
            )  # fmt: skip

    def _check(self, scope: Scope, headers: dict[str, str]) -> None:
        """Raises ApiError for a request that is not to be served."""
        limits = self._rules.limits
        size = sum(len(name) + len(value) for name, value in scope["headers"])
        if len(scope["headers"]) > limits.headers or size > limits.header_bytes:
            raise ApiError(
                431, f"At most {limits.headers} headers of together {limits.header_bytes:,} bytes are accepted."
            )
        self._check_host(headers.get("host", ""))
        self._check_origin(headers)
        path = scope["path"]
        open_to_all = path in _OPEN or path in _PAGE or path.startswith("/static/") or scope["method"] == "OPTIONS"
        if self._rules.keys and not open_to_all:
            key = self._checked_key(headers.get("authorization", ""))
            # Texts of one key's requests must not be seen, be it by how fast they are read again, by another's.
            scope["state"]["salt"] = hashlib.sha256(key.encode()).digest()
        if self._in_flight > limits.in_flight and path not in _OPEN:
            raise ApiError(
                429, f"More than {limits.in_flight} requests are being answered already.", code="too_many_requests",
                retry_after=1,
            )  # fmt: skip
        most = self._most(path)
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > most:
            raise _too_large(most)

    def _check_host(self, host: str) -> None:
        name = _PORT.sub("", host.strip().lower())
        if name not in self._rules.hosts and not _is_address(name):
            raise ApiError(
                403, f"This server is not known as {host[:100]!r}. Start it with --allow-host to add a name.",
                code="host_not_allowed",
            )  # fmt: skip

    def _check_origin(self, headers: dict[str, str]) -> None:
        origin = headers.get("origin")
        if origin is None or origin in self._rules.origins:
            return
        if origin.partition("://")[2].lower() != headers.get("host", "").strip().lower():
            raise ApiError(
                403, f"Pages from {origin[:100]!r} may not call this server. Start it with --allow-origin to let them.",
                code="origin_not_allowed",
            )  # fmt: skip

    def _checked_key(self, given: str) -> str:
        scheme, _, key = given.partition(" ")
        key = key.strip()
        accepted = [hmac.compare_digest(key.encode(), known.encode()) for known in self._rules.keys]
        if scheme.lower() != "bearer" or not any(accepted):
            raise ApiError(401, "This server asks for its API key: Authorization: Bearer KEY.", code="invalid_api_key")
        return key

    def _most(self, path: str) -> int:
        return self._rules.limits.upload if path == _UPLOADS else self._rules.limits.body

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        """`receive` that counts the body and times its pieces."""
        limits, most = self._rules.limits, self._most(scope["path"])
        pause, in_memory = limits.body_seconds, scope["path"] != _UPLOADS
        got, more, began = 0, True, 0.0

        async def limited() -> Message:
            nonlocal got, more, began
            if not more:  # only the client's leaving is waited for now
                return await receive()
            began = began or time.monotonic()
            try:
                async with asyncio.timeout(pause):
                    message = await receive()
            except TimeoutError:
                raise ApiError(
                    408, f"Nothing of the request's body arrived for {pause:.0f} seconds.", code="timeout"
                ) from None
            size = len(message.get("body", b""))
            got += size
            if time.monotonic() - began > 10 * pause + got / _SLOWEST:
                raise ApiError(408, "The request's body arrives too slowly.", code="timeout")
            if in_memory:
                self._bodies += size
                scope["state"]["body"] = got
                if self._bodies > limits.bodies:
                    raise ApiError(
                        429, "Too many large requests are being answered already.", code="too_many_requests",
                        retry_after=1,
                    )  # fmt: skip
            more = bool(message.get("more_body")) and message["type"] == "http.request"
            if got > most:
                raise _too_large(most)
            return message

        return limited


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"The request's body is too large; at most {most:,} bytes are accepted.", code="too_large")


def _headers(scope: Scope) -> dict[str, str]:
    """Headers by name; of one that is repeated the last."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def _is_address(name: str) -> bool:
    """Whether a Host is loopback's name or a bare address, which no domain can be rebound to."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


async def _preflight(send: Send) -> None:
    headers = [
        (b"access-control-allow-methods", b"GET, POST, DELETE"),
        (b"access-control-allow-headers", b"authorization, content-type, x-request-id"),
        (b"access-control-max-age", b"600"),
        (b"content-length", b"0"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
