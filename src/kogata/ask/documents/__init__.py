"""Documents: finding files, reading them in worker processes, cutting them into passages and sentences.

Public names are imported on first use: the process that only searches never loads a parser, and the worker loads only
the parsers of the kinds it meets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kogata.ask.documents.borders import sentences
    from kogata.ask.documents.chunking import Chunk, chunk
    from kogata.ask.documents.discovery import Discovery, Found, Skipped, discover
    from kogata.ask.documents.filetype import kinds
    from kogata.ask.documents.model import Block, Document, Limits, Refusal, Refused
    from kogata.ask.documents.pool import ParserPool
    from kogata.ask.documents.reading import hash_file, parse

PARSERS = 1
"""Raise it when the parsers learn to read files that they refused: those are tried again, everything else stays."""

__all__ = [
    "PARSERS", "Block", "Chunk", "Discovery", "Document", "Found", "Limits", "ParserPool", "Refusal", "Refused",
    "Skipped", "chunk", "discover", "hash_file", "kinds", "parse", "sentences",
]  # fmt: skip

_HOMES = {
    "borders": ("sentences",), "chunking": ("Chunk", "chunk"), "filetype": ("kinds",), "pool": ("ParserPool",),
    "discovery": ("Discovery", "Found", "Skipped", "discover"), "reading": ("hash_file", "parse"),
    "model": ("Block", "Document", "Limits", "Refusal", "Refused"),
}  # fmt: skip
_LAZY = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    home = _LAZY.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
