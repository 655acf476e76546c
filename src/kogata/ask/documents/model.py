"""What a parsed document is: one text, the blocks it is made of, and the reasons a file may be refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

BlockKind = Literal["paragraph", "heading", "code", "table", "list"]
_BLOCK_KINDS: tuple[str, ...] = get_args(BlockKind)


@dataclass(frozen=True, slots=True)
class Block:
    """A run of ``Document.text``: ``text[start:end]``, in characters.

    Attributes:
        kind: What it is.
        page: Page, slide or sheet number, from 1; None where the format has none.
        heading: The headings in force, outermost first. A heading's own path ends with itself.
    """

    start: int
    end: int
    kind: BlockKind
    page: int | None
    heading: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A file as text.

    Attributes:
        text: The whole text: NFC or not as the file has it, ``\\n`` line ends, no lone surrogates, no NUL.
        title: From the metadata, else the first heading, else ''.
        kind: A key of :func:`kogata.ask.documents.kinds`.
        blocks: In order, not overlapping; everything outside them is white space.
        encoding: How the bytes were decoded (Python's codec name); None for binary formats.
        notes: Sentences about what was left out, replaced or guessed.
        n_pages: Pages, slides or sheets; None where the format has none.
        hash: BLAKE2b-128 of the file's bytes, in hex: equal content, equal hash.
        size: Bytes read.
        mtime_ns: Modification time of the file when it was read.
    """

    text: str
    title: str
    kind: str
    blocks: tuple[Block, ...]
    encoding: str | None = None
    notes: tuple[str, ...] = ()
    n_pages: int | None = None
    hash: str = ""
    size: int = 0
    mtime_ns: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; heading paths are stored once each."""
        paths: dict[tuple[str, ...], int] = {}
        blocks = [
            [b.start, b.end, _BLOCK_KINDS.index(b.kind), b.page, paths.setdefault(b.heading, len(paths))]
            for b in self.blocks
        ]
        return {
            "text": self.text, "title": self.title, "kind": self.kind, "headings": list(paths), "blocks": blocks,
            "encoding": self.encoding, "notes": list(self.notes), "n_pages": self.n_pages,
            "hash": self.hash, "size": self.size, "mtime_ns": self.mtime_ns,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Document:
        """The inverse of :meth:`to_dict`."""
        paths = [tuple(path) for path in data["headings"]]
        blocks = tuple(
            Block(start, end, _BLOCK_KINDS[kind], page, paths[path]) for start, end, kind, page, path in data["blocks"]
        )
        return cls(
            text=data["text"], title=data["title"], kind=data["kind"], blocks=blocks, encoding=data["encoding"],
            notes=tuple(data["notes"]), n_pages=data["n_pages"], hash=data["hash"], size=data["size"],
            mtime_ns=data["mtime_ns"],
        )  # fmt: skip


RefusalCode = Literal[
    "binary", "changed", "corrupt", "crashed", "empty", "encrypted", "garbled", "memory", "scanned", "timeout",
    "too_large", "unreadable", "unsupported",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a file was not taken.

    Attributes:
        code: One word for programs, see :data:`RefusalCode`. ``changed`` is worth another try.
        reason: A sentence for people.
        hash: Of the file's bytes where they were read (a refused file need not be tried again while it is the same).
    """

    code: RefusalCode
    reason: str
    hash: str = ""
    size: int = 0
    mtime_ns: int = 0


class Refused(Exception):
    """Raised inside parsers; :func:`kogata.ask.documents.parse` turns it into a :class:`Refusal`."""

    def __init__(self, code: RefusalCode, reason: str) -> None:
        super().__init__(reason)
        self.code: RefusalCode = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Limits:
    """What one file may cost.

    Attributes:
        seconds: Wall time (and processor time) for one file.
        memory_mb: Address space of a worker process, MiB.
        max_bytes: Size of the file.
        max_characters: Length of the text that comes out of it; also bounds what a compressed file unpacks to.
        ocr: Read scanned pages with tesseract where it is installed.
    """

    seconds: float = 60.0
    memory_mb: int = 1024
    max_bytes: int = 200_000_000
    max_characters: int = 30_000_000
    ocr: bool = True
