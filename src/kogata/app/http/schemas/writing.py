"""/v1/chat/completions and /v1/completions, as OpenAI's, and what vLLM's and llama.cpp's servers take beside it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from kogata.app.http.schemas.common import Model, Name, Request, Text, TokenId

Choices = Annotated[int, Meta(ge=1, le=128, description="Answers to one prompt.")]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Share = Annotated[float, Meta(ge=0, le=1)]
Bias = Annotated[float, Meta(ge=-100, le=100)]
Stop = Annotated[str, Meta(min_length=1, max_length=1024)]
Stops = Annotated[list[Stop], Meta(max_length=64)]
Logged = Annotated[int, Meta(ge=0, le=20)]
Length = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Pattern = Annotated[str, Meta(min_length=1, max_length=100_000)]
Prompt = Annotated[list[TokenId], Meta(min_length=1, max_length=1_000_000)]
Prompts = Annotated[list[Text | TokenId | Prompt], Meta(min_length=1, max_length=1_000_000)]


class JsonSchema(Struct, kw_only=True):
    """A JSON schema that the answer must be valid by. `strict` is always true here."""

    schema: dict[str, Any] | bool
    name: Name | None = None
    description: Text | None = None
    strict: bool | None = None


class ResponseFormat(Request):
    """What an answer is held to: anything (text), some JSON object, or JSON that is valid by a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(Request):
    """`include_usage`: end with one more piece that says how many tokens there were."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class WritingRequest(Request):
    """What both kinds of requests for a text take.

    Attributes:
        temperature: 0 always takes the likeliest token.
        top_k: Choose from so many of the likeliest tokens; 0 or -1: from all.
        min_p: Leave out tokens so much less likely than the likeliest.
        best_of: Only the value of `n`.
        stop_token_ids: Tokens that end an answer.
        ignore_eos: Go on where the model would end.
        regex, guided_regex: A regular expression that the whole answer matches (the two are the same).
        user, store, metadata, service_tier, safety_identifier, prompt_cache_key: Accepted for other servers' sake; not
            used.
    """

    model: Model = "default"
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    min_p: Share | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=100)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    logit_bias: Annotated[dict[TokenId, Bias], Meta(max_length=1024)] | None = None
    stop: Stop | Stops | None = None
    stop_token_ids: Annotated[list[TokenId], Meta(max_length=1024)] | None = None
    ignore_eos: bool = False
    n: Choices | None = None
    best_of: Choices | None = None
    response_format: ResponseFormat | None = None
    regex: Pattern | None = None
    guided_regex: Pattern | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Name | None = None
    store: bool | None = None
    metadata: dict[str, Any] | None = None
    service_tier: Name | None = None
    safety_identifier: Name | None = None
    prompt_cache_key: Name | None = None


class CompletionRequest(WritingRequest, kw_only=True):
    """A text to be continued.

    Attributes:
        prompt: A text, token ids, or a list of either: each is continued by itself.
        max_tokens: Of each answer; 16 where it is not said, as OpenAI's. 0 only with `echo`.
        echo: Begin each answer with its prompt; with `logprobs` its tokens are logged as well.
        logprobs: The log-probability of each token, and so many of the likeliest beside it.
    """

    prompt: Text | Prompts
    max_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    echo: bool | None = None
    logprobs: Logged | None = None


class ContentPart(Struct, kw_only=True):
    """A part of a message. Only those of the type `text` are read; others are refused by their type."""

    type: Name
    text: Text | None = None
    refusal: Text | None = None


class CalledFunction(Struct, kw_only=True):
    """`arguments` is JSON text."""

    name: Name
    arguments: Text


class ToolCall(Struct, kw_only=True):
    """A call that the model has made."""

    id: Name
    function: CalledFunction
    type: Literal["function"] = "function"


class ToolCallDelta(ToolCall, kw_only=True):
    """A call of a stream, whole: it comes in one piece."""

    index: int


class Message(Request):
    """One message of a conversation.

    Attributes:
        content: Text, or parts of it.
        name: Of who speaks, where the model's template shows it.
        tool_calls: What an assistant has called.
        tool_call_id: Which call a tool answers.
        reasoning_content: What an assistant has thought, where the template shows it.
        refusal, annotations, audio, function_call: As OpenAI's answers have them; not used.
    """

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | Annotated[list[ContentPart], Meta(max_length=10_000)] | None = None
    name: Name | None = None
    tool_calls: Annotated[list[ToolCall], Meta(max_length=1024)] | None = None
    tool_call_id: Name | None = None
    reasoning_content: Text | None = None
    refusal: Text | None = None
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None


ToolName = Annotated[str, Meta(min_length=1, max_length=256)]

# Looked at where the tool can be named: msgspec's message does not say which of a list it means.
Parameters = Annotated[
    Any, Meta(extra_json_schema={"type": ["object", "null"], "properties": {"type": {"const": "object"}}})
]


class FunctionTool(Struct, kw_only=True):
    """A function that the model may call; `parameters` is a JSON schema of its arguments, which are an object."""

    name: ToolName
    description: Text | None = None
    parameters: Parameters = None
    strict: bool | None = None


class Tool(Struct, kw_only=True):
    function: FunctionTool
    type: Literal["function"] = "function"


class NamedFunction(Struct):
    name: ToolName


class NamedTool(Struct, kw_only=True):
    """The one tool that must be called."""

    function: NamedFunction
    type: Literal["function"] = "function"


class ChatRequest(WritingRequest, kw_only=True):
    """A conversation to be answered.

    Attributes:
        max_tokens, max_completion_tokens: Of each answer (the two are the same); what the context holds where it is
            not said.
        logprobs: Whether to log each token's log-probability, with `top_logprobs` of the likeliest beside it.
        tools, tool_choice: What the model may or must call.
        chat_template_kwargs: Variables of the model's template, such as `enable_thinking`.
        reasoning_effort: The variable of this name, for templates that know it.
        modalities, verbosity: Accepted for other servers' sake; answers are text.
    """

    messages: Annotated[list[Message], Meta(min_length=1, max_length=100_000)]
    max_tokens: Length | None = None
    max_completion_tokens: Length | None = None
    logprobs: bool | None = None
    top_logprobs: Logged | None = None
    tools: Annotated[list[Tool], Meta(max_length=1024)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    reasoning_effort: Name | None = None
    modalities: list[Literal["text"]] | None = None
    verbosity: Name | None = None


class TokenizeRequest(Request):
    """`text`, or the `messages` of a conversation.

    Attributes:
        add_special_tokens: Whether a text begins as texts do for the model.
        add_generation_prompt: Whether a conversation ends with the beginning of an answer.
        chat_template_kwargs: As for chats.
    """

    text: Text | None = None
    messages: Annotated[list[Message], Meta(min_length=1, max_length=100_000)] | None = None
    model: Model = "default"
    add_special_tokens: bool = True
    add_generation_prompt: bool = True
    chat_template_kwargs: dict[str, Any] | None = None


class DetokenizeRequest(Request):
    ids: Annotated[list[TokenId], Meta(max_length=1_000_000)]
    model: Model = "default"


class Tokenized(Struct):
    """`pieces` is what each token stands for; `max_length` the most that the model reads."""

    ids: list[int]
    pieces: list[str]
    count: int
    max_length: int


class Detokenized(Struct):
    text: str


class CachedTokens(Struct):
    cached_tokens: int


class WritingUsage(Struct):
    """Tokens read and written; `cached_tokens` of those read were known from an earlier request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class CompletionLogprobs(Struct):
    """One entry a token; `text_offset` is where it begins in the text. A token that is no whole characters is written
    as `bytes:` and its bytes."""

    tokens: list[str] = field(default_factory=list)
    token_logprobs: list[float | None] = field(default_factory=list)
    top_logprobs: list[dict[str, float] | None] = field(default_factory=list)
    text_offset: list[int] = field(default_factory=list)


class CompletionChoice(Struct):
    text: str
    index: int
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class Completion(Struct, kw_only=True):
    """An answer, or with `stream` a piece of one."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: WritingUsage | UnsetType | None = UNSET


class LikelyToken(Struct):
    token: str
    logprob: float
    bytes: list[int]


class ChatToken(LikelyToken):
    top_logprobs: list[LikelyToken]


class ChatLogprobs(Struct):
    content: list[ChatToken]
    refusal: None = None


class ChatMessage(Struct, kw_only=True):
    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    tool_calls: list[ToolCall] | UnsetType = UNSET


class ChatDelta(Struct, kw_only=True):
    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    tool_calls: list[ToolCallDelta] | UnsetType = UNSET


Finish = Literal["stop", "length", "tool_calls"]


class ChatChoice(Struct):
    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: Finish


class ChatChunkChoice(Struct):
    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: Finish | None = None


class ChatCompletion(Struct, kw_only=True):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: WritingUsage


class ChatChunk(Struct, kw_only=True):
    """A piece of a streamed answer."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChunkChoice]
    usage: WritingUsage | UnsetType | None = UNSET
