"""What happens to a server: its engine dies, clients leave or come all at once, it is told to end."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from command_line import write_folder
from serve_process import Server, command_of, until

LONG = ["The tide gauge in the harbour is read every ten minutes by the harbour office. " * 10] * 512
"""Texts that take seconds."""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    """A server that a test may break."""
    server = Server(tmp_path, write_folder(tmp_path / "docs"))
    try:
        yield server
    finally:
        server.stop(signal.SIGKILL)


def test_200_requests_at_once_are_all_answered(server: Server) -> None:
    def ask(number: int) -> int:
        return httpx.post(f"{server.url}/v1/search", json={"query": f"tide {number}", "k": 1}, timeout=60).status_code

    with ThreadPoolExecutor(200) as threads:
        assert list(threads.map(ask, range(200))) == [200] * 200


def test_work_nobody_waits_for_is_dropped(server: Server) -> None:
    body = json.dumps({"input": LONG, "long_texts": "window"}).encode()
    lines = ("POST /v1/embeddings HTTP/1.1", "Host: localhost", "Content-Type: application/json")
    head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""])
    left = 6
    for _ in range(left):  # together half a minute of work
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(head.encode() + body)
            time.sleep(0.05)
    until(lambda: server.errors.read_text().count('"status": 499') >= left, "all are seen to have left", 10)
    began = time.monotonic()
    server.post("/v1/embeddings", {"input": "tide"})
    assert time.monotonic() - began < 5


def test_a_dead_engine_is_replaced(own: Server) -> None:
    own.indexed(4)
    forgotten = own.http.get("/v1/documents").json()["documents"][0]["id"]
    assert own.http.delete(f"/v1/documents/{forgotten}").status_code == 200
    own.indexed(3)
    engine = own.engine()
    answers: list[httpx.Response] = []
    waiting = threading.Thread(
        target=lambda: answers.append(httpx.post(f"{own.url}/v1/embeddings", json={"input": LONG}, timeout=60))
    )
    waiting.start()
    until(lambda: "kogata_requests_in_flight 2.0" in own.http.get("/metrics").text, "the request is being answered")
    time.sleep(0.2)
    os.kill(engine, signal.SIGKILL)
    waiting.join(timeout=20)
    assert [answer.status_code for answer in answers] == [503]
    assert answers[0].headers["retry-after"]
    assert "engine" in answers[0].json()["error"]["message"]
    assert own.http.get("/health").status_code == 503
    assert own.post("/v1/search", {"query": "tide"}).status_code == 503
    until(lambda: own.http.get("/health").status_code == 200, "the engine is there again")
    own.indexed(3)  # what was forgotten has not come back
    own.fine()
    assert own.engine() != engine
    assert "kogata_engine_restarts 1.0" in own.http.get("/metrics").text


def test_an_index_made_anew_with_another_model_is_followed(own: Server) -> None:
    own.indexed(4)
    engine = own.engine()
    with closing(sqlite3.connect(own.index, timeout=10, isolation_level=None)) as other:
        (ours,) = other.execute("SELECT value FROM meta WHERE key = 'embedder'").fetchone()
        theirs = json.dumps({**json.loads(ours), "identity": "another"})
        other.execute("UPDATE meta SET value = ? WHERE key = 'embedder'", (theirs,))
        refused = own.post("/v1/search", {"query": "tide"})
        assert refused.status_code == 500
        assert "embedder" in refused.json()["error"]["message"]
        # The engine begins again with the index's embedder. Here none is of that identity: it must keep trying.
        until(lambda: "could not be started" in own.errors.read_text(), "a new engine has been refused", 10)
        other.execute("UPDATE meta SET value = ? WHERE key = 'embedder'", (ours,))
        until(lambda: own.http.get("/health").status_code == 200, "the engine is there again")
        own.fine()
        assert own.engine() != engine


def test_a_folder_need_not_be_utf_8_and_the_key_stays_at_the_door(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / os.fsdecode(b"caf\xe9"))
    server = Server(tmp_path, folder, environment={"KOGATA_API_KEY": "correct-horse"})
    try:
        server.http.headers["authorization"] = "Bearer correct-horse"
        server.indexed(4)
        server.fine()
        assert b"correct-horse" in Path(f"/proc/{server.process.pid}/environ").read_bytes()
        assert b"correct-horse" not in Path(f"/proc/{server.engine()}/environ").read_bytes()
    finally:
        assert server.stop() == 0


def test_no_engine_is_left_behind(own: Server) -> None:
    engine = own.engine()
    own.process.kill()
    own.process.wait()
    until(lambda: b"serve.engine" not in command_of(engine), "the engine ends with its server", 10)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_told_to_after_what_it_is_at(own: Server, how: signal.Signals) -> None:
    own.indexed(4)
    engine = own.engine()
    answers: list[int] = []
    url, body = f"{own.url}/v1/embeddings", {"input": LONG[:64]}
    waiting = threading.Thread(target=lambda: answers.append(httpx.post(url, json=body, timeout=60).status_code))
    waiting.start()
    until(lambda: "kogata_requests_in_flight 2.0" in own.http.get("/metrics").text, "the request is being answered")
    began = time.monotonic()
    assert own.stop(how) == 0
    assert time.monotonic() - began < 12
    waiting.join(timeout=10)
    assert answers == [200]
    until(lambda: b"serve.engine" not in command_of(engine), "the engine has ended", 1)
    assert "Traceback" not in own.errors.read_text()


def test_a_port_that_is_taken_is_said_before_anything_is_fetched(server: Server, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kogata.app.cli", "serve", "--port", str(server.port), "--writer", "no/such"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=False,
        env={**os.environ, "XDG_DATA_HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 2
    assert f"Port {server.port} of 127.0.0.1 is taken" in done.stderr
    assert "--port" in done.stderr


def test_two_servers_of_one_index_both_answer(server: Server, tmp_path: Path) -> None:
    second = Server(tmp_path, "--index", str(server.index))
    try:
        second.fine()
        server.fine()
    finally:
        assert second.stop() == 0


def test_beyond_the_limit_callers_are_told_to_come_again(tmp_path: Path) -> None:
    """And with a key, which is asked for before anything else."""
    server = Server(tmp_path, write_folder(tmp_path / "docs"), "--max-requests", "2", "--api-key", "correct-horse")
    try:
        assert server.post("/v1/search", {"query": "tide"}).status_code == 401
        assert server.http.get("/v1/status", headers={"authorization": "Bearer wrong-horse"}).status_code == 401
        assert server.http.get("/health").status_code == 200
        assert server.http.get("/", headers={"accept": "text/html"}).status_code == 200
        assert "/#key=correct-horse" in server.said
        server.http.headers["authorization"] = "Bearer correct-horse"
        server.indexed(4)

        def ask(number: int) -> httpx.Response:
            body = {"input": [f"tide {number} {text}" for text in LONG[:8]]}
            return httpx.post(f"{server.url}/v1/embeddings", json=body, timeout=60, headers=server.http.headers)

        with ThreadPoolExecutor(12) as threads:
            answers = list(threads.map(ask, range(12)))
        assert {answer.status_code for answer in answers} == {200, 429}
        assert all(answer.headers["retry-after"] == "1" for answer in answers if answer.status_code == 429)
        server.fine()
    finally:
        assert server.stop() == 0


CLOCK = """
import os, time
_flag, _time, _time_ns = os.environ["CLOCK_BACK"], time.time, time.time_ns
_back = lambda: 86_400 if os.path.exists(_flag) else 0
time.time = lambda: _time() - _back()
time.time_ns = lambda: _time_ns() - 1_000_000_000 * _back()
"""
"""A sitecustomize: the process's clock goes a day back as soon as there is a file of this name."""


def test_the_clock_is_set_back(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    write_folder(docs)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(CLOCK)
    flag = tmp_path / "flag"
    path = os.pathsep.join(filter(None, [str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]))
    server = Server(tmp_path, docs, environment={"PYTHONPATH": path, "CLOCK_BACK": str(flag)})
    try:
        server.indexed(4)
        flag.touch()
        new = docs / "new.txt"  # from tomorrow, as the server sees it
        for text in ("The ferry leaves at seven.", "The ferry leaves at eight."):
            new.write_text(text)

            def found(text: str = text) -> bool:
                hits = server.post("/v1/search", {"query": "when does the ferry leave"}).json()["hits"]
                return any(text in hit["text"] for hit in hits)

            until(found, f"{text!r} is found")
            server.indexed(5)
        (entry,) = server.http.get("/v1/documents", params={"q": "new.txt"}).json()["documents"]
        assert server.http.delete(f"/v1/documents/{entry['id']}").status_code == 200
        server.indexed(4)
        runs = server.errors.read_text().count("Traceback")
        assert runs == 0, server.errors.read_text()
        server.fine()
    finally:
        code = server.stop()
    assert code == 0
