"""The page's chat: what goes to the server, what comes of it as it streams, and what a person can do meanwhile."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from standin_server import Library

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

    from conftest import Open

QUESTION = "How many bytes does decoding read at 64k tokens?"


def send(page: Page, text: str) -> None:
    page.fill("#chat-box", text)
    page.press("#chat-box", "Enter")


def reply(page: Page) -> Locator:
    return page.locator("#chat .reply").last


def opened(open_page: Open, **how: Any) -> Page:
    page = open_page("#view=chat", **how)
    page.wait_for_selector("#chat-form")
    return page


def done(page: Page) -> None:
    page.wait_for_selector("#chat .prose[aria-busy=true]", state="detached")


def test_an_answer_streams_and_its_sources_open_in_the_reader(open_page: Open, library: Library) -> None:
    page = opened(open_page)
    send(page, QUESTION)
    done(page)
    assert page.locator("#chat .question").inner_text().endswith(QUESTION)
    assert reply(page).locator(".prose").inner_text() == "Decoding reads 11.6 times fewer bytes 1."
    source = reply(page).locator(".sources li")
    assert source.count() == 1
    assert "nsa.pdf" in source.inner_text()
    assert "page\u00a02" in source.inner_text()
    cite = reply(page).get_by_role("button", name="Source 1: nsa.pdf")
    cite.click()
    page.wait_for_selector("#reader mark")
    assert "11.6 times fewer" in (page.locator("#reader mark").text_content() or "")
    page.keyboard.press("Escape")
    page.wait_for_selector("#reader", state="hidden")
    assert page.evaluate("document.activeElement.className") == "cite"
    assert page.locator("#chat .reply").count() == 1, "the conversation is still there"
    assert page.locator("#said").inner_text().startswith("Decoding reads 11.6")


def test_earlier_turns_go_along_those_that_answered(open_page: Open, library: Library) -> None:
    page = opened(open_page)
    send(page, QUESTION)
    done(page)
    send(page, "zzzz gauge volcano eruption winter")
    reply(page).get_by_text("Not found in these documents").wait_for()
    send(page, QUESTION + " And why?")
    done(page)
    last = library.asked[-1]
    print(json.dumps(last))
    assert last == {
        "query": QUESTION + " And why?",
        "earlier": [
            {"role": "user", "content": QUESTION},
            {"role": "assistant", "content": "Decoding reads 11.6 times fewer bytes [1]."},
        ],
        "writer": True,
        "stream": True,
    }


def test_without_documents_the_model_itself_answers(open_page: Open, library: Library) -> None:
    library.says = ["Hello [1] ", "**there**."]
    page = opened(open_page)
    page.get_by_role("switch", name="My documents").uncheck(force=True)
    send(page, "Hi")
    done(page)
    assert reply(page).locator(".prose").inner_text() == "Hello [1] there."
    assert reply(page).locator(".cite, .sources").count() == 0
    assert library.asked == [
        {"model": "bitnet-b1.58-2B-4T", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    ]
    assert "POST /v1/ask" not in library.requests


def test_stop_keeps_what_was_written_and_ends_the_servers_work(open_page: Open, library: Library) -> None:
    for how in ("button", "key"):
        library.says, library.pause, library.stopped = ["The beginning [1]", *["."] * 200], 0.05, 0
        page = opened(open_page)
        send(page, QUESTION)
        reply(page).get_by_text("The beginning").wait_for()
        assert page.locator("#chat-send").inner_text() == "Stop"
        page.click("#chat-send") if how == "button" else page.keyboard.press("Escape")
        reply(page).get_by_text("Stopped.").wait_for()
        assert "The beginning" in reply(page).locator(".prose").inner_text()
        assert reply(page).locator(".sources li").count() == 1
        assert page.locator("#chat-send").inner_text() == "Send"
        end = time.monotonic() + 5
        while not library.stopped and time.monotonic() < end:
            time.sleep(0.05)
        assert library.stopped == 1, how
        library.says, library.pause = ["Again."], 0.0
        send(page, QUESTION)
        done(page)
        assert library.asked[-1]["earlier"][1]["content"].startswith("The beginning")


def test_progress_is_said_while_the_model_reads(open_page: Open, library: Library) -> None:
    library.pause = 0.4
    page = opened(open_page)
    page.evaluate(
        """() => {
            window.seen = [];
            new MutationObserver(() => { window.seen.push(document.querySelector('#chat .busy')?.textContent); })
                .observe(document.querySelector('#chat'), { childList: true, subtree: true });
        }"""
    )
    send(page, QUESTION)
    done(page)
    seen = page.evaluate("window.seen")
    print(seen)
    assert "Looking in your documents…" in seen
    assert "Reading: 512 of 1,100 tokens" in seen
    assert "Reading: 1,024 of 1,100 tokens" in seen
    assert page.locator("#chat .busy").count() == 0


def test_a_broken_stream_says_so_and_is_no_part_of_the_conversation(open_page: Open, library: Library) -> None:
    library.breaks = True
    page = opened(open_page)
    send(page, QUESTION)
    reply(page).locator("[role=alert]").wait_for()
    assert reply(page).locator("[role=alert]").inner_text() == "Kogata cannot be reached."
    library.breaks = False
    send(page, QUESTION)
    done(page)
    assert library.asked[-1]["earlier"] == []


def test_a_new_chat_forgets_and_nothing_is_kept(open_page: Open, library: Library) -> None:
    page = opened(open_page)
    send(page, QUESTION)
    done(page)
    page.click("#chat-new")
    page.click("#confirm button.quiet")
    assert page.locator("#chat .reply").count() == 1
    page.click("#chat-new")
    page.click("#confirm-yes")
    page.get_by_text("Talk about your documents").wait_for()
    assert page.locator("#chat li").count() == 0
    send(page, QUESTION)
    done(page)
    assert library.asked[-1]["earlier"] == []
    kept = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, history.state])")
    assert "decoding" not in kept + page.url


def test_a_new_chat_while_an_answer_comes(open_page: Open, library: Library) -> None:
    library.says, library.pause = ["x"] * 200, 0.05
    page = opened(open_page)
    send(page, QUESTION)
    reply(page).get_by_text("x").wait_for()
    page.click("#chat-new")
    page.click("#confirm-yes")
    page.wait_for_timeout(300)
    assert page.locator("#chat li").count() == 0
    library.says, library.pause = ["Fresh."], 0.0
    send(page, QUESTION)
    reply(page).get_by_text("Fresh.").wait_for()
    assert page.locator("#chat .reply").count() == 1


def test_the_conversation_outlives_other_views(open_page: Open, library: Library) -> None:
    library.says, library.pause = ["One. ", "Two. ", "Three."], 0.2
    page = opened(open_page)
    send(page, QUESTION)
    page.get_by_role("link", name="Documents").click()
    page.wait_for_selector("#documents .document")
    page.get_by_role("link", name="Chat").click()
    done(page)
    assert reply(page).locator(".prose").inner_text() == "One. Two. Three."
    page.get_by_role("button", name="日本語").click()
    assert page.locator("#chat-send").inner_text() == "送信"
    assert reply(page).locator("h3").inner_text() == "モデルに渡した箇所"


def test_where_no_model_writes_the_view_says_how_to_get_one(open_page: Open, library: Library) -> None:
    library.writer = None
    page = open_page("#view=chat")
    page.get_by_text("kogata serve --writer MODEL").wait_for()
    assert not page.locator("#chat-form").is_visible()
    library.writer = "tiny"
    page.get_by_role("link", name="Ask").first.click()
    page.get_by_role("link", name="Chat").click()
    page.get_by_text("tiny demonstration").wait_for()
    assert page.locator("#chat-form").is_visible()


def test_keys(open_page: Open, library: Library) -> None:
    page = opened(open_page)
    page.locator("body").press("/")
    assert page.evaluate("document.activeElement.id") == "chat-box"
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("decoding bytes 64k tokens?")
    assert page.input_value("#chat-box") == "one\ndecoding bytes 64k tokens?"
    # The Enter that ends the choice of kanji does not send.
    page.evaluate(
        "document.querySelector('#chat-box').dispatchEvent("
        "new KeyboardEvent('keydown', {key: 'Enter', isComposing: true, bubbles: true, cancelable: true}))"
    )
    assert not library.asked
    page.keyboard.press("Enter")
    done(page)
    assert library.asked[0]["query"] == "one\ndecoding bytes 64k tokens?"
    assert page.input_value("#chat-box") == ""
    assert page.evaluate("document.activeElement.id") == "chat-box", "one can go on writing"
    send(page, "   ")
    assert len(library.asked) == 1


EVIL = (
    "<img src=x onerror=\"document.title='broken in'\"> <script>document.title='broken in'</script>\n\n"
    "- <b>item</b> [1]\n- `<i>code</i>` [7]\n  goes on\n\n3. three\n4. four\n\n"
    "```html\n<script>document.title='broken in'</script>\n  indented [1]\n```\n"
    "# Heading **bold\n\n[link](javascript:alert(1)) \u202egpj.exe ** * ` [1"
)


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_what_a_model_says_is_text_however_it_is_cut(open_page: Open, library: Library, size: int) -> None:
    library.says = [EVIL[at : at + size] for at in range(0, len(EVIL), size)]
    page = opened(open_page)
    send(page, QUESTION)
    done(page)
    prose = reply(page).locator(".prose")
    made = prose.evaluate("e => [...e.children].map(c => c.localName)")
    assert made == ["p", "ul", "ol", "pre", "p", "p"]
    assert prose.locator("img, script, b, i, a").count() == 0
    assert prose.locator("pre").inner_text() == "<script>document.title='broken in'</script>\n  indented [1]"
    assert prose.locator("ul li").all_inner_texts() == ["<b>item</b> 1", "<i>code</i> [7]\ngoes on"]
    assert prose.locator("ol").get_attribute("start") == "3"
    assert prose.locator("ol li").all_inner_texts() == ["three", "four"]
    assert prose.locator("p").last.inner_text() == "[link](javascript:alert(1)) gpj.exe ** * ` [1"
    assert page.title() == "Chat · Kogata"
    assert prose.locator(".cite").count() == 1


def test_nothing_jumps_while_an_answer_comes(open_page: Open, library: Library) -> None:
    library.says = [f"Line {n} of an answer that is long enough.\n\n" for n in range(40)]
    library.pause = 0.03
    page = opened(open_page, height=700)
    page.evaluate(
        """() => {
            window.shift = 0;
            new PerformanceObserver((list) => list.getEntries().forEach((entry) => { window.shift += entry.value; }))
                .observe({ type: "layout-shift", buffered: true });
        }"""
    )
    page.wait_for_timeout(200)
    page.evaluate("window.shift = 0")
    send(page, QUESTION)
    page.wait_for_timeout(600)
    tops = []
    while page.locator("#chat .prose[aria-busy=true]").count():
        tops.append(page.locator("#chat-form .box").bounding_box()["y"])  # type: ignore[index]
        page.wait_for_timeout(50)
    print("shift", page.evaluate("window.shift"), sorted(set(tops)))
    assert max(tops) - min(tops) < 1, "the box stays where it is, but for parts of a pixel"
    assert page.evaluate("window.shift") < 0.01
    # Whoever scrolls up to read is left there.
    library.pause = 0.1
    send(page, QUESTION)
    page.wait_for_timeout(2000)
    page.mouse.move(640, 300)
    page.mouse.wheel(0, -600)
    page.wait_for_timeout(300)
    before = page.evaluate("scrollY")
    page.wait_for_timeout(800)
    assert page.evaluate("scrollY") == before


def test_only_what_changes_is_drawn_anew(open_page: Open, library: Library) -> None:
    library.says = ["First paragraph.\n\n", "Second", " one."]
    library.pause = 0.3
    page = opened(open_page)
    send(page, QUESTION)
    page.get_by_text("First paragraph.").wait_for()
    page.evaluate("document.querySelector('#chat .prose p').dataset.same = 'yes'")
    done(page)
    assert page.evaluate("document.querySelector('#chat .prose p').dataset.same") == "yes"
    assert reply(page).locator(".prose p").all_inner_texts() == ["First paragraph.", "Second one."]
