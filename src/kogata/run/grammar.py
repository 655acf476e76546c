"""Answers of a given form: JSON that follows a schema, text that follows a regular expression, calls of tools.

llguidance follows a grammar beside the model and says before each token which ones may come. Tokens are chosen freely
among those: no text is forced, because what is canonical to a tokenizer in the middle of a text is not known for all.

Shapes: V vocabulary, W words of 32 bits over it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from kogata.errors import BadInput, ModelError
from kogata.run.trial import compiled, try_out
from kogata.text.tokenizer import TextTokenizer, as_unicode

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

__all__ = ["Constraint", "Grammars"]

LARGEST_SCHEMA = 100_000  # characters of JSON
DEEPEST_SCHEMA = 100
LONGEST_REGEX = 10_000  # characters

# Room for pretty-printed JSON, and none for endless white space, which small models fall into.
_SPACE = r"[ ]{1,2}|\r?\n[ \t]{0,24}"
_BEFORE_REASON = r'^at \d+\(\d+\): (invalid regex ".*?" \(in regex\): )?'
_HEAD = '%llguidance {"no_forcing": true}\n'


class Grammars:
    """The forms that one model's answers can be held to. Any number of threads may ask for them at once.

    Args:
        tokenizer: The model's tokenizer.
        vocab_size: How many logits the model has; ids that the tokenizer does not know are never allowed.
        stop_ids: Tokens that end a text: allowed where the form is complete. Other special tokens never are.

    Raises:
        ModelError: There is no token that ends a text.
    """

    def __init__(self, tokenizer: TextTokenizer, vocab_size: int, stop_ids: Iterable[int]) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._stop_ids = sorted(stop_ids)
        if not self._stop_ids:
            raise ModelError("The model has no token that ends a text, so its answers cannot be held to a form.")

    def json_schema(self, schema: Mapping[str, Any] | bool) -> Constraint:
        """JSON that is valid under a schema (draft 2020-12), its properties in the schema's order.

        Raises:
            BadInput: The schema is none, is too large, or uses what cannot be held to.
        """
        return self._compile(_HEAD + "start: @json", {"json": schema}, "JSON schema")

    def json_object(self) -> Constraint:
        """Any JSON object."""
        return self.json_schema({"type": "object"})

    def regex(self, pattern: str) -> Constraint:
        r"""Text that a regular expression matches as a whole, in Rust's syntax: no look-around, no back-references; but
        ``\d`` means 0 to 9.

        Raises:
            BadInput: The expression is none, or too large.
        """
        from llguidance import regex_to_lark

        if len(pattern) > LONGEST_REGEX:
            raise BadInput(
                f"The regular expression has {len(pattern):,} characters; at most {LONGEST_REGEX:,} are accepted."
            )
        if as_unicode(pattern) != pattern:
            raise BadInput("The regular expression is not accepted: it has half of a surrogate pair.")
        return self._compile(f"{_HEAD}start: /{regex_to_lark(pattern, 'd')}/", {}, "regular expression")

    def _compile(self, lark: str, schemas: Mapping[str, Any], what: str) -> Constraint:
        grammars: list[dict[str, Any]] = [{"lark_grammar": lark}]
        grammars += [{"name": name, "json_schema": _checked(schema)} for name, schema in schemas.items()]
        text = json.dumps({"grammars": grammars})
        try:
            try_out(text)
        except BadInput as error:
            raise BadInput(f"The {what} is not accepted: {error}") from None
        matcher = compiled(self._llguidance, text)
        if matcher.is_error():
            raise BadInput(f"The {what} is not accepted: {_problem(matcher)}")
        return Constraint(matcher)

    @cached_property
    def _llguidance(self) -> LLTokenizer:
        from llguidance import LLTokenizer, TokenizerWrapper

        tokens = _Tokens(self._tokenizer, self._vocab_size, self._stop_ids)
        return LLTokenizer(TokenizerWrapper(tokens), eos_token=self._stop_ids)


class Constraint:
    """What may come next in one answer. Made by :class:`Grammars`."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def fork(self) -> Constraint:
        """Another one in the same state, for another answer."""
        return Constraint(self._matcher.deep_copy())

    def fill(self, mask_W: NDArray[np.uint32]) -> None:
        """Set bit b of word w exactly where token 32 w + b may come next.

        Raises:
            BadInput: The form turned out to be more than can be followed in bounded time and memory.
        """
        self._matcher.unsafe_compute_mask_ptr(mask_W.ctypes.data, mask_W.nbytes)
        if self._matcher.is_error():
            raise BadInput(f"The answer cannot be held to its form any further: {_problem(self._matcher)}")

    def accept(self, token: int) -> None:
        """This token came. One that was not allowed is an error of the next :meth:`fill`."""
        self._matcher.consume_token(token)

    @property
    def over(self) -> bool:
        """Whether nothing but the end may come."""
        return self._matcher.is_stopped() and not self._matcher.is_error()


class _Tokens:
    """A tokenizer as llguidance's TokenizerWrapper reads it."""

    bos_token_id = None

    def __init__(self, tokenizer: TextTokenizer, vocab_size: int, stop_ids: list[int]) -> None:
        # llguidance takes 0xFF, which is in no UTF-8, for the mark of a special token.
        tokens = (tokenizer.token_bytes(token) for token in range(vocab_size))
        self.tokens = [b"" if token[:1] == b"\xff" else token for token in tokens]
        self.eos_token_id = stop_ids[0]
        self.special_token_ids = sorted(tokenizer.special_ids.union(stop_ids))
        self._tokenizer = tokenizer

    def __call__(self, text: str) -> list[int]:
        found: list[int] = self._tokenizer.encode(text).tolist()
        return found


def _checked(schema: Any) -> Any:
    """A schema as llguidance takes it.

    Raises:
        BadInput: It is not JSON, or is too large or too deep.
    """
    if schema is True:
        schema = {}
    if not isinstance(schema, Mapping):
        raise BadInput("The JSON schema is not accepted: it must be an object or true.")
    try:
        text = json.dumps(schema, allow_nan=False, ensure_ascii=False)
        text.encode()
    except RecursionError:
        raise BadInput(f"The JSON schema is nested more than {DEEPEST_SCHEMA} levels deep.") from None
    except (TypeError, ValueError) as error:
        raise BadInput(f"The JSON schema is not accepted: it is no JSON ({error}).") from None
    if len(text) > LARGEST_SCHEMA:
        raise BadInput(f"The JSON schema has {len(text):,} characters; at most {LARGEST_SCHEMA:,} are accepted.")
    depth = deepest = 0
    for character in re.sub(r'"(?:[^"\\]|\\.)*"', "", text):
        depth += (character in "[{") - (character in "]}")
        deepest = max(deepest, depth)
    if deepest > DEEPEST_SCHEMA:
        raise BadInput(f"The JSON schema is nested {deepest} levels deep; at most {DEEPEST_SCHEMA} are accepted.")
    for inner in _objects(schema):
        if reason := _unsound(inner):
            raise BadInput(f"The JSON schema is not accepted: {reason}")
    return {**schema, "x-guidance": {"whitespace_pattern": _SPACE}}


def _objects(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every object in a JSON value."""
    if isinstance(value, Mapping):
        yield value
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for inner in value:
            yield from _objects(inner)


def _unsound(schema: Mapping[str, Any]) -> str | None:
    """What of this schema llguidance would let pass though it is not valid, as of 1.9; found by testing."""
    least, required = schema.get("minProperties"), schema.get("required")
    if _is_number(least) and least > max(1, len(required) if isinstance(required, list) else 0):
        # Only the keys of properties and required are kept from being written twice.
        return "minProperties can only count properties that are required."
    low, high = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    tops, bottoms = [schema.get("maximum"), high], [schema.get("minimum"), low]
    if _is_number(low) and low == int(low) and any(_is_number(top) and top < low + 1 for top in tops):
        return "exclusiveMinimum cannot be a whole number where the maximum is less than one above it; use minimum."
    if _is_number(high) and high == int(high) and any(_is_number(least) and least > high - 1 for least in bottoms):
        return "exclusiveMaximum cannot be a whole number where the minimum is less than one below it; use maximum."
    return None


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _problem(matcher: LLMatcher) -> str:
    """What llguidance says, as a sentence."""
    error = matcher.get_error()
    if "NoExtension" in error:
        return "no text can satisfy it."
    if "too many" in error or "items; max is" in error or "fuel" in error:
        return "it is too complex."
    found = re.search(r"^error: (.+)", error, re.MULTILINE)  # of the regex parser, below a picture of the place
    line = found[1] if found else re.sub(_BEFORE_REASON, "", error).split("\n")[0]
    line = line.split(" Enable '")[0][:300].strip()  # an option of llguidance's
    return line if line.endswith((".", "!", "?")) else line + "."
