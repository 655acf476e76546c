"""Paths as bytes, the way the system spells them."""

from __future__ import annotations

import os

SEPARATOR = os.fsencode(os.sep)


def under(path: bytes, folder: bytes) -> bool:
    """Whether ``path`` is ``folder`` or inside it."""
    return path == folder or path.startswith(folder.rstrip(SEPARATOR) + SEPARATOR)
