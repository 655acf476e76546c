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
    _models: tuple[int, dict[str, Any]] | None = None  # and in which of the engine's lives

    async def models(self) -> dict[str, Any]:
        """The models there are: `embedder`, and `writer`, which may be None.

        Raises:
            KogataError: The engine is not there.
        """
        life = self.link.restarts
        if self._models is None or self._models[0] != life:  # another engine may have other models
            self._models = life, msgspec.json.decode(await self.link.call("models"))
        return self._models[1]

    async def model(self, named: str = "default") -> dict[str, Any]:
        """The embedder, as a request names it: id, dimensions, max_length.

        Raises:
            ApiError: There is no such model.
            KogataError: The engine is not there.
        """
        model: dict[str, Any] = (await self.models())["embedder"]
        if named not in ("default", model["id"]):
            raise _no_model(named, model["id"])
        return model

    async def writer(self, named: str = "default") -> dict[str, Any]:
        """The model that writes, as a request names it: id, max_length, fingerprint, chat.

        Raises:
            ApiError: There is no such model, or none that writes.
            KogataError: The engine is not there.
        """
        model: dict[str, Any] | None = (await self.models())["writer"]
        if model is None:
            raise ApiError(
                404, "This server has no model that writes. Start it with one: kogata serve --writer MODEL.",
                param="model", code="model_not_found",
            )  # fmt: skip
        if named not in ("default", model["id"]):
            raise _no_model(named, model["id"])
        return model


def _no_model(named: str, accepted: str) -> ApiError:
    return ApiError(
        404, f"There is no model {named[:200]!r} for this. Accepted: default, {accepted}.", param="model",
        code="model_not_found",
    )  # fmt: skip


def context(request: Request) -> Context:
    """The server that a request came to."""
    found: Context = request.app.state.context
    return found
