"""The routes of a running server against what the library gives by itself."""

from __future__ import annotations

import asyncio
import base64
import errno
import io
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from serve_process import Server, until
from starlette.datastructures import UploadFile

import kogata
from kogata.app.http import documents
from kogata.app.http.application import application
from kogata.app.http.context import Context
from kogata.app.http.errors import ApiError
from kogata.app.http.guard import Rules
from kogata.app.http.schemas.documents import Uploaded
from kogata.errors import LockedError

TEXTS = ["what is a tide", "潮位とは何か", "", "a " * 200, "the lease of the boat house"]


@pytest.fixture(scope="module")
def encoder() -> kogata.Encoder:
    return kogata.Encoder()


def vectors(server: Server, **body: Any) -> np.ndarray:
    answer = server.post("/v1/embeddings", {"model": "default", **body})
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert [entry["index"] for entry in data] == list(range(len(data)))
    if body.get("encoding_format") == "base64":
        return np.array([np.frombuffer(base64.b64decode(entry["embedding"]), "<f4") for entry in data])
    return np.array([entry["embedding"] for entry in data], np.float32)


@pytest.mark.parametrize("form", ["float", "base64"])
@pytest.mark.parametrize("dimensions", [None, 1, 128])
@pytest.mark.parametrize("kind", ["query", "document"])
def test_embeddings_are_the_encoders(
    server: Server, encoder: kogata.Encoder, form: str, dimensions: int | None, kind: str
) -> None:
    alone = encoder.encode_query if kind == "query" else encoder.encode_document
    got = vectors(server, input=TEXTS, encoding_format=form, dimensions=dimensions, input_type=kind)
    np.testing.assert_array_equal(got, alone(TEXTS, dimensions=dimensions))


def test_a_single_text_is_a_document_unless_said_otherwise(server: Server, encoder: kogata.Encoder) -> None:
    np.testing.assert_array_equal(vectors(server, input=TEXTS[0])[0], encoder.encode_document(TEXTS[0]))
    assert not np.array_equal(encoder.encode_document(TEXTS[0]), encoder.encode_query(TEXTS[0]))


def test_a_long_text_is_refused_by_its_number_or_read_in_windows(server: Server, encoder: kogata.Encoder) -> None:
    long = "tide " * 2000
    refused = server.post("/v1/embeddings", {"input": ["short", long]})
    assert refused.status_code == 400
    assert "Text 1 has" in refused.json()["error"]["message"]
    got = vectors(server, input=["short", long], long_texts="window")
    np.testing.assert_array_equal(got, encoder.encode_document(["short", long], long_texts="window"))


def test_usage_counts_the_tokenizers_tokens(server: Server, encoder: kogata.Encoder) -> None:
    usage = server.post("/v1/embeddings", {"input": TEXTS}).json()["usage"]
    expected = sum(encoder.tokenizer.count(TEXTS))
    assert usage == {"prompt_tokens": expected, "total_tokens": expected}


def test_models(server: Server, encoder: kogata.Encoder) -> None:
    entry, writer = server.http.get("/v1/models").json()["data"]
    assert (writer["id"], writer["does"], "dimensions" in writer) == ("tiny", "write", False)
    assert server.http.get("/v1/models/tiny").json() == writer
    assert (entry["id"], entry["dimensions"], entry["max_length"]) == (
        encoder.name, encoder.dimensions, encoder.max_length
    )  # fmt: skip
    assert server.http.get("/v1/models/default").json() == entry
    assert server.http.get(f"/v1/models/{encoder.name}").json() == entry
    assert server.http.get("/v1/models/gpt-9").status_code == 404


@pytest.mark.parametrize("mode", ["hybrid", "meaning", "words"])
@pytest.mark.parametrize("query", ["tide gauge", "検潮所はどこにありますか", "zebra"])
def test_search_is_the_indexs(server: Server, mode: str, query: str) -> None:
    got = server.post("/v1/search", {"query": query, "k": 3, "mode": mode}).json()
    with kogata.Index(server.index) as index:
        expected = json.loads(json.dumps(index.search(query, 3, mode).to_dict()))  # type: ignore[arg-type]
    assert {**got, "seconds": 0} == {**expected, "seconds": 0}


def test_search_takes_filters(server: Server) -> None:
    kinds = server.post("/v1/search", {"query": "tide lease", "kinds": ["txt"]}).json()["hits"]
    assert {hit["kind"] for hit in kinds} == {"txt"}
    paths = server.post("/v1/search", {"query": "tide bread", "paths": ["bread.md"]}).json()["hits"]
    assert {hit["path"].rpartition("/")[2] for hit in paths} == {"bread.md"}


@pytest.mark.parametrize("query", ["When was the gauge calibrated?", "検潮所はどこにありますか", "Who won the race?"])
def test_ask_is_the_indexs(server: Server, query: str) -> None:
    got = server.post("/v1/ask", {"query": query}).json()
    with kogata.Index(server.index) as index:
        expected = json.loads(json.dumps(index.ask(query).to_dict()))
    assert {**got, "seconds": 0} == {**expected, "seconds": 0}


def test_rerank_orders_by_cosine(server: Server, encoder: kogata.Encoder) -> None:
    documents = ["Bread is baked.", "The gauge measures the sea level.", "A lease.", "Bread is baked."]
    scores = encoder.encode_document(documents) @ encoder.encode_query("tide gauge")
    order = sorted(range(4), key=lambda i: (-scores[i], i))
    body = {"model": "default", "query": "tide gauge", "documents": documents}
    results = server.post("/v1/rerank", body).json()["results"]
    assert [result["index"] for result in results] == order
    np.testing.assert_allclose([result["relevance_score"] for result in results], scores[order], atol=1e-6)
    assert "document" not in results[0]


def test_rerank_as_jinas_clients_send_it(server: Server) -> None:
    documents = [{"text": "Bread."}, {"text": "The tide gauge."}]
    body = {
        "model": "default", "query": "tide", "documents": documents, "top_n": 1, "return_documents": True,
    }  # fmt: skip
    answer = server.post("/v1/rerank", body).json()
    assert answer["results"][0]["index"] == 1
    assert answer["results"][0]["document"] == {"text": "The tide gauge."}
    assert len(answer["results"]) == 1
    assert answer["usage"]["total_tokens"] > 0


def test_documents_are_listed_and_read(server: Server) -> None:
    listed = server.http.get("/v1/documents", params={"q": "tides"}).json()
    (entry,) = listed["documents"]
    assert listed["total"] == 1
    assert (entry["name"], entry["kind"], entry["state"], entry["uploaded"]) == ("tides.md", "md", "meaning", False)
    assert server.http.get(f"/v1/documents/{entry['id']}").json() == entry
    whole = server.http.get(f"/v1/documents/{entry['id']}/text").json()
    assert "Maria Lindqvist" in whole["text"]
    assert len(whole["text"]) == whole["n_chars"] == entry["n_chars"]
    part = server.http.get(f"/v1/documents/{entry['id']}/text", params={"start": 10, "end": 30}).json()
    assert part["text"] == whole["text"][10:30]
    beyond = server.http.get(f"/v1/documents/{entry['id']}/text", params={"start": 10**9}).json()
    assert (beyond["text"], beyond["start"]) == ("", whole["n_chars"])


def test_a_skipped_file_says_why(server: Server) -> None:
    (entry,) = server.http.get("/v1/documents", params={"state": "skipped"}).json()["documents"]
    assert entry["name"] == "broken.pdf"
    assert entry["reason"]


def test_an_original_file_comes_byte_for_byte_and_cannot_run(server: Server) -> None:
    (entry,) = server.http.get("/v1/documents", params={"q": "潮位"}).json()["documents"]
    answer = server.http.get(f"/v1/documents/{entry['id']}/file")
    with open(entry["path"], "rb") as file:
        assert answer.content == file.read()
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_an_upload_is_found_and_forgotten(server: Server) -> None:
    script = b"<html><body><script>alert(1)</script><p>The walrus sleeps on the ice floe.</p></body></html>"
    files = [("file", ("../../etc/walrus.html", script, "text/html")), ("file", ("notes.txt", b"A puffin nests."))]
    answer = server.http.post("/v1/documents", files=files)
    assert answer.status_code == 202, answer.text
    assert [entry["name"] for entry in answer.json()["documents"]] == ["walrus.html", "notes.txt"]
    assert sorted(path.name for path in server.uploads.iterdir()) == ["notes.txt", "walrus.html"]
    again = server.http.post("/v1/documents", files=files[1:]).json()
    assert again["documents"][0]["name"] == "notes.txt"
    other = server.http.post("/v1/documents", files=[("file", ("notes.txt", b"A guillemot nests."))]).json()
    assert other["documents"][0]["name"] == "notes (2).txt"
    server.indexed(7)
    (hit, *_) = server.post("/v1/search", {"query": "walrus on the ice", "k": 1}).json()["hits"]
    assert "alert" not in hit["text"]
    original = server.http.get(f"/v1/documents/{hit['document_id']}/file")
    assert original.content == script
    assert original.headers["content-disposition"].startswith("attachment")
    gone = server.http.delete(f"/v1/documents/{hit['document_id']}").json()
    assert gone == {"id": hit["document_id"], "deleted": True, "file_removed": True}
    assert server.http.get(f"/v1/documents/{hit['document_id']}").status_code == 404
    assert not (server.uploads / "walrus.html").exists()
    back = server.http.post("/v1/documents", files=files[:1])
    assert back.status_code == 202
    server.indexed(7)
    assert server.http.delete("/v1/uploads").json() == {"removed": 3}
    server.indexed(4)
    assert list(server.uploads.iterdir()) == []
    assert server.http.delete("/v1/uploads").json() == {"removed": 0}


def test_emptying_never_touches_a_folder_that_is_merely_called_uploads(tmp_path: Path) -> None:
    """With an index in the home folder, ~/uploads is a person's own."""
    home = tmp_path / "home"
    own = home / "uploads" / "mine.txt"
    own.parent.mkdir(parents=True)
    own.write_text("Mine.")
    server = Server(tmp_path, environment={"KOGATA_INDEX": str(home / "notes.sqlite")})
    try:
        assert server.http.post("/v1/documents", files={"file": ("sent.txt", b"Sent.")}).status_code == 202
        assert server.http.get("/v1/status").json()["uploads"]["folder"] == str(home / "uploads-notes.sqlite")
        assert (home / "uploads-notes.sqlite" / "sent.txt").read_bytes() == b"Sent."
        assert server.http.delete("/v1/uploads").json() == {"removed": 1}
    finally:
        assert server.stop() == 0
    assert own.read_text() == "Mine."


def test_what_lies_elsewhere_is_not_opened(tmp_path: Path) -> None:
    folder, secret = tmp_path / "docs", tmp_path / "docs-secret" / "key.txt"
    (folder / "inner").mkdir(parents=True)
    secret.parent.mkdir()
    secret.write_text("Secret.")
    (folder / "inner" / "a.txt").write_text("A.")
    (folder / "inside.txt").symlink_to(folder / "inner" / "a.txt")
    (folder / "outside.txt").symlink_to(secret)
    os.mkfifo(folder / "pipe.txt")
    for path in ("inner/a.txt", "inside.txt"):
        file = documents._opened(os.fsencode(folder / path), os.fsencode(folder))
        assert file is not None, path
        with file:
            assert file.read() == b"A."
    for path in ("outside.txt", "../docs-secret/key.txt", "pipe.txt", "inner", "gone.txt"):
        assert documents._opened(os.fsencode(folder / path), os.fsencode(folder)) is None, path


def test_uploads_leave_room_on_the_disk_and_no_remains(tmp_path: Path) -> None:
    here = Context(None, tmp_path)  # type: ignore[arg-type]
    documents._make_room(here, 1)
    with pytest.raises(ApiError, match="left free") as refused:
        documents._make_room(here, shutil.disk_usage(tmp_path).free - 100_000_000)
    assert refused.value.status == 507
    old, new, own = tmp_path / ".part-old", tmp_path / ".part-new", tmp_path / "mine.txt"
    for path in (old, new, own):
        path.write_text("x")
    os.utime(old, (0, 0))
    os.utime(own, (0, 0))
    documents.sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == [new, own]
    documents.sweep(tmp_path / "not there")


def test_what_was_kept_of_an_upload_is_taken_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the next file fails, and though another process holds the index."""
    calls: list[str] = []

    class Locked:
        async def call(self, method: str) -> bytes:
            calls.append(method)
            raise LockedError("Busy.")

    app = application(Context(Locked(), tmp_path / "uploads"), Rules(), lambda record: None)  # type: ignore[arg-type]

    async def send(*names: str) -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            answer = await client.post("/v1/documents", files=[("file", (name, b"A tern.")) for name in names])
        return answer.status_code

    assert (asyncio.run(send("one.txt")), calls) == (202, ["take_in"])
    keep = documents._keep

    def no_room_for_the_third(here: Context, file: UploadFile) -> Uploaded:
        if file.filename == "three.txt":
            raise OSError(errno.ENOSPC, "No space left on device")
        return keep(here, file)

    monkeypatch.setattr(documents, "_keep", no_room_for_the_third)
    app = application(Context(Locked(), tmp_path / "uploads"), Rules(), lambda record: None)  # type: ignore[arg-type]
    assert (asyncio.run(send("two.txt", "three.txt", "four.txt")), calls) == (507, ["take_in"] * 2)
    assert sorted(path.name for path in (tmp_path / "uploads").iterdir()) == ["one.txt", "two.txt"]


def test_the_port_answers_while_the_model_loads(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    seen: list[tuple[int, str]] = []

    def look() -> None:
        while (200, "ready") not in seen and time.monotonic() < end:
            with suppress(httpx.TransportError):
                answer = httpx.get(f"http://127.0.0.1:{port}/health")
                seen.append((answer.status_code, answer.json()["engine"]))
            time.sleep(0.01)

    end = time.monotonic() + 30
    looking = threading.Thread(target=look)
    looking.start()
    server = Server(tmp_path, "--port", str(port))
    try:
        looking.join()
    finally:
        assert server.stop() == 0
    print(seen)
    assert (seen[0], seen[-1]) == ((503, "starting"), (200, "ready"))


def test_a_changed_file_is_followed(server: Server) -> None:
    (entry,) = server.http.get("/v1/documents", params={"q": "bread"}).json()["documents"]
    with open(entry["path"], "a", encoding="utf-8") as file:
        file.write("\nRye bread needs a sourdough called Gudrun.\n")
    until(
        lambda: "Gudrun" in str(server.post("/v1/search", {"query": "Gudrun", "mode": "words"}).json()["hits"]),
        "the added line is found",
    )


def test_status_is_the_commands(server: Server) -> None:
    with kogata.Index(server.index) as index:

        def settled() -> bool:
            """Segments that were merged are cleared away after the run that merged them."""
            return bool(server.http.get("/v1/status").json()["bytes_segments"] == index.status().bytes_segments)

        until(settled, "both see the same segments")
        status = server.http.get("/v1/status").json()
        expected = json.loads(json.dumps(index.status().to_dict()))
    assert len(expected.pop("skipped")) == status["n_skipped"] == 1
    same = expected.keys() - {"bytes_index"}
    assert {name: status[name] for name in same} == {name: expected[name] for name in same}
    assert status["kogata"] == kogata.__version__
    assert status["indexing"]["running"] is False
    assert status["uploads"]["files"] == 0


def test_token_ids_are_as_their_text(server: Server, encoder: kogata.Encoder) -> None:
    texts = ["The tide gauge was calibrated.", "潮位とは"]
    ids = [encoder.tokenizer.encode(text)[1:-1].tolist() for text in texts]
    both = server.post("/v1/embeddings", {"input": ids, "input_type": "query", "dimensions": 64})
    one = server.post("/v1/embeddings", {"input": ids[0], "input_type": "query", "dimensions": 64})
    expected = encoder.encode_query(texts, dimensions=64)
    vectors = np.array([row["embedding"] for row in both.json()["data"]], np.float32)
    np.testing.assert_array_equal(vectors, expected)
    np.testing.assert_array_equal(np.float32(one.json()["data"][0]["embedding"]), expected[0])
    assert both.json()["usage"]["prompt_tokens"] == len(ids[0]) + len(ids[1])


def test_health_metrics_and_request_ids(server: Server) -> None:
    assert server.http.get("/health").json() == {"status": "ok", "engine": "ready", "message": None}
    told = server.http.get("/health", headers={"x-request-id": "mine-1"})
    assert told.headers["x-request-id"] == "mine-1"
    assert server.http.get("/health", headers={"x-request-id": "a b<script>"}).headers["x-request-id"] != "a b<script>"
    before = server.http.get("/metrics").text
    vectors(server, input=["one", "two"])
    after = server.http.get("/metrics").text
    assert counter(after, "kogata_embedded_texts_total") == counter(before, "kogata_embedded_texts_total") + 2
    assert counter(after, "kogata_engine_up") == 1


def counter(text: str, name: str) -> float:
    return float(next(line for line in text.splitlines() if line.startswith(name + " ")).rpartition(" ")[2])


def test_openapi_examples_work(server: Server) -> None:
    described = server.http.get("/openapi.json").json()
    tried = 0
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            example = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
            if example is not None:
                assert server.http.request(method, path, json=example).status_code == 200, path
                tried += 1
    assert tried >= 4


def test_an_upload_of_pieces_larger_than_memory_is_streamed(server: Server) -> None:
    big = io.BytesIO(b"x" * 20_000_000)  # above what a JSON body may have
    answer = server.http.post("/v1/documents", files={"file": ("big.bin", big)})
    assert answer.status_code == 202, answer.text
    assert (server.uploads / "big.bin").stat().st_size == 20_000_000
    assert server.http.delete("/v1/uploads").json() == {"removed": 1}


def test_the_http_process_stays_small() -> None:
    """It imports neither numpy nor the library: what it does is pass bytes on."""
    script = "import sys, kogata.app.serve.command, kogata.app.http.application, uvicorn; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"numpy", "kogata._native", "kogata.run", "kogata.weights", "kogata.ops", "kogata.ask.index", "sqlite3"}
    assert heavy & set(loaded) == set()


def test_an_answer_does_not_wait_for_an_acknowledgement(server: Server) -> None:
    """40 ms a request, where Nagle's algorithm is left on."""

    def seconds() -> float:
        began = time.perf_counter()
        server.http.get("/health")
        return time.perf_counter() - began

    assert statistics.median(seconds() for _ in range(21)) < 0.03
