"""The four retrieval collections and the figures computed over them, as ../shared/data/README.md says."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

NAMES = ("cranfield", "cisi", "xquad_en", "jsquad_ja")
DATA = Path(os.environ.get("KOGATA_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


@dataclass(frozen=True)
class Collection:
    """Passages, the queries that have a relevant passage, and the judgements."""

    name: str
    passage_ids: list[str]
    passages: list[str]
    query_ids: list[str]
    queries: list[str]
    qrels: dict[str, dict[str, int]]
    answers: dict[str, list[str]]


def passage_text(title: str, text: str) -> str:
    """The text where it starts with the title or has none, else "title. text"."""
    return text if not title or text.startswith(title) else f"{title}. {text}"


def load(name: str, *, max_queries: int | None = None) -> Collection:
    """Read a collection. jsquad_ja keeps its first 1,000 questions unless `max_queries` says otherwise (0: all)."""
    folder = DATA / name
    with (folder / "corpus.jsonl").open(encoding="utf-8") as lines:
        corpus = [json.loads(line) for line in lines]
    qrels: dict[str, dict[str, int]] = {}
    for line in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, passage, grade = line.split("\t")
        qrels.setdefault(query, {})[passage] = int(grade)
    with (folder / "queries.jsonl").open(encoding="utf-8") as lines:
        queries = [json.loads(line) for line in lines]
    queries = [query for query in queries if any(grade > 0 for grade in qrels.get(query["_id"], {}).values())]
    if max_queries is None:
        max_queries = 1000 if name == "jsquad_ja" else 0
    if max_queries:
        queries = queries[:max_queries]
    return Collection(
        name=name,
        passage_ids=[row["_id"] for row in corpus],
        passages=[passage_text(row.get("title", ""), row["text"]) for row in corpus],
        query_ids=[query["_id"] for query in queries],
        queries=[query["text"] for query in queries],
        qrels=qrels,
        answers={query["_id"]: query.get("answers", []) for query in queries},
    )


def ndcg(ranked: Sequence[str], judged: Mapping[str, int], k: int = 10) -> float:
    """nDCG@k with linear gain, the ideal order over the judged documents."""
    gains = [judged.get(passage, 0) for passage in ranked[:k]]
    ideal = sorted((grade for grade in judged.values() if grade > 0), reverse=True)[:k]
    best = sum(gain / np.log2(rank + 2) for rank, gain in enumerate(ideal))
    return float(sum(gain / np.log2(rank + 2) for rank, gain in enumerate(gains)) / best) if best else 0.0


def recall(ranked: Sequence[str], judged: Mapping[str, int], k: int = 10) -> float:
    """Share of the relevant passages among the first k."""
    relevant = {passage for passage, grade in judged.items() if grade > 0}
    return len(relevant & set(ranked[:k])) / len(relevant)


def figures(collection: Collection, rankings: Sequence[Sequence[str]]) -> dict[str, float]:
    """Means over the queries, in points of 100; `rankings` holds passage ids, best first, one list per query."""
    pairs = list(zip(rankings, (collection.qrels[query] for query in collection.query_ids), strict=True))
    return {
        "ndcg@10": 100 * float(np.mean([ndcg(ranked, judged) for ranked, judged in pairs])),
        "recall@10": 100 * float(np.mean([recall(ranked, judged) for ranked, judged in pairs])),
    }
