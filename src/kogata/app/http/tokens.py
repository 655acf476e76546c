"""/v1/tokenize and /v1/detokenize: what the model that writes reads."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from kogata.app.http.chat import as_messages
from kogata.app.http.context import context
from kogata.app.http.endpoint import Endpoint, as_json
from kogata.app.http.errors import ApiError
from kogata.app.http.schemas.writing import Detokenized, DetokenizeRequest, Tokenized, TokenizeRequest
from kogata.app.http.written import spelt

_decode = msgspec.msgpack.Decoder(tuple[list[int], list[bytes]]).decode


async def tokenize(request: Request, body: TokenizeRequest) -> Response:
    here = context(request)
    model = await here.writer(body.model)
    if (body.text is None) == (body.messages is None):
        raise ApiError(400, "Either `text` or `messages` is needed, and not both.", code="invalid_request")
    made = await here.link.call(
        "tokenize", text=body.text, messages=as_messages(body.messages or []),
        variables=body.chat_template_kwargs or {}, add_special_tokens=body.add_special_tokens,
        add_generation_prompt=body.add_generation_prompt,
    )  # fmt: skip
    ids, pieces = _decode(made)
    return as_json(Tokenized(ids, [spelt(piece) for piece in pieces], len(ids), model["max_length"]))


async def detokenize(request: Request, body: DetokenizeRequest) -> Response:
    here = context(request)
    await here.writer(body.model)
    return as_json(await here.link.call("detokenize", ids=body.ids))


ROUTES = (
    Endpoint(
        "POST", "/v1/tokenize", tokenize, "A text or a conversation as the model reads it", accepts=TokenizeRequest,
        answers=Tokenized, example={"text": "Once upon a time"},
    ),
    Endpoint(
        "POST", "/v1/detokenize", detokenize, "The text of tokens", accepts=DetokenizeRequest, answers=Detokenized,
        example={"ids": [72, 105]},
    ),
)  # fmt: skip
