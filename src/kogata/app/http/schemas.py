"""What the API accepts and answers. Unknown fields are refused by name, so that a misspelt option is not ignored.

The OpenAPI document is made from these (openapi.py). What the engine answers is spelt out here once more, because its
own types would bring numpy into the http process; a test holds both equal.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

Text = Annotated[str, Meta(max_length=1_000_000, description="At most 1,000,000 characters.")]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Tokens = Annotated[list[TokenId], Meta(min_length=1, max_length=100_000)]
Inputs = Annotated[list[Text | TokenId | Tokens], Meta(min_length=1, max_length=100_000)]
Name = Annotated[str, Meta(max_length=1024)]
Model = Annotated[Name, Meta(description="`default`, or an id that /v1/models lists.")]
Query = Annotated[str, Meta(max_length=1_000_000, description="A question or some words, in any language.")]
K = Annotated[int, Meta(ge=1, le=1000, description="How many passages.")]
Filters = Annotated[list[Name], Meta(max_length=1000)]


class Request(Struct, forbid_unknown_fields=True, kw_only=True):
    """Base of what is sent to us."""


class EmbeddingsRequest(Request):
    """As OpenAI's, and `input_type` beside it.

    Attributes:
        input: One text or several; or token ids of this model, without special tokens.
        dimensions: How many leading dimensions to keep.
        encoding_format: base64 is float32, little-endian.
        input_type: Whether these are questions or passages: the model reads them differently.
        long_texts: A text longer than the model reads is refused, or read in windows.
        user: Accepted for other servers' sake; not used.
    """

    input: Text | Inputs
    model: Model = "default"
    dimensions: Annotated[int, Meta(ge=1, le=65_536)] | None = None
    encoding_format: Literal["float", "base64"] | None = "float"
    input_type: Literal["query", "document", "search_query", "search_document", "passage"] | None = "document"
    long_texts: Literal["refuse", "window"] = "refuse"
    user: Name | None = None


class SearchRequest(Request):
    """What `kogata search` takes."""

    query: Query
    k: K = 10
    mode: Literal["hybrid", "meaning", "words"] = "hybrid"
    paths: Filters = []
    kinds: Filters = []
    exact: bool = False
    model: Model = "default"


class AskRequest(Request):
    """What `kogata ask` takes."""

    query: Query
    k: K = 10
    paths: Filters = []
    kinds: Filters = []
    exact: bool = False
    model: Model = "default"


class RerankDocument(Struct, kw_only=True):
    """A document as an object; of its fields only the text is read, and given back where documents are asked for."""

    text: Text


class RerankRequest(Request):
    """As Jina's and Cohere's clients send it.

    Attributes:
        top_n: How many of the best to answer with; all where it is not said.
        return_documents: Answer with the texts as well.
        max_tokens_per_doc, truncation, priority: Accepted for other servers' sake; not used: a long document is read in
            windows, as a whole.
    """

    query: Query
    documents: Annotated[list[Text | RerankDocument], Meta(min_length=1, max_length=2048)]
    model: Model = "default"
    top_n: Annotated[int, Meta(ge=1)] | None = None
    return_documents: bool = False
    max_tokens_per_doc: int | None = None
    truncation: bool = True
    priority: int | None = None


class Usage(Struct):
    prompt_tokens: int
    total_tokens: int


class Embedding(Struct):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingsResponse(Struct):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class ModelEntry(Struct):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    dimensions: int
    max_length: int


class ModelList(Struct):
    object: Literal["list"]
    data: list[ModelEntry]


class RerankedText(Struct):
    text: str


class Reranked(Struct):
    index: int
    relevance_score: float
    document: RerankedText | UnsetType = UNSET


class RerankResponse(Struct):
    id: str
    model: str
    results: list[Reranked]
    usage: Usage


class ErrorBody(Struct):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorResponse(Struct):
    """Every error, in OpenAI's envelope."""

    error: ErrorBody


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
    query: str
    found: bool
    text: str
    sentences: list[AnswerSentence]
    citations: list[Citation]
    hits: list[Hit]
    confidence: float
    notes: list[str]


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


class Health(Struct):
    status: Literal["ok", "unavailable"]
    engine: Literal["ready", "starting", "failed"]
    message: str | None = None
