"""`kogata mcp`: search and ask for assistants, over the Model Context Protocol on stdin and stdout.

An assistant reads text better than fields, so each tool answers with text in which every passage carries its source.
Importing this needs the protocol's SDK (extra `mcp`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import Field

from kogata import __version__
from kogata.ask.store.catalogue import read_entry
from kogata.ask.store.schema import shown
from kogata.errors import BadInput, KogataError

if TYPE_CHECKING:
    from kogata.ask.index import Index
    from kogata.ask.search.retrieve import Source

INSTRUCTIONS = (
    "The user's own documents, indexed by Kogata on this machine. Use `ask` for a question with one answer in the "
    "documents, `search` for material on a subject, `read` for what stands around a passage. Name the source of what "
    "you take from them: the file, and the page or heading."
)
MOST_CHARS = 20_000
"""Characters that one call of `read` returns."""

Query = Annotated[str, Field(description="A question or some words, in any language.")]
K = Annotated[int, Field(ge=1, le=50, description="How many passages.")]
Mode = Annotated[Literal["hybrid", "meaning", "words"], Field(description="By words and meaning, or one of them.")]
Paths = Annotated[tuple[str, ...], Field(description="Only these files, folders or globs.")]
Kinds = Annotated[tuple[str, ...], Field(description="Only these types, such as pdf or md.")]
DocumentId = Annotated[int, Field(ge=1, lt=2**63, description="A document's number, as `search` gives it.")]
Offset = Annotated[int, Field(ge=0, lt=2**62, description="A character of the document's text.")]


class Tools:
    """What an assistant can call; the docstrings are what it is told of them."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def search(self, query: Query, k: K = 8, mode: Mode = "hybrid", paths: Paths = (), kinds: Kinds = ()) -> str:
        """Find the passages of the user's documents that fit a query best, by words and by meaning."""
        with _told():
            found = self._index.search(query, k, mode, paths=paths, kinds=kinds)
        passages = [
            f"[{hit.rank}] {_place(hit)} (document {hit.document_id}, characters {hit.start} to {hit.end})\n{hit.text}"
            for hit in found.hits
        ]
        return "\n\n".join([*found.notes, *(passages or ["Nothing was found."])])

    def ask(self, question: Query, paths: Paths = (), kinds: Kinds = ()) -> str:
        """Answer a question with sentences of the user's documents, each with its source, or say it is not there."""
        with _told():
            found = self._index.ask(question, paths=paths, kinds=kinds)
        if not found.found:
            nearest = [f"- {_place(hit)}: {hit.snippet}" for hit in found.hits[:3]]
            return "\n".join([*found.notes, "Not found in these documents. What comes nearest:", *(nearest or ["-"])])
        sentences = " ".join(f"{sentence.text} [{sentence.citation}]" for sentence in found.sentences)
        sources = [
            f"[{source.number}] {_place(source)}: {source.before} {source.text} {source.after}"
            for source in found.citations
        ]
        return "\n\n".join([*found.notes, sentences, *sources])

    def read(self, document: DocumentId, start: Offset = 0, end: Offset | None = None) -> str:
        """Read a stretch of a document's text, at most 20,000 characters at once."""
        with _told():
            entry = read_entry(self._index.store, document)
            if entry is None:
                raise BadInput(f"There is no document {document}.")
            last = min(entry.n_chars if end is None else end, start + MOST_CHARS)
            text = self._index.store.context(document, start, last)
        return f"{shown(entry.path)}, characters {start} to {start + len(text)} of {entry.n_chars}\n\n{text}"

    def status(self) -> str:
        """Say which folders are indexed, and how much of them can be searched."""
        with _told():
            now = self._index.status()
        waiting = f", {now.waiting} of them by words only so far" if now.waiting else ""
        folders = [f"- {shown(folder.path)}: {folder.documents} documents" for folder in now.folders]
        return "\n".join([f"{now.documents} documents, {now.chunks} passages{waiting}", *folders])


def run(index: Index) -> int:
    """Serve an index until stdin ends."""
    server = MCPServer("kogata", title="Kogata", instructions=INSTRUCTIONS, version=__version__, log_level="WARNING")
    tools = Tools(index)
    only_reads = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    for tool in (tools.search, tools.ask, tools.read, tools.status):
        server.add_tool(tool, annotations=only_reads, structured_output=False)
    server.run("stdio")
    return 0


def _place(source: Source) -> str:
    """The file, and the page and heading where there are any."""
    page = [] if source.page is None else [f"page {source.page}"]
    return ", ".join([shown(source.path), *page, *([" > ".join(source.heading)] if source.heading else [])])


@contextmanager
def _told() -> Iterator[None]:
    """Our errors as the protocol's: a sentence for the assistant."""
    try:
        yield
    except KogataError as error:
        raise ToolError(str(error) if error.hint is None else f"{error} {error.hint}") from None
