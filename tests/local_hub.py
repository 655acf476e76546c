"""A Hugging Face hub on this machine: the few addresses that its client asks for, and what may go wrong with them."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LARGE = 10_000  # bytes from which a file is kept by its hash


class Hub:
    """Models, and what was asked of them.

    Attributes:
        models: Hub id -> name of a file -> its bytes.
        refused: Hub id -> what its requests are answered with: 401, 403 or 404.
        asked: (name, first byte) of every file that was sent, or begun to be.
        cut: Bytes after which a connection breaks, for so many requests of large files.
        ranges: Whether parts are sent; else always the whole.
        damage: Whether large files have a bit turned on their way.
        pause: Called with the bytes sent so far, before each piece of a large file.
    """

    def __init__(self) -> None:
        self.models: dict[str, dict[str, bytes]] = {}
        self.refused: dict[str, int] = {}
        self.asked: list[tuple[str, int]] = []
        self.cut: list[int] = []
        self.ranges, self.damage = True, False
        self.statuses: list[int] = []  # what the next requests of large files are answered with instead
        self.pause: Any = None
        self.url = ""

    def commit(self, hub_id: str) -> str:
        told = json.dumps({name: hashlib.sha256(data).hexdigest() for name, data in self.models[hub_id].items()})
        return hashlib.sha1(told.encode()).hexdigest()

    def sent(self, name: str) -> list[int]:
        """Where each answer with this file began."""
        return [begin for file, begin in self.asked if file == name]


@contextmanager
def running(hub: Hub) -> Iterator[Hub]:
    """The hub, in a thread of its own."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None: ...

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = self.path.partition("?")[0]
            if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/[^/]+)?", path):
                self.info(found[1])
            elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/[^/]+", path):
                self.tree(found[1])
            elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
                self.file(found[1], found[2], body=body)
            else:
                self.say(404, b"{}")

        def gate(self, hub_id: str) -> bool:
            status = hub.refused.get(hub_id, 200 if hub_id in hub.models else 404)
            if status == 200:
                return True
            code = {401: "GatedRepo", 403: "GatedRepo", 404: "RepoNotFound"}.get(status, "")
            self.say(status, b"{}", {"X-Error-Code": code, "X-Error-Message": "refused"})
            return False

        def info(self, hub_id: str) -> None:
            if not self.gate(hub_id):
                return
            siblings: list[dict[str, Any]] = []
            for name, data in hub.models[hub_id].items():
                one: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": hashlib.sha1(data).hexdigest()}
                if len(data) >= LARGE:
                    digest = hashlib.sha256(data).hexdigest()
                    one["lfs"] = {"sha256": digest, "size": len(data), "pointerSize": 130}
                siblings.append(one)
            self.json({"id": hub_id, "sha": hub.commit(hub_id), "siblings": siblings, "private": False, "gated": False})

        def tree(self, hub_id: str) -> None:
            if not self.gate(hub_id):
                return
            entries: list[dict[str, Any]] = []
            for name, data in hub.models[hub_id].items():
                one: dict[str, Any] = {"type": "file", "path": name, "size": len(data)}
                one["oid"] = hashlib.sha1(data).hexdigest()
                if len(data) >= LARGE:
                    one["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
                entries.append(one)
            self.json(entries)

        def json(self, told: Any) -> None:
            self.say(200, json.dumps(told).encode(), {"Content-Type": "application/json"})

        def file(self, hub_id: str, name: str, *, body: bool) -> None:
            if not self.gate(hub_id):
                return
            data = hub.models[hub_id].get(name)
            if data is None:
                self.say(404, b"", {"X-Error-Code": "EntryNotFound"})
                return
            large = len(data) >= LARGE
            digest = hashlib.sha256(data).hexdigest() if large else hashlib.sha1(data).hexdigest()
            headers = {"ETag": f'"{digest}"', "X-Repo-Commit": hub.commit(hub_id), "Accept-Ranges": "bytes"}
            if large:
                headers |= {"X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{digest}"'}
            if body and large and hub.statuses:
                self.say(hub.statuses.pop(0), b"", headers)
                return
            begin = 0
            if hub.ranges and (found := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))):
                begin = int(found[1])
                if begin >= len(data):
                    self.say(416, b"", headers)
                    return
                headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
            if not body:
                self.say(200, b"", headers | {"Content-Length": str(len(data))})
                return
            hub.asked.append((name, begin))
            if large and hub.damage:
                data = data[:-1] + bytes([data[-1] ^ 1])
            self.say(206 if begin else 200, data[begin:], headers, large=large)

        def say(self, status: int, data: bytes, headers: Mapping[str, str] | None = None, large: bool = False) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if not large:
                self.wfile.write(data)
                return
            most = hub.cut.pop(0) if hub.cut else len(data)
            for at in range(0, min(most, len(data)), 65_536):
                if hub.pause is not None:
                    hub.pause(at)
                self.wfile.write(data[at : min(at + 65_536, most)])
            if most < len(data):
                self.close_connection = True
                self.connection.close()

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None: ...  # clients that leave

    server = Server(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
