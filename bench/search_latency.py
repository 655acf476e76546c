"""Search p50 and p99 through a real index: words, meaning and both, adaptive and exact, the query's embedding included.

    python bench/search_latency.py                       # 10,000 chunks
    python bench/search_latency.py --chunks 1000000      # needs bench/million.py's vectors

Chunks are sentences of books_en with the vectors that bench/million.py made, 1,000 to a document; queries are its
held-out sentences, asked by one thread. The index is kept between runs in the benchmark cache.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

import _facts
import million
from _vectors import CACHE
from kogata import Encoder
from kogata.ask.documents import Block, Chunk, Document
from kogata.ask.search import retrieve
from kogata.ask.store.manifest import refresh_segments
from kogata.ask.store.reader import Store
from kogata.ask.store.rows import EmbedderInfo
from kogata.ask.store.writer import FileStat, Writer

PER_DOCUMENT = 1_000


def build(path: Path, texts: list[str], vectors_ND: np.ndarray, encoder: Encoder) -> None:
    """Write the index; its presence under the final name means that it is whole."""
    with Writer(path) as writer:
        writer.add_folder(b"/books", None)
        folder = writer.folders()[0].id
        info = EmbedderInfo(encoder.identity, encoder.name, encoder.dimensions, "minilm")
        for start in range(0, len(texts), PER_DOCUMENT):
            part = texts[start : start + PER_DOCUMENT]
            ends = [int(end) - 1 for end in np.cumsum([len(text) + 1 for text in part])]
            chunks = [Chunk(end - len(text), end, None, (), 0) for end, text in zip(ends, part, strict=True)]
            text = "\n".join(part)
            document = Document(
                text=text, title="", kind="txt", blocks=(Block(0, len(text), "paragraph", None, ()),), encoding=None,
                notes=(), n_pages=None, hash=f"{start:032x}",
            )  # fmt: skip
            file = FileStat(b"/books/%07d.txt" % start, len(text), 0)
            writer.put(file, folder, 1, document, chunks, [1.0] * len(chunks))
            waiting = writer.waiting(PER_DOCUMENT)
            writer.put_vectors([row.chunk for row in waiting], vectors_ND[start : start + len(part)], info)
        writer.tidy(merge=True)
        refresh_segments(writer)


def measure(store: Store, encoder: Encoder, queries: list[str], mode: Any, exact: bool) -> dict[str, float]:
    for query in queries[:5]:
        retrieve.search(store, encoder, query, mode=mode, exact=exact)
    taken = []
    for query in queries:
        started = time.perf_counter()
        retrieve.search(store, encoder, query, mode=mode, exact=exact)
        taken.append(1000 * (time.perf_counter() - started))
    return {"p50 ms": float(np.percentile(taken, 50)), "p99 ms": float(np.percentile(taken, 99))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=200)
    arguments = parser.parse_args()
    _facts.require_native()
    encoder = Encoder(million.model_source("minilm"), threads=1)
    texts, queries = million.sentences()
    texts = texts[: arguments.chunks]
    path = CACHE / f"latency-{arguments.chunks}.sqlite"
    if not path.exists():
        try:
            vectors_ND = million.vectors("minilm")[: arguments.chunks]
        except SystemExit:
            vectors_ND = np.empty((0, 0), np.float32)
        if len(vectors_ND) < len(texts):
            if len(texts) > 20_000:
                raise SystemExit("Run bench/million.py first: its vectors are needed.")
            vectors_ND = encoder.encode_document(texts, long_texts="window")
        CACHE.mkdir(parents=True, exist_ok=True)
        half = CACHE / f"half-{path.name}"
        for old in CACHE.glob(f"{half.name}*"):
            if old.is_file():
                old.unlink()
        build(half, texts, vectors_ND, encoder)
        half.with_name(half.name + ".segments").rename(path.with_name(path.name + ".segments"))
        half.rename(path)
    figures: dict[str, dict[str, float]] = {}
    with Store.open(path) as store:
        for mode in ("words", "meaning", "hybrid"):
            for exact in (False, True) if mode != "words" else (False,):
                name = mode + (", exact" if exact else "")
                figures[name] = measure(store, encoder, queries[: arguments.queries], mode, exact)
                print(f"{name:18}{figures[name]['p50 ms']:10.2f}{figures[name]['p99 ms']:10.2f}", flush=True)
    _facts.write(f"search_latency_{arguments.chunks}", {"chunks": arguments.chunks, "figures": figures})


if __name__ == "__main__":
    main()
