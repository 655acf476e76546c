"""The page over the real `kogata serve`: a key in the link, a question, its source, a file that is added."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "serve"))
from command_line import write_folder
from serve_process import Server

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from conftest import Open

CALIBRATED = "The gauge was calibrated in May 2021 by Maria Lindqvist."
KEY = "open & sesame/+%"
DOCUMENTS = 4


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, chromium: object) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("page")
    server = Server(place, write_folder(place / "docs"), "--writer", "tiny", environment={"KOGATA_API_KEY": KEY})
    server.http.headers["Authorization"] = f"Bearer {KEY}"
    try:
        server.indexed(DOCUMENTS)
        yield server
    finally:
        server.stop()


@pytest.fixture
def address(server: Server) -> str:
    """The link that the command prints on a terminal."""
    return f"{server.url}/#key={quote(KEY, safe='')}"


def ask(page: Page, query: str) -> None:
    page.fill("#query", query)
    page.press("#query", "Enter")


def test_a_question_is_answered_and_its_source_opens_at_the_sentence(open_page: Open) -> None:
    page = open_page()
    ask(page, "When was the gauge calibrated?")
    card = page.locator(".card").first
    card.wait_for()
    assert card.locator("h3").inner_text() == "tides.md"
    assert card.locator("mark").inner_text() == CALIBRATED
    assert KEY not in page.evaluate("location.href")
    page.get_by_role("button", name="Source 1: tides.md").click()
    page.wait_for_selector("#reader mark")
    assert page.locator("#reader-text mark").text_content() == CALIBRATED


def test_a_japanese_question_on_a_phone(open_page: Open) -> None:
    page = open_page(width=390, locale="ja-JP")
    ask(page, "満潮は一日に何回起こりますか")
    page.locator(".card").first.wait_for()
    assert "満潮は一日に二回起こる。" in page.locator(".answer .text").inner_text()
    assert page.locator("html").get_attribute("lang") == "ja"


def test_a_chat_with_the_model_that_comes_along(open_page: Open) -> None:
    """It tells stories and names no source: that its words stream, stop and go on is all that can be shown."""
    page = open_page()
    page.get_by_role("link", name="Chat").click()
    page.get_by_text("tiny demonstration").wait_for()
    page.fill("#chat-box", "When was the gauge calibrated?")
    page.press("#chat-box", "Enter")
    answered = page.locator("#chat .reply").nth(0)
    answered.locator(".sources .open").first.click()
    page.wait_for_selector("#reader mark")
    assert CALIBRATED in (page.locator("#reader-text mark").text_content() or "")
    page.keyboard.press("Escape")
    assert len(answered.locator(".prose").inner_text()) > 20
    page.fill("#chat-box", "Which chess opening did the champion of Uruguay prefer in 1934?")
    page.press("#chat-box", "Enter")
    page.locator("#chat .reply").nth(1).get_by_text("Not found in these documents").wait_for()
    page.get_by_role("switch", name="My documents").uncheck(force=True)
    page.fill("#chat-box", "Tell me a story.")
    page.press("#chat-box", "Enter")
    told = page.locator("#chat .reply").nth(2)
    told.locator(".prose p").first.wait_for()
    page.keyboard.press("Escape")
    page.wait_for_selector("#chat .prose[aria-busy=true]", state="detached")
    assert told.locator("[role=alert]").count() == 0


def test_an_added_file_is_found_and_emptied(open_page: Open, server: Server, tmp_path: Path) -> None:
    file = tmp_path / "walrus.txt"
    file.write_text("The walrus was seen on the ice floe near Svalbard in April.")
    page = open_page()
    page.get_by_role("link", name="Documents").click()
    page.locator("input[type=file]").first.set_input_files(str(file))
    server.indexed(DOCUMENTS + 1)
    page.get_by_role("link", name="Ask").first.click()
    ask(page, "Where was the walrus seen?")
    page.locator(".card").first.wait_for()
    assert "Svalbard" in page.locator(".answer .text").inner_text()
    assert [path.name for path in server.uploads.iterdir()] == ["walrus.txt"]
