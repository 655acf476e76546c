"""/v1/embeddings, /v1/rerank and /v1/models."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from kogata.app.http.schemas.common import Model, Name, Query, Request, Text, TokenId, Usage

Tokens = Annotated[list[TokenId], Meta(min_length=1, max_length=100_000)]
Inputs = Annotated[list[Text | TokenId | Tokens], Meta(min_length=1, max_length=100_000)]


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
    """`max_length`: the tokens it reads. `dimensions`: of the vectors, where it makes vectors."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    does: Literal["embed", "write"]
    max_length: int
    dimensions: int | UnsetType = UNSET


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
