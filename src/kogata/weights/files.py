"""Opening what a checkpoint is made of: mapped files and JSON, with an error that helps for whatever can be wrong."""

from __future__ import annotations

import errno
import json
import mmap
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from kogata.errors import ModelError

#: A config, an index or a tokenizer is far smaller; a larger file is a mistake or an attack.
_LARGEST_JSON = 16 * 2**20


def map_file(path: Path) -> NDArray[np.uint8]:
    """The file's bytes, mapped read-only.

    The array keeps the mapping; the file must not be shortened while it lives (replace model files by rename).

    Raises:
        ModelError: The file is missing, empty, not a file, or may not be read.
    """
    try:
        with _open(path) as file:
            if not os.fstat(file.fileno()).st_size:
                raise ModelError(f"{path} is empty.")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    return np.frombuffer(mapped, np.uint8)


def read_text(path: Path, largest: int = _LARGEST_JSON) -> str:
    """The text of a UTF-8 file.

    Raises:
        ModelError: The file cannot be read, is larger than ``largest`` bytes, or is not UTF-8.
    """
    try:
        with _open(path) as file:
            content = file.read(largest + 1)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    if len(content) > largest:
        raise ModelError(f"{path} is larger than {largest / 2**20:.0f} MB, which no such file needs.")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise ModelError(f"{path} is not UTF-8 text.") from None


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        ModelError: The file cannot be read or is not JSON.
    """
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not JSON: {error}.") from None


def read_object(path: Path) -> dict[str, Any]:
    """The object of a JSON file.

    Raises:
        ModelError: The file cannot be read or does not hold an object.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise ModelError(f"{path} does not hold a JSON object.")
    return value


def _open(path: Path) -> BinaryIO:
    """A regular file for reading: opening a pipe would wait for somebody to write."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "Is a directory", str(path))
    if not stat.S_ISREG(mode):
        raise ModelError(f"{path} is not a regular file.")
    return path.open("rb")


def unreadable(path: Path, error: Exception) -> ModelError:
    """The error for a file that the operating system would not open or map."""
    if isinstance(error, FileNotFoundError):
        return ModelError(f"{path} does not exist.")
    if isinstance(error, PermissionError):
        return ModelError(f"{path} may not be read: permission denied.")
    if isinstance(error, IsADirectoryError):
        return ModelError(f"{path} is a folder where a file is expected.")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return ModelError(f"{path} cannot be read: {reason}.")
