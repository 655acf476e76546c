"""/v1/chat/completions, as OpenAI's clients know it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from kogata.app.http import written
from kogata.app.http.context import context
from kogata.app.http.endpoint import Endpoint
from kogata.app.http.errors import ApiError
from kogata.app.http.schemas.writing import (
    CalledFunction,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    ChatLogprobs,
    ChatMessage,
    ChatRequest,
    ChatToken,
    ContentPart,
    LikelyToken,
    Message,
    NamedTool,
    Tool,
    ToolCall,
    ToolCallDelta,
)
from kogata.app.serve.parts import Event, Logged, Piece

_FOR_TEMPLATES = ("role", "name", "tool_call_id", "reasoning_content")


async def chat_completions(request: Request, body: ChatRequest) -> Response:
    model = await context(request).writer(body.model)
    if body.top_logprobs is not None and not body.logprobs:
        message = "`top_logprobs` needs `logprobs` to be true."
        raise ApiError(400, message, param="top_logprobs", code="invalid_value")
    variables = {} if body.reasoning_effort is None else {"reasoning_effort": body.reasoning_effort}
    return await written.answer(
        request, _Form(model, body), body.stream, "chat", held=written.held(body),
        messages=as_messages(body.messages),
        **_tools(body), variables=variables | (body.chat_template_kwargs or {}),
        sampling=written.sampling(
            body, logprobs=(body.top_logprobs or 0) if body.logprobs else None,
            max_tokens=body.max_completion_tokens if body.max_tokens is None else body.max_tokens,
        ),
    )  # fmt: skip


def _tools(body: ChatRequest) -> dict[str, Any]:
    """What the model may or must call, as the engine takes it.

    Raises:
        ApiError: The choice is not among the tools, or there is none to choose from, or another form is asked for too;
            or two have one name, or the arguments of one are no object.
    """
    tools, choice = body.tools or [], body.tool_choice
    names = [tool.function.name for tool in tools]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ApiError(400, f"Two `tools` have the name {twice[:100]!r}.", param="tools", code="invalid_value")
    must_call = {"required": ""}.get(choice) if isinstance(choice, str) else choice and choice.function.name
    if must_call is not None:
        if must_call not in ("", *names) or not tools:
            what = f"the tool {must_call[:100]!r}" if must_call else "a tool"
            message = f"`tool_choice` asks for {what}, and `tools` has none."
            raise ApiError(400, message, param="tool_choice", code="invalid_value")
        if written.held(body) is not None:
            message = "An answer that must call a tool cannot be held to another form as well."
            raise ApiError(400, message, param="tool_choice", code="invalid_value")
    given = [_tool(tool) for tool in tools]
    several = body.parallel_tool_calls is not False and not isinstance(choice, NamedTool)
    return {"tools": [] if choice == "none" else given, "must_call": must_call, "several_calls": several}


def _tool(tool: Tool) -> dict[str, Any]:
    """Without nulls; the schema of its arguments demands an object."""
    made: dict[str, Any] = msgspec.to_builtins(tool)
    function = {name: value for name, value in made["function"].items() if value is not None}
    schema = function.get("parameters", {})
    if not isinstance(schema, dict) or schema.get("type", "object") != "object":
        message = f"`parameters` of the tool {tool.function.name[:100]!r} must be a JSON schema of the type `object`."
        raise ApiError(400, message, param="tools", code="invalid_value")
    if "parameters" in function:
        function["parameters"] = {"type": "object", **schema}
    return {"type": "function", "function": function}


def as_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages as the engine takes them: the content of each is one text.

    Raises:
        ApiError: There is something else than text in one.
    """
    return [_message(message, at) for at, message in enumerate(messages)]


def _message(message: Message, at: int) -> dict[str, Any]:
    made: dict[str, Any] = {name: getattr(message, name) for name in _FOR_TEMPLATES}
    made["content"] = message.content
    if isinstance(message.content, list):
        made["content"] = "\n".join(_text(part, f"messages[{at}].content") for part in message.content)
    if message.tool_calls:
        made["tool_calls"] = msgspec.to_builtins(message.tool_calls)
    return {name: value for name, value in made.items() if value is not None}


def _text(part: ContentPart, where: str) -> str:
    text = {"text": part.text, "refusal": part.refusal}.get(part.type)
    if text is None:
        what = "has no text" if part.type in ("text", "refusal") else "cannot be read: this model reads text"
        raise ApiError(400, f"`{where}`: a part of the type {part.type[:100]!r} {what}.", param=where)
    return text


class _Form:
    """A chat completion, or pieces of one."""

    def __init__(self, model: dict[str, Any], body: ChatRequest) -> None:
        self._about = {
            "id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model["id"],
            "system_fingerprint": model["fingerprint"],
        }  # fmt: skip
        self._n = body.n or 1
        self._log = bool(body.logprobs)
        self._usage = None if body.stream_options and body.stream_options.include_usage else UNSET
        self._called = [0] * self._n

    def begin(self) -> Iterable[object]:
        for index in range(self._n):
            yield self._chunk(index, ChatDelta(role="assistant", content=""))

    def event(self, event: Event) -> Iterable[object]:
        if not isinstance(event, Piece):
            return
        logprobs = self._logprobs(event.logged)
        if event.text or (logprobs and logprobs.content):
            yield self._chunk(event.choice, ChatDelta(content=event.text), logprobs)
        if event.calls:
            first = self._called[event.choice]
            self._called[event.choice] += len(event.calls)
            calls = [
                ToolCallDelta(
                    index=first + at, id=_id(), function=CalledFunction(name=one.name, arguments=one.arguments)
                )
                for at, one in enumerate(event.calls)
            ]
            yield self._chunk(event.choice, ChatDelta(tool_calls=calls))
        if event.finish:
            finish = "tool_calls" if self._called[event.choice] and event.finish == "stop" else event.finish
            yield self._chunk(event.choice, ChatDelta(), finish=finish)

    def end(self, result: bytes) -> Iterable[object]:
        if self._usage is None:  # asked for: null in every piece but the last
            yield ChatChunk(**self._about, choices=[], usage=written.usage_of(result))

    def whole(self, events: Sequence[Event], result: bytes) -> object:
        pieces = [event for event in events if isinstance(event, Piece)]
        choices = [self._choice(n, [piece for piece in pieces if piece.choice == n]) for n in range(self._n)]
        return ChatCompletion(**self._about, choices=choices, usage=written.usage_of(result))

    def _choice(self, index: int, pieces: Sequence[Piece]) -> ChatChoice:
        text = "".join(piece.text for piece in pieces)
        calls = [
            ToolCall(id=_id(), function=CalledFunction(name=one.name, arguments=one.arguments))
            for piece in pieces for one in piece.calls
        ]  # fmt: skip
        finish: Any = pieces[-1].finish
        if calls and finish == "stop":
            finish = "tool_calls"
        message = ChatMessage(content=text if text or not calls else None, tool_calls=calls or UNSET)
        return ChatChoice(index, message, self._logprobs([one for piece in pieces for one in piece.logged]), finish)

    def _chunk(
        self, index: int, delta: ChatDelta, logprobs: ChatLogprobs | None = None, finish: Any = None
    ) -> ChatChunk:
        return ChatChunk(**self._about, choices=[ChatChunkChoice(index, delta, logprobs, finish)], usage=self._usage)

    def _logprobs(self, logged: Sequence[Logged]) -> ChatLogprobs | None:
        if not self._log:
            return None
        return ChatLogprobs(
            [
                ChatToken(
                    written.spelt(one.token), one.logprob or 0.0, list(one.token),
                    [LikelyToken(written.spelt(other), value, list(other)) for other, value in one.top],
                )
                for one in logged
            ]
        )  # fmt: skip


def _id() -> str:
    return f"call_{uuid.uuid4().hex[:24]}"


ROUTES = (
    Endpoint(
        "POST", "/v1/chat/completions", chat_completions, "An answer to a conversation",
        "As OpenAI's. With `stream` the answer is server-sent events of chat.completion.chunk objects, then `[DONE]`; "
        "lines that begin with a colon say how far a long prompt is read.",
        ChatRequest, ChatCompletion,
        example={"model": "default", "messages": [{"role": "user", "content": "Why is the sky blue?"}],
                 "max_tokens": 8},
        unhurried=lambda body: True,
    ),
)  # fmt: skip
