"""XML of any vocabulary: elements that hold words become paragraphs, those named like titles become headings."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kogata.ask.documents.builder import Builder, squeeze
from kogata.ask.documents.formats.html import add_html, spaced
from kogata.ask.documents.formats.package import parse_xml, words_of
from kogata.ask.documents.model import Refused
from kogata.ask.documents.source import Source

if TYPE_CHECKING:
    from lxml.etree import _Element

_TITLES = frozenset(("title", "head", "heading", "h1", "h2", "h3", "h4", "h5", "h6", "caption", "subject"))
_CODE = frozenset(("programlisting", "screen", "pre", "literallayout", "code", "synopsis"))
_LEFT_OUT = frozenset(("script", "style", "rt", "rp", "binary", "metadata", "defs"))
_HTML = re.compile(r"</(?:p|a|b|i|em|strong|li|div|span|h[1-6]|td|blockquote)>|<br ?/?>", re.I)
_DEEPEST = 500


def read(source: Source, out: Builder) -> None:
    """Add the text of an XML file."""
    text = source.text(out, declared=True)  # also records the encoding
    try:
        root = parse_xml(_without_declaration(text).encode("utf-8", "replace"))
    except Refused:
        root = parse_xml(_without_declaration(text).encode("utf-8", "replace"), recover=True)
        out.note("Its XML is damaged; what could be read was taken.")
    stack: list[tuple[_Element, int]] = [(root, 1)]
    while stack:
        node, depth = stack.pop()
        if not isinstance(node.tag, str):
            continue
        if depth > _DEEPEST:
            raise Refused("corrupt", f"It is nested more than {_DEEPEST} levels deep.")
        name = _name(node)
        if name in _LEFT_OUT:
            continue
        if name in _TITLES:
            words = squeeze(_words(node))
            out.title = out.title or words
            out.heading(min(depth, 9), words)
        elif name in _CODE:
            out.add("code", _words(node))
        elif _is_running_text(node):
            words = _words(node)
            if not len(node) and _HTML.search(words):  # markup in a CDATA section, as feeds have it
                add_html(words, out, main_only=False, base_level=min(depth, 9))
            else:
                out.add("paragraph", spaced(words))
        else:
            out.leave(min(depth + 1, 9))
            stack.extend((child, depth + 1) for child in reversed(node))


def _without_declaration(text: str) -> str:
    """The declared encoding was that of the bytes; the text is going to be UTF-8."""
    text = text.lstrip()
    if text.startswith("<?xml"):
        return text[text.find("?>") + 2 :]
    return text


def _name(node: _Element) -> str:
    return str(node.tag).rpartition("}")[2].lower()


def _is_running_text(node: _Element) -> bool:
    """An element with words of its own, among or instead of children."""
    if (node.text or "").strip():
        return True
    return any((child.tail or "").strip() for child in node)


def _words(node: _Element) -> str:
    return words_of(node, lambda child: "" if not isinstance(child.tag, str) or _name(child) in _LEFT_OUT else None)
