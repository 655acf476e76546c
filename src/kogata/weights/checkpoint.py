"""What loading gives: a model's config, tensors, tokenizer and the conventions it was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from kogata.config import EncoderConfig
from kogata.text.tokenizer import Tokenizer
from kogata.weights.tensors import FloatTensor, Q4Tensor

Pooling = Literal["mean", "cls"]


@dataclass(frozen=True, slots=True, eq=False)
class EncoderCheckpoint:
    """An embedding model as it lies on disk.

    Attributes:
        name: How people call it.
        config: Its shape.
        tensors: A tensor for each of ``config.parameters()``, converted to float32 when it is looked up (look each up
            once) or left at 4 bits in the mapped file.
        tokenizer: Text to ids; never truncates.
        pooling: How token vectors become one: their mean, or the first one's.
        normalize: Whether the model itself scales its vectors to length 1.
        prompts: What goes before a text: keys ``"query"`` and ``"document"``, empty where nothing does.
        max_length: Most tokens of one text, special tokens included.
        identity: Hexadecimal hash of everything that decides a vector: weights, tokenizer, pooling, prompts, length.
    """

    name: str
    config: EncoderConfig
    tensors: Mapping[str, FloatTensor | Q4Tensor]
    tokenizer: Tokenizer
    pooling: Pooling
    normalize: bool
    prompts: Mapping[str, str]
    max_length: int
    identity: str
