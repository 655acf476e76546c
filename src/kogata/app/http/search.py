"""/v1/search and /v1/ask: what the commands of these names do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from kogata.app.http import written
from kogata.app.http.context import context
from kogata.app.http.endpoint import Endpoint, as_json
from kogata.app.http.errors import ApiError
from kogata.app.http.schemas.documents import AskRequest, AskResponse, SearchRequest, SearchResponse
from kogata.app.serve.parts import Event, Given, Piece, Reading


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
    asked = {"query": body.query, "k": body.k, "paths": body.paths, "kinds": body.kinds, "exact": body.exact}
    if not body.writer:
        if body.stream or body.earlier:
            message = "`stream` and `earlier` are for answers that a model writes: set `writer`."
            raise ApiError(400, message, param="writer", code="invalid_value")
        return as_json(await here.link.call("ask", **asked))
    await here.writer()
    sampling = {name: getattr(body, name) for name in ("temperature", "max_tokens", "seed")}
    return await written.answer(
        request, _Form(), body.stream, "write_answer", **asked, earlier=msgspec.to_builtins(body.earlier),
        sampling={name: value for name, value in sampling.items() if value is not None},
    )  # fmt: skip


class _Form:
    """An answer that a model writes from passages. A stream has events of the types sources, reading, text, answer."""

    def begin(self) -> Iterable[object]:
        return ()

    def event(self, event: Event) -> Iterable[object]:
        match event:
            case Given(passages=passages):
                yield {"type": "sources", "passages": msgspec.Raw(passages)}
            case Reading(done=done, total=total):
                yield {"type": "reading", "done": done, "total": total}
            case Piece(text=text) if text:
                yield {"type": "text", "text": text}

    def end(self, result: bytes) -> Iterable[object]:
        yield {"type": "answer", **msgspec.json.decode(result)}

    def whole(self, events: Sequence[Event], result: bytes) -> object:
        return result


ROUTES = (
    Endpoint(
        "POST", "/v1/search", search, "The passages that fit a query best",
        "By words and by meaning (`hybrid`), or by one of them.", SearchRequest, SearchResponse,
        example={"query": "tide gauge", "k": 5},
    ),
    Endpoint(
        "POST", "/v1/ask", ask, "An answer with its sources",
        "Sentences of the documents, word for word, each with where it stands; `found` is false when nothing answers. "
        "With `writer` a model writes it from the passages and names them; `stream` sends server-sent events of the "
        "types sources, reading, text and answer, then `[DONE]`.",
        AskRequest, AskResponse, example={"query": "Where does Kogata keep its index?"},
        unhurried=lambda body: body.writer,
    ),
)  # fmt: skip
