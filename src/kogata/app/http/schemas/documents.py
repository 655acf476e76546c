"""/v1/search, /v1/ask, /v1/documents and /v1/status. What the engine answers is spelt out here once more, because its
own types would bring numpy into the http process; a test holds both equal.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from kogata.app.http.schemas.common import Model, Name, Query, Request, Text

K = Annotated[int, Meta(ge=1, le=1000, description="How many passages.")]
Filters = Annotated[list[Name], Meta(max_length=1000)]


class SearchRequest(Request):
    """What `kogata search` takes."""

    query: Query
    k: K = 10
    mode: Literal["hybrid", "meaning", "words"] = "hybrid"
    paths: Filters = field(default_factory=list)
    kinds: Filters = field(default_factory=list)
    exact: bool = False
    model: Model = "default"


class Turn(Request):
    """An earlier question or answer."""

    role: Literal["user", "assistant"]
    content: Text


class AskRequest(Request):
    """What `kogata ask` takes.

    Attributes:
        writer: Let the model that writes answer from the passages, and name them.
        earlier: The turns before this question, oldest first; for the writer.
        stream: As events, while it is written.
        temperature, max_tokens, seed: Of the writer; by default it always takes the likeliest token.
    """

    query: Query
    writer: bool = False
    earlier: Annotated[list[Turn], Meta(max_length=10_000)] = field(default_factory=list)
    stream: bool = False
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    k: K = 10
    paths: Filters = field(default_factory=list)
    kinds: Filters = field(default_factory=list)
    exact: bool = False
    model: Model = "default"


class Place(Struct):
    """Where a text stands: the file, what the document is, and where in it; offsets are characters of its text."""

    path: str
    title: str
    kind: str
    page: int | None
    heading: list[str]
    start: int
    end: int
    text: str
    document_id: int


class Hit(Place):
    rank: int
    score: float
    meaning: float | None
    words: float | None
    chunk_id: int
    snippet: str
    highlights: list[tuple[int, int]]


class SearchResponse(Struct):
    query: str
    mode: str
    hits: list[Hit]
    notes: list[str]
    seconds: float


class AnswerSentence(Struct):
    text: str
    citation: int


class Citation(Place):
    number: int
    before: str
    after: str


class AskResponse(Struct):
    """The last three where a model writes."""

    query: str
    found: bool
    text: str
    sentences: list[AnswerSentence]
    citations: list[Citation]
    hits: list[Hit]
    confidence: float
    notes: list[str]
    model: str | UnsetType | None = UNSET
    finish_reason: Literal["stop", "length"] | UnsetType | None = UNSET
    usage: dict[str, int] | UnsetType | None = UNSET


class DocumentEntry(Struct):
    id: int
    path: str
    name: str
    folder: str
    title: str
    kind: str
    size: int
    modified: float
    state: Literal["meaning", "waiting", "words", "skipped"]
    passages: int
    vectors: int
    code: str | None
    reason: str | None
    encoding: str | None
    n_pages: int | None
    n_chars: int
    uploaded: bool


class DocumentList(Struct):
    total: int
    documents: list[DocumentEntry]


class DocumentText(Struct):
    id: int
    path: str
    title: str
    kind: str
    start: int
    end: int
    n_chars: int
    text: str


class Uploaded(Struct):
    name: str
    path: str
    bytes: int


class UploadResponse(Struct):
    documents: list[Uploaded]


class Deleted(Struct):
    id: int
    deleted: bool
    file_removed: bool


class Emptied(Struct):
    removed: int


class IndexingState(Struct):
    running: bool
    phase: str | None
    done: int
    total: int
    bytes_done: int
    bytes_total: int
    path: str
    eta_seconds: float | None
    error: str | None


class UploadsState(Struct):
    folder: str
    files: int
    bytes: int


class EmbedderEntry(Struct):
    identity: str
    name: str
    dimensions: int
    source: str


class StatusResponse(Struct):
    """As `kogata status --json`, the list of skipped files aside, with what the server does at the moment."""

    kogata: str
    version: int
    place: str
    bytes_index: int
    bytes_segments: int
    embedder: EmbedderEntry | None
    documents: int
    documents_words_only: int
    bytes_documents: int
    chunks: int
    vectors: int
    waiting: int
    words_only: int
    kinds: dict[str, int]
    folders: list[dict[str, Any]]
    unread: int
    n_skipped: int
    skipped_by_code: dict[str, int]
    indexing: IndexingState
    uploads: UploadsState
