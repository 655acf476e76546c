"""Kogata: private answers over your own documents, on your own hardware.

The public names are imported on first use, so that ``import kogata`` and ``kogata --help`` stay fast::

    import kogata

    index = kogata.Index("papers.kogata")
    index.add(["~/papers"])
    print(index.ask("How much less does NSA read at 64k tokens?").text)

    vectors = kogata.Encoder().encode_query(["潮位とは", "what is a tide"], dimensions=128)

    text = kogata.load("microsoft/bitnet-b1.58-2B-4T").chat([{"role": "user", "content": "Why is the sky blue?"}])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kogata.errors import KogataError

if TYPE_CHECKING:
    from kogata.ask.index import Index
    from kogata.run.encoder import Encoder
    from kogata.run.model import Model, load

__version__ = "0.1.0"
__all__ = ["Encoder", "Index", "KogataError", "Model", "__version__", "load"]

_LAZY = {
    "Index": "kogata.ask.index",
    "Encoder": "kogata.run.encoder",
    "Model": "kogata.run.model",
    "load": "kogata.run.model",
}


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'kogata' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
