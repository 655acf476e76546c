"""What search, ask and status print, from given results: it fits, it is safe, it says where things are."""

from __future__ import annotations

import io
import re
import unicodedata
from dataclasses import replace

import pytest

from kogata.app.results import print_answer, print_search
from kogata.app.state import print_files, print_skipped, print_status
from kogata.app.terminal import Screen, cells
from kogata.ask.answers.answer import Answer, AnswerSentence, Citation
from kogata.ask.search.retrieve import Hit, SearchResult
from kogata.ask.store.catalogue import Entry, State
from kogata.ask.store.rows import EmbedderInfo
from kogata.ask.store.status import FolderStatus, SkippedFile, Status

EVIL = "\x1b]0;owned\x07\x1b[2J\u202egnp.exe"


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def hit(**changes: object) -> Hit:
    made = Hit(
        rank=1, score=1.5, meaning=0.83, words=12.0, chunk_id=7, document_id=3, path=b"/papers/nsa.pdf",
        title="Native sparse attention", kind="pdf", page=8, heading=("Results", "Decoding speed"), start=10, end=90,
        text="", snippet="…the KV cache is read 11.6 times less at 64k tokens…", highlights=((8, 13), (17, 21)),
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


JAPANESE = hit(
    rank=2, path="/書類/海/潮位の観測と基準面について.md".encode(), page=None, heading=("潮位の観測",), kind="md",
    snippet="潮位とは、基準面から測った海面の高さである。満潮は一日に二回起こり、「干潮」も同じである。",
    highlights=((0, 2),),
)  # fmt: skip


def search_result(*hits: Hit, notes: tuple[str, ...] = ()) -> SearchResult:
    return SearchResult("query", hits, "hybrid", notes, 0.01)


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def on_terminal(show: object, value: object, columns: int, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = Tty()
    show(Screen(out), value)  # type: ignore[operator]
    return out.getvalue()


def entry(
    path: bytes, kind: str, state: State, passages: int, vectors: int, code: str | None, reason: str | None
) -> Entry:
    """A file of the lists."""
    return Entry(1, path, b"/papers", "", kind, 10, 0.0, state, passages, vectors, code, reason, None, None, 10)


def answer(**changes: object) -> Answer:
    made = Answer(
        query="How much less does NSA read at 64k tokens?",
        found=True,
        text="At 64k tokens decoding reads 11.6 times fewer bytes of the KV cache. 満潮は一日に二回起こる。",
        sentences=(
            AnswerSentence("At 64k tokens decoding reads 11.6 times fewer bytes of the KV cache.", 1),
            AnswerSentence("満潮は一日に二回起こる。", 2),
        ),
        citations=(
            Citation(
                number=1, document_id=1, path=b"/papers/nsa.pdf", title="Native sparse attention", kind="pdf", page=8,
                heading=("Decoding speed",), start=10, end=78, before="The sentence before.",
                text="At 64k tokens decoding reads 11.6 times fewer bytes of the KV cache.",
                after="The sentence after.",
            ),
            Citation(
                number=2, document_id=2, path="/書類/潮位.md".encode(), title="潮位", kind="md", page=None, heading=(),
                start=0, end=12, before="潮位とは、基準面から測った海面の高さである。", text="満潮は一日に二回起こる。",
                after="",
            ),
        ),
        hits=(hit(), JAPANESE),
        confidence=0.9,
        notes=("3 passages still wait for their vectors; they are found by words only.",),
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


STATUS = Status(
    place="/home/someone/.local/share/kogata/index.sqlite", version=1, bytes_index=12_300_000, bytes_segments=4_500_000,
    embedder=EmbedderInfo("abc", "multilingual-e5-small-q4", 384, "default"),
    folders=(
        FolderStatus(b"/papers", False, ("*.tmp",), {"hidden": 2, "ignored": 5}, 1100, 3, 54_000_000),
        FolderStatus("/外付け/書類".encode(), True, (), {}, 104, 0, 4_000_000, unread=312),
    ),
    documents=1204, documents_words_only=2, bytes_documents=58_000_000, chunks=14_203, vectors=14_000, waiting=100,
    words_only=103, kinds={"md": 800, "pdf": 404},
    skipped=(
        SkippedFile(b"/papers/scan.pdf", "scanned", "Its 12 pages are pictures without text."),
        SkippedFile(b"/papers/old.pdf", "scanned", "Its 3 pages are pictures without text."),
        SkippedFile(b"/papers/bad\xff\nname\x1b[2J.docx", "corrupt", "It is not a zip file."),
    ),
)  # fmt: skip

FILES = [
    entry(b"/papers/a.md", "md", "meaning", 4, 4, None, None),
    entry("/papers/潮位.md".encode(), "md", "words", 2, 0, None, "The encoding is not stated; it was taken for cp932."),
    entry(b"/papers/b.md", "md", "waiting", 3, 1, None, None),
    entry(b"/papers/scan.pdf", "pdf", "skipped", 0, 0, "scanned", "Its 12 pages are pictures without text."),
]

VIEWS = [
    (print_search, search_result(hit(), JAPANESE, notes=("At most 1,000 hits are returned.",))),
    (print_search, search_result()),
    (print_answer, answer()),
    (print_answer, answer(found=False, sentences=(), citations=(), text="")),
    (print_answer, answer(found=False, sentences=(), citations=(), text="", hits=())),
    (print_status, STATUS),
    (print_skipped, STATUS),
    (print_files, FILES),
]


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize(("show", "value"), VIEWS)
def test_lines_fit_the_terminal(show: object, value: object, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text = plain(on_terminal(show, value, columns, monkeypatch))
    assert text
    for line in text.splitlines():
        assert cells(line) <= columns, line


@pytest.mark.parametrize(("show", "value"), VIEWS)
def test_no_styles_in_a_pipe(show: object, value: object) -> None:
    out = io.StringIO()
    show(Screen(out), value)  # type: ignore[operator]
    assert "\x1b" not in out.getvalue()


def test_documents_cannot_drive_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = hit(path=b"/tmp/" + EVIL.encode(), heading=(EVIL,), title=EVIL, snippet=EVIL + " word", highlights=((0, 4),))
    source = Citation(
        number=1, document_id=1, path=b"/tmp/" + EVIL.encode(), title=EVIL, kind="md", page=None, heading=(EVIL,),
        start=0, end=3, before=EVIL, text=EVIL, after=EVIL,
    )  # fmt: skip
    bad_answer = answer(query=EVIL, sentences=(AnswerSentence(EVIL, 1),), citations=(source,), notes=(EVIL,))
    skipped = replace(STATUS, place="/" + EVIL, skipped=(SkippedFile(EVIL.encode(), EVIL, EVIL),), kinds={EVIL: 1})
    for show, value in [
        (print_search, SearchResult(EVIL, (bad,), "hybrid", (EVIL,), 0.0)),
        (print_search, SearchResult(EVIL, (), "hybrid", (EVIL,), 0.0)),
        (print_answer, bad_answer),
        (print_answer, replace(bad_answer, found=False, hits=(bad,))),
        (print_status, skipped),
        (print_skipped, skipped),
        (print_files, [entry(EVIL.encode(), "md", "skipped", 0, 0, "corrupt", EVIL)]),
    ]:
        text = plain(on_terminal(show, value, 80, monkeypatch))
        assert all(c == "\n" or unicodedata.category(c) != "Cc" for c in text), repr(text)
        assert "\u202e" not in text


def test_a_search_reads_like_this() -> None:
    out = io.StringIO()
    print_search(Screen(out), search_result(hit(), JAPANESE))
    assert out.getvalue() == (
        '1  /papers/nsa.pdf, page 8, "Results > Decoding speed"\n'
        "   …the KV cache is read 11.6 times less at 64k tokens…\n"
        "\n"
        '2  /書類/海/潮位の観測と基準面について.md, "潮位の観測"\n'
        "   潮位とは、基準面から測った海面の高さである。満潮は一日に二回起こり、「干潮」も同じである。\n"
    )


def test_terms_are_marked_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    text = on_terminal(print_search, search_result(hit()), 100, monkeypatch)
    assert "the KV \x1b[1;33mcache\x1b[0m is \x1b[1;33mread\x1b[0m" in text


def test_an_answer_reads_like_this() -> None:
    out = io.StringIO()
    print_answer(Screen(out), answer(notes=()))
    assert out.getvalue() == (
        "At 64k tokens decoding reads 11.6 times fewer bytes of the KV cache. [1] 満潮は一日に二回起こる。 [2]\n"
        "\n"
        '  [1] /papers/nsa.pdf, page 8, "Decoding speed"\n'
        "      …The sentence before. At 64k tokens decoding reads 11.6 times fewer bytes of the KV cache."
        " The sentence after.…\n"
        "\n"
        '  [2] /書類/潮位.md, "潮位"\n'
        "      …潮位とは、基準面から測った海面の高さである。満潮は一日に二回起こる。\n"
    )


def test_not_found_offers_what_is_near() -> None:
    out = io.StringIO()
    print_answer(Screen(out), answer(found=False, sentences=(), citations=(), text="", notes=()))
    text = out.getvalue()
    assert text.startswith('Not found in these documents: "How much less does NSA read at 64k tokens?".\n')
    assert "nsa.pdf" in text
    assert "潮位" in text


def test_status_says_that_a_run_was_stopped() -> None:
    out = io.StringIO()
    print_status(Screen(out), STATUS)
    assert "/外付け/書類 (not there now): 104 documents, 4.0 MB, 312 not read yet\n" in out.getvalue()
    stopped = "312 files are not read yet: the last run was stopped, or is still at it; `kogata index` carries on."
    assert stopped in out.getvalue().replace("\n", " ")
    out = io.StringIO()
    print_status(Screen(out), replace(STATUS, folders=STATUS.folders[:1]))
    assert "not read yet" not in out.getvalue()


def test_skipped_files_are_grouped_by_reason() -> None:
    out = io.StringIO()
    print_skipped(Screen(out), STATUS)
    assert out.getvalue() == (
        "scans without text (2)\n"
        "  /papers/scan.pdf: Its 12 pages are pictures without text.\n"
        "  /papers/old.pdf: Its 3 pages are pictures without text.\n"
        "damaged (1)\n"
        "  /papers/bad\ufffd␊name␛[2J.docx: It is not a zip file.\n"
    )
