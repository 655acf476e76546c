"""What all routes use: the base of requests, names of models, errors."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

Text = Annotated[str, Meta(max_length=1_000_000, description="At most 1,000,000 characters.")]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Name = Annotated[str, Meta(max_length=1024)]
Model = Annotated[Name, Meta(description="`default`, or an id that /v1/models lists.")]
Query = Annotated[str, Meta(max_length=1_000_000, description="A question or some words, in any language.")]


class Request(Struct, forbid_unknown_fields=True, kw_only=True):
    """Base of what is sent to us."""


class Usage(Struct):
    prompt_tokens: int
    total_tokens: int


class ErrorBody(Struct):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorResponse(Struct):
    """Every error, in OpenAI's envelope."""

    error: ErrorBody


class Health(Struct):
    status: Literal["ok", "unavailable"]
    engine: Literal["ready", "starting", "failed"]
    message: str | None = None
