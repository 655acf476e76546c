"""What a server answers to nonsense: a status below 500, a sentence that helps, and the next request works."""

from __future__ import annotations

import io
import json
import socket
import time
import zipfile
from typing import Any

import httpx
import pytest
from serve_process import Server, until

POSTS = ["/v1/search", "/v1/ask", "/v1/embeddings", "/v1/rerank"]


def head(length: object) -> bytes:
    """The lines before a search's body."""
    lines = (
        "POST /v1/search HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        f"Content-Length: {length}",
    )
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def helps(answer: Any) -> str:
    """The message of an error in OpenAI's envelope."""
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert len(error["message"]) > 10
    assert answer.headers["x-request-id"]
    return str(error["message"])


@pytest.mark.parametrize(
    "query",
    ["", " ", "the of and", '"', 'a" OR b:c NEAR(', "* ^ {a b}: -", "潮", "\ud800", "a\ud800b", "\0",
    "x " * 500_000, "é" * 1_000_001],
    ids=lambda query: ascii(query[:12]),
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/search", "/v1/ask"])
def test_queries(server: Server, path: str, query: str) -> None:
    body = json.dumps({"query": query, "k": 2}).encode()  # lone surrogates as \ud800
    answer = server.http.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code < 500, answer.text
    if answer.status_code != 200:
        helps(answer)


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("/v1/search", {"query": "tide", "k": 0}, "k"),
        ("/v1/search", {"query": "tide", "k": 10**9}, "k"),
        ("/v1/search", {"query": "tide", "k": 10**30}, "k"),
        ("/v1/search", {"query": "tide", "k": -1}, "k"),
        ("/v1/search", {"query": "tide", "k": 1.5}, "k"),
        ("/v1/search", {"query": "tide", "k": "ten"}, "k"),
        ("/v1/search", {"query": "tide", "mode": "magic"}, "mode"),
        ("/v1/search", {"query": "tide", "colour": "red"}, "colour"),
        ("/v1/search", {"query": None}, "query"),
        ("/v1/search", {"query": ["tide"]}, "query"),
        ("/v1/search", {"k": 3}, "query"),
        ("/v1/search", {"query": "tide", "kinds": ["exe"]}, "exe"),
        ("/v1/search", {"query": "tide", "model": "gpt-9"}, "gpt-9"),
        ("/v1/ask", {"query": "tide", "k": 0}, "k"),
        ("/v1/ask", {"query": "tide", "exact": "yes"}, "exact"),
        ("/v1/embeddings", {"input": "tide", "dimensions": 0}, "dimensions"),
        ("/v1/embeddings", {"input": "tide", "dimensions": 385}, "dimensions"),
        ("/v1/embeddings", {"input": "tide", "dimensions": 10**9}, "dimensions"),
        ("/v1/embeddings", {"input": []}, "input"),
        ("/v1/embeddings", {"input": [[]]}, "input"),
        ("/v1/embeddings", {"input": ["tide", 3]}, "input"),
        ("/v1/embeddings", {"input": ["tide", None]}, "input"),
        ("/v1/embeddings", {"input": {"text": "tide"}}, "input"),
        ("/v1/embeddings", {"input": ["tide"] * 2049}, "input"),
        ("/v1/embeddings", {"input": "x" * 1_000_001}, "input"),
        ("/v1/embeddings", {"input": "tide", "encoding_format": "hex"}, "encoding_format"),
        ("/v1/embeddings", {"input": "tide", "input_type": "poem"}, "input_type"),
        ("/v1/rerank", {"query": "tide", "documents": []}, "documents"),
        ("/v1/rerank", {"query": "tide", "documents": [3]}, "documents"),
        ("/v1/rerank", {"query": "tide", "documents": ["a"], "top_n": 0}, "top_n"),
    ],
    ids=lambda value: ascii(value)[:50],
)
def test_values(server: Server, path: str, body: Any, named: str) -> None:
    answer = server.post(path, body)
    assert answer.status_code in (400, 404), answer.text
    assert named in helps(answer)


@pytest.mark.parametrize(
    ("ids", "named"),
    [
        ([2**31 - 1], "token id"), ([[7], [250_037]], "Text 1"), ([[7] * 10_000], "reads at most 512"), ([-1], "input"),
        ([2**40], "input"), ([[]], "input"), ([5, [6]], "not a mixture"), (["a", 5], "not a mixture"), ([5.5], "input"),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_token_ids_that_are_none(server: Server, ids: Any, named: str) -> None:
    answer = server.post("/v1/embeddings", {"input": ids})
    assert answer.status_code == 400, answer.text
    assert named in helps(answer)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"null", b"[]", b"3", b'"tide"', b'{"query": NaN}', b'{"query": "tide", "k": NaN}',
        b'{"query": "tide", "k": Infinity}', b"\xff\xfe", b'{"query": "\xff"}', b'{"query": "tide"} {}',
        b"[" * 100_000, b'{"query":' * 5000, b'{"query": "tide", "query": 1}', b"\0" * 1000,
    ],
    ids=lambda body: ascii(body[:24]),
)  # fmt: skip
@pytest.mark.parametrize("path", POSTS)
def test_json_that_is_none(server: Server, path: str, body: bytes) -> None:
    answer = server.http.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400, answer.text
    helps(answer)


def test_other_types_and_methods(server: Server) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", b"\x80"):
        answer = server.http.post("/v1/search", content=b'{"query":"tide"}', headers={"content-type": kind})
        assert answer.status_code == 415, kind
        assert "application/json" in helps(answer)
    for method, path in (("GET", "/v1/search"), ("PUT", "/v1/documents"), ("BREW", "/health"), ("TRACE", "/")):
        answer = server.http.request(method, path)
        assert answer.status_code == 405, (method, path)
        helps(answer)
    assert server.http.get("/v1/nothing").status_code == 404
    assert "/openapi.json" in helps(server.http.get("/v1/nothing"))


@pytest.mark.parametrize(
    "path",
    [
        "/static/../../../etc/passwd", "/static/..%2f..%2fetc%2fpasswd", "/static/%2e%2e/strings.py", "/static/%00",
        "/v1/documents/..%2f1", "/v1/documents/%2e%2e/text", "/v1/documents/-1", "/v1/documents/0",
        "/v1/documents/1e3", "/v1/documents/١", "/v1/documents/99999999999999999999",
        "/v1/documents/9223372036854775808",
        "/v1/documents/999999999999999999/file", "/v1/documents/1/text?start=-1", "/v1/documents/1/text?end=x",
        "/v1/documents/1/text?start=9999999999999999999999", "/v1/documents?limit=-1", "/v1/documents?limit=1e9",
        "/v1/documents?offset=99999999999999999999", "/v1/models/../../etc/passwd", "/v1/models/%00",
        "/v1/documents?state=everything",
    ],
)  # fmt: skip
def test_paths_and_parameters(server: Server, path: str) -> None:
    answer = server.raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    status = int(answer.split()[1])
    assert status in (400, 404), answer
    assert b"root:" not in answer


@pytest.mark.parametrize("given", ["../../etc", "..", "/", "\0", "%", "_", "a'; DROP TABLE documents; --", "\ud800"])
def test_filters_are_only_filters(server: Server, given: str) -> None:
    for name in ("q", "folder"):
        query = "".join(f"%{byte:02x}" for byte in given.encode("utf-8", "surrogatepass"))
        answer = server.http.get(f"/v1/documents?{name}={query}")
        assert answer.status_code < 500, answer.text
    body = json.dumps({"query": "tide", "paths": [given]}).encode()
    answer = server.http.post("/v1/search", content=body, headers={"content-type": "application/json"})
    assert answer.status_code < 500, answer.text


def test_a_body_of_64_megabytes_is_refused(server: Server) -> None:
    """By its length before it is sent; in chunks of unknown number as soon as it is too much."""
    assert server.raw(head(1 << 26)).startswith(b"HTTP/1.1 413 ")

    def chunks() -> Any:
        yield b'{"query": "'
        for _ in range(64):
            yield b"x" * (1 << 20)

    try:
        answer = server.http.post("/v1/search", content=chunks(), headers={"content-type": "application/json"})
        assert answer.status_code == 413
    except (OSError, httpx.TransportError):
        pass  # closed while we were still sending


def test_an_upload_of_two_gigabytes_is_refused_before_it_is_sent(server: Server) -> None:
    upload = (
        "POST /v1/documents HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        f"Content-Length: {2 << 30}\r\n\r\n"
    )
    began = time.monotonic()
    answer = server.raw(upload.encode())
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"500,000,000" in answer
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("length", ["-1", "abc", "1, 2", "99999999999999999999999999", "\xb2"])
def test_odd_content_lengths(server: Server, length: str) -> None:
    answer = server.raw(head(length))
    assert int(answer.split()[1]) in (400, 413), answer


def test_5000_headers(server: Server) -> None:
    lines = "".join(f"X-{number}: 1\r\n" for number in range(5000))
    answer = server.raw(f"GET /health HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode())
    assert int(answer.split()[1]) in (400, 431), answer
    few = "".join(f"X-{number}: 1\r\n" for number in range(200))
    answer = server.raw(f"GET /health HTTP/1.1\r\nHost: localhost\r\n{few}\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 431 ")
    answer = server.raw(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000 + b"\r\n\r\n")
    assert not answer or int(answer.split()[1]) in (400, 431), answer[:200]  # or cut off while it was still sent


@pytest.mark.parametrize(
    "sent",
    [
        b"\0" * 5000, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n", b"SSH-2.0-x\r\n", b"\r\n" * 100,
        b"GET /health HTTP/9.9\r\nHost: localhost\r\n\r\n", b"GET /health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nrubbish rubbish\r\n\r\n",
        b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n",
    ],
    ids=lambda sent: ascii(sent[:40]),
)  # fmt: skip
def test_rubbish(server: Server, sent: bytes) -> None:
    for answer in server.raw(sent, seconds=1).split(b"HTTP/1.1 ")[1:]:
        assert int(answer[:3]) < 500, answer


def test_pipelined_requests_are_answered_in_turn(server: Server) -> None:
    one = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer = server.raw(one * 20, answers=20)
    assert answer.count(b"HTTP/1.1 200 OK") == 20


def test_a_slow_body_does_not_stop_others(server: Server) -> None:
    slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(50)]
    for connection in slow:
        connection.sendall(head(20) + b"{")
    server.fine()
    for connection in slow:
        connection.close()
    until(lambda: "kogata_requests_in_flight 1.0" in server.http.get("/metrics").text, "the slow ones are let go")


def test_a_multipart_body_that_is_none(server: Server) -> None:
    kind = {"content-type": "multipart/form-data; boundary=x"}
    for body in (
        b"",
        b"rubbish",
        b"--x",
        b"--x\r\n\r\n\r\n--x--",
        b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--\r\n",
    ):
        answer = server.http.post("/v1/documents", content=body, headers=kind)
        assert answer.status_code == 400, (body, answer.text)
        helps(answer)
    for other in ("multipart/form-data", "multipart/form-data; boundary=" + "y" * 3000, "application/json"):
        answer = server.http.post("/v1/documents", content=b"x", headers={"content-type": other})
        assert answer.status_code in (400, 415), (other, answer.text)
        helps(answer)
    answer = server.http.post("/v1/documents", data={"file": "text, not a file"}, files={"other": b"x"})
    assert answer.status_code == 400
    assert "`file`" in helps(answer)
    many = [("file", (f"{number}.txt", b"x")) for number in range(101)]
    assert server.http.post("/v1/documents", files=many).status_code == 400
    assert server.http.get("/v1/status").json()["uploads"]["files"] == 0


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("../../../tmp/evil.txt", "evil.txt"), ("..\\..\\evil.txt", "evil.txt"), ("/etc/passwd", "passwd"),
        (".hidden", "hidden"), ("..", "document"), ("a\u202etxt.exe", None), ("n" * 400 + ".txt", None),
        ("潮" * 200 + ".md", None), ("CON", None), ("a\nb.txt", None), (" ", "document"),
        ("tern.txt.part", "tern.txt"), ("~$tern.docx", "tern.docx"), ("tern.txt~", "tern.txt"),
    ],
    ids=lambda name: ascii(name)[:24],
)  # fmt: skip
def test_names_of_uploads(server: Server, sent: str, kept: str | None) -> None:
    quoted = sent.replace("\n", "%0A")
    body = (
        f'--x\r\nContent-Disposition: form-data; name="file"; filename="{quoted}"\r\n\r\nA tern.\r\n--x--\r\n'
    ).encode()
    answer = server.http.post(
        "/v1/documents", content=body, headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert answer.status_code == 202, answer.text
    (entry,) = answer.json()["documents"]
    assert "/" not in entry["name"]
    assert (server.uploads / entry["name"]).read_bytes() == b"A tern."
    if kept is not None:
        assert entry["name"] == kept
    assert server.http.delete("/v1/uploads").json() == {"removed": 1}


def test_a_zip_bomb_is_skipped_with_a_reason(server: Server) -> None:
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("[Content_Types].xml", "<Types/>")
        with packed.open("word/document.xml", "w", force_zip64=True) as member:
            member.write(b"<w:document><w:body>")
            for _ in range(260):  # above what is read of a document's markup
                member.write(b" " * (1 << 20))
    assert server.http.post("/v1/documents", files={"file": ("bomb.docx", bomb.getvalue())}).status_code == 202

    def skipped() -> bool:
        found = server.http.get("/v1/documents", params={"q": "bomb", "state": "skipped"}).json()
        return found["total"] == 1 and bool(found["documents"][0]["reason"])

    until(skipped, "the bomb is skipped")
    assert server.http.delete("/v1/uploads").json() == {"removed": 1}
    server.indexed(4)
