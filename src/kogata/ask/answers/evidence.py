"""Which sentence of the passages found answers a question, and how sure one can be that any does.

Each sentence is judged inside its passage: every token of the question looks for the token most like it in the sentence
("late interaction", Khattab and Zaharia, arXiv 2004.12832), both as the embedder sees them in context. So "he" is near
the man the passage is about. Rare words of the question in the sentence, or in the one before, count as well, and so
does an amount or a name where the question asks for one. The weights are what
`bench/answer_quality.py --fit` prints; it says on which questions.

Shapes: S sentences, F features, T tokens, H width of the embedder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from kogata.ask.answers import cues
from kogata.ask.documents import sentences
from kogata.ask.words.terms import terms

if TYPE_CHECKING:
    from kogata.run.encoder import TokenVectors

Floats = npt.NDArray[np.float32]

FEATURES = ("similarity", "gist", "words", "words_before", "standing", "amount", "name", "length")
WEIGHTS = np.array([15.8, 0.34, 1.8, 1.6, 0.63, 1.87, 1.07, -0.08])
"""What a sentence's features count for, in the order of :data:`FEATURES`."""

CONFIDENCE_FEATURES = ("similarity", "words", "passage_words")
CONFIDENCE_WEIGHTS = np.array([17.7, 3.85, 2.25])
CONFIDENCE_BIAS = -8.34
WORDS_ONLY_WEIGHTS = np.array([0.0, 7.08, 3.49])
WORDS_ONLY_BIAS = -2.45
THRESHOLD = 0.5
"""Below this confidence the answer is "not found"."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage to look for sentences in: its text, its fused score relative to the best, its tokens if known."""

    text: str
    standing: float
    tokens: TokenVectors | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """Sentences of the passages. ``where`` holds (passage, start, end) of each; scores higher is better."""

    where: tuple[tuple[int, int, int], ...]
    features_SF: npt.NDArray[np.float64]
    scores_S: npt.NDArray[np.float64]
    passage_words: tuple[float, ...]

    def confidence_features(self) -> npt.NDArray[np.float64]:
        """What the decision between found and not found is made on, as :data:`CONFIDENCE_FEATURES`."""
        if not self.where:
            return np.zeros(len(CONFIDENCE_FEATURES))
        best = int(np.argmax(self.scores_S))
        similarity, words = self.features_SF[best, 0], self.features_SF[best, 2] + self.features_SF[best, 3]
        return np.array([similarity, words, max(self.passage_words)])

    def confidence(self, *, with_meaning: bool) -> float:
        """Probability-like figure from 0 to 1; found from :data:`THRESHOLD` on."""
        if not self.where:
            return 0.0
        weights, bias = (CONFIDENCE_WEIGHTS, CONFIDENCE_BIAS) if with_meaning else (WORDS_ONLY_WEIGHTS, WORDS_ONLY_BIAS)
        return float(1.0 / (1.0 + math.exp(-(float(self.confidence_features() @ weights) + bias))))


def weigh(
    question: str, question_TH: Floats | None, passages: Sequence[Passage], rarity: Mapping[str, float]
) -> Evidence:
    """Judge every sentence of the passages.

    Args:
        question: The question.
        question_TH: Vectors of its tokens; None where meaning does not count.
        passages: Best first.
        rarity: The question's terms and how rare each is (inverse document frequency).
    """
    asks = cues.wanted(question)
    echo = question.rstrip(" ?？。").lower()
    total = sum(rarity.values()) or 1.0
    centre_H = _centre(passages)
    where: list[tuple[int, int, int]] = []
    rows: list[list[float]] = []
    passage_words: list[float] = []
    for number, passage in enumerate(passages):
        spans = sentences(passage.text)
        found = [frozenset(_present(passage.text[start:end], rarity)) for start, end in spans]
        passage_words.append(sum(rarity[term] for term in frozenset().union(*found)) / total)
        similar = _similarities(question_TH, passage.tokens, spans, centre_H)
        for i, (start, end) in enumerate(spans):
            sentence = passage.text[start:end]
            if not _reads_well(sentence) or echo in sentence.lower():  # the question itself is no answer
                continue
            before = found[i - 1] - found[i] if i else frozenset()
            amount, name = asks.offered_by(sentence)
            where.append((number, start, end))
            rows.append(
                [
                    *similar[i],
                    sum(rarity[term] for term in found[i]) / total,
                    sum(rarity[term] for term in before) / total,
                    passage.standing,
                    float(amount),
                    float(name),
                    math.log(end - start),
                ]
            )
    features_SF = np.array(rows, dtype=np.float64).reshape(len(rows), len(FEATURES))
    return Evidence(tuple(where), features_SF, features_SF @ WEIGHTS, tuple(passage_words))


def _present(sentence: str, rarity: Mapping[str, float]) -> list[str]:
    return [term.term for term in terms(sentence) if term.term in rarity]


def _centre(passages: Sequence[Passage]) -> Floats | None:
    """The mean token of the passages: what all of them share tells nothing."""
    tokens = [passage.tokens for passage in passages]
    known = [of_one.vectors_TH for of_one in tokens if of_one is not None and len(of_one.vectors_TH)]
    return np.concatenate(known).mean(axis=0) if known else None


def _similarities(
    question_TH: Floats | None, tokens: TokenVectors | None, spans: Sequence[tuple[int, int]], centre_H: Floats | None
) -> list[tuple[float, float]]:
    """For each span: the mean over the question's tokens of their best match in it, and the cosine of the means."""
    if question_TH is None or tokens is None or centre_H is None or not len(question_TH):
        return [(0.0, 0.0)] * len(spans)
    question = _unit(question_TH - centre_H)
    gist = _unit(question_TH.mean(axis=0) - centre_H)
    matches = question @ _unit(tokens.vectors_TH - centre_H).T
    starts = tokens.spans_T2[:, 0]
    similar: list[tuple[float, float]] = []
    for start, end in spans:
        inside = (starts >= start) & (starts < end)
        if not inside.any():
            similar.append((0.0, 0.0))
            continue
        mean = _unit(tokens.vectors_TH[inside].mean(axis=0) - centre_H)
        similar.append((float(matches[:, inside].max(axis=1).mean()), float(gist @ mean)))
    return similar


def _unit(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: Floats = vectors / np.maximum(lengths, np.float32(1e-9))
    return scaled


def _reads_well(sentence: str) -> bool:
    """Not a heading, a rule, a lone number or a line of code: something that can stand in an answer."""
    letters = sum(character.isalpha() for character in sentence)
    if letters < 4 or letters < 0.4 * len(sentence.replace(" ", "")):
        return False
    if sentence.rstrip().endswith((".", "!", "。", "！", "．", "”", '"', ")", "）", "」")):
        return True
    wide = any(ord(character) > 0x3000 for character in sentence)
    return not sentence.startswith("#") and (letters >= 12 if wide else len(sentence.split()) >= 5)
