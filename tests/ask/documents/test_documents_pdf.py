# ruff: noqa: E501  (sample documents read best unbroken)
"""PDF: Japanese character maps, vertical text, ruby, columns, furniture, hyphens; rubbish, scans, locks named as such.

Oracles: the text that was put in, and LibreOffice's own docx of the same source for the files it made.
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from pdf_writer import Run, latin, lines, pdf, type0

from kogata.ask.documents import Document, Limits, Refused, parse

FIXTURES = Path(__file__).parents[2] / "fixtures" / "documents"
CAT = "吾輩は猫である。名前はまだ無い、ー"
CODECS = {"RKSJ": "cp932", "UCS2": "utf-16-be", "UTF16": "utf-16-be", "EUC": "euc_jp"}
NO_OCR = Limits(ocr=False)


def read(data: bytes, tmp_path: Path, limits: Limits | None = NO_OCR) -> Document:
    path = tmp_path / "file.pdf"
    path.write_bytes(data)
    return parse(path, limits=limits)


def joined(document: Document) -> str:
    return "".join(document.text.split())


@pytest.mark.parametrize(
    "encoding",
    [
        "90ms-RKSJ-H", "90msp-RKSJ-H", "83pv-RKSJ-H", "90pv-RKSJ-H", "UniJIS-UCS2-H", "UniJIS-UTF16-H",
        "UniJIS-UCS2-HW-H", "UniJIS2004-UTF16-H", "EUC-H",
    ],
)  # fmt: skip
def test_horizontal_character_maps(encoding: str, tmp_path: Path) -> None:
    codec = next(codec for part, codec in CODECS.items() if part in encoding)
    data = pdf([[Run(60, 700, CAT.encode(codec)), Run(60, 680, CAT.encode(codec))]], {"F1": type0(encoding)})
    assert joined(read(data, tmp_path)) == CAT * 2


@pytest.mark.parametrize("encoding", ["90ms-RKSJ-V", "UniJIS-UCS2-V", "UniJIS-UTF16-V", "EUC-V"])
def test_vertical_columns_from_the_right(encoding: str, tmp_path: Path) -> None:
    codec = next(codec for part, codec in CODECS.items() if part in encoding)
    columns = [
        "吾輩は猫である。名前はまだ無い。",
        "どこで生れたか頓と見当がつかぬ。",
        "何でも薄暗いじめじめした所で",
        "泣いていた事だけは記憶している。",
    ]
    places = list(enumerate(columns))
    # Written left column first: the order must come from the places, not from the file.
    runs = [Run(500 - 24 * place, 780, column.encode(codec)) for place, column in reversed(places)]
    assert joined(read(pdf([runs], {"F1": type0(encoding)}), tmp_path)) == "".join(columns)


@pytest.mark.parametrize("vertical", [False, True])
def test_ruby_is_kept_out_of_the_words(vertical: bool, tmp_path: Path) -> None:
    encoding = "UniJIS-UTF16-V" if vertical else "UniJIS-UTF16-H"
    base, ruby = "吾輩は猫である。名前はまだ無い。", "わがはい"

    def run(x: float, y: float, text: str, size: float = 12.0) -> Run:
        return Run(x, y, text.encode("utf-16-be"), size=size)

    if vertical:
        runs = [run(500, 780, base), run(509.5, 780, ruby, 6), run(476, 780, base), run(452, 780, base)]
    else:
        runs = [run(60, 700, base), run(60, 711.5, ruby, 6), run(60, 676, base), run(60, 652, base)]
    document = read(pdf([runs], {"F1": type0(encoding)}), tmp_path)
    assert joined(document) == base * 3
    assert any("Ruby" in note for note in document.notes)


def test_japanese_lines_are_joined_without_spaces_and_paragraphs_kept(tmp_path: Path) -> None:
    text = [
        "　吾輩は猫である。名前はまだ無い。どこで",
        "生れたか頓と見当がつかぬ。",
        "　何でも薄暗いじめじめした所で泣いていた",
        "事だけは記憶している。",
    ]
    runs = [Run(60, 700 - 18 * i, line.encode("utf-16-be")) for i, line in enumerate(text)]
    document = read(pdf([runs], {"F1": type0("UniJIS-UTF16-H")}), tmp_path)
    assert (
        document.text
        == "吾輩は猫である。名前はまだ無い。どこで生れたか頓と見当がつかぬ。\n\n何でも薄暗いじめじめした所で泣いていた事だけは記憶している。"
    )


@pytest.mark.parametrize("name", ["kumo_yoko", "kumo_tate", "report_en"])
def test_libreoffice_pdf_says_what_its_docx_says(name: str) -> None:
    from_pdf, from_docx = parse(FIXTURES / f"{name}.pdf"), parse(FIXTURES / f"{name}.docx")
    assert from_pdf.title == from_docx.title
    headings = [[b.heading for b in d.blocks if b.kind == "heading"] for d in (from_pdf, from_docx)]
    assert headings[0] == headings[1]
    if name == "report_en":  # bullets and the footnote stand elsewhere
        pdf_words, docx_words = set(from_pdf.text.split()), set(from_docx.text.split())
        assert docx_words - pdf_words <= {"-"}
        assert pdf_words - docx_words <= {"•", "1", "beginning1"} or len(pdf_words - docx_words) <= 3
    else:
        assert joined(from_pdf) == joined(from_docx)
    assert from_pdf.n_pages is not None
    assert {b.page for b in from_pdf.blocks} == set(range(1, from_pdf.n_pages + 1))


def test_two_columns_are_read_one_after_the_other() -> None:
    columns, report = parse(FIXTURES / "columns_en.pdf"), parse(FIXTURES / "report_en.docx")
    paragraphs = [report.text[b.start : b.end] for b in report.blocks if b.kind == "paragraph" and b.heading]
    found = " ".join(columns.text.split())
    places = [found.find(" ".join(p.split())[-60:]) for p in paragraphs]
    assert -1 not in places
    assert places == sorted(places)


def test_paragraphs_go_on_over_pages_and_footers_go(tmp_path: Path) -> None:
    document = parse(FIXTURES / "report_en.pdf")
    assert "Kogata fixtures" not in document.text
    assert "many billions of years later" in document.text  # page 1 ends after "many"
    going_on = [b for a, b in zip(document.blocks, document.blocks[1:], strict=False) if b.start == a.end + 1]
    assert {b.page for b in going_on} >= {2}


def test_hyphens_at_line_ends(tmp_path: Path) -> None:
    text = "The measurement of inter-\nnational standards is a well-\nknown problem, and the state-of-\nthe-art is described here."
    document = read(pdf([lines(text, 60, 700)]), tmp_path)
    assert "international standards" in document.text
    assert "state-of-the-art" in document.text.replace("of- the", "of-the")


def test_page_numbers_and_running_heads_are_dropped_only_if_they_repeat(tmp_path: Path) -> None:
    body = "This page tells something of its own, number {}.\nIt has a second line that ends here."
    pages = [
        [*lines("A Running Head", 60, 810), *lines(body.format(n * 7), 60, 600), *lines(f"- {n} -", 290, 30)]
        for n in range(11, 16)
    ]
    document = read(pdf(pages), tmp_path)
    assert "Running Head" not in document.text
    assert "- 13 -" not in document.text
    assert all(f"number {n * 7}." in document.text for n in range(11, 16))
    alone = read(pdf([[*lines("A Running Head", 60, 810), *lines("Only page, with words.", 60, 600)]]), tmp_path)
    assert "Running Head" in alone.text


def test_a_title_that_is_also_the_running_head_stays(tmp_path: Path) -> None:
    pages = [
        [*lines("Tides", 60, 800, size=24 if n == 1 else 9), *lines(f"Page {n} tells of a thing.", 60, 600)]
        for n in range(1, 6)
    ]
    document = read(pdf(pages), tmp_path)
    assert document.title == "Tides"
    assert document.text.count("Tides") == 1


def test_a_table_of_contents_has_no_headings_and_no_rows_of_dots(tmp_path: Path) -> None:
    runs = [
        *lines("Contents", 60, 760, size=24), *lines("1 Introduction . . . . . . . . . . . . 3", 60, 700, size=16),
        *lines("2 Methods....................9", 60, 650, size=16),
        *lines("Some words of body text that is longer than all\nthe rest of it, and some more of it.", 60, 600),
        *lines("No heading ends in a cut word, as this does, inter-", 60, 500, size=14),
    ]  # fmt: skip
    document = read(pdf([runs]), tmp_path)
    assert [document.text[b.start : b.end] for b in document.blocks if b.kind == "heading"] == ["Contents"]
    assert "1 Introduction … 3" in document.text
    assert "2 Methods … 9" in document.text


def test_headings_by_size(tmp_path: Path) -> None:
    runs = [
        *lines("The Title", 60, 760, size=24), *lines("Some words of body text\nand some more of it.", 60, 700),
        *lines("A Section", 60, 640, size=16), *lines("More words of body text\nand still more of it.", 60, 610),
    ]  # fmt: skip
    document = read(pdf([runs]), tmp_path)
    assert document.title == "The Title"
    assert document.blocks[-1].heading == ("The Title", "A Section")


def test_tables_keep_their_rows(tmp_path: Path) -> None:
    rows = [("Planet", "Moons", "Day"), ("Mercury", "0", "4222.6"), ("Earth", "1", "24.0")]
    runs = [Run(60 + 150 * c, 700 - 16 * r, cell.encode()) for r, row in enumerate(rows) for c, cell in enumerate(row)]
    assert "Earth | 1 | 24.0" in read(pdf([runs]), tmp_path).text


def _refused(data: bytes, tmp_path: Path, limits: Limits = NO_OCR) -> Refused:
    with pytest.raises(Refused) as refused:
        read(data, tmp_path, limits)
    return refused.value


def test_rubbish_glyphs_are_named(tmp_path: Path) -> None:
    english = "The tide is the rise and fall of sea levels caused by the combined effects of gravity and rotation " * 3
    shifted = "".join(chr(ord(c) - 29) if c.islower() else c for c in english)  # a subset font without a map
    assert (
        _refused(pdf([lines(shifted[:90] + "\n" + shifted[90:180] + "\n" + shifted[180:], 20, 700)]), tmp_path).code
        == "garbled"
    )
    private = "".join(chr(0xE000 + ord(c)) for c in "private use glyphs")
    runs = [Run(60, 700 - 20 * i, private.encode("utf-16-be")) for i in range(5)]
    assert _refused(pdf([runs], {"F1": type0("UniJIS-UTF16-H")}), tmp_path).code in ("garbled", "empty")


@pytest.mark.parametrize("language", ["en", "ja", "fr", "formula"])
def test_real_text_is_not_called_rubbish(language: str) -> None:
    from kogata.ask.documents.formats.garbled import is_garbled

    text = {
        "en": parse(FIXTURES / "report_en.docx").text,
        "ja": parse(FIXTURES / "kumo_yoko.docx").text,
        "fr": "Longtemps, je me suis couché de bonne heure. Parfois, à peine ma bougie éteinte, mes yeux se fermaient. "
        * 5,
        "formula": "E = m c^2, x_1 + x_2 = 3.14, DNA TCP IP HTTP XML " * 10,
    }[language]
    assert not is_garbled(text)


def test_scans_are_named(tmp_path: Path) -> None:
    assert _refused(pdf([[]], image=True), tmp_path).code == "scanned"
    assert _refused(pdf([[]]), tmp_path).code == "empty"
    mixed = read(pdf([lines("A page of text stands here, in words.", 60, 700)]), tmp_path)
    assert mixed.notes == ()


@pytest.mark.skipif(shutil.which("tesseract") is None, reason="tesseract is not installed")
def test_scans_are_read_where_tesseract_is(tmp_path: Path) -> None:
    import pypdfium2

    source = pypdfium2.PdfDocument(
        pdf([lines("Tides rise and fall twice a day.\nThe moon pulls the sea.", 60, 700, size=20, step=40)])
    )
    picture = source[0].render(scale=2).to_pil()
    buffer = io.BytesIO()
    picture.convert("L").save(buffer, "PDF")
    document = read(buffer.getvalue(), tmp_path, Limits())
    assert "rise and fall twice a day" in document.text
    assert any("character recognition" in note for note in document.notes)


def _encrypted(owner_only: bool) -> bytes:
    pypdf = pytest.importorskip("pypdf")
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(pdf([lines("Secret words are in this file.", 60, 700)])))
    writer.encrypt(user_password="" if owner_only else "secret", owner_password="owner", algorithm="RC4-128")
    buffer = io.BytesIO()
    writer.write(buffer)
    return buffer.getvalue()


def test_encrypted(tmp_path: Path) -> None:
    assert _refused(_encrypted(owner_only=False), tmp_path).code == "encrypted"
    assert "Secret words" in read(_encrypted(owner_only=True), tmp_path).text


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9])
def test_corrupt(cut: float, tmp_path: Path) -> None:
    data = (FIXTURES / "report_en.pdf").read_bytes()
    path = tmp_path / "cut.pdf"
    path.write_bytes(data[: int(len(data) * cut)])
    from kogata.ask.documents.reading import attempt

    outcome = attempt(bytes(path), NO_OCR)
    assert isinstance(outcome, Document) or outcome.code in ("corrupt", "empty")


def test_the_second_font_is_read_too(tmp_path: Path) -> None:
    runs = [Run(60, 700, "潮位".encode("cp932"), "F1"), Run(90, 700, b"tide level", "F2")]
    document = read(pdf([runs], {"F1": type0("90ms-RKSJ-H"), "F2": latin()}), tmp_path)
    assert document.text.replace(" ", "") == "潮位tidelevel"
