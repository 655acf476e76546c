"""The page's first view: answers, passages and the reader."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from standin_server import Document, Library

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from conftest import Open

DECODING = "At 64k tokens decoding reads 11.6 times fewer bytes of the key-value cache than full attention does."


def ask(page: Page, query: str) -> None:
    page.fill("#query", query)
    page.press("#query", "Enter")


def first_line_is_visible(page: Page, selector: str) -> bool:
    """Whether the beginning of an element is inside the reader's window."""
    return page.evaluate(
        """selector => {
            const mark = document.querySelector(selector).getClientRects()[0];
            const window_ = document.querySelector('#reader-scroll').getBoundingClientRect();
            return mark.top >= window_.top && mark.bottom <= window_.bottom;
        }""",
        selector,
    )


def test_an_answer_comes_with_its_source_and_opens_it_at_the_sentence(open_page: Open, library: Library) -> None:
    page = open_page()
    ask(page, "How many bytes does decoding read at 64k tokens")

    assert page.locator(".answer .text").inner_text().split("\n")[0].startswith(DECODING)
    card = page.locator(".card").first
    assert card.locator("h3").inner_text() == "nsa.pdf"
    assert "papers" in card.inner_text()
    assert "Native Sparse Attention" in card.inner_text()
    assert "page\u00a02" in card.inner_text()
    assert "Decoding speed" in card.inner_text()
    assert card.locator("mark").inner_text() == DECODING
    before, after = "The speed of decoding is bound by memory access.", "The gain grows with the length of the context."
    assert card.locator("blockquote").inner_text() == f"… {before} {DECODING} {after} …"

    cite = page.get_by_role("button", name="Source 1: nsa.pdf")
    cite.click()
    page.wait_for_selector("#reader mark")
    assert page.locator("#reader-text mark").text_content() == DECODING
    assert page.locator("#reader-text").text_content() == library.find(1).text
    assert page.evaluate("document.activeElement.matches('#reader mark')")
    page.keyboard.press("Escape")
    page.wait_for_selector("#reader", state="hidden")
    assert page.evaluate("document.activeElement.className") == "cite"


def test_not_found_says_so_and_shows_what_comes_nearest(open_page: Open) -> None:
    page = open_page("#q=" + quote("gauge of the volcano in Peru eruptions winter"))
    page.wait_for_selector(".card")
    assert page.locator("h2").first.inner_text() == "Not found in these documents"
    assert page.locator("#results .card").count() == 2
    ask(page, "zzzz qqqq")
    page.get_by_text("No passage has anything to do with it.").wait_for()
    assert page.locator("#results .card").count() == 0


def test_search_marks_what_the_server_marks(open_page: Open) -> None:
    page = open_page()
    page.check("input[value=search]", force=True)
    with page.expect_response("**/v1/search") as answered:
        ask(page, "gauge calibrated waves")
    hits = answered.value.json()["hits"]
    page.wait_for_selector(".card")
    for number, hit in enumerate(hits):
        card = page.locator(".card").nth(number)
        spans = [hit["snippet"][start:end] for start, end in hit["highlights"]]  # Python counts code points
        print(number, spans)
        assert card.locator("mark").all_inner_texts() == spans
        assert card.locator("blockquote").inner_text() == hit["snippet"]
    assert "meaning 0.89 · words 5.7" in page.locator(".card").first.inner_text()
    assert "🌊" in hits[0]["snippet"][: hits[0]["highlights"][-1][0]]  # so that code points and UTF-16 differ


def test_offsets_are_characters_also_beyond_the_first_plane(open_page: Open, library: Library) -> None:
    library.add(Document("/home/mori/papers/astral.txt", "𠮷🌊" * 5_000 + "THE PASSAGE" + "🌊𠮷" * 5_000))
    id_ = library.documents[-1].id
    page = open_page(f"#doc={id_}&from=10000&to=10011")
    page.wait_for_selector("#reader mark")
    assert page.locator("#reader-text mark").text_content() == "THE PASSAGE"


def test_filters_go_to_the_server(open_page: Open) -> None:
    page = open_page("#mode=search&q=gauge")
    page.wait_for_selector(".card")
    page.click("#filters-open")
    with page.expect_request("**/v1/search") as asked:
        page.locator("#types label", has_text="md").click()
    body = json.loads(asked.value.post_data or "")
    assert (body["kinds"], body["paths"], body["mode"]) == (["md"], [], "hybrid")
    with page.expect_request("**/v1/search") as asked:
        page.fill("#path", "会議")
        page.press("#path", "Enter")
    assert json.loads(asked.value.post_data or "")["paths"] == ["会議"]
    with page.expect_request("**/v1/search") as asked:
        page.locator("#by label", has_text=re.compile("^Words$")).click()
    assert json.loads(asked.value.post_data or "")["mode"] == "words"
    assert page.locator("#filters-open").inner_text() == "Filters (3)"
    page.reload()
    page.wait_for_selector(".card")
    assert page.evaluate("document.querySelector('#types input:checked').value") == "md"


def test_more_passages_are_added(open_page: Open, library: Library) -> None:
    library.add(Document("/home/mori/papers/many.txt", "\n\n".join(f"Paragraph {n} on herring." for n in range(25))))
    page = open_page("#mode=search&q=herring")
    for shown in (10, 20, 25):
        page.wait_for_function("n => document.querySelectorAll('.card').length === n", arg=shown)
        if shown < 25:
            page.get_by_role("button", name="More passages").click()
    assert page.get_by_role("button", name="More passages").count() == 0


def test_back_goes_through_questions_and_out_of_the_reader(open_page: Open) -> None:
    page = open_page()
    ask(page, "tide gauge calibrated")
    page.wait_for_selector(".answer")
    ask(page, "decoding bytes 64k tokens")
    page.get_by_role("button", name="Source 1: nsa.pdf").click()
    page.wait_for_selector("#reader mark")
    page.go_back()
    page.wait_for_selector("#reader", state="hidden")
    assert page.input_value("#query") == "decoding bytes 64k tokens"
    page.go_back()
    page.get_by_role("button", name="Source 1: 2026-05 meeting.md").wait_for()
    assert page.input_value("#query") == "tide gauge calibrated"
    page.go_back()
    page.wait_for_selector("#ask-heading")
    assert page.locator(".card").count() == 0


def test_a_link_shows_the_same_again(open_page: Open) -> None:
    page = open_page()
    ask(page, "decoding bytes 64k tokens")
    page.locator(".card .open").first.click()
    page.wait_for_selector("#reader mark")
    other = open_page("#" + page.url.partition("#")[2])
    other.wait_for_selector("#reader mark")
    other.wait_for_selector(".card")
    assert other.locator("#reader-text mark").text_content() == DECODING
    other.keyboard.press("Escape")
    other.wait_for_selector("#reader", state="hidden")
    assert "doc=" not in other.url
    assert other.evaluate("document.activeElement.dataset.at") == page.evaluate(
        "document.querySelector('.card .open').dataset.at"
    )


def test_the_reader_loads_a_long_document_in_pieces(open_page: Open, library: Library) -> None:
    page = open_page("#mode=search&q=condenser")
    page.locator(".card .open").first.click()
    page.wait_for_selector("#reader mark")
    assert page.locator("#reader-text mark").text_content() == "Line 07000: the condenser overheated."
    assert first_line_is_visible(page, "#reader mark")
    page.wait_for_timeout(300)  # pieces near the window have come by then
    loaded = len(page.locator("#reader-text").text_content() or "")
    whole = library.find(5).text
    assert loaded < len(whole) / 4
    top = "document.querySelector('#reader mark').getBoundingClientRect().top"
    before = page.evaluate("() => (document.querySelector('#reader-scroll').scrollTop = 300) && " + top)
    page.wait_for_function("n => document.querySelector('#reader-text').textContent.length > n", arg=loaded)
    page.wait_for_timeout(100)
    assert abs(page.evaluate(top) - before) < 2, "text that came above moved what is read"

    for _ in range(60):  # scroll to the end, then to the beginning
        page.evaluate("document.querySelector('#reader-scroll').scrollTop = 1e9")
        page.wait_for_timeout(30)
        if page.locator("#reader-later").is_hidden():
            break
    for _ in range(60):
        page.evaluate("document.querySelector('#reader-scroll').scrollTop = 0")
        page.wait_for_timeout(30)
        if page.locator("#reader-earlier").is_hidden():
            break
    assert page.locator("#reader-text").text_content() == whole
    assert page.locator("#reader-text mark").count() == 1


def test_hostile_documents_are_shown_as_text(open_page: Open, library: Library) -> None:
    page = open_page("#mode=search&q=hostile")
    page.wait_for_selector(".card")
    assert page.locator("#results :is(script, img, b, i, h1)").count() == 0
    shown = page.locator("#results").inner_text()
    assert "<script>document.title = 'broken in'</script>" in shown
    assert "txt.hostile<b>.html" in shown
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x07\x1b]", shown)
    assert "␇ ␛[31m red" in shown

    page.locator(".card .open").first.click()
    page.wait_for_selector("#reader mark")
    assert page.locator("#reader :is(script, img, b, i, h1)").count() == 0
    expected = library.find(4).text.translate({0x202E: None, 0x202C: None, 7: "␇", 27: "␛"})
    assert page.locator("#reader-text").text_content() == expected
    assert page.title() == "hostile · Kogata"
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_lone_surrogates_are_replaced(open_page: Open) -> None:
    page = open_page()
    text = {"id": 1, "path": "/a/\ud800.txt", "title": "", "kind": "txt"}
    text |= {"start": 0, "end": 8, "n_chars": 8, "text": "ab\udc00cd 🌊!"}
    page.route("**/text?*", lambda route: route.fulfill(body=json.dumps(text), content_type="application/json"))
    page.evaluate("location.hash = 'doc=1&from=3&to=5'")
    page.wait_for_selector("#reader mark")
    assert page.locator("#reader-text").text_content() == "ab\ufffdcd 🌊!"
    assert page.locator("#reader-text mark").text_content() == "cd"
    assert page.locator("#reader-name").inner_text() == "\ufffd.txt"


def test_the_original_file_opens_or_is_saved(open_page: Open, library: Library) -> None:
    library.key = "secret"
    page = open_page("#key=secret&mode=search&q=decoding")
    page.wait_for_selector(".card")
    with page.context.expect_page() as opened:
        page.locator(".card .file").first.click()
    opened.value.wait_for_url("blob:**")
    assert opened.value.url.endswith("#page=2")
    assert opened.value.evaluate("document.contentType") == "application/pdf"
    assert opened.value.evaluate("opener === null")

    ask(page, "hostile")
    page.get_by_text("txt.hostile<b>.html").first.wait_for()
    tabs: list[Page] = []
    page.context.on("page", lambda tab: tabs.append(tab))
    with page.expect_download() as saved:
        page.locator(".card .file").first.click()
    assert not tabs
    assert saved.value.path().read_text("utf-8") == library.find(4).text
    assert saved.value.suggested_filename.endswith(".html")


def test_a_file_that_is_gone_is_said_so(open_page: Open, library: Library) -> None:
    page = open_page("#mode=search&q=decoding")
    page.wait_for_selector(".card")
    library.documents.clear()
    page.locator(".card .file").first.click()
    page.get_by_text("no longer in the index").wait_for()
    page.locator(".card .open").first.click()
    page.locator("#reader [role=alert]").wait_for()


def test_a_later_question_wins_over_an_earlier_slow_one(open_page: Open, library: Library) -> None:
    page = open_page()
    library.delay = 1.0
    ask(page, "tide gauge calibrated")
    page.get_by_text("Looking…").wait_for()
    library.delay = 0.0
    ask(page, "decoding bytes 64k tokens")
    page.get_by_role("button", name="Source 1: nsa.pdf").wait_for()
    page.wait_for_timeout(1_200)
    assert page.locator(".card h3").first.inner_text() == "nsa.pdf"


def test_a_few_kanji_do_not_make_an_english_text_japanese(open_page: Open, library: Library) -> None:
    library.add(Document("/home/mori/papers/name.txt", 'Herring is called nishin (鰊, "spring herald") in Japan.'))
    page = open_page("#mode=search&q=herring")
    assert page.locator(".card blockquote").get_attribute("lang") == "en"
    page.fill("#query", "潮位")
    page.press("#query", "Enter")
    page.get_by_text("潮位観測の手引き.md").first.wait_for()
    assert page.locator(".card blockquote").first.get_attribute("lang") == "ja"
