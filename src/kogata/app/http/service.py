"""What the server says of itself: /health, /metrics, /v1/status and /openapi.json; and the page."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import anyio
import msgspec
from starlette.requests import Request
from starlette.responses import Response

from kogata import __version__
from kogata.app.http.context import Context, context
from kogata.app.http.endpoint import Endpoint, as_json
from kogata.app.http.errors import ApiError
from kogata.app.http.schemas.common import Health
from kogata.app.http.schemas.documents import StatusResponse

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


async def health(request: Request) -> Response:
    link = context(request).link
    if link.ready:
        return as_json(Health("ok", "ready"))
    state = Health("unavailable", "starting", "The engine is being started.")
    if link.problem is not None:
        state = Health("unavailable", "failed", str(link.problem))
    answer = as_json(state, 503)
    answer.headers["Retry-After"] = "1"
    return answer


async def metrics(request: Request) -> Response:
    here = context(request)
    here.metrics.engine_up.set(here.link.ready)
    here.metrics.restarts.set(here.link.restarts)
    here.metrics.indexing.set(here.link.progress.running)
    return Response(here.metrics.text(), media_type=here.metrics.content_type)


async def status(request: Request) -> Response:
    here = context(request)
    known: dict[str, Any] = msgspec.json.decode(await here.link.call("status"))
    known["kogata"] = __version__
    known["indexing"] = {**_indexing(here), "eta_seconds": here.pace.left()}
    known["uploads"] = await anyio.to_thread.run_sync(_uploads, here.uploads)
    return as_json(known)


def _indexing(here: Context) -> dict[str, Any]:
    state = msgspec.structs.asdict(here.link.progress)
    state.pop("runs")
    return state


def _uploads(folder: Path) -> dict[str, Any]:
    try:
        sizes = [file.stat().st_size for file in folder.iterdir() if not file.name.startswith(".")]
    except OSError:
        sizes = []
    return {"folder": str(folder), "files": len(sizes), "bytes": sum(sizes)}


async def openapi(request: Request) -> Response:
    return as_json(request.app.state.openapi)


@lru_cache
def _file(name: str) -> bytes | None:
    """A file of the page; only those that lie there, by their plain names."""
    folder = resources.files("kogata.app") / "web"
    return next((file.read_bytes() for file in folder.iterdir() if file.is_file() and file.name == name), None)


async def page(request: Request) -> Response:
    name = request.path_params.get("name", "index.html")
    content = _file(name)
    kind = _TYPES.get(Path(name).suffix)
    if content is None or kind is None:
        raise ApiError(404, f"There is no {name[:100]!r} here.", code="not_found")
    return Response(content, headers={"content-security-policy": CSP, "cache-control": "no-cache"}, media_type=kind)


ROUTES = (
    Endpoint("GET", "/health", health, "Whether requests can be answered", "503 while the engine is not there.",
             answers=Health),
    Endpoint("GET", "/metrics", metrics, "Counters for Prometheus", media_type="text/plain"),
    Endpoint("GET", "/v1/status", status, "What is indexed, and how far the indexing is", answers=StatusResponse),
    Endpoint("GET", "/openapi.json", openapi, "This document"),
)  # fmt: skip

PAGE = (
    Endpoint("GET", "/", page, "The page", media_type="text/html"),
    Endpoint("GET", "/static/{name}", page, "A file of the page"),
)
