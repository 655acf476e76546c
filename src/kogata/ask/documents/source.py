"""What a parser is given: the bytes of one file, its name, its limits and its deadline."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from kogata.ask.documents.builder import Builder
from kogata.ask.documents.encoding import decode
from kogata.ask.documents.model import Limits


@dataclass(frozen=True, slots=True)
class Source:
    """One file in memory.

    Attributes:
        data: The bytes.
        name: File name for titles and notes, without its folder, replaced where it is not UTF-8.
        kind: A key of :func:`kogata.ask.documents.kinds`.
        limits: What it may cost.
        deadline: ``time.monotonic()`` at which optional work (OCR) must have stopped.
    """

    data: bytes
    name: str
    kind: str
    limits: Limits
    deadline: float = field(default_factory=lambda: time.monotonic() + 60)

    @property
    def suffix(self) -> str:
        """Lower-case suffix with its dot, or ''."""
        dot = self.name.rfind(".")
        return self.name[dot:].lower() if dot > 0 else ""

    def text(self, out: Builder, *, declared: bool = False) -> str:
        """The file as text; the encoding and what had to be replaced are recorded in ``out``.

        Raises:
            Refused: ``binary``.
        """
        decoded = decode(self.data, declared=declared)
        out.encoding = decoded.encoding
        if decoded.replaced:
            out.note(f"{decoded.replaced:,} characters could not be decoded as {decoded.encoding} and were replaced.")
        if not decoded.sure:
            out.note(f"The encoding is not stated; it was taken for {decoded.encoding}.")
        text = decoded.text
        return text[1:] if text.startswith("\ufeff") else text
