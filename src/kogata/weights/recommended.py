"""Models with a short name: what they are good for, what they cost, where they come from."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["writer", "embedder"]


@dataclass(frozen=True, slots=True)
class Recommended:
    """A model that can be named in short.

    Attributes:
        name: What is typed.
        source: Its id on the hub; None for one that comes along.
        kind: Whether it writes or embeds.
        licence: Its licence's name.
        download: Bytes to fetch, about; of one that comes along 0.
        memory: Bytes in memory as it is kept by default, about; a writer's with keys and values of 4,096 tokens.
        gated: Whether its terms have to be accepted on the hub first.
        purpose: What it is good for.
    """

    name: str
    source: str | None
    kind: Kind
    licence: str
    download: int
    memory: int
    gated: bool
    purpose: str

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name, "source": self.source, "kind": self.kind, "licence": self.licence,
            "download_bytes": self.download, "memory_bytes": self.memory, "gated": self.gated, "purpose": self.purpose,
        }  # fmt: skip


def _on_hub(
    name: str, source: str, licence: str, download: float, memory: float, purpose: str, *, kind: Kind = "writer",
    gated: bool = False,
) -> Recommended:  # fmt: skip
    """Sizes in GB."""
    return Recommended(name, source, kind, licence, int(download * 1e9), int(memory * 1e9), gated, purpose)


#: Of each architecture that runs, the ones that a laptop takes; the smaller first.
RECOMMENDED = (
    Recommended("tiny", None, "writer", "Apache-2.0", 0, 15_000_000, False, "a demonstration: story-like English"),
    _on_hub("falcon-e-1b", "tiiuae/Falcon-E-1B-Instruct", "Falcon LLM", 0.67, 0.7, "answers in English; ternary"),
    _on_hub("falcon-e-3b", "tiiuae/Falcon-E-3B-Instruct", "Falcon LLM", 1.0, 1.1, "answers in English; ternary"),
    _on_hub("bitnet-2b", "microsoft/bitnet-b1.58-2B-4T", "MIT", 1.2, 1.2, "answers in English; ternary"),
    _on_hub("bonsai-1.7b", "prism-ml/Ternary-Bonsai-1.7B-unpacked", "Apache-2.0", 3.5, 1.2,
            "many languages; ternary, stored at 16 bits"),
    _on_hub("qwen3-0.6b", "Qwen/Qwen3-0.6B", "Apache-2.0", 1.5, 1.7, "many languages, Japanese too; small"),
    _on_hub("qwen3-1.7b", "Qwen/Qwen3-1.7B", "Apache-2.0", 4.1, 3.9, "many languages, Japanese too"),
    _on_hub("llama-3.2-1b", "meta-llama/Llama-3.2-1B-Instruct", "Llama 3.2", 2.5, 2.6, "eight languages, not Japanese",
            gated=True),
    _on_hub("gemma-3-1b", "google/gemma-3-1b-it", "Gemma", 2.0, 2.1, "answers in English; long texts", gated=True),
    Recommended("default", None, "embedder", "MIT", 0, 130_000_000, False, "search in many languages; 4 bits"),
    _on_hub("multilingual-e5-small", "intfloat/multilingual-e5-small", "MIT", 0.49, 0.6,
            "the same before it was quantised", kind="embedder"),
)  # fmt: skip


def named(name: str) -> Recommended | None:
    """The model with this short name."""
    return next((model for model in RECOMMENDED if model.name == name), None)


def short_name(source: str) -> str | None:
    """The short name of a hub id, if it has one."""
    return next((model.name for model in RECOMMENDED if model.source == source), None)


def near(name: str, more: list[str]) -> list[str]:
    """Short names, and others, that look like a name that is none of them."""
    known = {known.lower(): known for known in [*(model.name for model in RECOMMENDED), *more]}
    return [known[found] for found in difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.6)]
