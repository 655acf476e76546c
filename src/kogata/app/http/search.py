"""/v1/search and /v1/ask: what the commands of these names do."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from kogata.app.http.context import context
from kogata.app.http.endpoint import Endpoint, as_json
from kogata.app.http.schemas import AskRequest, AskResponse, SearchRequest, SearchResponse


async def search(request: Request, body: SearchRequest) -> Response:
    here = context(request)
    await here.model(body.model)
    found = await here.link.call(
        "search", query=body.query, k=body.k, mode=body.mode, paths=body.paths, kinds=body.kinds, exact=body.exact
    )
    return as_json(found)


async def ask(request: Request, body: AskRequest) -> Response:
    here = context(request)
    await here.model(body.model)
    found = await here.link.call(
        "ask", query=body.query, k=body.k, paths=body.paths, kinds=body.kinds, exact=body.exact
    )
    return as_json(found)


ROUTES = (
    Endpoint(
        "POST", "/v1/search", search, "The passages that fit a query best",
        "By words and by meaning (`hybrid`), or by one of them.", SearchRequest, SearchResponse,
        example={"query": "tide gauge", "k": 5},
    ),
    Endpoint(
        "POST", "/v1/ask", ask, "An answer with its sources",
        "Sentences of the documents, word for word, each with where it stands; `found` is false when nothing answers.",
        AskRequest, AskResponse, example={"query": "Where does Kogata keep its index?"},
    ),
)  # fmt: skip
