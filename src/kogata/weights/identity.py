"""Which model made a vector: hashes of files, remembered so that a start need not read everything.

Hashing 72 MB takes 50 to 100 ms, too long for each ``kogata search``. A file's hash is kept in the user's cache
folder under its path, size, modification time and inode: all four must match. Whoever hashes a file for the first time
also looks it over (for NaN, say), so a remembered hash means a file that was found sound.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CACHE_FORMAT = 1
_MOST_REMEMBERED = 200
_LARGEST_CACHE = 2**20


def digest_of(path: Path, data: NDArray[np.uint8], inspect: Callable[[], None]) -> str:
    """SHA-256 of a mapped file, from memory where the file has not changed since.

    Args:
        path: The file.
        data: Its bytes.
        inspect: Looks the content over, raising ModelError; called when the hash is not remembered.

    Returns:
        64 hexadecimal digits.
    """
    try:
        real = path.resolve()
        facts = real.stat()
    except OSError:
        inspect()
        return hashlib.sha256(data.data).hexdigest()
    key = str(real)
    mark = [facts.st_size, facts.st_mtime_ns, facts.st_ino, facts.st_dev]
    remembered = _recall().get(key)
    if isinstance(remembered, list) and remembered[:4] == mark and _is_digest(remembered[4:]):
        return str(remembered[4])
    inspect()
    digest = hashlib.sha256(data.data).hexdigest()
    _remember(key, [*mark, digest])
    return digest


def identity_of(facts: Mapping[str, Any]) -> str:
    """A hash of facts about a model (JSON values), the same on every machine.

    Returns:
        32 hexadecimal digits.
    """
    text = json.dumps(facts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _is_digest(value: list[Any]) -> bool:
    return len(value) == 1 and isinstance(value[0], str) and len(value[0]) == 64


def _cache_file() -> Path:
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("kogata", appauthor=False)) / "model-digests.json"


def _recall() -> dict[str, Any]:
    # A cache: whatever is wrong with it, the file is hashed again.
    try:
        with _cache_file().open("rb") as file:
            content = json.loads(file.read(_LARGEST_CACHE))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict) or content.get("format") != _CACHE_FORMAT:
        return {}
    files = content.get("files")
    return files if isinstance(files, dict) else {}


def _remember(key: str, value: list[Any]) -> None:
    import tempfile

    known = _recall()
    known.pop(key, None)
    known[key] = value
    kept = dict(list(known.items())[-_MOST_REMEMBERED:])
    target = _cache_file()
    with contextlib.suppress(OSError, ValueError):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".digests-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({"format": _CACHE_FORMAT, "files": kept}, file)
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
