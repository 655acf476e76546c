"""The web application: all routes behind the guard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kogata.app.http import chat, completions, documents, embeddings, search, service, tokens
from kogata.app.http.context import Context
from kogata.app.http.endpoint import Endpoint
from kogata.app.http.errors import DEFECT, ApiError
from kogata.app.http.guard import Guard, Rules
from kogata.app.http.openapi import document

API: tuple[Endpoint, ...] = (
    *search.ROUTES, *chat.ROUTES, *completions.ROUTES, *tokens.ROUTES, *embeddings.ROUTES, *documents.ROUTES,
    *service.ROUTES,
)  # fmt: skip


def application(context: Context, rules: Rules, log: Callable[[dict[str, Any]], None]) -> Guard:
    """The ASGI application of a server.

    Args:
        context: What the routes share.
        rules: Who may call, and how much.
        log: Takes one record for each request.
    """
    app = Starlette(
        routes=[_route(endpoint, rules) for endpoint in (*API, *service.PAGE)],
        exception_handlers={HTTPException: _http_error, Exception: _defect},
    )
    app.router.redirect_slashes = False
    app.state.context = context
    app.state.limits = rules.limits
    app.state.openapi = document(API)
    return Guard(app, rules, context.metrics, log)


def _route(endpoint: Endpoint, rules: Rules) -> Route:
    return Route(endpoint.path, endpoint.asgi(rules.limits.seconds), methods=[endpoint.method])


async def _http_error(request: Request, error: Exception) -> Response:
    """What Starlette refuses by itself: unknown paths and methods."""
    assert isinstance(error, HTTPException)
    message = {
        404: f"There is no {request.url.path[:200]!r} here; /openapi.json lists what there is.",
        405: f"{request.method} is not accepted here.",
    }.get(error.status_code, str(error.detail))
    answer = ApiError(error.status_code, message, code="not_found" if error.status_code == 404 else None).response()
    answer.headers.update(error.headers or {})
    return answer


async def _defect(request: Request, error: Exception) -> Response:
    """An error of ours: Starlette writes it to the log after this."""
    return ApiError(500, DEFECT, code="internal_error").response()
