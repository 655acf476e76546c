"""What ``kogata search`` and ``kogata ask`` print."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kogata.app.show import near, place
from kogata.app.terminal import Piece, Screen, cells, safe
from kogata.ask.answers.answer import gap

if TYPE_CHECKING:
    from kogata.ask.answers.answer import Answer, Citation
    from kogata.ask.answers.written import WrittenAnswer
    from kogata.ask.search.retrieve import Hit, SearchResult

_NEAREST = 3  # passages offered where there is no answer


def print_search(screen: Screen, result: SearchResult) -> None:
    """Numbered passages: where each is, and the part that fits the query with its words marked."""
    if not result.hits:
        screen.flow([("Nothing found for ", ""), (_quoted(result.query), "bold"), (".", "")])
    width = len(str(len(result.hits)))
    for number, hit in enumerate(result.hits):
        if number:
            screen.line()
        _print_hit(screen, hit, f"{hit.rank:>{width}}  ")
    _print_notes(screen, result.notes)


def print_answer(screen: Screen, answer: Answer) -> None:
    """The answer's sentences with their numbers, then the sources with what stands around each."""
    if not answer.found:
        _print_not_found(screen, answer)
        return
    pieces: list[Piece] = []
    for sentence in answer.sentences:
        pieces += [(" " if pieces else "", ""), (sentence.text.strip(), "bold"), (f" [{sentence.citation}]", "number")]
    screen.flow(pieces)
    for citation in answer.citations:
        screen.line()
        _print_citation(screen, citation)
    _print_notes(screen, answer.notes)


def print_sources(screen: Screen, answer: WrittenAnswer) -> None:
    """Below an answer that a model wrote: the passages that it names, of each the part that fits the question best."""
    from kogata.ask.search.snippet import after_headings, make_snippet
    from kogata.ask.words.terms import query_terms

    if not answer.citations:
        screen.line()
        screen.flow([("Passages that it was given:", "")])
        for number, hit in enumerate(answer.hits[:_NEAREST], 1):
            screen.line()
            _print_hit(screen, hit, f"{number}  ")
    wanted = query_terms(answer.query)
    for citation in answer.citations:
        screen.line()
        snippet, highlights = make_snippet(after_headings(citation.text, citation.heading), wanted)
        first = f"  [{citation.number}] "
        indent = " " * cells(first)
        _print_source(screen, citation, screen.style(first, "number"), first, indent)
        screen.flow(_marked(snippet, highlights), first=indent, indent=indent)
    _print_notes(screen, answer.notes)


def _print_not_found(screen: Screen, answer: Answer) -> None:
    screen.flow([("Not found in these documents: ", "bold"), (_quoted(answer.query), ""), (".", "")])
    nearest = answer.hits[:_NEAREST]
    if nearest:
        screen.flow([("No sentence answers it well enough. The passages that come nearest:", "")])
        for number, hit in enumerate(nearest, 1):
            screen.line()
            _print_hit(screen, hit, f"{number}  ")
    else:
        screen.flow([("No passage of the index has anything to do with it (`kogata status` shows what it holds).", "")])
    _print_notes(screen, answer.notes)


def _print_hit(screen: Screen, hit: Hit, first: str) -> None:
    indent = " " * cells(first)
    _print_source(screen, hit, screen.style(first, "number"), first, indent)
    screen.flow(_marked(hit.snippet, hit.highlights), first=indent, indent=indent)


def _print_citation(screen: Screen, citation: Citation) -> None:
    first = f"  [{citation.number}] "
    indent = " " * cells(first)
    _print_source(screen, citation, screen.style(first, "number"), first, indent)
    before, after = citation.before.strip(), citation.after.strip()
    pieces: list[Piece] = []
    if before:
        blank = citation.before[len(citation.before.rstrip()) :]  # a heading stays apart from what it is over
        pieces.append(("…" + before + (" " if "\n\n" in blank else gap(before, citation.text)), "dim"))
    pieces.append((citation.text.strip(), ""))
    if after:
        pieces.append((gap(citation.text, after) + after + "…", "dim"))
    screen.flow(pieces, first=indent, indent=indent)


def _print_source(screen: Screen, source: Hit | Citation, styled: str, plain: str, indent: str) -> None:
    """``1  notes/tides.md, page 8, "Decoding speed"``, wrapped under itself."""
    where = place(source.page, source.heading)
    pieces: list[Piece] = [(near(source.path), "path")]
    if where:
        pieces.append((", " + where, ""))
    elif source.title and source.title.strip():
        pieces.append((f', "{safe(source.title.strip())}"', ""))
    for number, line in enumerate(screen.lines(pieces, first=plain, indent=indent)):
        screen.line((styled + line[len(plain) :]) if number == 0 else line)


def _marked(text: str, spans: tuple[tuple[int, int], ...]) -> list[Piece]:
    """Pieces of a snippet, the query's terms as hits."""
    pieces: list[Piece] = []
    at = 0
    for start, end in sorted(spans):
        pieces += [(text[at:start], ""), (text[max(at, start) : end], "hit")]
        at = max(at, end)
    pieces.append((text[at:], ""))
    return [piece for piece in pieces if piece[0]]


def _quoted(query: str) -> str:
    text = safe(query).strip()
    return '"' + (text if len(text) <= 120 else text[:119] + "…") + '"'


def _print_notes(screen: Screen, notes: tuple[str, ...]) -> None:
    if notes:
        screen.line()
    for note in notes:
        screen.flow([(f"Note: {note}", "dim")])
