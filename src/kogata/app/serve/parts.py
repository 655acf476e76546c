"""What an answer that is being written consists of: the bodies of :class:`~kogata.app.serve.messages.Part`.

For one request there is one :class:`Taken`, then for each prompt an :class:`Echo` where its tokens are to be logged,
then :class:`Piece` after piece of its answers in any order; a :class:`Reading` in between says how far the prompts are
read. The call's result is a :class:`Usage`.
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
    """

    choice: int
    text: str
    tokens: int
    logged: list[Logged] = []
    calls: list[Called] = []
    finish: str | None = None


class Usage(msgspec.Struct):
    """Tokens of the prompts, how many of them were known already, and tokens of the answers."""

    prompt: int
    cached: int
    written: int


Event = Taken | Reading | Echo | Piece
_encoder = msgspec.msgpack.Encoder()
encode_events = _encoder.encode
decode_events = msgspec.msgpack.Decoder(list[Event]).decode
decode_usage = msgspec.msgpack.Decoder(Usage).decode
