"""Markdown (CommonMark with tables, front matter): what a reader sees, without the marks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from kogata.ask.documents.builder import Builder, clean
from kogata.ask.documents.source import Source

if TYPE_CHECKING:
    from markdown_it.token import Token

_FRONT = re.compile(r"\A(---|\+\+\+)[^\S\n]*\n(.*?\n)(?:\1|\.\.\.)[^\S\n]*(?:\n|\Z)", re.S)
_TITLE = re.compile(r"""^title\s*[:=]\s*(["']?)(.+?)\1\s*$""", re.M)
_FOOTNOTE = re.compile(r"\[\^[^\]\s]+\]:?")
_DESCRIPTION = re.compile(r"""^(?:description|summary)\s*[:=]\s*(["']?)(.+?)\1\s*$""", re.M)


def read(source: Source, out: Builder) -> None:
    """Add the blocks of a Markdown file."""
    add_markdown(source.text(out), out)


def add_markdown(text: str, out: Builder, *, base_level: int = 0) -> None:
    """Add Markdown text; ``base_level`` is added to the heading levels (for texts inside texts)."""
    from markdown_it import MarkdownIt

    text = clean(text)
    front = _FRONT.match(text)
    if front:
        text = text[front.end() :]
        if title := _TITLE.search(front[2]):
            out.title = out.title or title[2]
        if description := _DESCRIPTION.search(front[2]):
            out.paragraph(description[2])
    _walk(MarkdownIt("commonmark", {"maxNesting": 30}).enable(["table", "strikethrough"]).parse(text), out, base_level)


def _walk(tokens: Sequence[Token], out: Builder, base_level: int) -> None:
    depth: list[tuple[str, int]] = []  # open lists: kind of bullet and the next number
    bullet = ""
    rows: list[list[str]] = []
    kind = ""
    for token in tokens:
        match token.type:
            case "heading_open":
                kind = token.tag
            case "inline":
                words = _words(token.children or ())
                if kind.startswith("h"):
                    out.heading(base_level + int(kind[1]), words)
                elif kind == "cell":
                    rows[-1].append(words)
                elif depth:
                    out.add("list", "  " * (len(depth) - 1) + bullet + words)
                    bullet = " " * len(bullet)
                else:
                    out.paragraph(words)
            case "heading_close" | "th_close" | "td_close":
                kind = ""
            case "th_open" | "td_open":
                kind = "cell"
            case "tr_open":
                rows.append([])
            case "table_close":
                out.table(rows)
                rows = []
            case "bullet_list_open":
                depth.append(("-", 0))
            case "ordered_list_open":
                depth.append(("1", int(token.attrGet("start") or 1)))
            case "bullet_list_close" | "ordered_list_close":
                depth.pop()
            case "list_item_open":
                mark, number = depth[-1]
                bullet = "- " if mark == "-" else f"{number}. "
                depth[-1] = (mark, number + 1)
            case "fence" | "code_block":
                out.add("code", token.content)
            case "html_block":
                _html(token.content, out)


def _words(children: Iterable[Token]) -> str:
    parts: list[str] = []
    for token in children:
        match token.type:
            case "text":
                parts.append(_FOOTNOTE.sub("", token.content))
            case "code_inline":
                parts.append(token.content)
            case "softbreak":
                parts.append(_between(parts))
            case "hardbreak":
                parts.append("\n")
            case "image":
                parts.append(token.content)
            case "html_inline" if token.content.lower().startswith("<br"):
                parts.append("\n")
    return "".join(parts).strip()


def _between(parts: list[str]) -> str:
    """A line end inside a paragraph: nothing after Japanese, a space after anything else."""
    last = parts[-1][-1:] if parts else ""
    return "" if "\u3000" <= last <= "\u9fff" or "\uff00" <= last <= "\uffef" else " "


def _html(markup: str, out: Builder) -> None:
    from kogata.ask.documents.formats.html import add_html

    add_html(markup, out, main_only=False)
