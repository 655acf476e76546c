"""/v1/documents: list, read, upload and forget."""

from __future__ import annotations

import os
import re
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import msgspec
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from kogata.app.http.context import Context, context
from kogata.app.http.endpoint import Endpoint
from kogata.app.http.errors import ApiError
from kogata.app.http.schemas import (
    Deleted,
    DocumentEntry,
    DocumentList,
    DocumentText,
    Emptied,
    Uploaded,
    UploadResponse,
)

MOST_FILES = 100
_NAME_BYTES = 200
_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"|?*]')
# What a browser may show by itself; anything else is downloaded, since it could hold scripts.
_SHOWN = {"pdf": "application/pdf", "txt": "text/plain", "md": "text/plain"}
_encode = msgspec.json.Encoder().encode


async def listing(request: Request) -> Response:
    asked = request.query_params
    offset, limit = _number(request, "offset", 0, 2**31), _number(request, "limit", 100, 1000)
    found = await context(request).link.call(
        "documents", containing=asked.get("q", ""), state=asked.get("state", ""), folder=asked.get("folder", ""),
        offset=offset, limit=limit,
    )  # fmt: skip
    return Response(found, media_type="application/json")


async def one(request: Request) -> Response:
    return Response(await context(request).link.call("document", id=_id(request)), media_type="application/json")


async def text(request: Request) -> Response:
    start = _number(request, "start", 0, 2**62)
    end = _number(request, "end", 0, 2**62) if "end" in request.query_params else None
    found = await context(request).link.call("text", id=_id(request), start=start, end=end)
    return Response(found, media_type="application/json")


async def original(request: Request) -> Response:
    where = msgspec.msgpack.decode(await context(request).link.call("original", id=_id(request)))
    path, folder = os.path.realpath(where["path"]), os.path.realpath(where["folder"])
    # The index names the file; that it still lies where it was indexed from is looked at now.
    inside = path == folder or path.startswith(folder.rstrip(b"/") + b"/")
    if not inside or not os.path.isfile(path):
        raise ApiError(404, "The file is no longer where it was indexed from.", code="not_found")
    shown = _SHOWN.get(where["kind"])
    if shown == "text/plain":
        shown += f"; charset={where['encoding'] or 'utf-8'}"
    name = os.path.basename(where["path"]).decode("utf-8", "replace")
    return FileResponse(
        os.fsdecode(path), media_type=shown or "application/octet-stream", filename=name,
        content_disposition_type="inline" if shown else "attachment",
        headers={"content-security-policy": "sandbox; default-src 'none'", "cache-control": "no-store"},
    )  # fmt: skip


async def upload(request: Request) -> Response:
    here = context(request)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise ApiError(
            415, "Files are sent as multipart/form-data, in fields named `file`.", code="unsupported_media_type"
        )
    try:
        async with request.form(max_files=MOST_FILES, max_fields=10) as form:
            files = [value for name, value in form.multi_items() if name == "file" and isinstance(value, UploadFile)]
            if not files:
                raise ApiError(400, "No file was sent: they are expected in fields named `file`.", param="file")
            async with here.uploading:
                kept = [await anyio.to_thread.run_sync(_keep, here, file) for file in files]
    except HTTPException as error:
        raise ApiError(400, f"The upload cannot be read: {error.detail}.", code="invalid_request") from None
    except OSError as error:
        raise ApiError(507, f"The file cannot be kept: {error.strerror}.", code="disk_full") from error
    await here.link.call("take_in")
    return Response(_encode(UploadResponse(kept)), 202, media_type="application/json")


async def delete(request: Request) -> Response:
    gone: dict[str, Any] = msgspec.json.decode(await context(request).link.call("forget", id=_id(request)))
    return Response(_encode(Deleted(**gone)), media_type="application/json")


async def empty(request: Request) -> Response:
    removed = msgspec.json.decode(await context(request).link.call("empty_uploads"))
    return Response(_encode(Emptied(removed)), media_type="application/json")


def _id(request: Request) -> int:
    given = str(request.path_params["id"])
    if not (given.isascii() and given.isdigit() and len(given) < 19):
        raise ApiError(404, f"There is no document {given[:100]!r}; ids are numbers.", param="id", code="not_found")
    return int(given)


def _number(request: Request, name: str, default: int, most: int) -> int:
    given = request.query_params.get(name, str(default))
    if not (given.isascii() and given.isdigit() and len(given) < 20 and int(given) <= most):
        raise ApiError(400, f"`{name}` is a whole number from 0 to {most:,}, not {given[:50]!r}.", param=name)
    return int(given)


def _keep(here: Context, file: UploadFile) -> Uploaded:
    """Write an upload into the folder of uploads under a safe name: temporary file, fsync, rename."""
    here.uploads.mkdir(parents=True, exist_ok=True, mode=0o700)
    name = safe_name(file.filename or "")
    handle, temporary = tempfile.mkstemp(prefix=".part-", dir=here.uploads)  # hidden: the indexer leaves it out
    try:
        size = 0
        with os.fdopen(handle, "wb") as out:
            while piece := file.file.read(1 << 20):
                size += len(piece)
                out.write(piece)
            out.flush()
            os.fsync(out.fileno())
        path = next(path for path in _free(here.uploads, name) if not path.exists() or _same(path, Path(temporary)))
        Path(temporary).replace(path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
    return Uploaded(path.name, str(path), size)


def safe_name(name: str) -> str:
    """A file name without folders, control characters and what some systems refuse; never hidden, never empty."""
    name = unicodedata.normalize("NFC", name.encode("utf-8", "replace").decode())
    name = _UNSAFE.sub("_", re.split(r"[/\\]", name)[-1]).strip(" .")
    stem, dot, suffix = name.rpartition(".")
    while len(name.encode()) > _NAME_BYTES:
        if dot and len(suffix.encode()) < 20 and stem:
            stem = stem[:-1]
            name = f"{stem}.{suffix}"
        else:
            name = name[:-1]
    return name or "document"


def _free(folder: Path, name: str) -> Iterator[Path]:
    """`name`, then `name (2)`, …"""
    yield folder / name
    stem, dot, suffix = name.rpartition(".")
    for number in range(2, 1_000_000):
        yield folder / (f"{stem} ({number}){dot}{suffix}" if dot and stem else f"{name} ({number})")


def _same(one_: Path, other: Path) -> bool:
    """Whether two files hold the same bytes: the same upload twice is one document."""
    if not one_.is_file() or one_.stat().st_size != other.stat().st_size:
        return False
    with one_.open("rb") as a, other.open("rb") as b:
        while piece := a.read(1 << 20):
            if piece != b.read(1 << 20):
                return False
    return True


_ID = ("id", int, "a document's id")
ROUTES = (
    Endpoint(
        "GET", "/v1/documents", listing, "The files that are known", answers=DocumentList,
        parameters=(("q", str, "part of the path or title"), ("state", str, "meaning, waiting, words or skipped"),
                    ("folder", str, "a known folder"), ("offset", int, "how many to pass over"),
                    ("limit", int, "how many at most")),
    ),
    Endpoint(
        "POST", "/v1/documents", upload, "Upload files",
        "multipart/form-data, fields named `file`. They are kept in the folder of uploads and indexed.",
        answers=UploadResponse, status=202, reads_body=True,
    ),
    Endpoint("GET", "/v1/documents/{id}", one, "One file", answers=DocumentEntry, parameters=(_ID,)),
    Endpoint(
        "GET", "/v1/documents/{id}/text", text, "A stretch of a document's stored text", answers=DocumentText,
        parameters=(_ID, ("start", int, "first character"), ("end", int, "the character after the last")),
    ),
    Endpoint(
        "GET", "/v1/documents/{id}/file", original, "The original file", parameters=(_ID,),
        media_type="application/octet-stream",
    ),
    Endpoint(
        "DELETE", "/v1/documents/{id}", delete, "Take a document out of the index",
        "Its file is not touched unless it was uploaded: then it is removed as well.", answers=Deleted,
        parameters=(_ID,),
    ),
    Endpoint("DELETE", "/v1/uploads", empty, "Remove all uploaded files", answers=Emptied),
)  # fmt: skip
