"""Chat templates: a conversation as the text, and the token ids, that a model was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kogata.errors import BadInput, ModelError
from kogata.text.marked import Marked, spans_of
from kogata.text.tokenizer import Ids, TextTokenizer

#: Roles that a template may make control tokens of, as in ``<|user|>``. Any other is text like all that was given.
ROLES = frozenset({"assistant", "developer", "environment", "function", "ipython", "model", "observation", "system"})
ROLES |= {"tool", "user"}

_ROOM = 8_000_000  # characters that rendering may make in all, besides
_ROOM_PER_CHARACTER = 40  # of what it is given: templates pass a text through some ten operations
_SECONDS = 2.0
_REASONING = ("reasoning_content", "thinking", "reasoning")


class NoChatTemplate(ModelError):
    """The model was not made for conversations: it can complete a text, and the caller decides whether to."""


class ChatTemplate:
    """A model's Jinja template, rendered as transformers renders it, within limits of memory and time.

    Whatever the messages, tools and variables hold stays text: only the template's own words can become control
    tokens, whatever it does with what it is given. Any number of threads may render at once.

    Args:
        source: The template; None where the model has none.
        bos: How the token that begins a text is written; "" for none.
        eos: The same for the one that ends it.
        others: Further special tokens by the names that templates know, such as ``pad_token``.

    Raises:
        NoChatTemplate: There is no template.
        ModelError: It is not a Jinja template, or too long.
    """

    def __init__(
        self, source: str | None, *, bos: str = "", eos: str = "", others: Mapping[str, str] | None = None
    ) -> None:
        # Whoever only completes texts does without jinja2.
        from jinja2 import TemplateError

        from kogata.text.sandbox import LARGEST_SOURCE, compile_template

        if not source:
            raise NoChatTemplate(
                "The model has no chat template, so it does not know conversations.",
                hint="It can complete a text: use plain completion (kogata run, /v1/completions).",
            )
        if len(source) > LARGEST_SOURCE:
            raise ModelError(f"The model's chat template has {len(source):,} characters; {LARGEST_SOURCE:,} are read.")
        try:
            self._render = compile_template(source)
        except (TemplateError, SyntaxError, RecursionError, MemoryError, ValueError) as error:
            raise ModelError(f"The model's chat template cannot be read: {_reason(error)}") from None
        self._tokens = {**(others or {}), "bos_token": bos, "eos_token": eos}

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The conversation as one text. :func:`~kogata.text.marked.spans_of` says where it is not the template's own.

        Args:
            messages: With ``role`` and ``content`` each, and what else the template knows; plain JSON values.
            tools: JSON schemas of what the model may call.
            add_generation_prompt: Whether to end with the beginning of the assistant's answer.
            variables: What else the template asks for, such as ``enable_thinking``.

        Raises:
            BadInput: The template does not accept the messages, or they are no JSON.
            ModelError: The template loops, or makes far more text than it is given.
        """
        from jinja2.exceptions import SecurityError

        from kogata.text.gate import Gate, LimitExceeded

        given = {"documents": None, **(variables or {}), "tools": tools, "add_generation_prompt": add_generation_prompt}
        try:
            outside = _outside(given) | {"messages": [_message(message) for message in messages]}
        except RecursionError:
            raise BadInput("The messages are nested too deeply.") from None
        size = Gate(2**62, _SECONDS).count_inside(outside)
        try:
            return self._render(outside | self._tokens, Gate(_ROOM + _ROOM_PER_CHARACTER * size, _SECONDS))
        except LimitExceeded as error:
            raise ModelError(f"The model's chat template was stopped: {error}.") from None
        except (RecursionError, MemoryError):
            raise ModelError("The model's chat template was stopped: it calls itself too often.") from None
        except SecurityError as error:
            raise ModelError(f"The model's chat template does what templates may not: {_reason(error)}") from None
        except Exception as error:
            # Its own refusals (roles that must alternate) and what it stumbles over (a content that it expects).
            raise BadInput(f"The model's chat template does not accept these messages: {_reason(error)}") from None

    def render_ids(
        self,
        messages: Sequence[Mapping[str, Any]],
        tokenizer: TextTokenizer,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
    ) -> Ids:
        """int32 [n]: :meth:`render` as token ids, control tokens only from the template's own text."""
        text = self.render(messages, tools=tools, add_generation_prompt=add_generation_prompt, variables=variables)
        return tokenizer.encode_around(text, spans_of(text))


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise BadInput("Each message must be an object with a role and a content.")
    # As transformers: clients send null for what is not there, and templates stumble over it.
    present: dict[str, Any] = {key: value for key, value in message.items() if value is not None}
    reasoning = next((present[name] for name in _REASONING if name in present), None)
    if reasoning is not None:
        present = {"thinking": reasoning, **present, "reasoning_content": reasoning}
    role = present.get("role")
    outside: dict[str, Any] = _outside(present)
    return outside | {"role": role} if isinstance(role, str) and role in ROLES else outside


def _outside(value: Any) -> Any:
    """A copy of JSON values, every string marked as from outside."""
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            return Marked(value)
        case Mapping():
            return {Marked(str(key)): _outside(item) for key, item in value.items()}
        case list() | tuple():
            return [_outside(item) for item in value]
    raise BadInput(f"Messages, tools and variables are plain JSON values, not {type(value).__name__}.")


def _reason(error: BaseException) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    return reason[:500] + ("" if reason.endswith((".", "!", "?")) else ".")
