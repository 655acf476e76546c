"""/v1/embeddings and /v1/models, as OpenAI's clients know them, and /v1/rerank, as Jina's and Cohere's do."""

from __future__ import annotations

import base64
import sys
import uuid

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from kogata.app.http.context import context
from kogata.app.http.endpoint import Endpoint, as_json
from kogata.app.http.errors import ApiError
from kogata.app.http.schemas.common import Usage
from kogata.app.http.schemas.embeddings import (
    Embedding,
    EmbeddingsRequest,
    EmbeddingsResponse,
    ModelEntry,
    ModelList,
    RerankDocument,
    Reranked,
    RerankedText,
    RerankRequest,
    RerankResponse,
)

MOST_TEXTS = 2048
_KINDS = {"query": "query", "search_query": "query"}


async def embeddings(request: Request, body: EmbeddingsRequest) -> Response:
    here = context(request)
    model = await here.model(body.model)
    texts = _texts(body.input)
    kind = _KINDS.get(body.input_type or "document", "document")
    raw = await here.link.call("embed", texts=texts, kind=kind, dimensions=body.dimensions, long_texts=body.long_texts)
    tokens, vectors = int.from_bytes(raw[:8], sys.byteorder), memoryview(raw)[8:]
    width = len(vectors) // len(texts)  # in bytes; without numpy, which would be half of this process
    rows = [vectors[begin : begin + width] for begin in range(0, len(vectors), width)]
    here.metrics.texts.inc(len(texts))
    here.metrics.tokens.inc(tokens)
    if body.encoding_format == "base64":
        data = [Embedding("embedding", i, base64.b64encode(row).decode()) for i, row in enumerate(rows)]
    else:
        data = [Embedding("embedding", i, [*row.cast("f")]) for i, row in enumerate(rows)]
    answer = EmbeddingsResponse("list", data, model["id"], Usage(tokens, tokens))
    return as_json(answer)


async def rerank(request: Request, body: RerankRequest) -> Response:
    here = context(request)
    model = await here.model(body.model)
    texts = [one.text if isinstance(one, RerankDocument) else one for one in body.documents]
    answer = msgspec.json.decode(await here.link.call("rerank", query=body.query, documents=texts))
    order = sorted(range(len(texts)), key=lambda i: (-answer["scores"][i], i))[: body.top_n]
    results = [
        Reranked(i, answer["scores"][i], RerankedText(texts[i]) if body.return_documents else msgspec.UNSET)
        for i in order
    ]
    usage = Usage(answer["tokens"], answer["tokens"])
    return as_json(RerankResponse(uuid.uuid4().hex, model["id"], results, usage))


async def models(request: Request) -> Response:
    return as_json(ModelList("list", await _entries(request)))


async def model(request: Request) -> Response:
    named = request.path_params["id"]
    entries = await _entries(request)
    found = next((entry for entry in entries if entry.id == named), entries[0] if named == "default" else None)
    if found is None:
        accepted = ", ".join(["default", *(entry.id for entry in entries)])
        message = f"There is no model {named[:200]!r} here. Accepted: {accepted}."
        raise ApiError(404, message, param="model", code="model_not_found")
    return as_json(found)


async def _entries(request: Request) -> list[ModelEntry]:
    """The embedder, and the model that writes where there is one."""
    here = context(request)
    found = await here.models()
    embedder, writer = found["embedder"], found["writer"]
    entries = [
        ModelEntry(
            embedder["id"], "model", here.began, "kogata", "embed", embedder["max_length"], embedder["dimensions"]
        )
    ]  # fmt: skip
    if writer is not None:
        entries.append(ModelEntry(writer["id"], "model", here.began, "kogata", "write", writer["max_length"]))
    return entries


def _texts(given: str | list[str | int | list[int]]) -> list[str | list[int]]:
    """What is to be embedded, one entry a vector."""
    if isinstance(given, str):
        return [given]
    kinds = {type(one) for one in given}
    if kinds == {int}:
        return [[one for one in given if isinstance(one, int)]]
    if len(kinds) > 1 or len(given) > MOST_TEXTS:
        raise ApiError(
            400, f"`input` is one text, at most {MOST_TEXTS:,} texts, or token ids of one or of several texts; "
            "not a mixture of these.", param="input", code="invalid_request",
        )  # fmt: skip
    return [one for one in given if not isinstance(one, int)]


ROUTES = (
    Endpoint(
        "POST", "/v1/embeddings", embeddings, "Vectors of texts",
        "As OpenAI's. `input_type` says whether the texts are questions or passages; a text that is longer than the "
        "model reads is refused unless `long_texts` is `window`.",
        EmbeddingsRequest, EmbeddingsResponse,
        example={"model": "default", "input": ["what is a tide", "潮位とは"], "input_type": "query", "dimensions": 128},
    ),
    Endpoint(
        "POST", "/v1/rerank", rerank, "Documents in the order in which they fit a query",
        "The relevance is the cosine of the query's and the document's vectors. Long documents are read in windows.",
        RerankRequest, RerankResponse,
        example={"query": "tide gauge", "documents": ["The gauge measures the sea level.", "Bread."], "top_n": 1},
    ),
    Endpoint(
        "POST", "/v2/rerank", rerank, "The same, where Cohere's newer clients look for it", name="rerank_v2",
        accepts=RerankRequest, answers=RerankResponse,
    ),
    Endpoint("GET", "/v1/models", models, "The models that requests may name", answers=ModelList),
    Endpoint(
        "GET", "/v1/models/{id:path}", model, "One model", answers=ModelEntry,
        parameters=(("id", str, "an id that /v1/models lists, or `default`", "default"),),
    ),
)  # fmt: skip
