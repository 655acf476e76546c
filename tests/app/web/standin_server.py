"""A stand-in for ``kogata serve``: the same HTTP API over a handful of documents, to develop and test the page with.

It answers at once, and a test can hold any state of it still: indexing, starting, asking for a key. Run it by hand with
``python tests/app/web/standin_server.py``. How it searches means nothing; the shapes of its answers do.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

WEB = Path(__file__).resolve().parents[3] / "src/kogata/app/web"
UPLOADS = "/home/mori/.local/share/kogata/uploads"
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
TYPES = {"pdf": "application/pdf", "txt": "text/plain", "md": "text/markdown", "html": "text/html"}

Json = dict[str, Any]


@dataclass
class Document:
    """A document of the stand-in. ``pages``: where each page begins; ``headings``: where each heading's part begins."""

    path: str
    text: str
    title: str = ""
    state: str = "meaning"
    code: str | None = None
    reason: str | None = None
    pages: tuple[int, ...] = ()
    headings: tuple[tuple[int, tuple[str, ...]], ...] = ()
    original: bytes = b""
    id: int = 0
    seen: int = 0  # how often the status was asked since it was uploaded

    @property
    def kind(self) -> str:
        return self.path.rpartition(".")[2]

    @property
    def uploaded(self) -> bool:
        return self.path.startswith(UPLOADS + "/")

    def to_json(self) -> Json:
        passages = 0 if self.state == "skipped" else len(list(passages_of(self.text)))
        folder, _, name = self.path.rpartition("/")
        return {
            "id": self.id, "path": self.path, "name": name, "folder": folder, "title": self.title or name,
            "kind": self.kind, "size": len(self.original or self.text.encode()),
            "modified": 1_763_100_000 - self.id * 86_400, "state": self.state,
            "passages": passages, "vectors": passages if self.state == "meaning" else 0,
            "code": self.code, "reason": self.reason, "n_pages": len(self.pages) or None, "n_chars": len(self.text),
            "uploaded": self.uploaded,
        }  # fmt: skip


@dataclass
class Library:
    """What the stand-in serves and how it behaves; tests change it while it runs."""

    documents: list[Document] = field(default_factory=list)
    folders: tuple[str, ...] = ("/home/mori/papers", "/home/mori/文書")
    key: str | None = None
    available: bool = True
    problem: str = "engine_unavailable"
    indexing: Json | None = None
    delay: float = 0.0  # seconds an answer takes
    requests: list[str] = field(default_factory=list)
    writer: str | None = "bitnet-b1.58-2B-4T"
    says: list[str] = field(default_factory=lambda: ["Decoding reads ", "11.6 times fewer bytes [1]."])  # in pieces
    pause: float = 0.0  # seconds before each piece
    breaks: bool = False  # the stream ends in the middle
    asked: list[Json] = field(default_factory=list)  # bodies of what the writer was asked
    stopped: int = 0  # streams whose reader went away

    def __post_init__(self) -> None:
        for number, document in enumerate(self.documents, 1):
            document.id = number

    def add(self, document: Document) -> None:
        document.id = max((known.id for known in self.documents), default=0) + 1
        self.documents.append(document)

    def find(self, id_: int) -> Document:
        for document in self.documents:
            if document.id == id_:
                return document
        raise Refusal(404, "not_found", f"There is no document {id_}.")


class Refusal(Exception):
    """An error that the API answers with."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


def passages_of(text: str) -> Iterator[tuple[int, int]]:
    """Spans of the paragraphs."""
    for match in re.finditer(r"[^\n]+(?:\n[^\n]+)*", text):
        yield match.span()


def terms_of(query: str) -> set[str]:
    """Words of four letters or more, and pairs of Japanese characters with a kanji in them."""
    words = set(re.findall(r"[a-z0-9]{4,}", query.lower()))
    return words | {pair for pair in re.findall(r"(?=([一-龯ァ-ヶー]{2}))", query) if re.search("[一-龯]", pair)}


def search(library: Library, body: Json) -> list[Json]:
    """Paragraphs that hold terms of the query, those with most first."""
    terms = terms_of(body["query"])
    hits = []
    for document in library.documents:
        if document.state == "skipped" or (body.get("kinds") and document.kind not in body["kinds"]):
            continue
        if body.get("paths") and not any(path in document.path for path in body["paths"]):
            continue
        for start, end in passages_of(document.text):
            text = document.text[start:end]
            found = [match.span() for term in sorted(terms) for match in re.finditer(re.escape(term), text.lower())]
            if not found:
                continue
            cut = max(0, min(found)[0] - 80)
            snippet = ("…" if cut else "") + text[cut : cut + 240].replace("\n", " ")
            shift = cut - bool(cut)
            spans = sorted([a - shift, b - shift] for a, b in found if b - shift <= len(snippet))
            distinct = len({text.lower()[a:b] for a, b in found})
            hits.append({
                **source(document, start, end), "text": text, "score": distinct / max(1, len(terms)) * 3, "rank": 0,
                "meaning": 0.80 + 0.03 * distinct, "words": 1.9 * distinct, "chunk_id": document.id * 1000 + start,
                "document_id": document.id, "snippet": snippet, "highlights": spans,
            })  # fmt: skip
    hits.sort(key=lambda hit: (-hit["score"], -len(hit["text"])))
    for rank, hit in enumerate(hits, 1):
        hit["rank"] = rank
    return hits[: body.get("k", 10)]


def source(document: Document, start: int, end: int) -> Json:
    page = sum(at <= start for at in document.pages) or None
    heading = [parts for at, parts in document.headings if at <= start]
    return {
        "path": document.path, "title": document.title, "kind": document.kind, "page": page,
        "heading": list(heading[-1]) if heading else [], "start": start, "end": end,
    }  # fmt: skip


def answer(library: Library, body: Json) -> Json:
    """The best sentence of the best two passages, if they hold most terms of the query."""
    terms = terms_of(body["query"])
    hits = search(library, body)
    best = [hit for hit in hits if hit["score"] >= 1.8][:2]
    citations, sentences = [], []
    for number, hit in enumerate(best, 1):
        parts = [match for match in re.finditer(r"(?:[^.。]|\.(?=\d))+[.。]?\s*", hit["text"]) if match.group().strip()]
        at = max(range(len(parts)), key=lambda i: sum(term in parts[i].group().lower() for term in terms))
        chosen = parts[at].group().rstrip()
        sentences.append({"text": chosen, "citation": number})
        citations.append({
            **{name: hit[name] for name in ("path", "title", "kind", "page", "heading")}, "number": number,
            "start": hit["start"] + parts[at].start(), "end": hit["start"] + parts[at].start() + len(chosen),
            "before": parts[at - 1].group() if at else "", "text": chosen,
            "after": parts[at + 1].group() if at + 1 < len(parts) else "",
        })  # fmt: skip
    text = " ".join(sentence["text"] for sentence in sentences)
    return {
        "query": body["query"], "found": bool(best), "text": text, "sentences": sentences, "citations": citations,
        "hits": hits, "confidence": 0.9 if best else 0.1, "notes": [],
    }  # fmt: skip


async def written(library: Library, body: Json, event: Callable[[str], Json]) -> AsyncIterator[bytes]:
    """What the writer says, as a stream of events."""
    library.asked.append(body)
    try:
        yield b": still here\n\n"
        for piece in library.says:
            await asyncio.sleep(library.pause)
            yield sse(event(piece))
        if library.breaks:
            return
    except asyncio.CancelledError:
        library.stopped += 1
        raise


def sse(event: Json | str) -> bytes:
    return f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n".encode()


async def written_answer(library: Library, body: Json) -> AsyncIterator[bytes]:
    """As the server answers a question with "writer" and "stream"."""
    found = answer(library, body)
    passages = [
        {**{name: hit[name] for name in ("path", "title", "kind", "page", "heading", "start", "end", "text")},
         "document_id": hit["document_id"], "number": number, "before": "", "after": ""}
        for number, hit in enumerate(found["hits"][:5], 1)
    ]  # fmt: skip
    empty = {"text": "", "sentences": [], "citations": [], "model": None, "finish_reason": None, "usage": None}
    if not found["found"]:
        library.asked.append(body)
        yield sse({"type": "answer", **found, **empty})
    else:
        yield sse({"type": "sources", "passages": passages})
        for done in (512, 1024):
            await asyncio.sleep(library.pause)
            yield sse({"type": "reading", "done": done, "total": 1100})
        async for event in written(library, body, lambda piece: {"type": "text", "text": piece}):
            yield event
        if library.breaks:
            return
        text = "".join(library.says)
        cited = [passage for passage in passages if f"[{passage['number']}]" in text]
        notes = [] if cited else ["The model named no source for what it wrote."]
        yield sse({
            "type": "answer", **found, **empty, "text": text, "citations": cited, "notes": notes,
            "model": library.writer, "finish_reason": "stop",
        })  # fmt: skip
    yield sse("[DONE]")


async def completion(library: Library, body: Json) -> AsyncIterator[bytes]:
    """As /v1/chat/completions streams."""

    def chunk(delta: Json, finish: str | None = None) -> Json:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return {"object": "chat.completion.chunk", "id": "x", "choices": [choice]}

    yield sse(chunk({"role": "assistant", "content": ""}))
    async for event in written(library, body, lambda piece: chunk({"content": piece})):
        yield event
    if not library.breaks:
        yield sse(chunk({}, "stop"))
        yield sse("[DONE]")


def status(library: Library) -> Json:
    readable = [document for document in library.documents if document.state != "skipped"]
    skipped = [document for document in library.documents if document.state == "skipped"]
    uploads = [document for document in library.documents if document.uploaded]
    for document in uploads:
        document.seen += 1
        if document.seen > 2 and document.state == "waiting":
            document.state = "meaning"

    def inside(folder: str, of: list[Document]) -> list[Document]:
        return [document for document in of if document.path.startswith(folder + "/")]

    kinds: dict[str, int] = {}
    codes: dict[str, int] = {}
    for document in readable:
        kinds[document.kind] = kinds.get(document.kind, 0) + 1
    for document in skipped:
        codes[document.code or ""] = codes.get(document.code or "", 0) + 1
    folders = [
        {
            "path": folder, "missing": False, "exclude": [], "left_out": {"hidden": 2}, "unread": 0,
            "documents": len(inside(folder, readable)), "skipped": len(inside(folder, skipped)),
            "bytes": sum(document.to_json()["size"] for document in inside(folder, readable)),
        }
        for folder in library.folders
    ]  # fmt: skip
    passages = sum(document.to_json()["passages"] for document in readable)
    vectors = sum(document.to_json()["vectors"] for document in readable)
    idle = {
        "running": False, "phase": "done", "done": 0, "total": 0, "bytes_done": 0, "bytes_total": 0, "path": "",
        "eta_seconds": None, "error": None,
    }  # fmt: skip
    return {
        "place": "/home/mori/.local/share/kogata/index.sqlite", "folders": folders, "documents": len(readable),
        "documents_words_only": sum(document.state == "words" for document in readable), "kinds": kinds,
        "bytes_documents": sum(folder["bytes"] for folder in folders), "chunks": passages, "vectors": vectors,
        "waiting": passages - vectors, "words_only": 0, "n_skipped": len(skipped), "skipped_by_code": codes,
        "embedder": {"name": "multilingual-e5-small-q4", "dimensions": 384}, "version": "0.2.0",
        "indexing": library.indexing or idle,
        "uploads": {
            "folder": UPLOADS, "files": len(uploads), "bytes": sum(document.to_json()["size"] for document in uploads),
        },
    }  # fmt: skip


def application(library: Library) -> Starlette:
    """The API over a library. Every refusal has OpenAI's envelope."""

    async def guard(request: Request) -> None:
        library.requests.append(f"{request.method} {request.url.path}")
        if not library.available:
            raise Refusal(503, library.problem, "The engine is starting.")
        if library.key and request.headers.get("authorization") != f"Bearer {library.key}":
            raise Refusal(401, "invalid_api_key", "This server asks for a key.")

    async def page(request: Request) -> Response:
        return FileResponse(WEB / "index.html", headers=SECURITY)

    async def get_status(request: Request) -> Response:
        await guard(request)
        return JSONResponse(status(library))

    async def post_search(request: Request) -> Response:
        await guard(request)
        await asyncio.sleep(library.delay)
        body = await request.json()
        notes = ["2 passages still wait for their vectors; they are found by words only."] if library.indexing else []
        found = {"query": body["query"], "mode": body["mode"], "hits": search(library, body), "notes": notes}
        return JSONResponse({**found, "seconds": 0.01})

    async def post_ask(request: Request) -> Response:
        await guard(request)
        await asyncio.sleep(library.delay)
        body = await request.json()
        if body.get("writer"):
            return StreamingResponse(written_answer(library, body), media_type="text/event-stream")
        return JSONResponse(answer(library, body))

    async def post_chat(request: Request) -> Response:
        await guard(request)
        return StreamingResponse(completion(library, await request.json()), media_type="text/event-stream")

    async def models(request: Request) -> Response:
        await guard(request)
        common = {"object": "model", "created": 0, "owned_by": "kogata"}
        listed = [{**common, "id": "multilingual-e5-small-q4", "dimensions": 384, "max_length": 512}]
        listed += [{**common, "id": library.writer, "context": 4096}] if library.writer else []
        return JSONResponse({"object": "list", "data": listed})

    async def documents(request: Request) -> Response:
        await guard(request)
        ask = request.query_params
        found = [
            document.to_json() for document in library.documents
            if ask.get("q", "").lower() in document.path.lower() and ask.get("state") in (None, "", document.state)
            and document.path.startswith(ask.get("folder", ""))
        ]  # fmt: skip
        offset, limit = int(ask.get("offset", 0)), int(ask.get("limit", 100))
        return JSONResponse({"total": len(found), "documents": found[offset : offset + limit]})

    async def document(request: Request) -> Response:
        await guard(request)
        found = library.find(request.path_params["id"])
        if request.method == "DELETE":
            library.documents.remove(found)
            return JSONResponse({"id": found.id, "deleted": True, "file_removed": found.uploaded})
        return JSONResponse(found.to_json())

    async def text(request: Request) -> Response:
        await guard(request)
        found = library.find(request.path_params["id"])
        start = min(int(request.query_params.get("start", 0)), len(found.text))
        end = min(int(request.query_params.get("end", 200_000)), len(found.text), start + 200_000)
        return JSONResponse({
            "id": found.id, "path": found.path, "title": found.title, "kind": found.kind, "start": start, "end": end,
            "n_chars": len(found.text), "text": found.text[start:end],
        })  # fmt: skip

    async def original(request: Request) -> Response:
        await guard(request)
        found = library.find(request.path_params["id"])
        kind = TYPES.get(found.kind, "application/octet-stream")
        how = "inline" if kind in ("application/pdf", "text/plain") else "attachment"
        headers = {**SECURITY, "Content-Security-Policy": "sandbox", "Content-Disposition": how}
        return Response(found.original or found.text.encode(), media_type=kind, headers=headers)

    async def upload(request: Request) -> Response:
        await guard(request)
        stored = []
        async with request.form() as form:
            for file in form.getlist("file"):
                assert not isinstance(file, str)
                data = await file.read()
                if b"too large" in data:
                    raise Refusal(413, "too_large", "The file is larger than 1 GB.")
                path = f"{UPLOADS}/{file.filename}"
                added = Document(path, data.decode("utf-8", "replace"), state="waiting", original=data)
                if b"\0" in data:
                    added.state, added.code, added.reason = "skipped", "binary", "The file is not text."
                library.add(added)
                stored.append({"name": file.filename, "path": path, "bytes": len(data)})
        return JSONResponse({"documents": stored}, 202)

    async def empty(request: Request) -> Response:
        await guard(request)
        kept = [document for document in library.documents if not document.uploaded]
        removed = len(library.documents) - len(kept)
        library.documents[:] = kept
        return JSONResponse({"removed": removed})

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        body = {"message": str(error), "type": "invalid_request_error", "param": None, "code": error.code}
        return JSONResponse({"error": body}, error.status)

    return Starlette(
        routes=[
            Route("/", page),
            Route("/v1/status", get_status),
            Route("/v1/search", post_search, methods=["POST"]),
            Route("/v1/ask", post_ask, methods=["POST"]),
            Route("/v1/chat/completions", post_chat, methods=["POST"]),
            Route("/v1/models", models),
            Route("/v1/documents", upload, methods=["POST"]),
            Route("/v1/documents", documents),
            Route("/v1/documents/{id:int}", document, methods=["GET", "DELETE"]),
            Route("/v1/documents/{id:int}/text", text),
            Route("/v1/documents/{id:int}/file", original),
            Route("/v1/uploads", empty, methods=["DELETE"]),
            Mount("/static", StaticFiles(directory=WEB)),
        ],
        exception_handlers={Refusal: refused},
    )


@contextmanager
def serving(library: Library, port: int = 0) -> Iterator[str]:
    """Serve in a thread; gives the address, ends with the block."""
    bound = socket.create_server(("127.0.0.1", port))
    server = uvicorn.Server(uvicorn.Config(application(library), log_level="warning", lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run, args=([bound],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/"
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join(10)


def sample() -> Library:
    """Documents in English and Japanese, a long one, a hostile one, and some that could not be read."""
    paper = (
        "Native Sparse Attention\n\nHardware-aligned and natively trainable sparse attention.\n\n"
        "Efficiency analysis\n\n"
        "Training runs on eight accelerators at 64k tokens. Forward passes are up to nine times faster.\n\n"
        "Decoding speed\n\n"
        "The speed of decoding is bound by memory access. At 64k tokens decoding reads 11.6 times fewer bytes of the "
        "key-value cache than full attention does. The gain grows with the length of the context.\n\n"
        "Related work\n\nOther methods choose tokens after training; decoding with them reads whole pages of the cache."
    )
    tides = (
        "潮位観測の手引き\n\n第一章　潮位とは\n\n"
        "潮位とは、基準面から測った海面の高さである。月と太陽の引力によって一日におよそ二回、高くなったり低くなったりする。"
        "港の工事や船の出入りには欠かせない値である。\n\n"
        "第二章　観測\n\n検潮所では十分ごとに潮位を記録する。𠮷田港の検潮所は2021年5月に校正された。"
        "記録は海上保安庁に送られる。"
    )
    meeting = (
        "Meeting notes\n\nThe harbour office asked for a new tide gauge. It was calibrated in May 2021. "
        "The next calibration is due in 2026. 🌊 Waves above two metres stop the work.\n\n"
        "Decisions: order the gauge, ask for a second offer, meet again in June."
    )
    hostile = (
        "<h1>Hostile document</h1>\n<script>document.title = 'broken in'</script>\n"
        "<img src=x onerror=\"document.title='broken in'\"> &lt;b&gt; is text.\n\n"
        "Hostile bidi: \u202egnisrever\u202c ends here. Controls: \x07 \x1b[31m red.\n\n"
        "Hostile word: " + "abcdefghij" * 400 + " end.\n\nHostile surrogate: \ufffd stays."
    )
    lines = "\n".join(f"Line {number:05}: the pump ran, nothing to report." for number in range(1, 10_001))
    lines = lines.replace("Line 07000: the pump ran, nothing to report.", "\nLine 07000: the condenser overheated.\n")
    pdf = (
        b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj 2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj "
        b"3 0 obj<</Type/Page/MediaBox[0 0 200 200]/Parent 2 0 R>>endobj\ntrailer<</Root 1 0 R>>\n"
    )
    return Library([
        Document(
            "/home/mori/papers/nsa.pdf", paper, "Native Sparse Attention", pages=(0, paper.index("Decoding speed")),
            headings=((0, ("Native Sparse Attention",)), (paper.index("Efficiency"), ("Efficiency analysis",)),
                      (paper.index("Decoding speed"), ("Efficiency analysis", "Decoding speed"))),
            original=pdf,
        ),
        Document(
            "/home/mori/文書/潮位観測の手引き.md", tides, "潮位観測の手引き",
            headings=((0, ("潮位観測の手引き", "第一章　潮位とは")),
                      (tides.index("第二章"), ("潮位観測の手引き", "第二章　観測"))),
        ),
        Document("/home/mori/文書/会議/2026-05 meeting.md", meeting, "Meeting notes"),
        Document("/home/mori/papers/drafts/\u202etxt.hostile<b>.html", hostile, "<i>Hostile</i> title"),
        Document("/home/mori/papers/logs/pump.log.txt", lines, "pump.log"),
        Document("/home/mori/papers/thesis-final-version-with-a-very-long-name-that-does-not-break-anywhere_v12.docx",
                 "Thesis\n\nNothing here yet.", "Thesis", state="waiting"),
        Document("/home/mori/papers/ⴰⵎⴰⵣⵉⵖ.txt", "ⴰⵎⴰⵣⵉⵖ", state="words"),
        Document("/home/mori/papers/contract.pdf", "", state="skipped", code="encrypted",
                 reason="The file is protected with a password."),
        Document("/home/mori/文書/古い資料.pdf", "", state="skipped", code="scanned",
                 reason="The pages are pictures without text; installing tesseract makes them readable."),
        Document(UPLOADS + "/invoice-2026-04.txt", "Invoice 2026-04\n\nThe total is 1,250 euros.", "Invoice 2026-04"),
    ])  # fmt: skip


if __name__ == "__main__":
    with serving(sample(), 8421) as address:
        print(address, flush=True)
        while True:
            time.sleep(60)
