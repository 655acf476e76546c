"""Errors that a person is meant to read.

Every error Kogata raises on purpose derives from :class:`KogataError`: its message is one or two plain sentences that
say what was wrong and what is accepted. The command line prints them without a traceback.
"""

from __future__ import annotations


class KogataError(Exception):
    """Base of every error raised on purpose.

    Args:
        message: What was wrong, in a sentence.
        hint: What to do about it, if there is more to say than the message does.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class BadInput(KogataError, ValueError):
    """An argument, option or query that is not accepted."""


class ModelError(KogataError):
    """A model that cannot be found, read or run."""


class Busy(KogataError):
    """As much is waiting as may: worth another try in a moment."""


class DocumentError(KogataError):
    """A document or folder that cannot be read."""


class StoreError(KogataError):
    """An index that cannot be opened, read or written."""


class LockedError(StoreError):
    """Another process is writing to the index."""


class NewerIndexError(StoreError):
    """The index was written by a later version of Kogata."""


class DamagedIndexError(StoreError):
    """The index file is truncated or not an index."""


class NotInIndex(StoreError):
    """What was asked about by its id is not in the index."""


class EmbedderMismatch(StoreError):
    """The index holds vectors of another embedder."""
