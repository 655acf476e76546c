"""Search: the passages that answer a query best, by words, by meaning, or by both."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from kogata.ask.search import fusion
from kogata.ask.search.snippet import after_headings, make_snippet
from kogata.ask.store.rows import check_embedder
from kogata.ask.store.schema import shown
from kogata.ask.words import fts
from kogata.ask.words.terms import query_terms
from kogata.errors import BadInput

if TYPE_CHECKING:
    from kogata.ask.store.filters import Filter
    from kogata.ask.store.reader import Store
    from kogata.run.encoder import Encoder

Mode = Literal["hybrid", "meaning", "words"]

MAX_K = 1_000
"""Most hits that one search returns."""

CANDIDATES = 100
"""How many passages each side puts forward for fusion, at least."""

MIN_COVERAGE = 0.8
"""Below this share of a query inside the embedder's vocabulary its vector says nothing, and only words count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a text stands.

    Attributes:
        document_id: The document in the index.
        path: The file, as the system spells it.
        title, kind, page, heading: What the document is, and where in it the text stands.
        start, end: Character offsets of the text in the document's.
        text: The text.
    """

    document_id: int
    path: bytes
    title: str
    kind: str
    page: int | None
    heading: tuple[str, ...]
    start: int
    end: int
    text: str

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "path": shown(self.path)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit(Source):
    """A passage that was found.

    Attributes:
        rank: 1 for the best.
        score: What the hits are ordered by: the fused score, the cosine or the BM25 score.
        meaning: Cosine of query and passage; None where meaning was not asked or the passage has no vector.
        words: BM25 score; None where words were not asked or none of the query's is among the passage's best.
        chunk_id: The passage in the index.
        snippet: Its most telling part on one line.
        highlights: Spans of the snippet that the query's words match.
    """

    rank: int
    score: float
    meaning: float | None
    words: float | None
    chunk_id: int
    snippet: str
    highlights: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits, best first, and what a person should know about how they were found.

    Attributes:
        query: As it was searched for.
        hits: Best first.
        mode: How the hits were found in the end: "words" where a hybrid search had no usable vectors.
        notes: Sentences for people, such as why meaning did not count.
        seconds: Wall time.
    """

    query: str
    hits: tuple[Hit, ...]
    mode: Mode
    notes: tuple[str, ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        hits = [hit.to_dict() for hit in self.hits]
        return {
            "query": self.query,
            "mode": self.mode,
            "hits": hits,
            "notes": list(self.notes),
            "seconds": round(self.seconds, 6),
        }


@dataclass(frozen=True, slots=True)
class Ranking:
    """Candidates of one query, best first. Shapes: C candidates.

    Attributes:
        ids_C: Chunk ids.
        scores_C: What they are ordered by.
        meaning_C: Cosines, NaN where unknown.
        words_C: BM25 scores, NaN where the words did not find the passage.
        query_D: The query's vector, None where meaning does not count.
        mode: What was used in the end.
        notes: Sentences for people.
    """

    ids_C: npt.NDArray[np.int64]
    scores_C: npt.NDArray[np.float64]
    meaning_C: npt.NDArray[np.float64]
    words_C: npt.NDArray[np.float64]
    query_D: npt.NDArray[np.float32] | None
    mode: Mode
    notes: tuple[str, ...]


def search(
    store: Store,
    encoder: Encoder | None,
    query: str,
    *,
    k: int = 10,
    mode: Mode = "hybrid",
    where: Filter | None = None,
    exact: bool = False,
) -> SearchResult:
    """Find the k passages that match a query best.

    Args:
        store: The index.
        encoder: The embedder the index was made with; None: words only.
        query: A question or some words, in any language.
        k: How many hits, from 1; more than :data:`MAX_K` are not returned, and a note says so.
        mode: "hybrid" (words and meaning), or either alone.
        where: Which documents count.
        exact: Compare with every vector in full instead of a shortlist by a prefix.

    Raises:
        BadInput: An empty or overlong query, k below 1, an unknown mode or document type.
        EmbedderMismatch: The index holds vectors of another embedder.
    """
    started = time.perf_counter()
    query, k, notes = check_query(query, k, mode)
    with store.snapshot():
        ranking = rank(store, encoder, query, k=k, mode=mode, where=where, exact=exact)
        hits = read_hits(store, ranking, query, k)
    return SearchResult(query, hits, ranking.mode, (*notes, *ranking.notes), time.perf_counter() - started)


def check_query(query: str, k: int, mode: str) -> tuple[str, int, list[str]]:
    """The query cleaned, k bounded, and notes on what was changed. Raises BadInput."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise BadInput(f"k is {k!r}, and has to be a whole number from 1: the number of hits to return.")
    if mode not in get_args(Mode):
        raise BadInput(f"There is no search mode {mode!r}; there are: {', '.join(get_args(Mode))}.")
    notes = [] if k <= MAX_K else [f"At most {MAX_K:,} hits are returned."]
    return fts.check_query(query), min(int(k), MAX_K), notes


def rank(
    store: Store,
    encoder: Encoder | None,
    query: str,
    *,
    k: int,
    mode: Mode,
    where: Filter | None,
    exact: bool,
) -> Ranking:
    """Order passages for a checked query. Best inside ``store.snapshot()``."""
    notes: list[str] = []
    depth = max(CANDIDATES, k)
    allowed = store.allowed(where)
    if allowed is not None and not allowed.size:
        return _nothing(mode, "No indexed document passes the filter.")
    query_D = None
    if mode != "words":
        query_D, remark = _query_vector(store, encoder, query)
        instead = ": found by words only" if query_D is None and mode == "hybrid" else ""
        notes += [f"{remark}{instead}."] if remark else []
        waiting = store.waiting()
        if query_D is not None and waiting:
            how = "they are not found yet" if mode == "meaning" else "they are found by words only"
            notes.append(f"{waiting:,} passages still wait for their vectors; {how}.")
    if mode == "hybrid" and query_D is None:
        mode = "words"

    found = _by_words(store, query, depth, where, notes) if mode != "meaning" else []
    words_ids = np.array([id_ for id_, _ in found], dtype=np.int64)
    words_scores = np.array([score for _, score in found], dtype=np.float64)
    if mode == "words" or query_D is None:
        unknown = np.full(len(found), np.nan)
        return Ranking(words_ids, words_scores, unknown, words_scores, None, mode, tuple(notes))

    vectors = store.vectors()
    cosines, meaning_ids = vectors.search(query_D, depth, exact=exact, allowed=allowed)
    if mode == "meaning":
        scores = cosines.astype(np.float64)
        unknown = np.full(len(scores), np.nan)
        return Ranking(meaning_ids, scores, scores, unknown, query_D, mode, tuple(notes))

    # What only the words found gets its cosine computed: a shortlist's edge must not decide.
    missing = np.setdiff1d(words_ids, meaning_ids)
    extra_cosines = vectors.scores(query_D, missing)
    ids = np.union1d(words_ids, meaning_ids)
    meaning = _aligned(ids, np.concatenate([meaning_ids, missing]), np.concatenate([cosines, extra_cosines]))
    by_words = _aligned(ids, words_ids, words_scores)
    # What the words did not find scored at most as much as their last, and 0 if they found all there was.
    floor = words_scores.min() if len(found) == depth else 0.0
    # Where few of the passages that the words found have a vector (most wait for theirs, or their script is not
    # covered), the few that have one would win by it alone: meaning counts as much as it knows.
    share = float(np.mean(~np.isnan(meaning[np.isin(ids, words_ids)]))) if len(found) else 1.0
    fused = fusion.fuse(meaning, np.where(np.isnan(by_words), floor, by_words), fusion.WEIGHT * share)
    order = fusion.best_first(fused, ids, len(ids))
    return Ranking(ids[order], fused[order], meaning[order], by_words[order], query_D, mode, tuple(notes))


def read_hits(store: Store, ranking: Ranking, query: str, k: int) -> tuple[Hit, ...]:
    """The first k passages of a ranking, with their texts and snippets."""
    wanted = query_terms(query)
    place = {int(id_): position for position, id_ in enumerate(ranking.ids_C[:k])}
    hits: list[Hit] = []
    for row in store.chunk_rows(list(place)):
        position = place[row.id]
        snippet, highlights = make_snippet(after_headings(row.text, row.heading), wanted)
        hits.append(
            Hit(
                rank=len(hits) + 1,
                score=float(ranking.scores_C[position]),
                meaning=_known(ranking.meaning_C[position]),
                words=_known(ranking.words_C[position]),
                chunk_id=row.id,
                document_id=row.document_id,
                path=row.path,
                title=row.title,
                kind=row.kind,
                page=row.page,
                heading=row.heading,
                start=row.start,
                end=row.end,
                text=row.text,
                snippet=snippet,
                highlights=highlights,
            )
        )
    return tuple(hits)


def _query_vector(
    store: Store, encoder: Encoder | None, query: str
) -> tuple[npt.NDArray[np.float32] | None, str | None]:
    """The query's vector, or why there is none; with a vector, a remark or None. Remarks are without a full stop."""
    if encoder is None:
        return None, None
    if store.embedder() is None:
        return None, "The index holds no vectors yet"
    check_embedder(store.embedder(), encoder.identity, encoder.name)
    coverage = encoder.tokenizer.coverage(query)
    if coverage < MIN_COVERAGE:
        return None, f"The embedder {encoder.name} does not know the script of this query"
    length = encoder.tokenizer.count([encoder.prompts.get("query", "") + query])[0] + encoder.tokenizer.n_special
    remark = None
    if length > encoder.max_length:
        remark = (
            f"The query has {length:,} tokens and the embedder reads {encoder.max_length:,} at once: "
            "its meaning is the mean over windows of it"
        )
    return np.asarray(encoder.encode_query(query, long_texts="window"), dtype=np.float32), remark


def _by_words(store: Store, query: str, depth: int, where: Filter | None, notes: list[str]) -> list[tuple[int, float]]:
    match = fts.match_query(query)
    if match is None:
        notes.append("The query has no letters or digits to look for by words.")
        return []
    return store.words(match, depth, where)


def _aligned(
    ids: npt.NDArray[np.int64], some_ids: npt.NDArray[np.int64], scores: npt.NDArray[np.floating[Any]]
) -> npt.NDArray[np.float64]:
    """`scores` of `some_ids` in the order of the sorted `ids`, NaN elsewhere."""
    aligned = np.full(len(ids), np.nan)
    aligned[np.searchsorted(ids, some_ids)] = scores
    return aligned


def _known(score: float) -> float | None:
    return None if np.isnan(score) else float(score)


def _nothing(mode: Mode, note: str) -> Ranking:
    none = np.empty(0, dtype=np.float64)
    return Ranking(np.empty(0, dtype=np.int64), none, none, none, None, mode, (note,))
