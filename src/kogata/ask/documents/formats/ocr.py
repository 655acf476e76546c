"""Scanned pages through tesseract, where it is installed: rendered by PDFium, one page at a time, in bounded time."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from typing import Any, Protocol

from kogata.ask.documents.builder import Builder

_DPI = 300
_MOST_PIXELS = 25_000_000
_SECONDS_PER_PAGE = 30.0
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
# Tesseract sets spaces between Japanese characters.
_SPACE_IN_JAPANESE = re.compile(
    r"(?<=[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef])[ \t]+(?=[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef])"
)


class _ScannedPage(Protocol):
    number: int
    read_by_ocr: str


def recognise(document: Any, pages: Sequence[_ScannedPage], deadline: float, out: Builder) -> None:
    """Fill in ``read_by_ocr`` of as many pages as time allows; says in the notes what was and was not read so."""
    program = shutil.which("tesseract")
    if program is None or not pages:
        return
    languages = _languages(program)
    n_read, n_late = 0, 0
    for page in pages:
        left = deadline - time.monotonic()
        if left < 2:
            n_late += 1
            continue
        image = _image(document, page.number)
        text = _read(program, languages, image, min(left, _SECONDS_PER_PAGE))
        if n_read == 0 and text and "jpn" in languages and len(_CJK.findall(text)) < 0.05 * len(text):
            # No Japanese on the first page: reading the rest without it is faster and better.
            languages = [name for name in languages if not name.startswith("jpn")] or languages
            text = _read(program, languages, image, _SECONDS_PER_PAGE) or text
        page.read_by_ocr = text
        n_read += bool(text)
    if n_read:
        out.note(f"{n_read:,} scanned pages were read by character recognition ({'+'.join(languages)}); expect errors.")
    if n_late:
        out.note(f"{n_late:,} scanned pages were not read, because the time for one file ran out.")


def _languages(program: str) -> list[str]:
    """English, Japanese, and nothing else unless neither is installed: each more makes the others worse."""
    try:
        listing = subprocess.run([program, "--list-langs"], capture_output=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ["eng"]
    installed = [line.strip() for line in listing.decode("utf-8", "replace").splitlines()[1:]]
    wanted: list[str] = [name for name in ("jpn", "eng") if name in installed]
    return wanted or [name for name in installed if name != "osd"][:1] or ["eng"]


def _image(document: Any, number: int) -> bytes:
    """The page as a grey PGM picture."""
    page = document[number - 1]
    try:
        width, height = page.get_size()
        scale = min(_DPI / 72, (_MOST_PIXELS / max(width * height, 1)) ** 0.5)
        bitmap = page.render(scale=scale, grayscale=True)
        try:
            rows = bytes(bitmap.buffer)
            stride, wide, high = bitmap.stride, bitmap.width, bitmap.height
        finally:
            bitmap.close()
    finally:
        page.close()
    if stride != wide:
        rows = b"".join(rows[y * stride : y * stride + wide] for y in range(high))
    return b"P5 %d %d 255\n" % (wide, high) + rows


def _read(program: str, languages: Sequence[str], image: bytes, seconds: float) -> str:
    command = [program, "stdin", "stdout", "-l", "+".join(languages), "--psm", "3"]
    try:
        done = subprocess.run(command, input=image, capture_output=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    if done.returncode != 0:
        return ""
    text = done.stdout.decode("utf-8", "replace").replace("\f", "\n\n").strip()
    return _SPACE_IN_JAPANESE.sub("", text) if sum(map(str.isalnum, text)) >= 3 else ""
