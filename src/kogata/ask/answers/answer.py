"""Ask: an answer made of the best sentences of the best passages, each with where it stands."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

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
_MARK = re.compile(r"\[(\d+)\]")
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


class Generator(Protocol):
    """What writes an answer from passages: the seam for a chat model."""

    def generate(self, query: str, passages: Sequence[Citation]) -> Iterator[str]:
        """Pieces of the answer as they are written. A source is named as ``[1]``, by the passage's number."""


def answer(
    store: Store,
    encoder: Encoder | None,
    query: str,
    *,
    k: int = 10,
    where: Filter | None = None,
    exact: bool = False,
    generator: Generator | None = None,
) -> Answer:
    """Answer a question from the documents.

    Args:
        store: The index.
        encoder: The embedder it was made with; None: by words only.
        query: The question.
        k: How many passages to find; the first :data:`PASSAGES` are read for sentences.
        where: Which documents count.
        exact: As in :func:`kogata.ask.search.retrieve.search`.
        generator: Writes the answer from the passages, which it gets in reading order; None: the sentences themselves.

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
        found = confidence >= THRESHOLD
        written: tuple[AnswerSentence, ...] = ()
        citations: tuple[Citation, ...] = ()
        if found and generator is None:
            chosen = _chosen(evidence, hits)
            groups = _grouped(chosen)
            citations = _cite(store, groups)
            written = tuple(
                AnswerSentence(tidy(hit.text[start - hit.start : end - hit.start]), number)
                for number, group in enumerate(groups, 1)
                for hit, start, end in group
            )
    if found and generator is not None:
        written, citations = _generated(generator, query, hits[:PASSAGES])
    text = join([sentence.text for sentence in written])
    return Answer(query, found, text, written, citations, hits, confidence, (*notes, *ranking.notes))


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
    """Texts in one line; a space between them unless Japanese stands on either side."""
    text = ""
    for part in parts:
        gap = " " if text and part and not (_is_wide(text[-1]) or _is_wide(part[0])) else ""
        text += gap + part
    return text


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


def _cite(store: Store, groups: Sequence[Sequence[tuple[Hit, int, int]]]) -> tuple[Citation, ...]:
    citations: list[Citation] = []
    for number, group in enumerate(groups, 1):
        hit, start, end = group[0][0], group[0][1], group[-1][2]
        first = max(0, start - _CONTEXT_CHARS)
        left = store.context(hit.document_id, first, start)
        right = store.context(hit.document_id, end, end + _CONTEXT_CHARS)
        before, after = sentences(left), sentences(right)
        leading = left[before[-1][0] : before[-1][1]] if before else ""
        if leading.strip() in hit.heading:  # the heading is shown beside it
            leading = ""
        following = right[after[0][0] : after[0][1]] if after else ""
        citations.append(Citation.of(hit, start, end, number=number, before=leading, after=following))
    return tuple(citations)


def _generated(
    generator: Generator, query: str, hits: Sequence[Hit]
) -> tuple[tuple[AnswerSentence, ...], tuple[Citation, ...]]:
    """An answer written by a generator from the passages in reading order, with the sources that it names."""
    ordered = sorted(hits, key=lambda hit: (min(h.rank for h in hits if h.document_id == hit.document_id), hit.start))
    passages = [Citation.of(hit, hit.start, hit.end, number=number) for number, hit in enumerate(ordered, 1)]
    text = "".join(generator.generate(query, passages))
    written: list[AnswerSentence] = []
    named: set[int] = set()
    for start, end in sentences(text):
        numbers = [int(mark) for mark in _MARK.findall(text[start:end]) if 1 <= int(mark) <= len(passages)]
        named.update(numbers)
        plain = _MARK.sub("", text[start:end]).strip()
        if plain:
            written.append(AnswerSentence(plain, numbers[0] if numbers else 0))
        elif numbers and written and not written[-1].citation:  # "A sentence. [1]": the mark was cut off from it
            written[-1] = AnswerSentence(written[-1].text, numbers[0])
    return tuple(written), tuple(passage for passage in passages if passage.number in named)
