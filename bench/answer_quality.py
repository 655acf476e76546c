"""Does the first answer sentence contain a right answer, and is a question refused when its passage is taken out?

    python bench/answer_quality.py               # figures on XQuAD (English) and JSQuAD (Japanese)
    python bench/answer_quality.py --fit         # fits the constants of evidence.py and prints them

Everything goes through a real index of the passages. Each question is asked twice: as it is, and with every chunk of
its passage left out of the ranking, which makes it (nearly) unanswerable: other paragraphs of the article remain.

Fitted on: 1,194 questions of JaQuAD's train split (500 passages) and the XQuAD questions of even passages. Figures
are of XQuAD's odd passages ("held out"), of all of XQuAD (half of it fitted on), and of JSQuAD's first 1,000 questions,
none of which was fitted on.
"""

from __future__ import annotations

import argparse
import json
import lzma
import random
from dataclasses import dataclass
from typing import Any

import numpy as np

import _facts
from _passage_index import passage_index
from _retrieval_sets import DATA, load
from kogata import Encoder
from kogata.ask.answers import answer as ask
from kogata.ask.answers import evidence as ev
from kogata.ask.search import fusion, retrieve
from kogata.ask.search.retrieve import Ranking


@dataclass(frozen=True)
class Question:
    text: str
    passage: int
    answers: list[str]


@dataclass(frozen=True)
class Asked:
    """What was weighed for one question, with its passage and without."""

    passage: int
    features: np.ndarray
    right: np.ndarray
    of_passage: np.ndarray
    decision: np.ndarray
    features_without: np.ndarray
    decision_without: np.ndarray
    passage_words: tuple[float, ...]
    passage_words_without: tuple[float, ...]


class Remembering:
    """An encoder that computes the tokens of each passage once."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._known: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode_tokens(self, texts: list[str], *, kind: str) -> list[Any]:
        new = [text for text in dict.fromkeys(texts) if kind + text not in self._known]
        for text, tokens in zip(new, self._encoder.encode_tokens(new, kind=kind), strict=True):  # type: ignore[arg-type]
            self._known[kind + text] = tokens
        return [self._known[kind + text] for text in texts]


def questions(name: str) -> tuple[list[str], list[Question]]:
    """Passages, and questions about them."""
    if name != "jaquad":
        sets = load(name)
        place = {id_: number for number, id_ in enumerate(sets.passage_ids)}
        asked = []
        for id_, text in zip(sets.query_ids, sets.queries, strict=True):
            passage = next(p for p, grade in sets.qrels[id_].items() if grade > 0)
            asked.append(Question(text, place[passage], sets.answers[id_]))
        return sets.passages, asked
    with lzma.open(DATA / "japanese_text" / "jaquad.jsonl.xz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    by_passage: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_passage.setdefault(row["passage"], []).append(row)
    passages = sorted(by_passage)
    random.Random(1).shuffle(passages)
    passages = [passage for passage in passages if len(passage) < 1200][:500]
    return passages, [
        Question(row["question"], number, [answer["text"] for answer in row["answers"]])
        for number, passage in enumerate(passages)
        for row in by_passage[passage][:3]
    ]


def without(ranking: Ranking, numbers: dict[int, int], passage: int) -> Ranking:
    """The ranking had the passage never been indexed: fused anew, as scores standardised with it would tell of it."""
    keep = np.array([numbers[int(id_)] != passage for id_ in ranking.ids_C], dtype=bool)
    ids, meaning, words = ranking.ids_C[keep], ranking.meaning_C[keep], ranking.words_C[keep]
    found = ranking.words_C[~np.isnan(ranking.words_C)]
    floor = found.min() if len(found) == retrieve.CANDIDATES else 0.0
    fused = fusion.fuse(meaning, np.where(np.isnan(words), floor, words), fusion.WEIGHT)
    order = fusion.best_first(fused, ids, len(ids))
    return Ranking(ids[order], fused[order], meaning[order], words[order], ranking.query_D, ranking.mode, ranking.notes)


def ask_all(name: str, encoder: Encoder) -> list[Asked]:
    passages, asked = questions(name)
    index, numbers = passage_index(name, passages, encoder)
    remembering: Any = Remembering(encoder)
    results = []
    for question in asked:
        ranking = retrieve.rank(index.store, encoder, question.text, k=10, mode="hybrid", where=None, exact=True)
        seen = []
        for part in (ranking, without(ranking, numbers, question.passage)):
            hits = retrieve.read_hits(index.store, part, question.text, ask.PASSAGES)
            seen.append((hits, ask.read(index.store, remembering, question.text, part, hits)))
        (hits, weighed), (_, weighed_without) = seen
        texts = [hits[number].text[start:end] for number, start, end in weighed.where]
        results.append(
            Asked(
                question.passage,
                weighed.features_SF,
                np.array([any(answer in text for answer in question.answers) for text in texts], dtype=bool),
                np.array([numbers[hits[n].chunk_id] == question.passage for n, *_ in weighed.where], dtype=bool),
                weighed.confidence_features(),
                weighed_without.features_SF,
                weighed_without.confidence_features(),
                weighed.passage_words,
                weighed_without.passage_words,
            )
        )
    index.close()
    return results


def first_right(asked: list[Asked], weights: np.ndarray) -> float:
    found = [bool(len(a.right)) and bool(a.right[int(np.argmax(a.features @ weights))]) for a in asked]
    return 100 * float(np.mean(found))


def decide(features: np.ndarray, scores: np.ndarray, passage_words: tuple[float, ...]) -> np.ndarray:
    """Confidence features as evidence.py makes them, under other sentence weights."""
    return ev.Evidence(((0, 0, 0),) * len(scores), features, scores, passage_words).confidence_features()


def fit_sentences(asked: list[Asked], decay: float = 1e-3) -> np.ndarray:
    """Weights that maximise the probability of a right sentence of the right passage (softmax over a question's)."""
    import torch

    tenths = {"similarity", "gist", "late_similarity", "asking"}  # the range that these move in
    scale = torch.tensor([10.0 if name in tenths else 1.0 for name in ev.FEATURES], dtype=torch.float64)
    rows = [(torch.tensor(a.features) * scale, torch.tensor(a.right & a.of_passage)) for a in asked]
    rows = [(x, y) for x, y in rows if bool(y.any())]
    weights = torch.zeros(len(ev.FEATURES), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=100)

    def loss() -> Any:
        optimiser.zero_grad()
        total = decay * (weights**2).sum()
        for x, y in rows:
            scores = x @ weights
            total = total - (torch.logsumexp(scores[y], 0) - torch.logsumexp(scores, 0)) / len(rows)
        total.backward()
        return total

    optimiser.step(loss)
    return (weights.detach() * scale).numpy()


def fit_decision(yes: np.ndarray, no: np.ndarray, columns: list[int]) -> tuple[np.ndarray, float]:
    """Logistic regression by Newton's method, then the bias moved so that 4 % of the answerable ones are refused."""
    x = np.concatenate([yes, no])[:, columns]
    x = np.column_stack([x, np.ones(len(x))])
    y = np.concatenate([np.ones(len(yes)), np.zeros(len(no))])
    w = np.zeros(x.shape[1])
    for _ in range(30):
        p = 1 / (1 + np.exp(-x @ w))
        w += np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + 1e-3 * np.eye(len(w)), x.T @ (y - p) - 1e-3 * w)
    weights = np.zeros(yes.shape[1])
    weights[columns] = w[:-1]
    return weights, -float(np.quantile(yes @ weights, 0.04))


def decision_figures(yes: np.ndarray, no: np.ndarray, weights: np.ndarray, bias: float) -> dict[str, float]:
    s, t = yes @ weights + bias, no @ weights + bias
    auc = float(np.mean((s[:, None] > t[None]) + 0.5 * (s[:, None] == t[None])))
    return {
        "answerable refused %": 100 * float(np.mean(s < 0)),
        "passage out refused %": 100 * float(np.mean(t < 0)),
        "AUC": auc,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", action="store_true", help="fit the constants anew and print them")
    parser.add_argument("--model", default="default")
    arguments = parser.parse_args()
    encoder = Encoder(arguments.model)
    xquad, jsquad = ask_all("xquad_en", encoder), ask_all("jsquad_ja", encoder)
    odd = [a for a in xquad if a.passage % 2]
    weights, decision, bias = ev.WEIGHTS, ev.CONFIDENCE_WEIGHTS, ev.CONFIDENCE_BIAS
    words_only, words_bias = ev.WORDS_ONLY_WEIGHTS, ev.WORDS_ONLY_BIAS

    def decisions(asked: list[Asked]) -> tuple[np.ndarray, np.ndarray]:
        return (
            np.array([decide(a.features, a.features @ weights, a.passage_words) for a in asked if len(a.features)]),
            np.array(
                [
                    decide(a.features_without, a.features_without @ weights, a.passage_words_without)
                    for a in asked
                    if len(a.features_without)
                ]
            ),
        )

    if arguments.fit:
        train = ask_all("jaquad", encoder) + [a for a in xquad if a.passage % 2 == 0]
        weights = fit_sentences(train)
        yes, no = decisions(train)
        decision, bias = fit_decision(yes, no, list(range(len(ev.CONFIDENCE_FEATURES))))
        words_only, words_bias = fit_decision(yes, no, [1, 2])
        print("WEIGHTS =", np.round(weights, 2).tolist())
        print("CONFIDENCE_WEIGHTS =", np.round(decision, 2).tolist(), " CONFIDENCE_BIAS =", round(bias, 2))
        print("WORDS_ONLY_WEIGHTS =", np.round(words_only, 2).tolist(), " WORDS_ONLY_BIAS =", round(words_bias, 2))

    figures: dict[str, Any] = {}
    heads = ("first right %", "in 5 passages %", "answerable refused %", "passage out refused %", "AUC")
    print(f"{'':16}" + "".join(f"{head:>23}" for head in heads))
    for name, asked in (("XQuAD held out", odd), ("XQuAD", xquad), ("JSQuAD", jsquad)):
        row = {
            "first sentence right %": first_right(asked, weights),
            "some sentence right %": 100 * float(np.mean([bool(a.right.any()) for a in asked])),
            **decision_figures(*decisions(asked), decision, bias),
        }
        figures[name] = row
        print(f"{name:16}" + "".join(f"{value:23.{3 if head == 'AUC' else 1}f}" for head, value in row.items()))
    if not arguments.fit:
        _facts.write("answer_quality", {"model": encoder.name, "precision": encoder.precision, "figures": figures})


if __name__ == "__main__":
    main()
