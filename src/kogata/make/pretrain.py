"""Train the tiny demonstration decoder: ``python -m kogata.make.pretrain --data DIR --out DIR --minutes N``.

Two stages, as ternary models want them: a high, steady learning rate with weight decay, then a straight line down to
zero without it, over longer windows. The schedule counts tokens, not time: a run that was stopped (by ``--minutes``,
Ctrl-C or a power cut) goes on where its last checkpoint was, and ``--tokens`` may be raised later, because the state at
the end of the first stage is kept. Where only ``hf/`` was kept, the exported model, training goes on from its bf16
weights and its log; the optimizers begin anew, so the learning rate rises from 0 again. No averaging of weights: the
mean of two ternary models is not one.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

from kogata.errors import BadInput
from kogata.make import huggingface
from kogata.make.data import Windows, books, stories, token_lengths, train_tokenizer, write_tokens
from kogata.make.nn.decoder import Decoder, Shape
from kogata.make.progress import ProgressLine, interrupts
from kogata.ops import dispatch

CHILDRENS_BOOKS = frozenset(
    (
        "A Kidnapped Santa Claus",
        "A Little Book of Christmas",
        "A Little Princess",
        "Alice's Adventures in Wonderland",
        "An Old-Fashioned Girl",
        "Andy Gordon",
        "Anne of Avonlea",
        "Anne of Green Gables",
        "Anne of the Island",
        "Black Beauty",
        "Christmas Stories",
        "Dorothy and the Wizard in Oz",
        "Emily of New Moon",
        "Five Children and It",
        "Irish Fairy Tales",
        "Jo's Boys",
        "Little Men",
        "Little Women",
        "Peter Pan",
        "Rainbow Valley",
        "The Book of Dragons",
        "The Christmas Angel",
        "The Happy Prince & Other Tales",
        "The King of the Golden River",
        "The Life and Adventures of Santa Claus",
        "The Marvelous Land of Oz",
        "The Merry Adventures of Robin Hood",
        "The Princess and the Goblin",
        "The Railway Children",
        "The Rose and the Ring",
        "The Secret Garden",
        "The Story of Doctor Dolittle",
        "The Story of the Amulet",
        "The Wind in the Willows",
        "The Wonderful Wizard of Oz",
        "Through the Looking-Glass",
        "Treasure Island",
    )
)
HELDOUT_BOOKS = frozenset(("Ozma of Oz", "The Jungle Book"))


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is trained, and how. ``tokens`` is the whole schedule's length."""

    shape: Shape = field(default_factory=Shape)
    tokens: int = 20_000_000
    cooldown: float = 0.25  # the second stage's share of the tokens
    batch: int = 4096  # tokens a step
    length: int = 256  # tokens a window
    long_length: int = 1024  # in the second stage
    lr: float = 4e-3
    weight_decay: float = 0.1  # in the first stage
    warmup: int = 200_000  # tokens
    evaluate_every: int = 1_000_000  # tokens
    story_repeats: int = 2
    seed: int = 0

    def cools(self, seen: int) -> bool:
        """Whether the step after so many tokens belongs to the second stage."""
        return seen >= self.tokens * (1 - self.cooldown)

    def pace(self, seen: int, since: int = 0) -> float:
        """The share of the learning rate after so many tokens: up from ``since`` on, level, down to zero."""
        return min(1.0, (seen - since + self.batch) / self.warmup, max(0.0, 1 - seen / self.tokens) / self.cooldown)


class Training:
    """A decoder, its optimizers, how many tokens it has seen, and how many when the optimizers began."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.decoder = Decoder(recipe.shape, recipe.seed)
        self.seen = self.since = 0
        named = dict(self.decoder.named_parameters())
        matrices = {name: weight for name, weight in named.items() if name.endswith("_proj.weight")}
        others = {name: weight for name, weight in named.items() if name not in matrices}
        self.optimizers: dict[str, Optimizer] = {
            "muon": Muon(matrices.values(), lr=recipe.lr, adjust_lr_fn="match_rms_adamw"),
            "adamw": AdamW(others.values(), lr=recipe.lr, betas=(0.9, 0.95), weight_decay=0.0),
        }

    def step(self, loss_of: Callable[[Tensor, Tensor], Tensor], ids_BT: Tensor, next_BT: Tensor) -> tuple[float, float]:
        """One update; its loss, in nats a token, and the gradient's norm."""
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(ids_BT, next_BT).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.decoder.parameters(), 1.0)
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self.recipe.lr * self.recipe.pace(self.seen, self.since)
                decays = name == "muon" and not self.recipe.cools(self.seen)
                group["weight_decay"] = self.recipe.weight_decay if decays else 0.0
            optimizer.step()
            optimizer.zero_grad()
        self.seen += ids_BT.numel()
        return loss.item(), norm.item()

    def save(self, path: Path) -> None:
        """Write everything that going on needs into one file, which replaces the former at once."""
        tensors = {f"decoder.{name}": value for name, value in self.decoder.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            for i, state in optimizer.state_dict()["state"].items():
                tensors |= {f"{name}.{i}.{key}": value for key, value in state.items()}
        facts = {"seen": self.seen, "since": self.since, "shape": asdict(self.recipe.shape)}
        facts |= {"cools": self.recipe.cools(self.seen), "tokens": self.recipe.tokens}
        unfinished = path.with_name(path.name + ".tmp")
        save_file(tensors, unfinished, metadata={"kogata": json.dumps(facts)})
        unfinished.replace(path)

    def load(self, path: Path) -> None:
        """Take up a file of :meth:`save`.

        Raises:
            BadInput: It holds a model of another shape.
        """
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["kogata"])
            if facts["shape"] != asdict(self.recipe.shape):
                raise BadInput(f"{path} holds a model of another shape: {facts['shape']}.")
            parts: dict[str, dict[str, Tensor]] = {"decoder": {}, **{name: {} for name in self.optimizers}}
            for key in file.keys():  # noqa: SIM118 (not a dict)
                part, _, rest = key.partition(".")
                parts[part][rest] = file.get_tensor(key)
        self.decoder.load_state_dict(parts["decoder"])
        for name, optimizer in self.optimizers.items():
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in parts[name].items():
                i, _, rest = key.partition(".")
                state.setdefault(int(i), {})[rest] = value
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        self.seen, self.since = facts["seen"], facts.get("since", 0)


def prepare(data: Path, out: Path, recipe: Recipe) -> None:
    """Make the tokenizer and the token files, once.

    Args:
        data: A folder with ``stories_en`` and ``books_en``.
        out: Where ``tokenizer.json``, ``train.u16``, ``stories.u16`` and ``books.u16`` go (the last two held out). If
            there is a model in ``hf``, its tokenizer is taken.
        recipe: The vocabulary's size; how often a story comes in an epoch.
    """
    if (out / "train.u16").exists():
        return
    told = stories(data / "stories_en/stories.jsonl.gz", heldout=False)
    texts = told * recipe.story_repeats + books(data / "books_en/train.jsonl.xz", CHILDRENS_BOOKS, recipe.seed)
    exported = out / "hf/tokenizer.json"
    if exported.exists():
        tokenizer = Tokenizer.from_file(str(exported))
    else:
        tokenizer = train_tokenizer(texts, recipe.shape.vocab_size)
    tokenizer.save(str(out / "tokenizer.json"))
    write_tokens(stories(data / "stories_en/stories.jsonl.gz", heldout=True), tokenizer, out / "stories.u16")
    heldout = books(data / "books_en/heldout_longdocs.jsonl.gz", HELDOUT_BOOKS, recipe.seed)
    write_tokens(heldout, tokenizer, out / "books.u16")
    write_tokens(texts, tokenizer, out / "train.u16")


@torch.no_grad()
def bits_per_byte(decoder: Decoder, path: Path, lengths_V: Tensor, length: int = 512) -> float:
    """How many bits a model needs for a byte of a held-out token file, over at most 64 windows of ``length`` tokens.

    The ternary products are those of the run path, as everywhere in evaluation.
    """
    decoder.eval()
    windows = Windows(path, length)
    nats, n_bytes = 0.0, 0
    for i in range(min(64, windows.n)):
        ids_1T, next_1T = windows.batch(i, 1)
        with torch.autocast("cpu", torch.bfloat16):
            nats += decoder.loss(ids_1T, next_1T).sum().item()
        n_bytes += int(lengths_V[next_1T].sum())
    decoder.train()
    return nats / math.log(2) / n_bytes


def pretrain(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    minutes: float = math.inf,
    compiled: bool = True,
    stream: IO[str] = sys.stderr,
) -> Training:
    """Train until the schedule's end, ``minutes`` or Ctrl-C, whichever is first; leave a checkpoint and ``hf/``.

    Args:
        recipe: What and how.
        data: See :func:`prepare`.
        out: Checkpoints, ``log.jsonl`` and the model's directory ``hf``; where it holds a checkpoint, that goes on, and
            where it holds a model only, that.
        minutes: How long at most.
        compiled: Compile the model first (a minute or two; twice as fast afterwards).
        stream: Where to say how far it is.
    """
    out.mkdir(parents=True, exist_ok=True)
    prepare(data, out, recipe)
    latest, level = out / "checkpoint.safetensors", out / "stage-1.safetensors"
    training = Training(recipe)
    if latest.exists():
        training.load(_resumed(latest, level, recipe))
    elif (out / "hf").exists():
        training.seen = training.since = huggingface.load(training.decoder, out / "hf")
        shutil.copyfile(out / "hf/log.jsonl", out / "log.jsonl")
    lengths_V = token_lengths(Tokenizer.from_file(str(out / "tokenizer.json")))
    loss_of = torch.compile(training.decoder.loss, dynamic=False) if compiled else training.decoder.loss
    lengths = {False: recipe.length, True: recipe.long_length}
    windows = {cools: Windows(out / "train.u16", length, recipe.seed) for cools, length in lengths.items()}
    begun = saved = time.monotonic()
    evaluated = training.seen
    with (
        open(out / "log.jsonl", "a", encoding="utf-8") as log,
        interrupts() as stopped,
        ProgressLine(recipe.tokens, stream) as line,
    ):

        def write(**facts: Any) -> None:
            log.write(
                json.dumps({"tokens": training.seen, "seconds": round(time.monotonic() - begun, 1), **facts}) + "\n"
            )
            log.flush()

        while training.seen < recipe.tokens and not stopped() and time.monotonic() - begun < minutes * 60:
            cools = recipe.cools(training.seen)
            if cools and not recipe.cools(training.seen - recipe.batch):
                training.save(level)
            rows = recipe.batch // windows[cools].length
            batch = windows[cools].batch(training.seen // recipe.batch * rows, rows)
            loss, norm = training.step(loss_of, *batch)
            write(loss=round(loss, 4), norm=round(norm, 3), lr=training.optimizers["muon"].param_groups[0]["lr"])
            line.draw(training.seen, loss)
            if training.seen - evaluated >= recipe.evaluate_every:
                evaluated = training.seen
                found = {
                    name: bits_per_byte(training.decoder, out / f"{name}.u16", lengths_V)
                    for name in ("stories", "books")
                }
                write(bits_per_byte={name: round(bits, 4) for name, bits in found.items()})
                line.say(", ".join(f"{name} {bits:.3f} bits a byte" for name, bits in found.items()))
            if time.monotonic() - saved > 300:
                training.save(latest)
                saved = time.monotonic()
        training.save(latest)
    export(training, out)
    return training


def export(training: Training, out: Path) -> None:
    """Write the decoder as it is now to ``out/hf``."""
    n = sum(weight.numel() for weight in training.decoder.parameters())
    card = CARD.format(parameters=n / 1e6, tokens=training.seen / 1e6)
    huggingface.save(training.decoder, out / "tokenizer.json", out / "log.jsonl", out / "hf", card)


CARD = """---
license: apache-2.0
language: en
---
# A tiny ternary storyteller

A demonstration, not an assistant: {parameters:.1f} M parameters, ternary but for the embedding, that have read
{tokens:.1f} M tokens of children's books. It goes on with a story in old-fashioned English and knows nothing.
Made by `kogata.make.pretrain`.

Trained on public-domain children's books (before 1926) and on stories of the Global African Storybook Project
(github.com/global-asp/asp-source, CC BY, their authors named there). The weights are the bf16 masters, to be rounded to
-1, 0 and 1 by each matrix's mean magnitude.
"""


def _resumed(latest: Path, level: Path, recipe: Recipe) -> Path:
    """The latest checkpoint, or, where that was cooling down for a shorter schedule, the one before it did."""
    with safe_open(latest, "pt") as file:
        facts = json.loads(file.metadata()["kogata"])
    longer = facts["cools"] and recipe.tokens > facts["tokens"] and level.exists()
    return level if longer else latest


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m kogata.make.pretrain", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with stories_en and books_en")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="checkpoints, log and the model (hf/); goes on where it stopped, also from hf/ alone",
    )
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop (to go on later) after so long")
    parser.add_argument("--tokens", type=int, default=Recipe().tokens, help="length of the schedule (%(default)s)")
    given = parser.parse_args()
    if missing := [name for name in ("stories_en", "books_en") if not (given.data / name).is_dir()]:
        parser.error(f"{given.data} has no folder {' and no '.join(missing)}.")
    if given.tokens < Recipe().batch or not given.minutes > 0:
        parser.error(f"--tokens must be at least {Recipe().batch}, --minutes above 0.")
    dispatch.set_threads(1)  # the cores are torch's; our kernels, in evaluation, run on the thread that calls them
    recipe = Recipe(tokens=given.tokens)
    training = pretrain(recipe, given.data, given.out, minutes=given.minutes)
    done = training.seen >= recipe.tokens
    print(
        f"{training.seen:,} tokens seen; the model is in {given.out / 'hf'}. "
        + ("" if done else "The same command goes on.")
    )


if __name__ == "__main__":
    main()
