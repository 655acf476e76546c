"""The OpenAPI document, made from the routes and the types they accept and answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from kogata import __version__
from kogata.app.http.endpoint import Endpoint
from kogata.app.http.schemas.common import ErrorResponse

_ERRORS = {
    "400": "Something in the request is not accepted; the message says what is.",
    "401": "The API key is missing or wrong.",
    "403": "The Host or the Origin is not allowed.",
    "404": "There is no such thing.",
    "405": "Not by this method.",
    "429": "Too many requests at once; Retry-After says when to try again.",
    "500": "A defect, or an index or a model that cannot be used; the message says which.",
    "503": "The engine or the index is not available; Retry-After says when to try again.",
    "504": "It took too long and was given up.",
}
_BODY_ERRORS = {
    "408": "The body came too slowly.",
    "413": "The body is too large.",
    "415": "The body is not of the type that is accepted.",
}
_CHANGE_ERRORS = {"409": "Another process writes to the index; Retry-After says when to try again."}
_UPLOAD_ERRORS = {"507": "The disk has no room for it."}


def document(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """OpenAPI 3.1 of these routes."""
    types = [kind for endpoint in endpoints for kind in (endpoint.accepts, endpoint.answers) if kind is not None] + [
        ErrorResponse
    ]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    named = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        path = re.sub(r"\{(\w+):\w+\}", r"{\1}", endpoint.path)
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint, path, named)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Kogata", "version": __version__,
            "description": "Private answers over your own documents; texts and embeddings as OpenAI's clients expect "
            "them.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],
    }  # fmt: skip


def _errors(endpoint: Endpoint) -> dict[str, str]:
    """The errors that a route may answer with."""
    found = dict(_ERRORS)
    if endpoint.method == "POST":
        found |= _BODY_ERRORS
    if endpoint.method == "DELETE":
        found |= _CHANGE_ERRORS
    if endpoint.reads_body:
        found |= _UPLOAD_ERRORS
    return found


def _operation(endpoint: Endpoint, path: str, named: dict[Any, Any]) -> dict[str, Any]:
    content = {"schema": named[endpoint.answers]} if endpoint.answers is not None else {}
    operation: dict[str, Any] = {
        "operationId": endpoint.name or endpoint.handler.__name__,
        "summary": endpoint.summary,
        "responses": {
            str(endpoint.status): {"description": "Done.", "content": {endpoint.media_type: content}},
            **{
                code: {"description": text, "content": {"application/json": {"schema": named[ErrorResponse]}}}
                for code, text in sorted(_errors(endpoint).items())
            },
        },
    }
    if endpoint.path == "/health":
        operation["responses"]["503"]["content"] = {"application/json": content}
    if endpoint.description:
        operation["description"] = endpoint.description
    if endpoint.parameters:
        operation["parameters"] = [
            {
                "name": name, "in": "path" if f"{{{name}}}" in path else "query", "description": text,
                "required": f"{{{name}}}" in path, "schema": msgspec.json.schema(kind),
                **({"example": example[0]} if example else {}),
            }
            for name, kind, text, *example in endpoint.parameters
        ]  # fmt: skip
    if endpoint.accepts is not None:
        body: dict[str, Any] = {"schema": named[endpoint.accepts]}
        if endpoint.example is not None:
            body["example"] = endpoint.example
        operation["requestBody"] = {"required": True, "content": {"application/json": body}}
    if endpoint.reads_body:
        fields = {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}}
        schema = {"type": "object", "properties": fields, "required": ["file"]}
        operation["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    return operation
