"""Which sentence of the passages found answers a question, and how sure one can be that any does.

Each sentence is judged inside its passage: every token of the question looks for the token most like it in the sentence
("late interaction", Khattab and Zaharia, arXiv 2004.12832), both as the embedder sees them in context. So "he" is near
the man the passage is about. Rare words of the question in the sentence, or in the one before, count as well, and so
does an amount or a name where the question asks for one. A Japanese question names first what it is about, which the
passage often leaves out, and last what it asks of it: its second half counts more. The weights are what
`bench/answer_quality.py --fit` prints; it says on which questions.

Shapes: S sentences, F features, T tokens, H width of the embedder.
"""

from __future__ import annotations

import math
import re
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

_JAPANESE = re.compile("[ぁ-ヿ㐀-鿿]")

FEATURES = (
    "similarity", "gist", "words", "words_before", "standing", "amount", "name", "length", "late_similarity",
    "late_words", "asking", "words_pointed_at",
)  # fmt: skip
WEIGHTS = np.array([6.9, 1.03, 4.03, 1.86, 0.44, 2.14, 1.55, 0.04, 4.3, 2.59, 4.91, 1.51])
"""What a sentence's features count for, in the order of :data:`FEATURES`."""

CONFIDENCE_FEATURES = ("similarity", "words", "passage_words")
CONFIDENCE_WEIGHTS = np.array([17.59, 2.65, 3.38])
CONFIDENCE_BIAS = -8.27
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
    question: str, tokens: TokenVectors | None, passages: Sequence[Passage], rarity: Mapping[str, float]
) -> Evidence:
    """Judge every sentence of the passages.

    Args:
        question: The question.
        tokens: Its tokens; None where meaning does not count.
        passages: Best first.
        rarity: The question's terms and how rare each is (inverse document frequency).
    """
    asks = cues.wanted(question)
    late = _late_terms(question)
    total = sum(rarity.values()) or 1.0
    centre_H = _centre(passages)
    where: list[tuple[int, int, int]] = []
    rows: list[list[float]] = []
    passage_words: list[float] = []
    for number, passage in enumerate(passages):
        spans = sentences(passage.text)
        found = [frozenset(_present(passage.text[start:end], rarity)) for start, end in spans]
        passage_words.append(sum(rarity[term] for term in frozenset().union(*found)) / total)
        similar = _similarities(question, tokens, passage.tokens, spans, centre_H)
        for i, (start, end) in enumerate(spans):
            sentence = passage.text[start:end]
            if not _reads_well(sentence) or cues.echoes(sentence, question):
                continue
            similarity, gist, late_similarity, asking = similar[i]
            before = sum(rarity[term] for term in found[i - 1] - found[i]) / total if i else 0.0
            amount, name = asks.offered_by(sentence)
            where.append((number, start, end))
            rows.append(
                [
                    similarity,
                    gist,
                    sum(rarity[term] for term in found[i]) / total,
                    before,
                    passage.standing,
                    float(amount),
                    float(name),
                    math.log(end - start),
                    late_similarity,
                    sum(rarity[term] for term in found[i] & late) / total,
                    asking,
                    before if cues.POINTS_BACK.match(sentence) else 0.0,
                ]
            )
    features_SF = np.array(rows, dtype=np.float64).reshape(len(rows), len(FEATURES))
    return Evidence(tuple(where), features_SF, features_SF @ WEIGHTS, tuple(passage_words))


def _late_terms(question: str) -> frozenset[str]:
    """The terms that a Japanese question first uses in its second half; none of another's."""
    if not _JAPANESE.search(question):
        return frozenset()
    first = {term.term: term.start + term.end for term in reversed(list(terms(question)))}
    return frozenset(term for term, middle in first.items() if middle > len(question))


def _present(sentence: str, rarity: Mapping[str, float]) -> list[str]:
    return [term.term for term in terms(sentence) if term.term in rarity]


def _centre(passages: Sequence[Passage]) -> Floats | None:
    """The mean token of the passages: what all of them share tells nothing."""
    tokens = [passage.tokens for passage in passages]
    known = [of_one.vectors_TH for of_one in tokens if of_one is not None and len(of_one.vectors_TH)]
    return np.concatenate(known).mean(axis=0) if known else None


def _similarities(
    question: str,
    tokens: TokenVectors | None,
    passage_tokens: TokenVectors | None,
    spans: Sequence[tuple[int, int]],
    centre_H: Floats | None,
) -> list[tuple[float, float, float, float]]:
    """How alike the question and each span are.

    Four figures: the mean over the question's tokens of their best match in the span, the cosine of the means, and the
    first over the second half of a Japanese question only, and over the question word only (0 where there is none).
    """
    nothing = (0.0, 0.0, 0.0, 0.0)
    if tokens is None or passage_tokens is None or centre_H is None or not len(tokens.vectors_TH):
        return [nothing] * len(spans)
    asking_T = _touched(tokens, [word.span() for word in cues.ASKING.finditer(question)])
    late_T = (np.arange(len(asking_T)) >= len(asking_T) // 2) & ~asking_T & bool(_JAPANESE.search(question))
    gist = _unit(tokens.vectors_TH.mean(axis=0) - centre_H)
    matches = _unit(tokens.vectors_TH - centre_H) @ _unit(passage_tokens.vectors_TH - centre_H).T
    starts = passage_tokens.spans_T2[:, 0]
    similar: list[tuple[float, float, float, float]] = []
    for start, end in spans:
        inside = (starts >= start) & (starts < end)
        if not inside.any():
            similar.append(nothing)
            continue
        mean = _unit(passage_tokens.vectors_TH[inside].mean(axis=0) - centre_H)
        best_T = matches[:, inside].max(axis=1)
        late, asking = (float(best_T[those].mean()) if those.any() else 0.0 for those in (late_T, asking_T))
        similar.append((float(best_T.mean()), float(gist @ mean), late, asking))
    return similar


def _touched(tokens: TokenVectors, spans: Sequence[tuple[int, int]]) -> npt.NDArray[np.bool_]:
    """Which tokens have a character in one of the spans."""
    touched_T = np.zeros(len(tokens.vectors_TH), dtype=np.bool_)
    for start, end in spans:
        touched_T |= (tokens.spans_T2[:, 0] < end) & (tokens.spans_T2[:, 1] > start)
    return touched_T


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
