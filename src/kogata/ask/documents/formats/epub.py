"""Electronic books: the chapters in reading order, without navigation and ruby."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from kogata.ask.documents.builder import Builder
from kogata.ask.documents.encoding import decode
from kogata.ask.documents.formats.html import add_html
from kogata.ask.documents.formats.package import Package, dc_title, resolved, words_of
from kogata.ask.documents.model import Refused
from kogata.ask.documents.source import Source

if TYPE_CHECKING:
    from lxml.etree import _Element

_CONTAINER = "{urn:oasis:names:tc:opendocument:xmlns:container}"
_OPF = "{http://www.idpf.org/2007/opf}"
_XHTML = "{http://www.w3.org/1999/xhtml}"
_NCX = "{http://www.daisy.org/z3986/2005/ncx/}"
_NCX_TYPE = "application/x-dtbncx+xml"
_HEADING = re.compile(r"<h[1-6]\b", re.I)
_CIPHER = "{http://www.w3.org/2001/04/xmlenc#}CipherReference"


def read(source: Source, out: Builder) -> None:
    """Add the chapters of an .epub file."""
    package = Package(source.data, source.limits)
    container = package.xml("META-INF/container.xml")
    rootfile = container.find(f".//{_CONTAINER}rootfile") if container is not None else None
    path = rootfile.get("full-path", "") if rootfile is not None else ""
    opf = package.xml(path)
    if opf is None:
        raise Refused("corrupt", "Its table of parts is missing.")
    folder = path.rpartition("/")[0]
    locked, labels = _encrypted(package), _labels(package, opf, folder)
    missing = 0
    for part in _spine(opf, folder):
        if part in locked:
            raise Refused("encrypted", "It is protected against copying (DRM).")
        data = package.read(part)
        if data is None:
            missing += 1
            continue
        decoded = decode(data, declared=True)
        out.encoding = out.encoding or decoded.encoding
        # A chapter whose title is not marked as one goes by its name in the table of contents.
        out.under("" if _HEADING.search(decoded.text) else labels.get(part, ""))
        add_html(decoded.text, out, main_only=False)
    if missing:
        out.note(f"{missing:,} parts named in its contents are missing.")
    out.title = dc_title(opf) or out.title


def _spine(opf: _Element, folder: str) -> list[str]:
    items = {item.get("id"): item for item in opf.iter(f"{_OPF}item")}
    parts = []
    for reference in opf.iter(f"{_OPF}itemref"):
        item = items.get(reference.get("idref"))
        if item is None or "nav" in (item.get("properties") or "").split():
            continue
        if "html" in (item.get("media-type") or "html"):
            parts.append(resolved(folder, unquote(item.get("href") or "")))
    return parts


def _labels(package: Package, opf: _Element, folder: str) -> dict[str, str]:
    """Part -> its first name in the table of contents, which is a page of links (EPUB 3) or a tree of points (2)."""
    labels: dict[str, str] = {}
    for item in opf.iter(f"{_OPF}item"):
        if "nav" not in (item.get("properties") or "").split() and item.get("media-type") != _NCX_TYPE:
            continue
        contents = resolved(folder, unquote(item.get("href") or ""))
        try:
            root = package.xml(contents)
        except Refused:  # the chapters can be read without it
            continue
        for entry in root.iter(f"{_XHTML}a", f"{_NCX}navPoint") if root is not None else ():
            target = entry.find(f"{_NCX}content")
            link = entry.get("href", "") if target is None else target.get("src", "")
            name = entry if target is None else entry.find(f"{_NCX}navLabel/{_NCX}text")
            words = words_of(name, lambda _: None) if name is not None else ""
            labels.setdefault(resolved(contents.rpartition("/")[0], unquote(link.partition("#")[0])), words)
    return labels


def _encrypted(package: Package) -> frozenset[str]:
    root = package.xml("META-INF/encryption.xml")
    if root is None:
        return frozenset()
    return frozenset(unquote(reference.get("URI", "")) for reference in root.iter(_CIPHER))
