"""The page in a headless Chromium, over the stand-in server."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from standin_server import Library, sample, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Open = Callable[..., "Page"]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium; without it, or without playwright, the tests of the page are skipped."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def library() -> Library:
    return sample()


@pytest.fixture
def address(library: Library) -> Iterator[str]:
    with serving(library) as address:
        yield address


@pytest.fixture
def open_page(chromium: Browser, address: str) -> Iterator[Open]:
    """Opens the page at a place ("#q=…"). At the end no script may have failed and the CSP may have blocked nothing."""
    contexts, faults = [], []

    def open_page(place: str = "", *, width: int = 1280, height: int = 800, locale: str = "en-GB", **more: Any) -> Page:
        more.setdefault("reduced_motion", "reduce")
        context = chromium.new_context(viewport={"width": width, "height": height}, locale=locale, **more)
        context.set_default_timeout(20_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: "Content Security Policy" in message.text and faults.append(message.text))
        page.goto(address + place)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not faults, faults
