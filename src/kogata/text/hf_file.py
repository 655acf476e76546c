"""Reading ``tokenizer.json`` and running it in the ``tokenizers`` library, whose refusals become ModelErrors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from kogata.errors import ModelError
from kogata.text.tokenizer import as_unicode


def parse(source: str) -> Any:
    """The file's JSON.

    Raises:
        ModelError: It is none.
    """
    try:
        return json.loads(source)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"tokenizer.json is not JSON: {error}.") from None


def build(source: str) -> Any:
    """The library's tokenizer, without the truncation and padding of whoever saved the file.

    Raises:
        ModelError: The text is not a tokenizer.
    """
    from tokenizers import Tokenizer

    with refusals("a tokenizer that can be read"):
        tokenizer = Tokenizer.from_str(source)
        tokenizer.no_truncation()
        tokenizer.no_padding()
    return tokenizer


def run(tokenizer: Any, texts: Sequence[str], *, special: bool, offsets: bool = False) -> list[Any]:
    """The library's encodings, with or without the tokens it adds around a text.

    Raises:
        ModelError: The library gives up on the text, as it does without an unknown token.
    """
    encode = tokenizer.encode_batch if offsets else tokenizer.encode_batch_fast
    with refusals("usable"):
        found: list[Any] = encode([as_unicode(text) for text in texts], add_special_tokens=special)
    return found


@contextmanager
def refusals(wanted: str) -> Iterator[None]:
    """Turns what the library raises into a ModelError: "tokenizer.json is not ``wanted``"."""
    try:
        yield
    except BaseException as error:
        # A panic inside the library is no Exception, so that nobody catches it by accident.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ModelError(f"tokenizer.json is not {wanted}: {error}.") from None
