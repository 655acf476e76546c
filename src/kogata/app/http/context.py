"""What all routes share."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request

from kogata.app.http.errors import ApiError
from kogata.app.http.metrics import Metrics
from kogata.app.progress import Pace
from kogata.app.serve.link import Link


@dataclass
class Context:
    """One server.

    Attributes:
        link: The engine.
        uploads: The folder that uploaded files are kept in; made with the first.
        metrics: Its counters.
        began: When it started, in seconds since 1970.
        pace: How fast the indexing is.
        uploads_at_once: Holds back uploads beyond two; they are spooled on the disk.
        uploading: Held while uploads get their names.
    """

    link: Link
    uploads: Path
    metrics: Metrics = field(default_factory=Metrics)
    began: int = field(default_factory=lambda: int(time.time()))
    pace: Pace = field(default_factory=Pace)
    uploads_at_once: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))
    uploading: asyncio.Lock = field(default_factory=asyncio.Lock)
    _model: tuple[int, dict[str, Any]] | None = None  # and in which of the engine's lives

    async def model(self, named: str = "default") -> dict[str, Any]:
        """The model that a request names: id, dimensions, max_length.

        Raises:
            ApiError: There is no such model.
            KogataError: The engine is not there.
        """
        life = self.link.restarts
        if self._model is None or self._model[0] != life:  # another engine may have another model
            self._model = life, msgspec.json.decode(await self.link.call("model"))
        model = self._model[1]
        if named not in ("default", model["id"]):
            raise ApiError(
                404, f"There is no model {named[:200]!r} here. Accepted: default, {model['id']}.", param="model",
                code="model_not_found",
            )  # fmt: skip
        return model


def context(request: Request) -> Context:
    """The server that a request came to."""
    found: Context = request.app.state.context
    return found
