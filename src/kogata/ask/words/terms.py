"""Terms in a text, with their offsets: what the full-text index matched, found again for snippets and answers.

A term is a stemmed word without accents, or a pair of kanji or kana (the single character where it stands alone).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from kogata.ask.words import fts
from kogata.ask.words.stem import stem

# As in fts.py, but over unfolded text: half-width kana are one run with their voicing marks.
_CJK = fts.CJK + "\uff66-\uff9f"
_UNIT = re.compile(f"(?P<cjk>[{_CJK}][{_CJK}\u3099\u309a]*)|(?P<word>[^\\W_{_CJK}]+)")
_CLUSTER = re.compile("[^\u3099\u309a\uff9e\uff9f][\u3099\u309a\uff9e\uff9f]?|.")
_ONE_CJK = re.compile(f"[{fts.CJK}]")


class Term(NamedTuple):
    """``text[start:end]`` and the term it is searched by."""

    start: int
    end: int
    term: str


def terms(text: str) -> Iterator[Term]:
    """Every term of `text`, in order. Pairs of kanji or kana overlap."""
    for unit in _UNIT.finditer(text):
        start = unit.start()
        if unit["word"]:
            yield Term(start, unit.end(), _word_term(unit["word"]))
            continue
        characters = _folded_characters(unit["cjk"], start)
        if len(characters) == 1:
            yield characters[0]
        for left, right in pairwise(characters):
            yield Term(left.start, right.end, left.term + right.term)


def query_terms(query: str) -> set[str]:
    """The terms a query is searched by; its stop words only where it has nothing else."""
    found: set[str] = set()
    for phrase in fts.query_phrases(query):
        found.update(term.term for term in terms(phrase))
    content = {term for term in found if term not in _STOP_TERMS}
    return content or found


def find(text: str, wanted: Collection[str]) -> list[tuple[int, int]]:
    """Where `text` has one of the `wanted` terms: sorted spans, those that touch or overlap merged."""
    spans = [(term.start, term.end) for term in terms(text) if term.term in wanted]
    for character in wanted:
        if len(character) == 1 and _ONE_CJK.fullmatch(character):
            spans += [(i, i + 1) for i, c in enumerate(text) if c == character]
    spans.sort()
    merged: list[tuple[int, int]] = []
    for start, end in spans:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


@lru_cache(maxsize=65_536)
def _word_term(word: str) -> str:
    if not word.isascii():
        decomposed = unicodedata.normalize("NFKD", word)
        word = unicodedata.normalize("NFC", "".join(c for c in decomposed if not unicodedata.combining(c)))
    return stem(word.lower())


def _folded_characters(run: str, offset: int) -> list[Term]:
    """The characters of a run after :func:`fts.fold`, each with the span in the text that it came from."""
    if len(folded := fts.fold(run)) == len(run):
        return [Term(offset + i, offset + i + 1, character) for i, character in enumerate(folded)]
    characters: list[Term] = []
    for cluster in _CLUSTER.finditer(run):
        for character in fts.fold(cluster.group()):
            characters.append(Term(offset + cluster.start(), offset + cluster.end(), character))
    unrolled = fts.fold("".join(character.term for character in characters))
    return [Term(c.start, c.end, unrolled[i]) for i, c in enumerate(characters)]


_STOP_TERMS = frozenset(term.term for word in fts.STOP_WORDS for term in terms(word))
