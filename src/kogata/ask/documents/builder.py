"""Collects blocks into one text, keeping exact offsets and the heading path in force."""

from __future__ import annotations

import re
import unicodedata

from kogata.ask.documents.model import Block, BlockKind, Document, Limits, Refused

# NUL and the other control characters that no text means (tab and line feed stay), hyphens that are not shown (those
# at line ends stay, for who joins the lines), and what no UTF-8 can hold.
_UNWANTED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ufeff\ufffe\uffff]|\u00ad(?=\w)|[\ud800-\udfff]")
_SPACE = re.compile(r"[^\S\n]+")
WIDE = re.compile(r"[\u2e80-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]")
"""Characters of scripts that part words by nothing: a line end between two of them means nothing either."""

_EDGES = " \t\n\r\f\v"
# NFC would also change these into other shapes of the same kanji, which in a name is a mistake.
_COMPOSED = re.compile("[^\uf900-\ufaff\U0002f800-\U0002fa1f]+")


def clean(text: str) -> str:
    """Letters composed (NFC) as queries are, ``\\n`` line ends, no control characters, no lone surrogates (U+FFFD)."""
    if not unicodedata.is_normalized("NFC", text):
        text = _COMPOSED.sub(lambda m: unicodedata.normalize("NFC", m[0]), text)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _UNWANTED.sub(lambda m: "\ufffd" if m[0] >= "\ud800" and m[0] <= "\udfff" else _control(m[0]), text)


def _control(character: str) -> str:
    return "\n" if character in "\x0b\x0c\x1c\x1d\x1e" else ""


def squeeze(text: str) -> str:
    """Runs of white space become one space; line ends too."""
    return " ".join(text.split())


class Builder:
    """Parsers call :meth:`heading` and :meth:`add` in reading order, then :meth:`document`."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._parts: list[str] = []
        self._blocks: list[Block] = []
        self._length = 0
        self._path: list[tuple[int, str]] = []
        self._headings: tuple[str, ...] = ()
        self._notes: list[str] = []
        self.title = ""
        self.page: int | None = None
        self.encoding: str | None = None
        self.n_pages: int | None = None

    @property
    def length(self) -> int:
        """Characters so far."""
        return self._length

    def note(self, sentence: str) -> None:
        """Say once what was left out, replaced or guessed."""
        if sentence not in self._notes:
            self._notes.append(sentence)

    def heading(self, level: int, text: str) -> None:
        """A heading; it closes all headings of the same or a deeper level (1 is the outermost)."""
        text = squeeze(clean(text))
        if not text:
            return
        while self._path and self._path[-1][0] >= level:
            self._path.pop()
        # A path is for people to read beside a citation: a runaway "heading" is cut there, never in the text.
        self._path.append((level, text if len(text) <= 200 else text[:199] + "…"))
        self._headings = tuple(name for _, name in self._path)
        self._append("heading", text)

    def leave(self, level: int) -> None:
        """Close the headings of this and deeper levels without opening another."""
        while self._path and self._path[-1][0] >= level:
            self._path.pop()
        self._headings = tuple(name for _, name in self._path)

    def under(self, name: str) -> None:
        """Put what follows under a name that is not itself part of the text (a function, a class); '' for none."""
        name = squeeze(clean(name))
        self._path = [(1, name)] if name else []
        self._headings = (name,) if name else ()

    def add(self, kind: BlockKind, text: str) -> None:
        """A block of text; inner line breaks are kept, empty text is ignored."""
        text = clean(text)
        text = text.rstrip().lstrip("\n") if kind in ("code", "list") else text.strip(_EDGES)
        if text.strip():
            self._append(kind, text)

    def paragraph(self, text: str) -> None:
        """Running text whose line breaks mean nothing."""
        self.add("paragraph", _SPACE.sub(" ", text))

    def go_on(self, text: str) -> None:
        """Go on with the paragraph before (a page or column ended within it), as a block of its own.

        Nothing but a space, or nothing at all between Japanese characters, parts the two in the text.
        """
        text = _SPACE.sub(" ", clean(text)).strip(_EDGES)
        if not text or not self._blocks:
            self.paragraph(text)
            return
        last = self._parts[-1]
        if last.endswith("\u00ad"):  # a word cut by the page's end: the sign goes, the halves meet
            self._parts[-1] = last[:-1]
            self._length -= 1
            before = self._blocks[-1]
            self._blocks[-1] = Block(before.start, self._length, before.kind, before.page, before.heading)
            between = ""
        else:
            between = "" if WIDE.match(last[-1]) and WIDE.match(text) else " "
        self._append("paragraph", text, between)

    def table(self, rows: list[list[str]]) -> None:
        """Rows of cells, one line a row, cells parted by ' | '."""
        lines = (" | ".join(map(squeeze, row)).rstrip(" |") for row in rows if any(cell.strip() for cell in row))
        self.add("table", "\n".join(lines))

    def _append(self, kind: BlockKind, text: str, between: str | None = None) -> None:
        if self._blocks:
            if between is None:
                between = "\n" if kind == "list" and self._blocks[-1].kind == "list" else "\n\n"
            self._parts.append(between)
            self._length += len(between)
        start = self._length
        self._parts.append(text)
        self._length += len(text)
        if self._length > self._limits.max_characters:
            raise Refused(
                "too_large",
                f"It holds more than {self._limits.max_characters:,} characters of text, the most taken from one file;"
                " split it.",
            )
        self._blocks.append(Block(start, self._length, kind, self.page, self._headings))

    def document(self, kind: str) -> Document:
        """The finished document.

        Raises:
            Refused: ``empty`` when no text was found.
        """
        if not self._blocks:
            raise Refused("empty", "There is no text in it.")
        title = squeeze(clean(self.title))
        if not title:
            title = next((b.heading[-1] for b in self._blocks if b.kind == "heading"), "")
        return Document(
            text="".join(self._parts), title=title[:300], kind=kind, blocks=tuple(self._blocks),
            encoding=self.encoding, notes=tuple(self._notes), n_pages=self.n_pages,
        )  # fmt: skip
