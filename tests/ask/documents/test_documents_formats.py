# ruff: noqa: E501  (sample documents read best unbroken)
"""What each format gives: text as a reader sees it, headings, tables, pages, exact offsets."""

from __future__ import annotations

import json
import unicodedata
import zipfile
from email.message import EmailMessage
from pathlib import Path

import pytest

from kogata.ask.documents import Document, Refused, parse

FIXTURES = Path(__file__).parents[2] / "fixtures" / "documents"


def read(tmp_path: Path, name: str, content: str | bytes) -> Document:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return parse(path)


def blocks(document: Document) -> list[tuple[str, str]]:
    return [(b.kind, document.text[b.start : b.end]) for b in document.blocks]


def check_offsets(document: Document) -> None:
    position = 0
    for block in document.blocks:
        assert position <= block.start < block.end
        assert not document.text[position : block.start].strip()
        position = block.end
    assert position == len(document.text)


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.*")), ids=lambda p: p.name)
def test_fixtures_have_exact_offsets_and_titles(path: Path) -> None:
    document = parse(path)
    check_offsets(document)
    assert document.title
    assert document.kind == path.suffix[1:]
    assert document.size == path.stat().st_size
    assert len(document.hash) == 32
    assert "はすいけ" not in document.text
    assert "おしゃかさま" not in document.text
    assert Document.from_dict(json.loads(json.dumps(document.to_dict()))) == document


@pytest.mark.parametrize(
    "name", ["kumo_yoko.docx", "kumo_tate.docx", "kumo_yoko.odt", "kumo_tate.odt", "kumo_yoko.html"]
)
def test_japanese_headings_and_ruby(name: str) -> None:
    document = parse(FIXTURES / name)
    assert [text for kind, text in blocks(document) if kind == "heading"] == ["蜘蛛の糸", "一"]
    assert "御釈迦様は極楽の蓮池のふちを、独りでぶらぶら御歩きになって" in document.text


@pytest.mark.parametrize("name", ["report_en.docx", "report_en.odt"])
def test_word_processor_documents(name: str) -> None:
    document = parse(FIXTURES / name)
    found = blocks(document)
    assert ("list", "- Radius") in found
    assert (
        "table",
        "Planet | Moons | Day in hours\nMercury | 0 | 4222.6\nVenus | 0 | 2802.0\nEarth | 1 | 24.0\nMars | 2 | 24.7",
    ) in found
    assert found[-1] == ("paragraph", "Text: OpenStax, Rice University.")  # the footnote, at the end
    assert "Kogata fixtures" not in document.text  # the footer


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.html", "a.rst", "a.org", "a.json", "a.py"])
def test_letters_are_composed_and_offsets_are_those_of_the_stored_text(tmp_path: Path, name: str) -> None:
    """macOS and some PDFs write が as か and a mark of its own; queries come composed."""
    composed = "ガイドブックはパリのCafé Müllerにある。 한국어 1"
    decomposed = unicodedata.normalize("NFD", composed)
    assert len(decomposed) == len(composed) + 11
    document = read(tmp_path, name, json.dumps([decomposed]) if name == "a.json" else f"{decomposed}\n\n{decomposed}\n")
    check_offsets(document)
    start = document.text.index("Müller")
    assert document.text[start : start + 6] == "Müller"
    assert not set(document.text) & set("\u3099\u0301\u0308\u1112\u1161\u11ab")


def test_kanji_of_names_keep_their_shape(tmp_path: Path) -> None:
    # Plain NFC would make 神 and 福 of the first two, which people of these names do not write.
    document = read(tmp_path, "a.txt", "\ufa19\ufa1bと\ufa11と\U0002f804、か\u3099")
    assert document.text == "\ufa19\ufa1bと\ufa11と\U0002f804、が"


@pytest.mark.parametrize("name", ["sheets.xlsx", "sheets.ods"])
def test_sheets_carry_their_column_names(name: str) -> None:
    document = parse(FIXTURES / name)
    assert "Planet: Earth | Moons: 1 | Day in hours: 24.0" in document.text
    assert "都道府県: 沖縄県 | 県庁所在地: 那覇市 | 面積: 2282" in document.text
    assert [b.page for b in document.blocks] == [1, 1, 2, 2]
    assert document.blocks[-1].heading == ("都道府県",)
    assert document.n_pages == 2


@pytest.mark.parametrize("name", ["talk.pptx", "talk.odp"])
def test_slides(name: str) -> None:
    document = parse(FIXTURES / name)
    headings = [(b.page, document.text[b.start : b.end]) for b in document.blocks if b.kind == "heading"]
    assert headings == [(1, "Beyond Earth"), (2, "蜘蛛の糸")]
    assert any(b.page == 2 and "極楽" in document.text[b.start : b.end] for b in document.blocks)


def test_localised_heading_styles(tmp_path: Path) -> None:
    """A docx whose built-in styles have Japanese names, as some writers leave them."""
    import zipfile

    source = FIXTURES / "report_en.docx"
    path = tmp_path / "ja.docx"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "word/styles.xml":
                text = data.decode()
                assert '"heading 1"' in text.lower()
                for level in (1, 2):
                    for spelling in (f'"Heading {level}"', f'"heading {level}"'):
                        text = text.replace(spelling, f'"見出し {level}"')
                import re

                text = re.sub(r"<w:outlineLvl[^>]*/>", "", text)
                data = text.encode()
            new.writestr(name, data)
    headings = [text for kind, text in blocks(parse(path)) if kind == "heading"]
    assert headings == ["Astronomy in Brief", "What Is Measured", "More to Read"]


def test_epub_in_reading_order() -> None:
    document = parse(FIXTURES / "kumo_yoko.epub")
    assert document.title == "蜘蛛の糸"
    assert document.text.index("ある日の事") < document.text.index("都道府県")


def test_markdown(tmp_path: Path) -> None:
    document = read(
        tmp_path, "a.md",
        "---\ntitle: 'The Title'\ntags: [x]\n---\n# One *two*\n\nText with [a link](http://x.y) and `code`, **bold**\nwrapped.\n\n"
        "## Sub\n\n- item\n- other\n  - inner\n1. first\n2. second\n\n```python\nx = 1\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n"
        "> quoted\n\n日本語の文が\n続く。\n\nSetext\n======\n<div>html <b>inside</b></div>\n",
    )  # fmt: skip
    check_offsets(document)
    assert document.title == "The Title"
    assert blocks(document) == [
        ("heading", "One two"), ("paragraph", "Text with a link and code, bold wrapped."), ("heading", "Sub"),
        ("list", "- item"), ("list", "- other"), ("list", "  - inner"), ("list", "1. first"), ("list", "2. second"),
        ("code", "x = 1"), ("table", "a | b\n1 | 2"), ("paragraph", "quoted"), ("paragraph", "日本語の文が続く。"),
        ("heading", "Setext"), ("paragraph", "html inside"),
    ]  # fmt: skip
    assert document.blocks[3].heading == ("One two", "Sub")


def test_html(tmp_path: Path) -> None:
    document = read(
        tmp_path, "a.html",
        "<html><head><title>T</title><style>p{}</style><script>var x</script></head><body><nav><a>Home</a></nav>"
        "<div class='sidebar'>Side</div><h1>Head <a class=headerlink>¶</a></h1><p>One<br>two &amp; <ruby>漢字<rp>(</rp><rt>かんじ</rt>"
        "<rp>)</rp></ruby>だ</p><p style='display: none'>hidden</p><div>loose <b>text</b></div><ul><li>a<li>b<ol><li>c</ol></ul>"
        "<table><tr><th>k<th>v<tr><td>1<td>2</table><pre>  code\n  here</pre><p>日本語の\n 行</p><footer>Foot</footer></body></html>",
    )  # fmt: skip
    check_offsets(document)
    assert document.title == "T"
    assert blocks(document) == [
        ("heading", "Head"), ("paragraph", "One\ntwo & 漢字だ"), ("paragraph", "loose text"), ("list", "- a"), ("list", "- b"),
        ("list", "  1. c"), ("table", "k | v\n1 | 2"), ("code", "  code\n  here"), ("paragraph", "日本語の行"),
    ]  # fmt: skip


def test_html_main_part(tmp_path: Path) -> None:
    body = "The page's own words. " * 20
    document = read(
        tmp_path, "a.html", f"<body><div>Menu of things</div><main><p>{body}</p></main><div>Legal</div></body>"
    )
    assert document.text == body.strip()


@pytest.mark.parametrize("codec", ["cp932", "euc_jp", "iso2022_jp", "utf-8"])
def test_html_with_a_declared_encoding(tmp_path: Path, codec: str) -> None:
    page = f"<html><head><meta charset={codec.replace('cp932', 'Shift_JIS')}><title>題</title></head><body><p>潮位表</p></body></html>"
    document = read(tmp_path, "a.html", page.encode(codec))
    assert document.text == "潮位表"
    assert document.title == "題"


def test_plain_text(tmp_path: Path) -> None:
    wrapped = "This paragraph was wrapped by hand at about sixty columns, as\npeople do in plain text files, and so it becomes one line\nagain."
    document = read(tmp_path, "a.txt", f"{wrapped}\r\n\r\nShort\nlines\nstay\n\n\n- a\n- b\n")
    assert blocks(document) == [
        ("paragraph", wrapped.replace("\n", " ")), ("paragraph", "Short\nlines\nstay"), ("list", "- a\n- b"),
    ]  # fmt: skip


def test_aozora_notation(tmp_path: Path) -> None:
    text = (
        "吾輩は猫である\n夏目漱石\n\n"
        + "-" * 55
        + "\n【テキスト中に現れる記号について】\n\n《》：ルビ\n"
        + "-" * 55
        + "\n\n"
        "吾輩《わがはい》は猫である。名前はまだ無い。どこで生れたか｜頓《とん》と見当《けんとう》がつかぬ。［＃改ページ］\n"
    )
    document = read(tmp_path, "neko.txt", text.encode("cp932"))
    assert "吾輩は猫である。名前はまだ無い。どこで生れたか頓と見当がつかぬ。" in document.text
    assert "記号について" not in document.text
    assert document.encoding == "cp932"
    assert document.notes


def test_rst(tmp_path: Path) -> None:
    document = read(
        tmp_path, "a.rst",
        "=====\nTitle\n=====\n\nText with ``code``, *stress*, :ref:`a place <x>` and `link <http://x>`_\nwrapped.\n\n.. _target:\n\n"
        "Section\n-------\n\n.. note:: Mind this.\n\n.. code-block:: python\n   :linenos:\n\n   x = 1\n\nExample::\n\n    verbatim\n\n"
        "* one\n* two\n\n.. image:: x.png\n\n=====  =====\nA      B\n=====  =====\n1      2\n=====  =====\n\n+---+---+\n| c | d |\n+---+---+\n",
    )  # fmt: skip
    check_offsets(document)
    assert blocks(document) == [
        ("heading", "Title"), ("paragraph", "Text with code, stress, a place and link wrapped."), ("heading", "Section"),
        ("paragraph", "Mind this."), ("code", "x = 1"), ("paragraph", "Example:"), ("code", "verbatim"), ("list", "* one"),
        ("list", "* two"), ("table", "A | B\n1 | 2"), ("table", "c | d"),
    ]  # fmt: skip
    assert document.blocks[4].heading == ("Title", "Section")


def test_tex(tmp_path: Path) -> None:
    document = read(
        tmp_path, "a.tex",
        "\\documentclass{article}\n\\title{On Tides}\n\\begin{document}\n\\maketitle\n\\section{First} % comment\nThe caf\\'e costs "
        "5\\% of $x^2$~km \\emph{here}\\cite{a}.\\footnote{A note.}\n\n``Quoted'' text.\n\\begin{itemize}\n\\item one\n\\item two\n\\end{itemize}\n"
        "\\subsection*{Deep}\n\\begin{verbatim}\nraw % code\n\\end{verbatim}\n\\begin{tabular}{ll}\na & b \\\\ \\hline\n1 & 2 \\\\\n\\end{tabular}\n"
        "\\end{document}\nignored",
    )  # fmt: skip
    check_offsets(document)
    assert document.title == "On Tides"
    assert blocks(document) == [
        ("heading", "On Tides"), ("heading", "First"), ("paragraph", "The café costs 5% of x^2 km here. (A note.)"),
        ("paragraph", "“Quoted” text."), ("list", "- one"), ("list", "- two"), ("heading", "Deep"), ("code", "raw % code"),
        ("table", "a | b\n1 | 2"),
    ]  # fmt: skip
    assert document.blocks[-1].heading == ("On Tides", "First", "Deep")


def test_org(tmp_path: Path) -> None:
    document = read(
        tmp_path, "a.org",
        "#+TITLE: Notes\n* TODO First :tag:\n:PROPERTIES:\n:ID: 1\n:END:\nText with [[http://x][a link]] and *bold*\nwrapped.\n** Sub\n"
        "- one\n- two\n#+BEGIN_SRC sh\nls\n#+END_SRC\n| a | b |\n|---+---|\n| 1 | 2 |\n",
    )  # fmt: skip
    assert document.title == "Notes"
    assert blocks(document) == [
        ("heading", "First"), ("paragraph", "Text with a link and bold wrapped."), ("heading", "Sub"), ("list", "- one\n- two"),
        ("code", "ls"), ("table", "a | b\n1 | 2"),
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "mark"), [("a.csv", ","), ("b.csv", ";"), ("c.tsv", "\t"), ("d.csv", "|")])
def test_delimited(tmp_path: Path, name: str, mark: str) -> None:
    rows = [["name", "city"], ["Smith, A.", "Rome"], ["田中", "東京"]]
    text = "\n".join(mark.join(f'"{c}"' for c in row) for row in rows)
    document = read(tmp_path, name, text.encode("cp932"))
    assert document.text == "name: Smith, A. | city: Rome\nname: 田中 | city: 東京"
    assert document.encoding == "cp932"
    bare = read(tmp_path, "numbers.csv", "1,2\n3,4\n")
    assert bare.text == "1 | 2\n3 | 4"


def test_json(tmp_path: Path) -> None:
    value = {"title": "Set", "n": 3, "tags": ["a", "b"], "items": [{"k": "v", "in": {"x": True}}, {"k": "w"}]}
    document = read(tmp_path, "a.json", json.dumps(value))
    assert document.title == "Set"
    assert blocks(document) == [
        ("paragraph", "title: Set\nn: 3"), ("heading", "tags"), ("paragraph", "a, b"), ("heading", "items"),
        ("paragraph", "k: v\nin.x: true"), ("paragraph", "k: w"),
    ]  # fmt: skip
    lines = read(tmp_path, "a.jsonl", '{"q": "猫"}\nbroken\n{"q": "犬"}\n')
    assert lines.text == "q: 猫\n\nq: 犬"
    assert any("1 lines" in note for note in lines.notes)
    commented = read(tmp_path, "b.json", "// a comment\n{}")
    assert "comment" in commented.text


def test_xml(tmp_path: Path) -> None:
    document = read(
        tmp_path, "a.xml",
        "<?xml version='1.0' encoding='Shift_JIS'?><book><title>潮位</title><chapter><title>First</title><para>Some <em>mixed</em>"
        " words.</para><programlisting>x = 1</programlisting></chapter></book>".encode("cp932"),
    )  # fmt: skip
    assert document.title == "潮位"
    assert blocks(document) == [
        ("heading", "潮位"), ("heading", "First"), ("paragraph", "Some mixed words."), ("code", "x = 1"),
    ]  # fmt: skip


def message(subject: str, text: str | None, html: str | None = None, charset: str = "utf-8") -> EmailMessage:
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = subject, "田中 <a@example.com>", "b@example.com"
    mail["Date"] = "Mon, 01 Jan 2024 10:00:00 +0900"
    if text is not None:
        mail.set_content(text, charset=charset)
        if html is not None:
            mail.add_alternative(html, subtype="html")
    elif html is not None:
        mail.set_content(html, subtype="html")
    return mail


@pytest.mark.parametrize("charset", ["utf-8", "iso-2022-jp", "euc-jp"])
def test_mail(tmp_path: Path, charset: str) -> None:
    mail = message("会議の件", "明日の会議は三時からです。\n\n> 引用した行\n", "<p>not taken</p>", charset)
    mail.add_attachment(b"%PDF-1.4", maintype="application", subtype="pdf", filename="資料.pdf")
    document = read(tmp_path, "a.eml", mail.as_bytes())
    assert document.title == "会議の件"
    assert "From: 田中 <a@example.com>" in document.text
    assert "明日の会議は三時からです。" in document.text
    assert "引用した行" in document.text
    assert "not taken" not in document.text
    assert document.text.endswith("Attachments: 資料.pdf")
    assert all(b.heading == ("会議の件",) for b in document.blocks)


def test_mail_with_html_only(tmp_path: Path) -> None:
    document = read(
        tmp_path, "a.eml", message("S", None, "<html><head><title>x</title></head><p>Words</p></html>").as_bytes()
    )
    assert document.title == "S"
    assert "Words" in document.text


def test_mbox(tmp_path: Path) -> None:
    mails = [message(f"Subject {n}", f"Body {n}.\n\n>From here on.\n").as_bytes() for n in (1, 2, 3)]
    data = b"".join(b"From a@b Mon Jan  1 00:00:00 2024\n" + m + b"\n" for m in mails)
    document = read(tmp_path, "a.mbox", data)
    assert [(b.page, b.heading) for b in document.blocks if b.kind == "heading"] == [
        (n, (f"Subject {n}",)) for n in (1, 2, 3)
    ]
    assert document.n_pages == 3
    assert "From here on." in document.text
    renamed = read(tmp_path, "Inbox", data)
    assert renamed.kind == "mbox"


def test_notebook(tmp_path: Path) -> None:
    book = {
        "cells": [
            {"cell_type": "markdown", "source": ["# Title\n", "Words."]},
            {"cell_type": "code", "source": "print(1)", "outputs": [{"output_type": "stream", "text": ["1\n"]}]},
            {"cell_type": "code", "source": "big", "outputs": [{"data": {"text/plain": "x" * 9000}}]},
        ],
        "metadata": {},
    }
    document = read(tmp_path, "a.ipynb", json.dumps(book))
    assert blocks(document) == [
        ("heading", "Title"),
        ("paragraph", "Words."),
        ("code", "print(1)"),
        ("code", "1"),
        ("code", "big"),
    ]
    assert document.notes


def test_source_code_keeps_its_text(tmp_path: Path) -> None:
    source = '"""Doc."""\n\nimport os\n\n\ndef first(a):\n    x = 1\n\n    return x\n\n\nclass Second:\n    def method(self):\n        pass\n'
    document = read(tmp_path, "a.py", source)
    assert [b.heading for b in document.blocks] == [(), (), ("first",), ("Second",)]
    assert "    x = 1\n\n    return x" in document.text
    c = read(tmp_path, "b.c", "#include <x.h>\n\nstatic int add(int a, int b)\n{\n    return a + b;\n}\n")
    assert c.blocks[-1].heading == ("add",)


def test_kinds_are_told_by_content_where_the_name_says_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, "noname", (FIXTURES / "report_en.pdf").read_bytes()).kind == "pdf"
    assert read(tmp_path, "x.zip", (FIXTURES / "report_en.docx").read_bytes()).kind == "docx"
    assert read(tmp_path, "wrong.docx", (FIXTURES / "report_en.odt").read_bytes()).kind == "odt"
    assert read(tmp_path, "page.txt", "<!DOCTYPE html><p>Words").kind == "html"
    assert read(tmp_path, "README", "words").kind == "txt"


DEBIAN = [
    ("/usr/share/doc/zstd/CODE_OF_CONDUCT.md", "md"), ("/usr/share/doc/libtasn1-doc/libtasn1.pdf", "pdf"),
    ("/usr/share/doc/python3/python-policy.html", "html"), ("/usr/share/doc/dpkg/spec/triggers.txt", "txt"),
    ("/usr/share/doc/python3-setuptools/history.rst", "rst"),
    ("/usr/share/doc/shared-mime-info/shared-mime-info-spec.pdf", "pdf"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "kind"), DEBIAN)
def test_files_of_debian_packages(path: str, kind: str) -> None:
    if not Path(path).exists():
        pytest.skip(f"{path} is not installed")
    document = parse(path)
    check_offsets(document)
    assert document.kind == kind
    assert len(document.text) > 200


def test_a_format_without_parser_is_named(tmp_path: Path) -> None:
    for name, content, code in (
        ("a.rtf", b"{\\rtf1 text}", "unsupported"), ("a.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"x" * 99, "unsupported"),
        ("a.png", b"\x89PNG\r\n\x1a\n", "binary"), ("a.txt", b"\x7fELF\x02\x01\x01\x00\x00", "binary"),
    ):  # fmt: skip
        with pytest.raises(Refused) as refused:
            read(tmp_path, name, content)
        assert refused.value.code == code


def test_what_stands_above_a_header_is_no_header(tmp_path: Path) -> None:
    document = read(tmp_path, "a.csv", "Export of May\n\nby FooBar\nDate,Text\n2024-05-01,Rent\n2024-05-02,Coffee\n")
    assert document.text == "Export of May\nby FooBar\nDate: 2024-05-01 | Text: Rent\nDate: 2024-05-02 | Text: Coffee"
    one_column = read(tmp_path, "b.csv", "name\nSmith\nTanaka\n")
    assert one_column.text == "name\nSmith\nTanaka"


def test_sheet_shows_shares_as_percent(tmp_path: Path) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    for row in (["売上報告"], ["品名", "割合"], ["りんご", 0.256], ["みかん", 0.5], ["なし", 0.25]):
        book.active.append(row)
    book.active["B3"].number_format = "0.0%"
    book.active["B4"].number_format = "0%"
    book.save(tmp_path / "a.xlsx")
    assert parse(tmp_path / "a.xlsx").text == (
        "Sheet\n\n売上報告\n品名: りんご | 割合: 25.6%\n品名: みかん | 割合: 50%\n品名: なし | 割合: 0.25"
    )


def test_log_entries_stay_lines(tmp_path: Path) -> None:
    lines = [f"2024-05-01T10:00:{i:02} INFO the server took a request and answered it" for i in range(9)]
    assert read(tmp_path, "a.log", "\n".join(lines)).text == "\n".join(lines)
    lines = [f"May  1 10:00:{i:02} host sshd[1]: a session was opened for somebody" for i in range(9)]
    assert read(tmp_path, "b.log", "\n".join(lines)).text == "\n".join(lines)


def test_subtitles_are_what_is_said(tmp_path: Path) -> None:
    document = read(
        tmp_path, "a.srt",
        "1\n00:00:01,000 --> 00:00:03,000\n<i>The moon\npulls</i>\n\n2\n00:00:04,000 --> 00:00:05,000\nthe sea.\n\n"
        "3\n01:02:04,000 --> 01:02:05,000\n{\\an8}潮が\n\n4\n01:02:05,000 --> 01:02:06,000\n満ちる。\n",
    )  # fmt: skip
    assert blocks(document) == [("paragraph", "The moon pulls the sea."), ("paragraph", "潮が満ちる。")]
    assert [b.heading for b in document.blocks] == [("0:00:00",), ("1:02:00",)]
    titles = "WEBVTT\nKind: captions\n\n00:01.000 --> 00:03.000 align:start\n<v Bob>Hi, I am\n\nNOTE x\n\nid\n00:59.000 --> 01:06.000\nBob.\n"
    assert read(tmp_path, "a.vtt", titles).text == "Hi, I am Bob."
    assert read(tmp_path, "b.srt", "no times in it").text == "no times in it"


def test_tex_macros_formulas_and_people(tmp_path: Path) -> None:
    document = read(
        tmp_path, "a.tex",
        r"\title{On Tides\thanks{Funded.}}\author{J. M\"uller \and A. B.}\newcommand{\tide}[1]{the \emph{#1} tide}"
        r"\def\sea{North Sea}\newcommand\both{\sea{} and \tide{neap}}\newcommand{\odd}[2][x]{#1 #2}"
        "\n\\begin{document}\nHere \\tide{spring} of \\both. 5\\,\\AA{}\n"
        r"\begin{equation}\label{eq:a} h = \sum_i a_i \end{equation}" "\n\n"
        r"\begin{tabular}{l|r}A & B \\ \multicolumn{2}{c}{none} \\ \multirow{2}{*}{c} & d\end{tabular}"
        r"\includegraphics[width=3cm]{a.png}\begin{verbatim}" "\n\\sea\n\\end{verbatim}\n\\end{document}",
    )  # fmt: skip
    assert blocks(document) == [
        ("heading", "On Tides"), ("paragraph", "J. Müller, A. B."),
        ("paragraph", r"Here the spring tide of North Sea and the neap tide. 5Å h = \sum_i a_i"),
        ("table", "A | B\nnone\nc | d"), ("code", "\\sea"),
    ]  # fmt: skip


def test_tex_macros_that_run_away_end(tmp_path: Path) -> None:
    bomb = "".join(
        f"\\newcommand{{\\{a}}}{{{(chr(92) + b + ' ') * 40}}}" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    document = read(tmp_path, "a.tex", bomb + r"\newcommand{\i}{\i\i}\begin{document}Before \a \i after\end{document}")
    assert document.text.startswith("Before")
    assert len(document.text) < 100_000


def test_notebook_outputs_without_colours_and_pictures(tmp_path: Path) -> None:
    outputs = [
        {"output_type": "stream", "text": ["\x1b[31mWarning\x1b[0m\n"]},
        {"output_type": "display_data", "data": {"image/png": "aGk=", "text/plain": ["<Figure size 640x480>"]}},
    ]
    cell = {"cell_type": "code", "source": "x", "outputs": outputs}
    assert read(tmp_path, "a.ipynb", json.dumps({"cells": [cell]})).text == "x\n\nWarning"


def test_markup_inside_a_feed(tmp_path: Path) -> None:
    document = read(
        tmp_path, "a.xml",
        "<rss><channel><title>News</title><item><title>Tide</title><description><![CDATA[<p>High <b>tide</b> at noon.</p>"
        "<ul><li>one</ul>]]></description></item><item>AT&amp;T is a &lt;b name</item></channel></rss>",
    )  # fmt: skip
    assert blocks(document)[2:] == [
        ("paragraph", "High tide at noon."), ("list", "- one"), ("paragraph", "AT&T is a <b name"),
    ]  # fmt: skip


def test_rst_admonitions_and_markdown_footnotes(tmp_path: Path) -> None:
    document = read(
        tmp_path, "a.rst", ".. note:: Beware of the\n   tide here.\n\n   More.\n\n.. figure:: a.png\n\n   Below.\n"
    )
    assert [text for _, text in blocks(document)] == ["Beware of the tide here.", "More.", "a.png", "Below."]
    document = read(tmp_path, "a.md", "Tides[^1] and `[^a]`.\n\n[^1]: See there.\n")
    assert document.text == "Tides and [^a].\n\nSee there."


def test_a_header_without_a_heading_is_furniture(tmp_path: Path) -> None:
    long = "A paragraph of the page's own text that is long enough. " * 9
    document = read(
        tmp_path, "a.html",
        f"<body><header><a>Acme</a></header><header><h1>Title</h1></header><article><header>By Jane</header><p>{long}</p>"
        "</article><article>b</article></body>",
    )  # fmt: skip
    assert [text for _, text in blocks(document)] == ["Title", "By Jane", long.strip(), "b"]


def test_word_lists_keep_their_depth_and_tables_their_columns(tmp_path: Path) -> None:
    w = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"

    def item(depth: int, text: str) -> str:
        number = f'<w:pPr><w:numPr><w:ilvl w:val="{depth}"/><w:numId w:val="1"/></w:numPr></w:pPr>'
        return f"<w:p>{number}<w:r><w:t>{text}</w:t></w:r></w:p>"

    with zipfile.ZipFile(tmp_path / "a.docx", "w") as archive:
        body = item(0, "Cranes") + item(1, "Gantry") + item(0, "Docks")
        archive.writestr("word/document.xml", f'<w:document xmlns:w="{w}"><w:body>{body}</w:body></w:document>')
    assert parse(tmp_path / "a.docx").text == "- Cranes\n  - Gantry\n- Docks"
    table = "urn:oasis:names:tc:opendocument:xmlns:table:1.0"
    names = f'xmlns:o="urn:oasis:names:tc:opendocument:xmlns:office:1.0" xmlns:x="urn:oasis:names:tc:opendocument:xmlns:text:1.0" xmlns:t="{table}"'
    cell, covered = "<t:table-cell><x:p>{}</x:p></t:table-cell>", "<t:covered-table-cell/>"
    rows = [cell.format("Tonnage") + covered, cell.format("2020") + cell.format("2.1"), covered + cell.format("2.2")]
    markup = "".join(f"<t:table-row>{row}</t:table-row>" for row in rows)
    text = f'<?xml version="1.0"?><o:document {names}><o:body><o:text><t:table>{markup}</t:table></o:text></o:body></o:document>'
    assert read(tmp_path, "a.fodt", text).text == "Tonnage\n2020 | 2.1\n | 2.2"


@pytest.mark.parametrize("contents", ["nav", "ncx"])
def test_chapters_without_headings_go_by_the_table_of_contents(tmp_path: Path, contents: str) -> None:
    html = '<html xmlns="http://www.w3.org/1999/xhtml"><body>{}</body></html>'
    kind = (
        'properties="nav" media-type="application/xhtml+xml"'
        if contents == "nav"
        else 'media-type="application/x-dtbncx+xml"'
    )
    with zipfile.ZipFile(tmp_path / "a.epub", "w") as archive:
        archive.writestr(
            "META-INF/container.xml",
            '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfile full-path="O/b.opf"/></container>',
        )
        archive.writestr(
            "O/b.opf",
            '<package xmlns="http://www.idpf.org/2007/opf"><manifest><item id="1" href="t/c%201.xhtml"/>'
            f'<item id="2" href="t/c2.xhtml"/><item id="n" href="n/toc" {kind}/></manifest><spine>'
            '<itemref idref="1"/><itemref idref="2"/></spine></package>',
        )
        archive.writestr("O/t/c 1.xhtml", html.format("<p>The sea.<a>1</a></p><aside><p>1 A note.</p></aside>"))
        archive.writestr("O/t/c2.xhtml", html.format("<h2>Own title</h2><p>The land.</p>"))
        links = [("../t/c%201.xhtml#top", "One <b>first</b>"), ("../t/c%201.xhtml", "Later"), ("../t/c2.xhtml", "Two")]
        if contents == "nav":
            archive.writestr("O/n/toc", html.format("".join(f'<a href="{link}">{name}</a>' for link, name in links)))
        else:
            points = "".join(
                f'<navPoint><navLabel><text>{name}</text></navLabel><content src="{link}"/></navPoint>'
                for link, name in links
            )
            archive.writestr("O/n/toc", f'<ncx xmlns="http://www.daisy.org/z3986/2005/ncx/">{points}</ncx>')
    document = parse(tmp_path / "a.epub")
    assert [(b.heading, document.text[b.start : b.end]) for b in document.blocks] == [
        (("One first",), "The sea.1"), (("One first",), "1 A note."), (("Own title",), "Own title"), (("Own title",), "The land."),
    ]  # fmt: skip


def test_word_formulas_are_words_too(tmp_path: Path) -> None:
    w = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    m = "http://schemas.openxmlformats.org/officeDocument/2006/math"
    body = "<w:p><w:r><w:t>Then </w:t></w:r><m:oMath><m:r><m:t>x+y</m:t></m:r></m:oMath><w:r><w:t> holds.</w:t></w:r></w:p>"
    with zipfile.ZipFile(tmp_path / "a.docx", "w") as archive:
        archive.writestr(
            "word/document.xml", f'<w:document xmlns:w="{w}" xmlns:m="{m}"><w:body>{body}</w:body></w:document>'
        )
    assert parse(tmp_path / "a.docx").text == "Then x+y holds."


def test_hyphens_that_are_not_shown_are_not_in_words(tmp_path: Path) -> None:
    assert read(tmp_path, "a.html", "<p>Donau&shy;dampf&shy;schiff&shy; x</p>").text == "Donaudampfschiff\u00ad x"
    wrapped = "A line of plain text that is wrapped by hand and is inter\u00ad\nnational as its words show."
    assert read(tmp_path, "a.txt", wrapped).text == wrapped.replace("\u00ad\n", "")


def test_what_holds_most_of_a_page_is_no_sidebar(tmp_path: Path) -> None:
    words = "<p>The page's own words are here, and more of them follow in the next sentence.</p>"
    clutter = '<div class="main-sidebar">Links</div><script>' + "x = 1;" * 100 + "</script>"
    document = read(tmp_path, "a.html", f'<body><div class="layout with-sidebar">{clutter}{words}</div></body>')
    assert document.text == words[3:-4]
    menu = '<div class="nav">' + "".join(f"<a>Menu entry {n}</a> " for n in range(40)) + "</div>"
    assert read(tmp_path, "b.html", f"<body>{menu}{words}</body>").text == words[3:-4]
