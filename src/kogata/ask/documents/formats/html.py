"""HTML: the text a reader came for, without navigation, scripts, styles, hidden parts and ruby."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kogata.ask.documents.builder import Builder
from kogata.ask.documents.source import Source

if TYPE_CHECKING:
    from selectolax.lexbor import LexborNode

_DROPPED_WORDS = """
    script style noscript template svg math canvas iframe object embed audio video map head nav aside footer
    form button select textarea input rt rp rtc dialog menu link meta
"""
_DROPPED = frozenset(_DROPPED_WORDS.split())
_BLOCKS_WORDS = """
    address article blockquote body caption center dd details div dl dt fieldset figcaption figure hr html
    legend main p section summary ul ol header hgroup
"""
_BLOCKS = frozenset(_BLOCKS_WORDS.split())
_HEADINGS = {"h1": 1, "h2": 2, "h3": 3, "h4": 4, "h5": 5, "h6": 6}
_NAMED = frozenset(("div", "ul", "ol", "span", "section", "a", "p", "table", "header"))
_MOST_COMPARED = 200  # each comparison reads the element's text
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.I)
_ASIDE = re.compile(
    r"(?:^|[\s_-])(?:nav|navbar|navigation|navi|sidebar|breadcrumbs?|menu|toc|cookie|banner|advert|ads|share|social|"
    r"pagination|skip-link|headerlink|related|sphinxsidebar|pagefooter|footer)(?:$|[\s_-])",
    re.I,
)


def read(source: Source, out: Builder) -> None:
    """Add the main text of a page."""
    add_html(source.text(out, declared=True), out, main_only=True)


def add_html(markup: str, out: Builder, *, main_only: bool, base_level: int = 0) -> None:
    """Add the text of HTML markup.

    Args:
        main_only: Leave out navigation and page furniture (a web page), or take everything visible (a chapter, a mail).
        base_level: Added to the heading levels.
    """
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(markup)
    if (title := tree.css_first("head > title")) is not None and not out.title:
        out.title = title.text(deep=True).strip()
    body = tree.body
    if body is None:
        return
    for node in body.css("script, style"):  # their text would count below
        node.decompose()
    root = _main(tree, body) if main_only else body
    _Walker(out, base_level, main_only, len(root.text(deep=True))).walk(root)


def _main(tree: object, body: LexborNode) -> LexborNode:
    """The element that holds the page's own text: <main> or a lone <article>, if most paragraphs are inside."""
    for selector in ("main", "[role=main]", "article"):
        found = body.css(selector)
        if len(found) == 1 and len(found[0].text(deep=True).strip()) > 200:
            return found[0]
    return body


class _Walker:
    """Goes through the tree without recursion (markup can nest as deep as it likes)."""

    def __init__(self, out: Builder, base_level: int, main_only: bool, n_characters: int) -> None:
        self._out = out
        self._base_level = base_level
        self._main_only = main_only
        self._n_characters = n_characters
        self._n_compared = 0
        self._words: list[str] = []

    def walk(self, root: LexborNode) -> None:
        stack: list[tuple[LexborNode, bool]] = [(root, False)]
        lists: list[list[object]] = []  # open lists: [tag, next number]
        marks: list[str] = []
        while stack:
            node, leaving = stack.pop()
            tag = node.tag or ""
            if leaving:
                self._leave(tag, lists)
                continue
            if tag == "-text":
                self._words.append(node.text_content or "")
                continue
            is_note = tag == "aside" and not self._main_only  # a book's footnote, not a page's sidebar
            if tag.startswith("-") or (tag in _DROPPED and not is_note) or self._hidden(node, node is root):
                continue
            if tag in _HEADINGS:
                self._flush(lists)
                self._out.heading(self._base_level + _HEADINGS[tag], visible(node))
                continue
            if tag == "pre":
                self._flush(lists)
                self._out.add("code", visible(node))
                continue
            if tag == "table" and not _is_layout(node):
                self._flush(lists)
                self._table(node)
                continue
            if tag == "br":
                self._words.append("\0")
                continue
            if tag in ("ul", "ol"):
                self._flush(lists)
                lists.append([tag, 1])
            elif tag == "li":
                self._flush(lists)
                marks.append(_mark(lists))
                self._words.append("\1" + marks[-1])
            elif tag in _BLOCKS or tag in ("td", "th", "tr", "aside"):
                self._flush(lists)
            elif tag == "img":
                self._words.append((node.attributes.get("alt") or "") if self._out.length else "")
            stack.append((node, True))
            stack.extend((child, False) for child in reversed(list(node.iter(include_text=True))))

    def _leave(self, tag: str, lists: list[list[object]]) -> None:
        if tag in ("ul", "ol"):
            self._flush(lists)
            if lists:
                lists.pop()
        elif tag in _BLOCKS or tag in ("li", "td", "th", "tr", "aside"):
            self._flush(lists)

    def _hidden(self, node: LexborNode, is_root: bool) -> bool:
        attributes = node.attributes
        if is_root:
            return False
        if self._main_only and node.tag == "header" and node.css_first("h1, h2") is None and node.parent is not None:
            return node.parent.tag not in ("article", "main", "section")  # the site's, not an article's
        if not attributes:
            return False
        if "hidden" in attributes or attributes.get("aria-hidden") == "true":
            return True
        if _HIDDEN.search(attributes.get("style") or ""):
            return True
        if not self._main_only:
            return False
        role = attributes.get("role")
        if role in ("navigation", "banner", "contentinfo", "search", "complementary", "menu", "menubar"):
            return True
        names = f"{attributes.get('class') or ''} {attributes.get('id') or ''}".strip()
        if node.tag not in _NAMED or not _ASIDE.search(names):
            return False
        self._n_compared += 1
        return self._n_compared > _MOST_COMPARED or not self._is_most_of_the_page(node)

    def _is_most_of_the_page(self, node: LexborNode) -> bool:
        """Then its name only mentions a sidebar or the like ("with-sidebar"). A menu is long, too, but all links."""
        size = len(node.text(deep=True))
        return size > 0.5 * self._n_characters and sum(len(link.text(deep=True)) for link in node.css("a")) < 0.5 * size

    def _flush(self, lists: list[list[object]]) -> None:
        text = "".join(self._words)
        self._words.clear()
        is_item = "\1" in text
        text = spaced(text.replace("\1", ""))
        if is_item and not text.strip("- 0123456789."):
            # The item's words come in a block of their own; of items in items the innermost mark stays.
            self._words.append("\1" + text.rsplit(" ", 1)[-1] + " ")
            return
        if is_item or lists:
            self._out.add("list", "  " * max(len(lists) - 1, 0) + text)
        else:
            self._out.paragraph(text)

    def _table(self, table: LexborNode) -> None:
        if (caption := table.css_first("caption")) is not None:
            self._out.paragraph(visible(caption))
        rows = []
        for row in table.css("tr"):
            cells = [child for child in row.iter() if child.tag in ("td", "th")]
            rows.append([visible(cell) for cell in cells])
        self._out.table(rows)


def _mark(lists: list[list[object]]) -> str:
    if lists and lists[-1][0] == "ol":
        number = lists[-1][1]
        lists[-1][1] = int(str(number)) + 1
        return f"{number}. "
    return "- "


def _is_layout(table: LexborNode) -> bool:
    """Old pages put everything into tables: one that holds tables, headings or long cells is not data."""
    if len(table.css("table")) > 1 or table.css_first("h1, h2, h3, ul, ol, pre") is not None:
        return True
    cells = table.css("td")
    return bool(cells) and len(cells) <= 4 and max(len(cell.text(deep=True)) for cell in cells) > 600


def visible(node: LexborNode) -> str:
    """The text of an element without dropped elements; line breaks only from <br> and, in <pre>, from the text."""
    preformatted = node.tag == "pre"
    parts: list[str] = []
    stack = list(reversed(list(node.iter(include_text=True))))
    while stack:
        child = stack.pop()
        tag = child.tag or ""
        if tag == "-text":
            parts.append(child.text_content or "")
        elif tag == "br":
            parts.append("\n" if preformatted else "\0")
        elif (
            tag not in _DROPPED
            and not tag.startswith("-")
            and "headerlink" not in (child.attributes.get("class") or "")
        ):
            if tag in _BLOCKS or tag in ("li", "tr", "td"):
                parts.append(" ")
            stack.extend(reversed(list(child.iter(include_text=True))))
    text = "".join(parts)
    return text if preformatted else spaced(text)


_BETWEEN_WIDE = re.compile(
    r"(?<=[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef])[^\S\0\u3000]*\n[^\S\0\u3000]*(?=[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef])"
)
_SPACES = re.compile(r"[^\S\0\u3000]+")


def spaced(text: str) -> str:
    """White space as a browser shows it, except that a line end between Japanese characters is nothing."""
    text = _SPACES.sub(" ", _BETWEEN_WIDE.sub("", text))
    return re.sub(r" ?\0 ?", "\n", text).strip()
