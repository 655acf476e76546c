"""Errors as OpenAI's clients expect them: a status and ``{"error": {message, type, param, code}}``."""

from __future__ import annotations

import logging
import re

import msgspec
from starlette.responses import Response

from kogata import errors
from kogata.app.http.schemas.common import ErrorBody, ErrorResponse
from kogata.app.serve.link import EngineFault, EngineGone

log = logging.getLogger("kogata.serve")

DEFECT = "Something unexpected happened; the server's log says what."
"""What a caller is told of a defect: exceptions carry paths and the like."""

_encode = msgspec.json.Encoder().encode
_PLACE = re.compile(r" - at `\$\.?([^`]*)`$")


class ApiError(Exception):
    """An answer that is an error.

    Args:
        status: HTTP status.
        message: What was wrong and what is accepted.
        param: The field it is about.
        code: A word for programs.
        retry_after: Seconds after which trying again makes sense.
    """

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None,
        retry_after: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after = retry_after

    def response(self) -> Response:
        """The answer."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return Response(_encode(self.body()), self.status, headers, "application/json")

    def body(self) -> ErrorResponse:
        """What the answer holds."""
        return ErrorResponse(ErrorBody(self.message, _type(self.status), self.param, self.code))


def from_kogata(error: errors.KogataError) -> ApiError:
    """What a caller is told of an error of ours."""
    message = str(error) if error.hint is None else f"{error} {error.hint}"
    match error:
        case EngineGone():
            return ApiError(503, message, code="engine_unavailable", retry_after=1)
        case EngineFault():
            return ApiError(500, DEFECT, code="internal_error")
        case errors.BadInput():
            return ApiError(400, message, code="invalid_value")
        case errors.Busy():
            return ApiError(429, message, code="too_many_requests", retry_after=2)
        case errors.NotInIndex():
            return ApiError(404, message, code="not_found")
        case errors.LockedError():
            return ApiError(409, message, code="index_locked", retry_after=5)
        case errors.DamagedIndexError() | errors.NewerIndexError() | errors.EmbedderMismatch() | errors.ModelError():
            return ApiError(500, message, code="index_unavailable")  # as it will be at the next try
        case _:
            return ApiError(503, message, code="index_unavailable", retry_after=5)


def invalid(error: msgspec.DecodeError) -> ApiError:
    """A body that is not what the route accepts."""
    text = str(error)
    place = _PLACE.search(text)
    param = place.group(1).replace("[...]", "[]") or None if place else None
    unknown = re.search(r"unknown field `([^`]*)`", text)
    if unknown:
        param = unknown.group(1)
    message = _PLACE.sub("", text)
    if isinstance(error, msgspec.ValidationError):
        where = f"`{param}`: " if param and not unknown else ""
        return ApiError(400, f"{where}{message}.", param=param, code="invalid_request")
    return ApiError(400, f"The body is not valid JSON: {message}.", code="invalid_json")


def _type(status: int) -> str:
    """OpenAI's names for kinds of errors."""
    return {
        401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error",
    }.get(status, "invalid_request_error" if status < 500 else "server_error")  # fmt: skip
