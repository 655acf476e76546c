"""/v1/documents: list, read, upload and forget."""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
import time
import unicodedata
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import anyio
import msgspec
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from kogata.app.http.context import Context, context
from kogata.app.http.endpoint import Endpoint, as_json
from kogata.app.http.errors import ApiError
from kogata.app.http.schemas.documents import (
    Deleted,
    DocumentEntry,
    DocumentList,
    DocumentText,
    Emptied,
    Uploaded,
    UploadResponse,
)
from kogata.ask.paths import under
from kogata.errors import LockedError

MOST_FILES = 100
_NAME_BYTES = 200
_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"|?*]')
# What a browser may show by itself; anything else is downloaded, since it could hold scripts.
_SHOWN = {"pdf": "application/pdf", "txt": "text/plain", "md": "text/plain"}
_PART = ".part-"  # hidden: the indexer leaves it out
_PART_SECONDS = 3600
_KEPT_FREE = 200_000_000  # bytes of the disk that uploads leave to others
_PIECE = 1 << 18
# What names of temporary and hidden files begin and end with: the indexer leaves such files out.
_MARKS = re.compile(r"^(?:~\$|[ .])+|(?:~|\.part|\.crdownload|[ .])+$")


async def listing(request: Request) -> Response:
    asked = request.query_params
    offset, limit = _number(request, "offset", 0, 2**31), _number(request, "limit", 100, 1000)
    found = await context(request).link.call(
        "documents", containing=asked.get("q", ""), state=asked.get("state", ""), folder=asked.get("folder", ""),
        offset=offset, limit=limit,
    )  # fmt: skip
    return as_json(found)


async def one(request: Request) -> Response:
    return as_json(await context(request).link.call("document", id=_id(request)))


async def text(request: Request) -> Response:
    start = _number(request, "start", 0, 2**62)
    end = _number(request, "end", 0, 2**62) if "end" in request.query_params else None
    found = await context(request).link.call("text", id=_id(request), start=start, end=end)
    return as_json(found)


async def original(request: Request) -> Response:
    where = msgspec.msgpack.decode(await context(request).link.call("original", id=_id(request)))
    file = await anyio.to_thread.run_sync(_opened, where["path"], where["folder"])
    if file is None:
        raise ApiError(404, "The file is no longer where it was indexed from.", code="not_found")
    shown = _SHOWN.get(where["kind"])
    if shown == "text/plain":
        shown += f"; charset={where['encoding'] or 'utf-8'}"
    name = os.path.basename(where["path"]).decode("utf-8", "replace")
    size = os.fstat(file.fileno()).st_size
    return StreamingResponse(
        _pieces(file, size), media_type=shown or "application/octet-stream",
        headers={
            "content-length": str(size),
            "content-disposition": f"{'inline' if shown else 'attachment'}; filename*=utf-8''{quote(name, safe='')}",
            "content-security-policy": "sandbox; default-src 'none'", "cache-control": "no-store",
        },
    )  # fmt: skip


def _opened(path: bytes, folder: bytes) -> BinaryIO | None:
    """The file, open; None where it no longer lies where it was indexed from.

    What was opened is looked at, not what has the name: a link that is put there meanwhile leads nowhere.
    """
    flags = sum(getattr(os, name, 0) for name in ("O_RDONLY", "O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
    path, folder = os.path.realpath(path), os.path.realpath(folder)
    try:
        file = os.fdopen(os.open(path, flags), "rb")  # O_NONBLOCK: a pipe does not hold us
    except OSError:
        return None
    link = b"/proc/self/fd/%d" % file.fileno()
    real = os.path.realpath(link) if os.path.lexists(link) else path
    if under(real, folder) and stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    return None


async def _pieces(file: BinaryIO, size: int) -> AsyncIterator[bytes]:
    with file:
        while size and (piece := await anyio.to_thread.run_sync(file.read, min(size, _PIECE))):
            size -= len(piece)
            yield piece


async def upload(request: Request) -> Response:
    here = context(request)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise ApiError(
            415, "Files are sent as multipart/form-data, in fields named `file`.", code="unsupported_media_type"
        )
    kept: list[Uploaded] = []
    try:
        await anyio.to_thread.run_sync(_make_room, here, int(request.headers.get("content-length", "0")))
        async with here.uploads_at_once, request.form(max_files=MOST_FILES, max_fields=10) as form:
            files = [value for name, value in form.multi_items() if name == "file" and isinstance(value, UploadFile)]
            if not files:
                raise ApiError(400, "No file was sent: they are expected in fields named `file`.", param="file")
            async with here.uploading:
                for file in files:
                    kept.append(await anyio.to_thread.run_sync(_keep, here, file))
    except HTTPException as error:
        raise ApiError(400, f"The upload cannot be read: {error.detail}.", code="invalid_request") from None
    except OSError as error:
        raise ApiError(507, f"The file cannot be kept: {error.strerror}.", code="disk_full") from error
    finally:
        if kept:  # also where the next one failed
            with suppress(LockedError):  # they are there all the same, and read when the other process has finished
                await here.link.call("take_in")
    return as_json(UploadResponse(kept), 202)


async def delete(request: Request) -> Response:
    gone: dict[str, Any] = msgspec.json.decode(await context(request).link.call("forget", id=_id(request)))
    return as_json(Deleted(**gone))


async def empty(request: Request) -> Response:
    removed = msgspec.json.decode(await context(request).link.call("empty_uploads"))
    return as_json(Emptied(removed))


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


def _make_room(here: Context, size: int) -> None:
    """Raises ApiError where the disk has no place for an upload of this size."""
    here.uploads.mkdir(parents=True, exist_ok=True, mode=0o700)
    free = shutil.disk_usage(here.uploads).free
    if size + _KEPT_FREE > free:
        raise ApiError(
            507, f"The upload has {size:,} bytes and the disk {free:,}; {_KEPT_FREE:,} are left free.", code="disk_full"
        )


def sweep(uploads: Path) -> None:
    """Remove what uploads that were cut off have left."""
    for path in uploads.glob(f"{_PART}*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _PART_SECONDS:
                path.unlink()


def _keep(here: Context, file: UploadFile) -> Uploaded:
    """Write an upload into the folder of uploads under a safe name: temporary file, fsync, rename."""
    name = safe_name(file.filename or "")
    handle, temporary = tempfile.mkstemp(prefix=_PART, dir=here.uploads)
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
    """A file name without folders, control characters and what some systems refuse, of at most 200 bytes; never one
    that is left out as hidden or temporary, never empty."""
    name = unicodedata.normalize("NFC", name.encode("utf-8", "replace").decode())
    name = _UNSAFE.sub("_", re.split(r"[/\\]", name)[-1]).strip(" .")
    stem, dot, suffix = name.rpartition(".")
    if not stem or len(suffix) > 20:
        stem, dot, suffix = name, "", ""
    room = _NAME_BYTES - len(f"{dot}{suffix}".encode())
    name = stem.encode()[:room].decode(errors="ignore") + dot + suffix
    return _MARKS.sub("", name) or "document"


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
