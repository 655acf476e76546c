"""A document cut into chunks of bounded length, at natural borders.

Counting tokens is the cost here, so it is done in a few large batches: once for all blocks, once for the sentences of
blocks that are too long, once for the finished chunks. Chunks never overlap and together hold every character that is
not white space.
"""

from __future__ import annotations

import math
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice, pairwise

from kogata.ask.documents.borders import sentences
from kogata.ask.documents.model import Block, Document

CountTokens = Callable[[list[str]], list[int]]

# A tokenizer may call a word of any length one [UNK]; a chunk of that is still no passage.
_MOST_CHARACTERS_PER_TOKEN = 16
# Below this share of a full chunk a heading or page does not begin a new one: short sections share a chunk.
_SHORT = 0.3
_CLAUSE = re.compile(r"[、，,;；:：)）」』]\s*")
_JOINERS = frozenset("\u200d\ufe0e\ufe0f\u3099\u309a\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage: ``document.text[start:end]``.

    Attributes:
        page: Where most of it stands (page, slide, sheet or message), from 1; None where the format has none.
        heading: The headings in force for its first words that are not a heading themselves.
        n_tokens: As ``count_tokens`` gave, without special tokens.
    """

    start: int
    end: int
    page: int | None
    heading: tuple[str, ...]
    n_tokens: int


@dataclass(frozen=True, slots=True)
class _Piece:
    start: int
    end: int
    n_tokens: int
    is_heading: bool


def chunk(document: Document, count_tokens: CountTokens, *, max_tokens: int = 200) -> list[Chunk]:
    """Cut a document into chunks of at most ``max_tokens``.

    Borders are sought between pages and sections, blocks, sentences or lines, clauses, words, and only then within a
    word. A heading stays with what follows it. Slides, sheets and messages never share a chunk: what is cited from one
    must not bear another's number.

    Args:
        count_tokens: Tokens of each text, without special ones; called with large batches.
        max_tokens: The most tokens of a chunk. (A single character that is more tokens than this is kept whole.)
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens is {max_tokens}; it must be at least 1.")
    pieces = _pieces(document, count_tokens, max_tokens)
    packs = _pack(pieces, max_tokens, _parts(document, max_tokens))
    spans = _within(document.text, packs, count_tokens, max_tokens)
    starts = [block.start for block in document.blocks]
    return [_chunk(document.blocks, starts, start, end, n) for start, end, n in spans]


def _parts(document: Document, max_tokens: int) -> dict[int, float]:
    """Where headings and pages begin -> how many tokens a chunk must have before it ends there."""
    short = _SHORT * max_tokens
    parts = {block.start: short for block in document.blocks if block.kind == "heading"}
    for before, block in pairwise(document.blocks):
        if block.page != before.page:
            parts[block.start] = short if document.kind == "pdf" else 0
    return parts


def _chunk(blocks: tuple[Block, ...], starts: list[int], start: int, end: int, n_tokens: int) -> Chunk:
    index = bisect_right(starts, start) - 1
    body = blocks[index]
    on_page: Counter[int | None] = Counter()
    for block in islice(blocks, index, bisect_left(starts, end)):
        on_page[block.page] += min(block.end, end) - max(block.start, start)
    while body.kind == "heading" and index + 1 < len(blocks) and blocks[index + 1].start < end:
        index += 1
        body = blocks[index]
    return Chunk(start, end, on_page.most_common(1)[0][0], body.heading, n_tokens)


def _pieces(document: Document, count_tokens: CountTokens, max_tokens: int) -> list[_Piece]:
    """Blocks, and the parts of those that are too long to share a chunk with their heading."""
    text = document.text
    runs = _runs(document)
    counts = count_tokens([text[start:end] for start, end, _ in runs])
    longest = max_tokens * _MOST_CHARACTERS_PER_TOKEN
    small: list[_Piece | None] = []
    parts: list[tuple[int, int]] = []
    order: list[int] = []  # position in `small` that parts[i] belongs to
    carried = 0
    for (start, end, kind), n_tokens in zip(runs, counts, strict=True):
        is_heading = kind == "heading"
        room = max_tokens - (carried if carried <= max_tokens // 2 else 0)
        if n_tokens <= (max_tokens if is_heading else room) and end - start <= longest:
            small.append(_Piece(start, end, n_tokens, is_heading))
        else:
            small.append(None)
            cut = _lines(text, start, end) if kind in ("table", "code", "list") else _sentences(text, start, end)
            parts += cut
            order += [len(small) - 1] * len(cut)
        carried = carried + n_tokens if is_heading else 0
    split = _within(text, [[_Piece(s, e, 0, False)] for s, e in parts], count_tokens, max_tokens)
    by_place: dict[int, list[_Piece]] = {}
    at = 0
    for start, end, n_tokens in split:
        while at < len(parts) - 1 and start >= parts[at][1]:
            at += 1
        by_place.setdefault(order[at], []).append(_Piece(start, end, n_tokens, False))
    return [p for i, piece in enumerate(small) for p in ([piece] if piece is not None else by_place.get(i, []))]


def _runs(document: Document) -> list[tuple[int, int, str]]:
    """Blocks, those that go on across a page joined."""
    runs: list[tuple[int, int, str]] = []
    for block in document.blocks:
        if runs and block.kind == runs[-1][2] == "paragraph" and "\n" not in document.text[runs[-1][1] : block.start]:
            runs[-1] = (runs[-1][0], block.end, "paragraph")
        else:
            runs.append((block.start, block.end, block.kind))
    return runs


def _sentences(text: str, start: int, end: int) -> list[tuple[int, int]]:
    return [(start + a, start + b) for a, b in sentences(text[start:end])]


def _lines(text: str, start: int, end: int) -> list[tuple[int, int]]:
    lines = []
    for match in re.finditer(r"\S[^\n]*", text[start:end]):
        stop = match.start() + len(match[0].rstrip())
        lines.append((start + match.start(), start + stop))
    return lines


def _pack(pieces: list[_Piece], max_tokens: int, parts: dict[int, float]) -> list[list[_Piece]]:
    """Neighbours that fit together; a new part begins a chunk unless the one before has too few tokens."""
    packs: list[list[_Piece]] = []
    current: list[_Piece] = []
    total = body = 0
    longest = max_tokens * _MOST_CHARACTERS_PER_TOKEN
    for piece in pieces:
        full = current and (
            total + piece.n_tokens > max_tokens
            or piece.end - current[0].start > longest
            or (body >= parts.get(piece.start, math.inf) and not current[-1].is_heading)
        )
        if full:
            tail = len(current)
            while tail > 0 and current[tail - 1].is_heading and not piece.is_heading:
                tail -= 1
            carried = current[tail:]
            if tail == 0 or sum(p.n_tokens for p in carried) + piece.n_tokens > max_tokens:
                tail, carried = len(current), []
            packs.append(current[:tail])
            current = carried
            total, body = sum(p.n_tokens for p in current), 0
        current.append(piece)
        total += piece.n_tokens
        body += 0 if piece.is_heading else piece.n_tokens
    if current:
        packs.append(current)
    return packs


def _within(
    text: str, packs: list[list[_Piece]], count_tokens: CountTokens, max_tokens: int
) -> list[tuple[int, int, int]]:
    """(start, end, tokens) of each pack as one text; what is too long after all is cut in two or more."""
    done: list[tuple[int, int, int]] = []
    longest = max_tokens * _MOST_CHARACTERS_PER_TOKEN
    while packs:
        spans = [(pack[0].start, pack[-1].end) for pack in packs]
        counts = count_tokens([text[start:end] for start, end in spans])
        again: list[list[_Piece]] = []
        for pack, (start, end), n_tokens in zip(packs, spans, counts, strict=True):
            if (n_tokens <= max_tokens and end - start <= longest) or end - start <= 1:
                done.append((start, end, n_tokens))
            elif len(pack) > 1:
                middle = len(pack) // 2
                while middle > 1 and pack[middle - 1].is_heading:
                    middle -= 1
                again += [pack[:middle], pack[middle:]]
            else:
                parts = max(-(-n_tokens * 11 // (max_tokens * 10)), -(-(end - start) // longest), 2)
                again += [[_Piece(s, e, 0, False)] for s, e in _cut(text, start, end, parts)]
        packs = again
    return sorted(done)


def _cut(text: str, start: int, end: int, parts: int) -> list[tuple[int, int]]:
    """Cut where it hurts least: about equal parts, each ending at a line, clause or word if there is one near."""
    target = max((end - start) // parts, 1)
    spans: list[tuple[int, int]] = []
    while start < end:
        stop = _best_stop(text, start, min(start + target, end), end) if end - start > target * 1.2 else end
        first, last = start, stop
        while first < last and text[first].isspace():
            first += 1
        while last > first and text[last - 1].isspace():
            last -= 1
        if first < last:
            spans.append((first, last))
        start = stop
    if len(spans) == 1 and spans[0][1] - spans[0][0] > 1:  # nothing was gained: halve it, whatever is there
        first, last = spans[0]
        middle = _whole_character(text, first, (first + last) // 2, last)
        return [(first, middle), (middle, last)]
    return spans


def _best_stop(text: str, start: int, stop: int, end: int) -> int:
    window = max(start + 1, stop - max((stop - start) // 3, 1))
    near = text[window:stop]
    if (line := near.rfind("\n")) >= 0:
        return window + line + 1
    clauses = list(_CLAUSE.finditer(near))
    if clauses:
        return window + clauses[-1].end()
    for index in range(len(near) - 1, -1, -1):
        if near[index].isspace():
            return window + index + 1
    for index in range(len(near) - 1, 0, -1):
        if not near[index].isalnum() or _is_wide(near[index]) or _is_wide(near[index - 1]):
            return _whole_character(text, start, window + index, end)
    return _whole_character(text, start, stop, end)


def _is_wide(character: str) -> bool:
    return "\u2e80" <= character <= "\u9fff"


def _whole_character(text: str, start: int, at: int, end: int) -> int:
    """The nearest place not within what a reader sees as one character (accents, emoji sequences)."""
    place = at
    while start + 1 < place < end and (_joins(text[place]) or text[place - 1] == "\u200d"):
        place -= 1
    if place > start + 1 or not _joins(text[start + 1 : start + 2] or "a"):
        return place if start < place < end else min(max(at, start + 1), end)
    return min(max(at, start + 1), end)


def _joins(character: str) -> bool:
    return character in _JOINERS or unicodedata.combining(character) != 0
