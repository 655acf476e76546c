"""Ask: an answer made of the best sentences of the best passages, each with where it stands."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kogata.ask.answers.evidence import THRESHOLD, Evidence, Passage, weigh
from kogata.ask.documents import sentences
from kogata.ask.search import retrieve
from kogata.ask.search.retrieve import Hit, Ranking, Source
from kogata.ask.words import fts
from kogata.ask.words.terms import query_terms, terms

if TYPE_CHECKING:
    from kogata.ask.store.filters import Filter
    from kogata.ask.store.reader import Store
    from kogata.run.encoder import Encoder, TokenVectors

PASSAGES = 5
"""How many of the passages found are read sentence by sentence."""

MAX_SENTENCES = 3
MARGIN = 1.5
"""A further sentence is given if its score is at most this much below the best one's."""

_SAME = 0.6  # two sentences that share this part of their terms say the same
_CONTEXT_CHARS = 400
_NEAR_CHARS = 200  # sentences of a passage this near share a citation
_BULLET = re.compile(r"^(?:[-*+•・◦]\s+|\d{1,3}[.)]\s+|>\s+)")
_LINE_BREAK = re.compile(r"\s*\n\s*|[ \t]{2,}")


@dataclass(frozen=True, slots=True)
class AnswerSentence:
    """A sentence of the answer, and the number of the citation it rests on (0: none, of a generated sentence)."""

    text: str
    citation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation(Source):
    """Where a sentence of the answer stands.

    Attributes:
        number: As in ``[1]``.
        before, after: The sentences next to it, as they stand there.
    """

    number: int
    before: str
    after: str

    @classmethod
    def of(cls, hit: Hit, start: int, end: int, *, number: int, before: str = "", after: str = "") -> Citation:
        """A stretch of a hit, from and to in characters of the document."""
        return cls(
            document_id=hit.document_id, path=hit.path, title=hit.title, kind=hit.kind, page=hit.page,
            heading=hit.heading, start=start, end=end,
            text=hit.text[start - hit.start : end - hit.start], number=number, before=before, after=after,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with its sources, or that there is none.

    Attributes:
        query: The question.
        found: Whether the documents answer it.
        text: The answer as one text; empty where it was not found.
        sentences: The same by sentences.
        citations: What they rest on.
        hits: The passages that were found, best first, also where none answers.
        confidence: From 0 to 1; "not found" below :data:`kogata.ask.answers.evidence.THRESHOLD`.
        notes: Sentences for people, as in a search.
    """

    query: str
    found: bool
    text: str
    sentences: tuple[AnswerSentence, ...]
    citations: tuple[Citation, ...]
    hits: tuple[Hit, ...]
    confidence: float
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "query": self.query,
            "found": self.found,
            "text": self.text,
            "sentences": [asdict(sentence) for sentence in self.sentences],
            "citations": [citation.to_dict() for citation in self.citations],
            "hits": [hit.to_dict() for hit in self.hits],
            "confidence": round(self.confidence, 4),
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found for a question, its sentences weighed.

    Attributes:
        query: The question, as it was searched for.
        hits: The passages, best first.
        evidence: The sentences of the first :data:`PASSAGES` of them.
        confidence: From 0 to 1, that one of the sentences answers.
        notes: Sentences for people.
    """

    query: str
    hits: tuple[Hit, ...]
    evidence: Evidence
    confidence: float
    notes: tuple[str, ...]

    @property
    def enough(self) -> bool:
        """Whether the documents answer the question: the rule for answers of every kind."""
        return self.confidence >= THRESHOLD

    def refusal(self) -> Answer:
        """That the documents do not."""
        return Answer(self.query, False, "", (), (), self.hits, self.confidence, self.notes)


def find(
    store: Store,
    encoder: Encoder | None,
    query: str,
    *,
    k: int = 10,
    where: Filter | None = None,
    exact: bool = False,
) -> Found:
    """What there is to answer a question from. Best inside ``store.snapshot()``.

    Args:
        store: The index.
        encoder: The embedder it was made with; None: by words only.
        query: The question.
        k: How many passages to find; the first :data:`PASSAGES` are read for sentences.
        where: Which documents count.
        exact: As in :func:`kogata.ask.search.retrieve.search`.

    Raises:
        BadInput, EmbedderMismatch: As in a search.
    """
    query, k, notes = retrieve.check_query(query, k, "hybrid")
    with store.snapshot():
        ranking = retrieve.rank(store, encoder, query, k=k, mode="hybrid", where=where, exact=exact)
        hits = retrieve.read_hits(store, ranking, query, k)
        if not hits and not store.n_chunks():
            notes.append("The index holds no document yet. Add some with `kogata index PATH…`.")
        evidence = read(store, encoder, query, ranking, hits)
    confidence = evidence.confidence(with_meaning=ranking.query_D is not None)
    return Found(query, hits, evidence, confidence, (*notes, *ranking.notes))


def answer(
    store: Store,
    encoder: Encoder | None,
    query: str,
    *,
    k: int = 10,
    where: Filter | None = None,
    exact: bool = False,
) -> Answer:
    """Answer a question with sentences of the documents; the arguments and errors are those of :func:`find`."""
    with store.snapshot():
        found = find(store, encoder, query, k=k, where=where, exact=exact)
        if not found.enough:
            return found.refusal()
        groups = _grouped(_chosen(found.evidence, found.hits))
        citations = tuple(
            cite(store, group[0][0], group[0][1], group[-1][2], number) for number, group in enumerate(groups, 1)
        )
    said = tuple(
        AnswerSentence(tidy(hit.text[start - hit.start : end - hit.start]), number)
        for number, group in enumerate(groups, 1)
        for hit, start, end in group
    )
    text = join([sentence.text for sentence in said])
    return Answer(found.query, True, text, said, citations, found.hits, found.confidence, found.notes)


def read(store: Store, encoder: Encoder | None, query: str, ranking: Ranking, hits: Sequence[Hit]) -> Evidence:
    """Weigh the sentences of the first hits."""
    first = hits[:PASSAGES]
    rarity = _rarity(store, query)
    question = None
    passage_tokens: Sequence[TokenVectors | None] = [None] * len(first)
    if encoder is not None and ranking.query_D is not None and first:
        question = encoder.encode_tokens([query], kind="query")[0]
        passage_tokens = encoder.encode_tokens([hit.text for hit in first], kind="document")
    passages = [
        Passage(hit.text, hit.score - first[0].score if question is not None else 0.0, tokens)
        for hit, tokens in zip(first, passage_tokens, strict=True)
    ]
    return weigh(query, question, passages, rarity)


def tidy(sentence: str) -> str:
    """A sentence on one line: list marks gone, lines joined, without a space where Japanese goes on."""
    sentence = _BULLET.sub("", sentence.strip())
    parts = [part for part in _LINE_BREAK.split(sentence) if part]
    return join(parts)


def join(parts: Sequence[str]) -> str:
    """Texts in one line; a space between two of them unless Japanese stands on both sides."""
    text = ""
    for part in parts:
        text += (gap(text, part) if text and part else "") + part
    return text


def gap(before: str, after: str) -> str:
    """What stands between two texts: a space, but nothing where Japanese stands on both sides."""
    return "" if _is_wide(before[-1:]) and _is_wide(after[:1]) else " "


def _is_wide(character: str) -> bool:
    return "\u3000" <= character <= "\u9fff" or "\uf900" <= character <= "\uffef"


def _rarity(store: Store, query: str) -> dict[str, float]:
    """The question's terms with their inverse document frequencies in this index."""
    n = store.n_chunks()
    wanted = query_terms(query)
    rarity: dict[str, float] = {}
    for phrase in dict.fromkeys(fts.query_phrases(query)):
        for term in terms(phrase):
            if term.term in wanted and term.term not in rarity:
                with_it = store.count_words(f'"{phrase[term.start : term.end]}"')
                rarity[term.term] = math.log(1.0 + (n - with_it + 0.5) / (with_it + 0.5))
    return rarity


def _chosen(evidence: Evidence, hits: Sequence[Hit]) -> list[tuple[Hit, int, int]]:
    """The best sentence, and others nearly as good that say something else: (hit, start, end) in the document."""
    order = (-evidence.scores_S).argsort(kind="stable")  # of equals the one that stands first
    best = evidence.scores_S[order[0]]
    chosen: list[tuple[Hit, int, int]] = []
    said: list[set[str]] = []
    for i in order:
        if len(chosen) == MAX_SENTENCES or evidence.scores_S[i] < best - MARGIN:
            break
        number, start, end = evidence.where[i]
        hit = hits[number]
        says = {term.term for term in terms(hit.text[start:end])}
        if any(len(says & other) > _SAME * min(len(says), len(other)) for other in said):
            continue
        said.append(says)
        chosen.append((hit, hit.start + start, hit.start + end))
    return chosen


def _grouped(chosen: Sequence[tuple[Hit, int, int]]) -> list[list[tuple[Hit, int, int]]]:
    """Sentences that one citation can span, in reading order; the groups in the order of their best sentences."""
    groups: list[list[tuple[Hit, int, int]]] = []
    for hit, start, end in chosen:
        for group in groups:
            near = start - group[-1][2] <= _NEAR_CHARS and group[0][1] - end <= _NEAR_CHARS
            if near and group[0][0].chunk_id == hit.chunk_id:
                group.append((hit, start, end))
                group.sort(key=lambda one: one[1])
                break
        else:
            groups.append([(hit, start, end)])
    return groups


def cite(store: Store, hit: Hit, start: int, end: int, number: int) -> Citation:
    """A stretch of a hit, from and to in characters of the document, with the sentences next to it."""
    first = max(0, start - _CONTEXT_CHARS)
    left = store.context(hit.document_id, first, start)
    right = store.context(hit.document_id, end, end + _CONTEXT_CHARS)
    before, after = sentences(left), sentences(right)
    leading = left[before[-1][0] : before[-1][1]] if before else ""
    if leading.strip() in hit.heading:  # the heading is shown beside it
        leading = ""
    following = right[after[0][0] : after[0][1]] if after else ""
    return Citation.of(hit, start, end, number=number, before=leading, after=following)
