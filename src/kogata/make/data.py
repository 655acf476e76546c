"""From texts to windows of tokens: stories and books for children, a small BPE, one flat file of token ids.

A text is a *piece*: a story, or some paragraphs of a book. It becomes ``<|bos|> text <|eos|>``, or, so that the control
tokens of a chat mean something, a turn of a user who begins (or asks for) it and one of an assistant who goes on.
"""

from __future__ import annotations

import gzip
import json
import lzma
import random
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor

BOS, EOS, USER, ASSISTANT, END = CONTROL = ("<|bos|>", "<|eos|>", "<|user|>", "<|assistant|>", "<|end|>")
PIECE = 6000  # characters: some three windows of 512 tokens


def records(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines, compressed (.gz or .xz)."""
    with lzma.open(path) if path.suffix == ".xz" else gzip.open(path) as lines:
        for line in lines:
            yield json.loads(line)


def pieces(text: str) -> Iterator[str]:
    """A book's paragraphs, joined to pieces of some :data:`PIECE` characters; headings stay outside."""
    held: list[str] = []
    for paragraph in text.split("\n\n"):
        paragraph = " ".join(paragraph.split())
        if len(paragraph) < 60 and not paragraph.endswith((".", "!", "?", '"', "'", "”")):
            continue
        held.append(paragraph)
        if sum(map(len, held)) >= PIECE:
            yield "\n\n".join(held)
            held = []
    if held:
        yield "\n\n".join(held)


def story(markdown: str) -> tuple[str, str]:
    """Title and text of a picture book in Markdown: its pages, lines joined, without the lines about its makers."""
    title, _, rest = markdown.removeprefix("#").partition("\n")
    pages = (" ".join(page.split()) for page in re.split(r"^##\s*$", rest.partition("\n* License")[0], flags=re.M))
    return title.strip(), "\n\n".join(page for page in pages if page and not page.startswith("*"))


def plain(text: str) -> str:
    return f"{BOS}{text}{EOS}"


def turns(asked: str, answer: str) -> str:
    """An exchange, as the chat template writes it."""
    return f"{BOS}{USER}{asked}{END}{ASSISTANT}{answer}{END}{EOS}"


def begun(text: str) -> str:
    """A piece as an exchange: the user gives its first paragraph, the assistant the rest."""
    first, _, rest = text.partition("\n\n")
    return turns(first, rest) if rest else plain(text)


def stories(path: Path, *, heldout: bool) -> list[str]:
    """The stories of a file, each both plain and as what a user asks for; every twentieth is held out (plain only)."""
    told = [story(record["text"]) for i, record in enumerate(records(path)) if (i % 20 == 19) == heldout]
    if heldout:
        return [plain(f"{title}\n\n{text}") for title, text in told]
    asked = [turns(f"Tell me the story “{title}”.", text) for title, text in told]
    return asked + [plain(f"{title}\n\n{text}") for title, text in told]


def books(path: Path, titles: Collection[str], seed: int) -> list[str]:
    """The pieces of a file's books that are named; one in four is an exchange."""
    chance = random.Random(seed)
    chosen = (piece for book in records(path) if book["title"] in titles for piece in pieces(book["text"]))
    return [begun(piece) if chance.random() < 0.25 else plain(piece) for piece in chosen]


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Byte-level BPE: any text can be encoded, the control tokens have ids 0 to 4, a text is led by ``<|bos|>``."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(CONTROL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    control = re.compile("|".join(map(re.escape, CONTROL)))
    tokenizer.train_from_iterator((control.sub("\n", text) for text in texts), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 0)])
    return tokenizer


def token_lengths(tokenizer: Tokenizer) -> Tensor:
    """How many bytes of text each token stands for [V]; control tokens stand for none."""
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    return torch.tensor([0 if token in CONTROL else len(token) for token in tokens])  # written a character a byte


def write_tokens(texts: list[str], tokenizer: Tokenizer, path: Path) -> None:
    """Encode texts, control tokens included, into one flat file of little-endian uint16."""
    unfinished = path.with_name(path.name + ".tmp")
    with open(unfinished, "wb") as file:
        for start in range(0, len(texts), 1000):
            for encoded in tokenizer.encode_batch(texts[start : start + 1000], add_special_tokens=False):
                file.write(np.array(encoded.ids, "<u2").tobytes())
    unfinished.replace(path)


class Windows:
    """Windows of a file's tokens and of the tokens that follow each, in an order that only the seed decides.

    Args:
        path: A file of :func:`write_tokens`.
        length: T.
        seed: Of the order; each epoch has another one.
    """

    def __init__(self, path: Path, length: int, seed: int = 0) -> None:
        self._ids: NDArray[np.uint16] = np.memmap(path, "<u2", "r")
        self.length, self._seed = length, seed
        self._epoch, self._order = -1, np.empty(0, np.int64)
        self.n = (len(self._ids) - 1) // length  #: windows in an epoch

    def batch(self, start: int, count: int) -> tuple[Tensor, Tensor]:
        """Windows ``start`` to ``start + count - 1`` of an endless run: ids [B, T] and the ids after them [B, T]."""
        rows = np.stack([self._window(i) for i in range(start, start + count)])
        ids = torch.from_numpy(rows.astype(np.int64))
        return ids[:, :-1], ids[:, 1:]

    def _window(self, i: int) -> NDArray[np.uint16]:
        epoch, at = divmod(i, self.n)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng((self._seed, self.length, epoch)).permutation(self.n)
        first = int(self._order[at]) * self.length
        return self._ids[first : first + self.length + 1]
