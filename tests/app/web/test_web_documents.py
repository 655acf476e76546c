"""The page's second view: folders, the list of documents, adding and removing files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from standin_server import UPLOADS, Document, Library

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from conftest import Open

RUNNING = {
    "running": True, "phase": "reading", "done": 300, "total": 1200, "bytes_done": 3, "bytes_total": 12,
    "path": "/home/mori/papers/b.pdf", "eta_seconds": 125, "error": None,
}  # fmt: skip


def names(page: Page) -> list[str]:
    return page.locator("#documents bdi:first-child").evaluate_all(
        "all => all.filter(one => !one.closest('.where')).map(one => one.textContent)"
    )


def file(name: str, content: bytes = b"Some words.") -> Any:
    return {"name": name, "mimeType": "text/plain", "buffer": content}


def test_every_document_is_listed_with_its_state_and_reason(open_page: Open, library: Library) -> None:
    page = open_page("#view=documents")
    page.wait_for_selector("#documents .document")
    rows = page.locator("#documents .document")
    states = {"meaning": "Ready", "waiting": "Meaning to come", "words": "By words only", "skipped": "Skipped"}
    for number, document in enumerate(library.documents):
        text = rows.nth(number).inner_text()
        print(text)
        assert states[document.state] in text
        assert (document.reason or "") in text
    assert "needs a password" in rows.nth(7).inner_text()
    folders = page.locator("#folders").inner_text()
    assert "/home/mori/papers" in folders
    assert "5 documents" in folders
    assert "2 files were skipped" in folders


def test_the_list_can_be_narrowed_and_paged(open_page: Open, library: Library) -> None:
    for number in range(230):
        library.add(Document(f"/home/mori/papers/many/{number:03}.txt", "text"))
    page = open_page("#view=documents")
    page.get_by_text("1–100 of 240").wait_for()
    page.get_by_role("button", name="Next").click()
    page.get_by_text("101–200 of 240").wait_for()
    page.get_by_role("button", name="Next").click()
    page.get_by_text("201–240 of 240").wait_for()
    assert page.get_by_role("button", name="Next").is_disabled()
    assert page.locator("#documents .document").count() == 40

    page.fill("#find", "many/22")
    page.get_by_text("1–10 of 10").wait_for()
    assert names(page) == [f"{number}.txt" for number in range(220, 230)]
    page.fill("#find", "")
    page.get_by_role("button", name="Show them").click()
    page.get_by_text("1–2 of 2").wait_for()
    assert names(page) == ["contract.pdf", "古い資料.pdf"]
    page.select_option("#state", "")
    page.select_option("#folder", "/home/mori/文書")
    page.get_by_text("1–3 of 3").wait_for()


def test_progress_is_followed_while_indexing_runs(open_page: Open, library: Library) -> None:
    library.indexing = dict(RUNNING)
    page = open_page("#view=documents")
    page.locator("#indexing").get_by_text("Reading files: 300 of 1,200").wait_for()
    assert "about 2" in page.locator("#indexing").inner_text()
    assert page.locator("#indexing progress").evaluate("bar => bar.value / bar.max") == 0.25
    library.indexing = {**RUNNING, "phase": "meaning", "done": 900}
    page.locator("#indexing").get_by_text("Computing meaning: 900 of 1,200 passages").wait_for()
    library.add(Document("/home/mori/papers/new.txt", "new"))
    library.indexing = None
    page.get_by_text("new.txt").wait_for()  # the list follows without being asked
    assert page.locator("#indexing").inner_text() == ""
    library.indexing = {**RUNNING, "running": False, "error": "The disk is full."}
    page.reload()
    page.locator("#indexing").get_by_text("Indexing stopped: The disk is full.").wait_for()


def test_removing_asks_first(open_page: Open, library: Library) -> None:
    page = open_page("#view=documents")
    page.get_by_role("button", name="Remove nsa.pdf").click()
    assert "stays where it is" in page.locator("#confirm").inner_text()
    page.get_by_role("button", name="Cancel").click()
    assert library.find(1)
    page.get_by_role("button", name="Remove nsa.pdf").click()
    page.get_by_role("button", name="Remove", exact=True).click()
    page.get_by_text("nsa.pdf was removed.").wait_for()
    page.get_by_text("1–9 of 9").wait_for()
    assert "nsa.pdf" not in names(page)
    assert [document.id for document in library.documents] == list(range(2, 11))
    page.get_by_role("button", name="Remove invoice-2026-04.txt").click()
    assert "deletes its copy" in page.locator("#confirm").inner_text()


def test_chosen_files_are_sent_and_followed(open_page: Open, library: Library) -> None:
    page = open_page("#view=documents")
    page.get_by_text(UPLOADS).first.wait_for()
    page.set_input_files("#files", [file("議事録.txt"), file("photo.bin", b"\0\1"), file("big.txt", b"too large")])
    rows = page.locator("#uploads li")
    page.get_by_text("Skipped · not text").wait_for()
    page.get_by_text("The file is too large.").wait_for()
    rows.nth(0).get_by_text("Ready", exact=True).wait_for()
    assert library.documents[-2].path == f"{UPLOADS}/議事録.txt"
    assert library.documents[-2].original == b"Some words."
    rows.nth(0).get_by_role("button", name="議事録.txt").click()
    page.wait_for_function("() => document.querySelector('#reader-text').textContent === 'Some words.'")
    page.keyboard.press("Escape")

    before = library.requests.count("POST /v1/documents")
    rows.nth(2).get_by_role("button", name="Try again").click()
    page.get_by_role("button", name="Clear this list").wait_for()
    assert library.requests.count("POST /v1/documents") == before + 1
    page.get_by_role("button", name="Clear this list").click()
    assert rows.count() == 0


def test_sending_shows_how_far_it_is(open_page: Open) -> None:
    page = open_page("#view=documents")
    network = page.context.new_cdp_session(page)
    network.send("Network.enable")
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 2_000_000}
    network.send("Network.emulateNetworkConditions", slow)
    page.set_input_files("#files", [file("large.txt", b"word " * 800_000)])
    seen: set[float] = set()
    for _ in range(200):
        value = page.evaluate("document.querySelector('#uploads progress[max]')?.value ?? null")
        if value is not None:
            seen.add(value)
        if page.locator("#uploads .state.meaning").count():
            break
        page.wait_for_timeout(25)
    print(sorted(seen))
    assert len([value for value in seen if 0 < value < 1]) >= 2


def test_files_and_folders_dropped_anywhere_are_added(open_page: Open, library: Library, tmp_path: Path) -> None:
    (tmp_path / "box/inner").mkdir(parents=True)
    (tmp_path / "alone.txt").write_text("Alone.")
    (tmp_path / "box/first.txt").write_text("First.")
    (tmp_path / "box/inner/second.txt").write_text("Second.")
    (tmp_path / "box/.hidden").write_text("Hidden.")
    page = open_page()
    page.wait_for_selector("#ask-heading")
    mouse = page.context.new_cdp_session(page)
    what = {"items": [], "files": [str(tmp_path / "alone.txt"), str(tmp_path / "box")], "dragOperationsMask": 1}

    def drag(kind: str) -> None:
        mouse.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 500, "data": what})

    drag("dragEnter")
    drag("dragOver")
    page.get_by_text("Drop to add to your documents").wait_for()
    drag("drop")
    page.locator("#uploads li:nth-child(3) .state.meaning").wait_for()
    assert page.locator("#overlay").is_hidden()
    assert page.locator("#documents-heading").is_visible()
    assert sorted(document.text for document in library.documents[10:]) == ["Alone.", "First.", "Second."]


def test_the_folder_of_added_files_can_be_emptied(open_page: Open, library: Library) -> None:
    page = open_page("#view=documents")
    page.get_by_role("button", name="Empty").click()
    assert UPLOADS in page.locator("#confirm").inner_text()
    page.keyboard.press("Escape")
    page.wait_for_selector("#confirm", state="hidden")
    assert len(library.documents) == 10
    page.get_by_role("button", name="Empty").click()
    page.locator("#confirm-yes").click()
    page.get_by_text("1 file removed.").wait_for()
    page.wait_for_function("() => document.querySelector('#empty').disabled")
    assert len(library.documents) == 9
    assert not [document for document in library.documents if document.uploaded]


def test_an_empty_index_says_how_to_begin(open_page: Open, library: Library) -> None:
    library.documents.clear()
    library.folders = ()
    page = open_page()
    page.get_by_text("No documents yet").wait_for()
    page.get_by_role("link", name="Documents").click()
    page.get_by_text("No folder is indexed").wait_for()
    page.get_by_text("No document matches.").wait_for()


@pytest.mark.parametrize("offset", [0, 2])
def test_a_row_keeps_the_focus_while_the_list_changes(open_page: Open, library: Library, offset: int) -> None:
    library.indexing = dict(RUNNING)
    page = open_page("#view=documents")
    page.wait_for_selector("#documents .document")
    page.locator("#documents .open").nth(offset).focus()
    focused = page.evaluate("document.activeElement.textContent")
    library.add(Document("/home/mori/papers/zzz.txt", "new"))
    page.get_by_text("zzz.txt").wait_for()
    assert page.evaluate("document.activeElement.textContent") == focused
