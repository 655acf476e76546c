"""Zipped documents from strangers: opened only after every part was unpacked once, counting what really comes out."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING

from kogata.ask.documents.model import Limits, Refused

if TYPE_CHECKING:
    from lxml import etree

_PIECE = 1 << 20
_MOST_PARTS = 20_000
_SUSPECT_BYTES = 20_000_000
_SUSPECT_RATIO = 300  # a sheet of zeros reaches about 100
_MOST_MARKUP = 256_000_000
_RELATIONSHIP = "{http://schemas.openxmlformats.org/package/2006/relationships}Relationship"


class Package:
    """The parts of a zipped document."""

    def __init__(self, data: bytes, limits: Limits) -> None:
        """Open and check.

        Raises:
            Refused: ``corrupt``, ``encrypted``, or ``too_large`` (a zip bomb).
        """
        try:
            self._archive = zipfile.ZipFile(BytesIO(data))
            self.names = frozenset(self._archive.namelist())
            self._check(limits)
        except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError, KeyError) as error:
            raise Refused("corrupt", f"It is a damaged file ({error}).") from None
        except Exception as error:  # zlib.error and whatever other decompressors raise
            if isinstance(error, (Refused, MemoryError)):
                raise
            raise Refused("corrupt", f"It is a damaged file ({error}).") from None

    def _check(self, limits: Limits) -> None:
        infos = self._archive.infolist()
        if len(infos) > _MOST_PARTS:
            raise Refused("too_large", f"It has {len(infos):,} parts inside; at most {_MOST_PARTS:,} are read.")
        markup = total = 0
        for info in infos:
            if info.flag_bits & 1:
                raise Refused("encrypted", "It is protected by a password; save a copy without one.")
            size = self._unpacked(info, limits)
            total += size
            if info.filename.lower().endswith((".xml", ".rels", ".xhtml", ".html", ".htm", ".opf", ".ncx")):
                markup += size
            if total > 4 * limits.max_bytes or markup > _MOST_MARKUP:
                raise Refused("too_large", f"It unpacks to more than {max(total, markup) / 1e6:,.0f} MB (a zip bomb?).")

    def _unpacked(self, info: zipfile.ZipInfo, limits: Limits) -> int:
        """Bytes that really come out of a part, whatever its header says."""
        size = 0
        with self._archive.open(info) as part:
            while piece := part.read(_PIECE):
                size += len(piece)
                is_bomb = size > _SUSPECT_BYTES and size > _SUSPECT_RATIO * max(info.compress_size, 1)
                if is_bomb or size > 4 * limits.max_bytes:
                    raise Refused(
                        "too_large",
                        f"A part of it unpacks {size / max(info.compress_size, 1):,.0f}-fold to more than"
                        f" {size / 1e6:,.0f} MB (a zip bomb).",
                    )
        return size

    def read(self, name: str) -> bytes | None:
        """A part's bytes, or None when there is no such part."""
        if name not in self.names:
            return None
        return self._archive.read(name)

    def xml(self, name: str) -> etree._Element | None:
        """A part as XML, or None when it is missing or empty."""
        data = self.read(name)
        return parse_xml(data) if data else None

    def related(self, name: str) -> dict[str, tuple[str, str]]:
        """Relationships of an Office part: id -> (last word of the type, part name)."""
        folder, _, base = name.rpartition("/")
        root = self.xml(f"{folder}/_rels/{base}.rels" if folder else f"_rels/{base}.rels")
        found: dict[str, tuple[str, str]] = {}
        for relation in root.iter(_RELATIONSHIP) if root is not None else ():
            if relation.get("TargetMode") != "External":
                kind = relation.get("Type", "").rpartition("/")[2]
                found[relation.get("Id", "")] = (kind, resolved(folder, relation.get("Target", "")))
        return found

    def title(self) -> str:
        """``dc:title`` of an Office file's core properties."""
        for kind, part in self.related("").values():
            if kind == "core-properties" and (root := self.xml(part)) is not None:
                return dc_title(root)
        return ""


def resolved(folder: str, target: str) -> str:
    """A part's name from a reference in a part of ``folder``."""
    if target.startswith("/"):
        return target[1:]
    steps: list[str] = [step for step in folder.split("/") if step]
    for step in target.split("/"):
        if step == "..":
            if steps:
                steps.pop()
        elif step not in ("", "."):
            steps.append(step)
    return "/".join(steps)


def parse_xml(data: bytes, *, recover: bool = False) -> etree._Element:
    """XML without entities, DTDs or network.

    Raises:
        Refused: ``corrupt``.
    """
    from lxml import etree

    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=True, remove_comments=True,
        remove_pis=True, recover=recover,
    )  # fmt: skip
    # huge_tree lifts the cap on text nodes (10 MB) and on depth: entities are not expanded, and depth is checked here.
    if len(re.findall(rb"<!ENTITY", data[: 1 << 20])) > 1000:
        raise Refused("corrupt", "It defines entities in number (an XML bomb?).")
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise Refused("corrupt", f"Its XML is damaged ({error.msg}).") from None
    if root is None:
        raise Refused("corrupt", "It holds no XML.")
    return root


def dc_title(root: etree._Element | None) -> str:
    """The title among a document's Dublin Core properties, or ''."""
    found = root.find(".//{http://purl.org/dc/elements/1.1/}title") if root is not None else None
    return (found.text or "").strip() if found is not None else ""


def words_of(node: etree._Element, instead: Callable[[etree._Element], str | None]) -> str:
    """The text inside an element, without recursion (markup can nest as deep as it likes).

    Args:
        instead: What stands for an element inside it; None: its own text.
    """
    parts = [node.text or ""]
    stack = [(child, False) for child in reversed(node)]
    while stack:
        child, is_tail = stack.pop()
        if is_tail:
            parts.append(child.tail or "")
            continue
        stack.append((child, True))
        words = instead(child)
        if words is None:
            words = child.text or ""
            stack.extend((grandchild, False) for grandchild in reversed(child))
        parts.append(words)
    return "".join(parts)
