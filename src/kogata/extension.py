"""The compiled extension, or None: the one place that looks for it."""

from __future__ import annotations

import importlib
import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

_NAME = "kogata._native"


def extension() -> ModuleType | None:
    """``kogata._native``, loaded once; None where it was not built.

    A developer's ``KOGATA_NATIVE_PATH`` names a folder whose extension is taken instead of the installed one.

    Raises:
        ImportError: ``KOGATA_NATIVE_PATH`` is set, but holds no extension.
    """
    if (loaded := sys.modules.get(_NAME)) is not None:
        return loaded
    folder = os.environ.get("KOGATA_NATIVE_PATH")
    if folder:
        return _load(Path(folder))
    try:
        return importlib.import_module(_NAME)
    except ImportError:
        return None


def _load(folder: Path) -> ModuleType:
    files = [folder / f"_native{suffix}" for suffix in EXTENSION_SUFFIXES]
    path = next((file for file in files if file.is_file()), None)
    if path is None:
        raise ImportError(f"KOGATA_NATIVE_PATH is {folder}, which holds no {files[0].name}")
    spec = spec_from_file_location(_NAME, path, loader=ExtensionFileLoader(_NAME, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[_NAME] = module
    spec.loader.exec_module(module)
    return module
