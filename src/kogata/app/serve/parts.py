"""What an answer that is being written consists of: the bodies of :class:`~kogata.app.serve.messages.Part`.

For one request there is one :class:`Taken` (before it :class:`Given` where the answer is written from passages), then
for each prompt an :class:`Echo` where it is to be given back, then :class:`Piece` after piece of its answers in any
order; a :class:`Reading` in between says how far the prompts are read. The call's result is a :class:`Usage`, or the
whole answer as JSON where it is written from passages.
"""

from __future__ import annotations

import msgspec


class Logged(msgspec.Struct, array_like=True):
    """A token with its log-probability.

    Attributes:
        token: Its bytes; of a special token how it is written.
        special: Whether it is no part of the text.
        logprob: None for the first token of a prompt.
        top: The likeliest tokens in its place, with theirs.
    """

    token: bytes
    special: bool
    logprob: float | None
    top: list[tuple[bytes, float]]


class Called(msgspec.Struct, array_like=True):
    """A call of a tool; the arguments are JSON text."""

    name: str
    arguments: str


class Given(msgspec.Struct, tag=True):
    """What an answer is written from: the passages, best first, as JSON."""

    passages: bytes


class Taken(msgspec.Struct, tag=True):
    """The request waits for its turn.

    Attributes:
        prompts: Tokens of each prompt.
    """

    prompts: list[int]


class Reading(msgspec.Struct, tag=True):
    """So many tokens of the prompts are read, of so many."""

    done: int
    total: int


class Echo(msgspec.Struct, tag=True):
    """A prompt's own text and tokens."""

    prompt: int
    text: str
    tokens: list[Logged] = []


class Piece(msgspec.Struct, tag=True):
    """What a step adds to an answer.

    Attributes:
        choice: Which: answer i of prompt p out of n a prompt is number p n + i.
        text: Whole characters; may be empty.
        tokens: How many there are more.
        logged: These tokens, where that is asked for.
        calls: Calls of tools that are complete now.
        finish: "stop" or "length" where the answer ends.
        cached: Tokens of the prompt that were known already; in one piece for each prompt.
    """

    choice: int
    text: str
    tokens: int
    logged: list[Logged] = []
    calls: list[Called] = []
    finish: str | None = None
    cached: int = 0


class Usage(msgspec.Struct):
    """Tokens of the prompts, how many of them were known already, and tokens of the answers."""

    prompt: int
    cached: int
    written: int


Event = Given | Taken | Reading | Echo | Piece
_encoder = msgspec.msgpack.Encoder()
encode_events = encode_usage = _encoder.encode
decode_events = msgspec.msgpack.Decoder(list[Event]).decode
decode_usage = msgspec.msgpack.Decoder(Usage).decode
