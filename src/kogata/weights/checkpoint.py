"""What loading gives: a model's config, tensors, tokenizer and the conventions it was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from kogata.config import DecoderConfig, EncoderConfig
from kogata.text.tokenizer import TextTokenizer, Tokenizer
from kogata.weights.tensors import FloatTensor, Q4Tensor, Q8Tensor, TernaryTensor

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


@dataclass(frozen=True, slots=True, eq=False)
class DecoderCheckpoint:
    """A model that writes, as it lies on disk.

    Attributes:
        name: How people call it.
        config: Its numbers.
        tensors: A tensor for each of ``config.parameters()``, read when it is looked up (look each up once): ternary
            where the file holds or means ternary weights, at 8 or 4 bits where kernels take those as they are, else
            converted to float32.
        tokenizer: Text to ids and back. It may know special tokens beyond the model's vocabulary (Gemma 3).
        chat_template: The source of the template that turns a conversation into a prompt, or None.
        bos_token, eos_token: What such a template calls by these names; empty where the tokenizer has none.
        bos_id: The token that every text begins with, or None.
        stop_ids: The tokens that end a text, none where the model does not say.
        identity: Hexadecimal hash of everything that decides what the model computes: weights, config, tokenizer.
        requantised: Matrices that the file holds at few bits in a layout that no kernel reads -> that layout's name;
            looked up they are float32, and have to be rounded again.
    """

    name: str
    config: DecoderConfig
    tensors: Mapping[str, FloatTensor | TernaryTensor | Q4Tensor | Q8Tensor]
    tokenizer: TextTokenizer
    chat_template: str | None
    bos_token: str
    eos_token: str
    bos_id: int | None
    stop_ids: tuple[int, ...]
    identity: str
    requantised: Mapping[str, str] = field(default_factory=dict)
