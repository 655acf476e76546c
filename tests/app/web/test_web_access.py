"""The page for everybody: keys, key, languages, themes, small screens, screen readers, a server that is away."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from standin_server import WEB, Library

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from conftest import Open

QUERY = {"en": "decoding bytes 64k tokens", "ja": "潮位とは何を測った高さですか"}
SEARCH = {"en": "gauge calibrated", "ja": "潮位の観測"}
RUNNING = {
    "running": True, "phase": "meaning", "done": 300, "total": 1200, "bytes_done": 3, "bytes_total": 12,
    "path": "/home/mori/papers/b.pdf", "eta_seconds": 125, "error": None,
}  # fmt: skip


def focused(page: Page) -> str:
    return page.evaluate("document.activeElement.id || document.activeElement.textContent")


# --- the files


def test_the_files_ask_nothing_of_other_places_and_hold_no_inline_code() -> None:
    for path in sorted(WEB.iterdir()):
        text = path.read_text("utf-8")
        outside = [url for url in re.findall(r"https?://[^\s\"')]+", text) if url != "http://www.w3.org/2000/svg"]
        assert not outside, (path.name, outside)
        assert "innerHTML" not in text, path.name
        assert "eval(" not in text, path.name
    page = (WEB / "index.html").read_text("utf-8")
    assert not re.search(r"\son\w+=|\sstyle=|<style|<script(?![^>]*\ssrc=)", page)


def test_both_languages_have_every_sentence(open_page: Open) -> None:
    page = open_page()
    en, ja = page.evaluate(
        """async () => {
            const { languages } = await import('/static/strings.js');
            const shape = (value, name) => typeof value === 'object' && !Array.isArray(value)
                ? Object.keys(value).flatMap((key) => shape(value[key], `${name}.${key}`))
                : [`${name}: ${typeof value}`];
            return [shape(languages.en, ''), shape(languages.ja, '')];
        }"""
    )
    print(len(en), "sentences")
    assert en == ja
    used = set(re.findall(r'data-t(?:-[a-z-]+)?="(\w+)"', (WEB / "index.html").read_text("utf-8")))
    assert {f".{name}: string" for name in used} <= set(en)


# --- keyboard


def test_the_whole_way_without_a_mouse(open_page: Open) -> None:
    page = open_page("#mode=search&q=gauge")
    page.wait_for_selector(".card")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("/")
    assert focused(page) == "query"
    page.keyboard.type("calibrated tide gauge")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelectorAll('.card').length === 2")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement === document.querySelectorAll('.open')[0]")
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement === document.querySelectorAll('.open')[1]")
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    page.wait_for_selector("#reader mark")
    first = page.locator("#reader-text mark").text_content()
    page.keyboard.press("j")  # the reader follows
    page.wait_for_function("first => document.querySelector('#reader-text mark')?.textContent !== first", arg=first)
    page.keyboard.press("Escape")
    page.wait_for_selector("#reader", state="hidden")
    page.keyboard.press("?")
    page.wait_for_selector("#help")
    assert "Next result" in page.locator("#help").inner_text()
    page.keyboard.press("Escape")
    page.wait_for_selector("#help", state="hidden")
    page.keyboard.press("/")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    assert focused(page) == "query"


def test_keys_that_are_typed_stay_text(open_page: Open) -> None:
    page = open_page()
    page.focus("#query")
    page.keyboard.type("j/k?")
    assert page.input_value("#query") == "j/k?"
    assert page.locator("#help").is_hidden()


def test_a_phone_gets_the_reader_over_everything(open_page: Open) -> None:
    page = open_page("#mode=search&q=decoding", width=390, height=844, has_touch=True, is_mobile=True)
    page.locator(".card .open").first.tap()
    page.wait_for_selector("#reader mark")
    assert page.locator("#reader").evaluate("reader => reader.matches(':modal')")
    box = page.locator("#reader").bounding_box()
    assert box == {"x": 0, "y": 0, "width": 390, "height": 844}
    for _ in range(12):  # the focus stays inside
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement === document.body || !!document.activeElement.closest('#reader')")
    page.go_back()
    page.wait_for_selector("#reader", state="hidden")
    assert page.evaluate("document.activeElement.className") == "open"


def test_a_window_made_narrow_keeps_the_reader(open_page: Open) -> None:
    page = open_page("#doc=1&from=0&to=6")
    page.wait_for_selector("#reader mark")
    assert not page.locator("#reader").evaluate("reader => reader.matches(':modal')")
    page.set_viewport_size({"width": 600, "height": 800})
    page.wait_for_function("() => document.querySelector('#reader').matches(':modal')")
    page.set_viewport_size({"width": 1280, "height": 800})
    page.wait_for_function("() => document.querySelector('#reader').matches('[open]:not(:modal)')")


# --- the key, and a server that is away


def test_the_key_leaves_the_address_and_goes_with_every_request(open_page: Open, library: Library) -> None:
    library.key = "s3cret+/="
    page = open_page("#q=decoding+bytes+64k+tokens&key=s3cret%2B%2F%3D")
    page.wait_for_selector(".answer")
    assert "key" not in page.url
    assert "decoding" in page.url
    assert page.evaluate("Object.values(localStorage).join()").find("s3cret") == -1
    page.go_back()
    assert "s3cret" not in page.url
    page.go_forward()
    page.reload()  # the tab still knows it
    page.wait_for_selector(".answer")
    page.get_by_role("link", name="Documents").click()
    page.wait_for_selector("#documents .document")
    page.set_input_files("#files", [{"name": "a.txt", "mimeType": "text/plain", "buffer": b"a"}])
    page.locator("#uploads .state.meaning").wait_for()


@pytest.mark.parametrize("written", ["abc+/=def", "abc%2B%2F%3Ddef"])
def test_a_key_may_hold_any_sign(open_page: Open, library: Library, written: str) -> None:
    library.key = "abc+/=def"
    page = open_page(f"#key={written}")
    page.get_by_text("8 documents").wait_for()
    assert page.url.endswith("/#")


def test_escape_closes_the_reader_and_keeps_what_was_typed(open_page: Open) -> None:
    page = open_page("#doc=1&from=0&to=6&q=decoding")
    page.wait_for_selector("#reader mark")
    page.focus("#query")
    page.keyboard.press("Escape")
    page.wait_for_selector("#reader", state="hidden")
    assert page.input_value("#query") == "decoding"


def test_without_the_key_the_page_asks_for_it(open_page: Open, library: Library) -> None:
    library.key = "secret"
    page = open_page("#q=decoding+bytes+64k+tokens")
    page.wait_for_selector("#key")
    page.fill("#key-input", "wrong")
    page.keyboard.press("Enter")
    page.get_by_text("That key was not accepted.").wait_for()
    page.fill("#key-input", "secret")
    page.keyboard.press("Enter")
    page.wait_for_selector(".answer")  # what was asked goes on
    assert page.locator("#key").is_hidden()
    library.key = "another"
    page.fill("#query", "tide gauge calibrated")
    page.press("#query", "Enter")
    page.wait_for_selector("#key")


def test_a_server_that_starts_is_waited_for(open_page: Open, library: Library) -> None:
    library.available = False
    page = open_page("#q=decoding+bytes+64k+tokens")
    page.get_by_text("Kogata is getting ready.").wait_for()
    library.available = True
    page.wait_for_selector(".answer")
    page.wait_for_function("() => document.querySelector('#banner').textContent === ''")


def test_what_waiting_does_not_cure_is_said(open_page: Open, library: Library) -> None:
    library.available = False
    library.problem = "index_unavailable"
    page = open_page("#q=decoding+bytes+64k+tokens")
    page.get_by_text("The engine is starting.").first.wait_for()  # the server's own words
    assert page.locator("#banner").text_content() == ""
    asked = library.requests.count("POST /v1/ask")
    page.wait_for_timeout(700)  # longer than the first pause before another try
    assert library.requests.count("POST /v1/ask") == asked == 1


def test_a_server_that_is_gone_is_waited_for(open_page: Open) -> None:
    page = open_page()
    page.get_by_text("8 documents").wait_for()
    page.context.set_offline(True)
    page.fill("#query", "decoding bytes 64k tokens")
    page.press("#query", "Enter")
    page.get_by_text("Kogata cannot be reached.").wait_for()
    page.context.set_offline(False)
    page.wait_for_selector(".answer")
    page.wait_for_function("() => document.querySelector('#banner').textContent === ''")


def test_what_is_wrong_with_the_index_is_said(open_page: Open, library: Library) -> None:
    page = open_page("#doc=99999")
    page.locator("#reader [role=alert]").wait_for()
    refusal = '{"error": {"message": "The index is damaged.", "type": "x", "param": null, "code": "x"}}'
    page.route("**/v1/status", lambda route: route.fulfill(status=500, body=refusal))
    page.reload()
    page.get_by_text("The index is damaged.").wait_for()


def test_a_refused_question_says_why(open_page: Open) -> None:
    page = open_page()
    refusal = '{"error": {"message": "The query is <b>too long</b>.", "type": "x", "param": null, "code": "x"}}'
    page.route("**/v1/ask", lambda route: route.fulfill(status=400, body=refusal))
    page.fill("#query", "a")
    page.press("#query", "Enter")
    assert page.locator("#results [role=alert] p").inner_text() == "The query is <b>too long</b>."


# --- language and theme


def test_the_language_follows_the_browser_and_the_switch(open_page: Open) -> None:
    page = open_page("#q=" + QUERY["ja"], locale="ja-JP")
    page.wait_for_selector(".answer")
    assert page.get_attribute("html", "lang") == "ja"
    assert page.locator(".answer h2").inner_text() == "答え"
    page.get_by_role("button", name="English").click()
    assert page.locator(".answer h2").inner_text() == "Answer"
    assert page.locator(".answer .text").get_attribute("lang") == "ja"  # the document's own
    page.reload()
    page.wait_for_selector(".answer")
    assert page.get_attribute("html", "lang") == "en"


def test_the_theme_follows_the_system_and_the_switch(open_page: Open) -> None:
    def paper(page: Page) -> str:
        return page.evaluate("getComputedStyle(document.documentElement).backgroundColor")

    page = open_page(color_scheme="dark")
    dark = paper(page)
    page.emulate_media(color_scheme="light")
    light = paper(page)
    assert dark != light
    page.get_by_role("button", name="Theme: as the system").click()
    page.get_by_role("button", name="Theme: light").click()
    assert paper(page) == dark
    page.reload()
    page.get_by_role("button", name="Theme: dark").wait_for()
    assert paper(page) == dark


def test_nothing_moves_for_those_who_asked_for_it(open_page: Open, library: Library) -> None:
    library.indexing = {**RUNNING, "total": 0}  # a bar of unknown length, which moves otherwise
    for wish, moving in (("no-preference", True), ("reduce", False)):
        page = open_page("#view=documents", reduced_motion=wish)
        page.wait_for_selector("#indexing progress")
        assert bool(page.evaluate("document.getAnimations().length")) == moving, wish


# --- every view, in both languages


def scenes(page: Page, library: Library, language: str) -> Any:
    """Go through the views; gives the name of each when it is there."""

    def to(place: str) -> None:
        page.evaluate("place => { location.hash = place }", place)

    page.wait_for_function("() => document.querySelector('#overview').textContent !== ''")
    yield "start"
    to("q=" + QUERY[language])
    page.wait_for_selector(".answer .cite")
    yield "answer"
    page.locator(".card .open").first.click()
    page.wait_for_selector("#reader mark")
    yield "reader"
    page.locator("#reader-close").click()
    to("q=zzzz+gauge+volcano+eruption+winter")
    page.wait_for_selector(".answer h2:not(.label)")
    yield "not found"
    to("mode=search&q=" + SEARCH[language])
    page.wait_for_selector(".card small")
    page.click("#filters-open")
    yield "search"
    to("view=chat")
    page.wait_for_selector("#chat-intro h2")
    yield "chat"
    page.fill("#chat-box", QUERY[language])
    page.press("#chat-box", "Enter")
    page.wait_for_selector("#chat .sources")
    yield "chat answered"
    page.fill("#chat-box", "zzzz gauge volcano eruption winter")
    page.press("#chat-box", "Enter")
    page.locator("#chat .reply").nth(1).locator(".sources").wait_for()
    library.breaks = True
    page.fill("#chat-box", QUERY[language])
    page.press("#chat-box", "Enter")
    page.wait_for_selector("#chat .failure")
    yield "chat failed"
    library.indexing = dict(RUNNING)
    to("view=documents")
    page.wait_for_selector("#documents .document")
    page.set_input_files("#files", [{"name": "big.txt", "mimeType": "text/plain", "buffer": b"too large"}])
    page.wait_for_selector("#uploads .failed")
    page.wait_for_selector("#indexing progress")
    yield "documents"
    page.locator("#documents .close").first.click()
    page.wait_for_selector("#confirm")
    yield "confirm"
    page.keyboard.press("Escape")
    library.indexing = None
    page.locator("#help-open").dispatch_event("click")
    page.wait_for_selector("#help")
    yield "help"
    page.keyboard.press("Escape")
    library.key = "secret"
    to("q=decoding+tokens")
    page.wait_for_selector("#key")
    yield "key"


@pytest.mark.parametrize(("language", "width"), [("en", 390), ("ja", 390), ("en", 320)])
def test_a_phone_shows_everything_within_its_width_and_large_enough_to_touch(
    open_page: Open, library: Library, language: str, width: int
) -> None:
    locale = {"en": "en-GB", "ja": "ja-JP"}[language]
    page = open_page(width=width, height=844, locale=locale, has_touch=True, is_mobile=True)
    for scene in scenes(page, library, language):
        assert page.evaluate("document.documentElement.scrollWidth") <= width, scene
        small = page.evaluate(
            """() => {
                const modal = document.querySelector(':modal') ?? document;
                return [...modal.querySelectorAll('button, a, input, select, summary')]
                    .filter((element) => element.checkVisibility())
                    .map((element) => {
                        const extra = getComputedStyle(element, '::before');
                        const box = element.getBoundingClientRect();
                        const there = extra.content !== 'none' && extra.position === 'absolute';
                        const grows = there && extra.inset.startsWith('-');
                        const grown = grows ? parseFloat(extra.top) * -2 : 0;
                        return [element.id || element.className || element.textContent, box.height + grown];
                    })
                    .filter(([, height]) => height < 40);
            }"""
        )
        assert not small, (scene, small)


def axe_script() -> str:
    """axe-core as axe-playwright-python carries it."""
    found = importlib.util.find_spec("axe_playwright_python")
    if found is None or not found.submodule_search_locations:
        pytest.skip("axe-playwright-python is not installed")
    return (Path(found.submodule_search_locations[0]) / "axe.min.js").read_text("utf-8")


@pytest.mark.parametrize(
    ("width", "language", "theme"),
    [
        (1280, "en", "light"), (1280, "en", "dark"), (1280, "ja", "light"), (1280, "ja", "dark"),
        (390, "en", "dark"), (390, "ja", "light"),
    ],
)  # fmt: skip
def test_axe_finds_no_serious_fault(open_page: Open, library: Library, width: int, language: str, theme: str) -> None:
    script = axe_script()
    locale = {"en": "en-GB", "ja": "ja-JP"}[language]
    page = open_page(width=width, locale=locale, color_scheme=theme, bypass_csp=True)
    page.evaluate(script)
    faults = []
    for scene in scenes(page, library, language):
        result = page.evaluate("axe.run(document, { resultTypes: ['violations', 'incomplete'] })")
        for fault in result["violations"]:
            nodes = [node["html"][:120] + " " + node["failureSummary"] for node in fault["nodes"][:3]]
            print(scene, fault["impact"], fault["id"], nodes)
            if fault["impact"] in ("serious", "critical"):
                faults.append((scene, fault["id"], nodes))
    assert not faults, faults
