"""Reading one file in this process: open, check, hash, pick the parser, turn what goes wrong into a refusal."""

from __future__ import annotations

import hashlib
import importlib
import os
import stat
import time
import zipfile
from dataclasses import replace
from io import BytesIO

from kogata.ask.documents import filetype
from kogata.ask.documents.builder import Builder
from kogata.ask.documents.model import Document, Limits, Refusal, Refused
from kogata.ask.documents.source import Source

# kind -> module under formats/ with a function read(source, out). Imported only when a file of the kind comes up.
_PARSERS = {
    "pdf": "pdf", "html": "html", "md": "markdown", "txt": "plain", "rst": "rst", "docx": "docx", "pptx": "pptx",
    "xlsx": "xlsx", "odt": "odf", "ods": "odf", "odp": "odf", "epub": "epub", "csv": "delimited", "json": "structured",
    "xml": "xml", "eml": "mail", "mbox": "mail", "ipynb": "notebook", "tex": "tex", "org": "org", "code": "code",
}  # fmt: skip

_OFFICE = {
    "word/document.xml": "docx", "ppt/presentation.xml": "pptx", "xl/workbook.xml": "xlsx",
    "META-INF/container.xml": "epub",
}  # fmt: skip
_MIMETYPES = {
    "application/epub+zip": "epub", "application/vnd.oasis.opendocument.text": "odt",
    "application/vnd.oasis.opendocument.spreadsheet": "ods", "application/vnd.oasis.opendocument.presentation": "odp",
}  # fmt: skip
_ZIPPED = frozenset({"docx", "pptx", "xlsx", "odt", "ods", "odp", "epub"})


def parse(path: bytes | str | os.PathLike[str], *, limits: Limits | None = None) -> Document:
    """Parse a file in this process.

    A hostile file can take the process down with it: :class:`ParserPool` is for files of strangers.

    Raises:
        Refused: with the code and the reason.
    """
    outcome = attempt(os.fsencode(path), limits or Limits())
    if isinstance(outcome, Refusal):
        raise Refused(outcome.code, outcome.reason)
    return outcome


def attempt(path: bytes, limits: Limits) -> Document | Refusal:
    """Like :func:`parse`, but what goes wrong is returned. Never raises for anything a file can contain."""
    digest, size, mtime_ns = "", 0, 0
    try:
        data, status = _read(path, limits)
        size, mtime_ns = status.st_size, status.st_mtime_ns
        digest = hash_bytes(data)
        document = _parse(data, path, limits)
        return replace(document, hash=digest, size=size, mtime_ns=mtime_ns)
    except Refused as refused:
        return Refusal(refused.code, refused.reason, digest, size, mtime_ns)
    except MemoryError:
        reason = f"Reading it needs more than the {limits.memory_mb:,} MB of memory one file may take."
        return Refusal("memory", reason, digest, size, mtime_ns)
    except RecursionError:
        return Refusal("corrupt", "It is nested too deeply to be read.", digest, size, mtime_ns)
    except Exception as error:  # whatever a parser library trips over is a broken file, not a broken run
        detail = " ".join(str(error).split())[:200]
        reason = f"It is damaged or not what its name says ({type(error).__name__}{': ' + detail if detail else ''})."
        return Refusal("corrupt", reason, digest, size, mtime_ns)


def hash_bytes(data: bytes) -> str:
    """BLAKE2b-128 in hex: what ``Document.hash`` holds."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def hash_file(path: bytes | str | os.PathLike[str]) -> str:
    """``Document.hash`` of a file without parsing it, in bounded memory.

    Raises:
        OSError: when it cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _read(path: bytes, limits: Limits) -> tuple[bytes, os.stat_result]:
    """The whole file, refused when it is too large, not a file, or changes meanwhile."""
    try:
        # Without O_NONBLOCK opening a named pipe would wait for a writer for ever.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise Refused("unreadable", _why(error)) from None
    before = os.fstat(handle)
    if not stat.S_ISREG(before.st_mode):
        os.close(handle)
        raise Refused("unsupported", "It is not a regular file.")
    with os.fdopen(handle, "rb", buffering=0) as file:
        if before.st_size == 0:
            raise Refused("empty", "The file is empty.")
        if before.st_size > limits.max_bytes:
            raise Refused(
                "too_large",
                f"It has {before.st_size / 1e6:,.0f} MB; files up to {limits.max_bytes / 1e6:,.0f} MB are read.",
            )
        try:
            data = _read_exactly(file, before.st_size)
        except OSError as error:
            raise Refused("unreadable", _why(error)) from None
        after = os.fstat(handle)
        more = file.read(1)
    same = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    if not same or more or len(data) != before.st_size:
        raise Refused("changed", "It changed while it was being read; it will be tried again.")
    return data, before


def _read_exactly(file: object, size: int) -> bytes:
    data = bytearray(size)
    view, filled = memoryview(data), 0
    while filled < size:
        count = file.readinto(view[filled : filled + (1 << 24)])  # type: ignore[attr-defined]
        if not count:
            break
        filled += count
    view.release()
    del data[filled:]
    return bytes(data)


def _why(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "There is no permission to read it."
    if isinstance(error, FileNotFoundError):
        return "It is no longer there."
    return f"It cannot be read: {error.strerror or error}."


def _parse(data: bytes, path: bytes, limits: Limits) -> Document:
    kind = _kind(path, data)
    name = os.path.basename(path).decode("utf-8", "replace")
    out = Builder(limits)
    # OCR and other optional work stops well before the parent would end this process.
    source = Source(data, name, kind, limits, deadline=time.monotonic() + 0.8 * limits.seconds)
    module = importlib.import_module(f"kogata.ask.documents.formats.{_PARSERS[kind]}")
    module.read(source, out)
    return out.document(kind)


def _kind(path: bytes, data: bytes) -> str:
    """What the bytes prove goes before what the name promises."""
    promised, proved = filetype.by_name(path), filetype.by_content(data[:1024])
    if proved == "pdf" and (promised in (None, "pdf", "binary") or data.startswith(b"%PDF-")):
        return "pdf"
    if proved == "zip":
        return _zip_kind(data, promised)
    if proved == "ole":
        return _refuse_ole(data)
    if proved == "rtf":
        raise Refused("unsupported", "Rich Text Format is not read; save it as docx, odt or pdf.")
    words = filetype.binary_name(data[:1024])
    if words is not None:
        raise Refused("binary", f"It is {words}, not a document.")
    if promised in _ZIPPED:
        if data[:64].lstrip().startswith(b"<?xml") and promised in ("odt", "ods", "odp"):
            return promised
        raise Refused("corrupt", f"It is named {promised} but is not one.")
    if promised == "pdf":
        raise Refused("corrupt", "It is named pdf but does not begin like one.")
    if promised == "binary":
        raise Refused("binary", "It is a binary file, not a document.")
    if promised is not None:
        return "html" if promised == "txt" and proved == "html" else promised
    return proved if proved is not None else "txt"


def _zip_kind(data: bytes, promised: str | None) -> str:
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            names = set(archive.namelist())
            if "mimetype" in names:
                with archive.open("mimetype") as file:
                    stated = file.read(100).decode("ascii", "replace").strip().removesuffix("-template")
                if stated in _MIMETYPES:
                    return _MIMETYPES[stated]
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError):
        if promised in _ZIPPED:
            raise Refused("corrupt", f"It is a damaged {promised} file.") from None
        raise Refused("binary", "It is a damaged archive.") from None
    for part, kind in _OFFICE.items():
        if part in names:
            return kind
    if promised in _ZIPPED:
        raise Refused("corrupt", f"It is named {promised}, but its main part is missing.")
    raise Refused("binary", "It is an archive; unpack it to have its files read.")


def _refuse_ole(data: bytes) -> str:
    if "EncryptedPackage".encode("utf-16-le") in data:
        raise Refused("encrypted", "It is protected by a password; save a copy without one.")
    raise Refused("unsupported", "It is in the Office format before 2007; save it as docx, xlsx or pptx.")
