# ruff: noqa: E501  (sample documents read best unbroken)
"""Files that are broken, lying, huge or malicious: refused in a sentence, quickly, in bounded memory."""

from __future__ import annotations

import os
import resource
import struct
import time
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kogata.ask.documents import Document, Limits, ParserPool, Refusal, Refused, hash_file, parse
from kogata.ask.documents.formats import package
from kogata.ask.documents.reading import attempt, hash_bytes

FIXTURES = Path(__file__).parents[2] / "fixtures" / "documents"


def refusal(path: Path | bytes, limits: Limits | None = None) -> Refused:
    with pytest.raises(Refused) as refused:
        parse(path, limits=limits)
    assert refused.value.reason[0].isupper()
    assert refused.value.reason.endswith((".", ")"))
    return refused.value


def written(tmp_path: Path, name: str, content: bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def zipped(parts: dict[str, bytes]) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def test_a_500_mb_text_file_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "big.txt"
    with path.open("wb") as file:
        file.truncate(500_000_000)  # sparse: it costs no disk
    begin, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = refusal(path)
    assert refused.code == "too_large"
    assert "500 MB" in refused.reason
    assert "200 MB" in refused.reason
    assert time.monotonic() - begin < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


def test_too_much_text_is_refused_not_cut(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", b"word word\n\n" * 20_000)
    refused = refusal(path, Limits(max_characters=100_000))
    assert refused.code == "too_large"
    assert "100,000" in refused.reason


@pytest.mark.parametrize("name", ["bomb.docx", "bomb.xlsx", "bomb.epub", "bomb.odt", "bomb.pptx"])
def test_zip_bombs(tmp_path: Path, name: str) -> None:
    main = {"docx": "word/document.xml", "xlsx": "xl/workbook.xml", "epub": "META-INF/container.xml",
            "odt": "content.xml", "pptx": "ppt/presentation.xml"}[name[5:]]  # fmt: skip
    parts = {main: b" " * 60_000_000}
    if name.endswith("odt"):
        parts = {"mimetype": b"application/vnd.oasis.opendocument.text", **parts}
    assert refusal(written(tmp_path, name, zipped(parts))).code == "too_large"


def test_a_zip_bomb_whose_header_lies(tmp_path: Path) -> None:
    """The stated size is 100 bytes; what comes out counts."""
    data = bytearray(zipped({"word/document.xml": b" " * 60_000_000}))
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.index(signature) + offset
        data[at : at + 4] = struct.pack("<I", 100)
    refused = refusal(written(tmp_path, "liar.docx", bytes(data)))
    assert refused.code in ("too_large", "corrupt")


def test_many_parts_and_a_high_total(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = os.urandom(300_000)
    parts = {"word/document.xml": b"<a/>", **{f"word/media/{n}.bin": noise for n in range(10)}}
    path = written(tmp_path, "a.docx", zipped(parts))
    assert refusal(path, Limits(max_bytes=3_200_000)).code == "corrupt"  # within the limits, but no document
    monkeypatch.setattr(package, "_MOST_MARKUP", 2)
    assert refusal(path, Limits()).code == "too_large"
    monkeypatch.undo()
    monkeypatch.setattr(package, "_MOST_PARTS", 5)
    assert refusal(path, Limits()).code == "too_large"


BILLION_LAUGHS = b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "lol">' + b"".join(
    b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(9)
) + b"]><l><p>text &j;</p></l>"  # fmt: skip
EXTERNAL = b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY x SYSTEM "file:///etc/passwd">]><l><p>text &x;</p></l>'


@pytest.mark.parametrize("bomb", [BILLION_LAUGHS, EXTERNAL])
@pytest.mark.parametrize("name", ["a.xml", "a.svg", "a.fodt", "a.docx", "a.xlsx"])
def test_xml_entities_are_not_expanded(tmp_path: Path, bomb: bytes, name: str) -> None:
    if name == "a.docx":
        with zipfile.ZipFile(FIXTURES / "report_en.docx") as source:
            parts = {n: source.read(n) for n in source.namelist()}
        bomb = zipped({**parts, "word/document.xml": bomb})
    elif name == "a.xlsx":
        with zipfile.ZipFile(FIXTURES / "sheets.xlsx") as source:
            parts = {n: source.read(n) for n in source.namelist()}
        bomb = zipped({**parts, "xl/workbook.xml": bomb})
    path = written(tmp_path, name, bomb)
    begin = time.monotonic()
    outcome = attempt(os.fsencode(path), Limits())
    assert time.monotonic() - begin < 2
    if isinstance(outcome, Document):
        assert "root:" not in outcome.text
        assert "lollol" not in outcome.text
    else:
        assert outcome.code in ("corrupt", "empty")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.html", b"<div>" * 20_000 + b"deep words here"), ("b.html", b"<table>" * 5_000 + b"<tr><td>x"),
        ("c.html", b"<ul><li>" * 5_000 + b"x"), ("a.json", b"[" * 200_000), ("b.json", b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
        ("a.xml", b"<a>" * 50_000 + b"x" + b"</a>" * 50_000), ("a.md", b"> " * 20_000 + b"x"), ("b.md", b"[" * 50_000),
        ("c.md", b"*a **b " * 10_000), ("a.rst", b".. note::\n" + b"".join(b" " * n + b".. note::\n" for n in range(1, 1500))),
        ("a.org", b"*" * 100_000 + b" x"), ("a.tex", b"{" * 100_000), ("b.tex", b"\\section{" * 20_000),
        ("a.ipynb", b'{"cells": 3}'), ("b.ipynb", b"[]"), ("a.eml", b"Content-Type: multipart/mixed; boundary=a\n\n" + b"--a\n" * 50_000),
        ("a.csv", b'"' * 300_000), ("a.py", b"(" * 300_000), ("a.mbox", b"From a\n" * 1000), ("d.html", b"<" * 300_000),
    ],
)  # fmt: skip
def test_deep_and_degenerate_input_ends(tmp_path: Path, name: str, content: bytes) -> None:
    begin = time.process_time()  # not the clock's: the machine may be busy
    outcome = attempt(os.fsencode(written(tmp_path, name, content)), Limits())
    assert time.process_time() - begin < 10
    if isinstance(outcome, Refusal):
        assert "Error" not in outcome.reason.split("(")[0]
        assert not any(word in outcome.reason for word in ("AttributeError", "TypeError", "NameError", "KeyError"))


def test_a_sheet_of_more_cells_than_are_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kogata.ask.documents.formats import delimited, grid

    monkeypatch.setattr(grid, "MOST_CELLS", 1000)
    monkeypatch.setattr(delimited, "add_grid", lambda rows, out: grid.add_grid(rows, out, budget=1000))
    path = written(tmp_path, "a.csv", b"a,b\n" + b"".join(b"%d,x\n" % n for n in range(2000)))
    document = parse(path)
    assert any("1,000 cells" in note and "left out" in note for note in document.notes)
    assert "a: 499 | b: x" in document.text
    assert "a: 500 " not in document.text


def test_a_file_that_changes_while_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kogata.ask.documents import reading

    path = written(tmp_path, "a.txt", b"one two three\n" * 1000)
    real = reading._read_exactly

    def read_and_change(file: object, size: int) -> bytes:
        data = real(file, size)
        with path.open("ab") as other:
            other.write(b"more\n")
        return data

    monkeypatch.setattr(reading, "_read_exactly", read_and_change)
    assert refusal(path).code == "changed"
    monkeypatch.undo()
    assert parse(path).text.endswith("more")


def test_a_file_that_shrinks_while_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kogata.ask.documents import reading

    path = written(tmp_path, "a.txt", b"one two three\n" * 1000)
    real = reading._read_exactly

    def shrink_and_read(file: object, size: int) -> bytes:
        os.truncate(path, 100)
        return real(file, size)

    monkeypatch.setattr(reading, "_read_exactly", shrink_and_read)
    assert refusal(path).code == "changed"


@pytest.mark.parametrize(
    "name", [b"new\nline.txt", b"latin-\xe9.txt", b"\xff\xfe.md", "日本.txt".encode(), b"-dash.txt", b" .txt"]
)
def test_odd_names(tmp_path: Path, name: bytes) -> None:
    path = os.path.join(os.fsencode(tmp_path), name)
    with open(path, "wb") as file:
        file.write(b"Words in a file.\n")
    assert parse(path).text == "Words in a file."
    with ParserPool(1) as pool:
        ((key, outcome),) = pool.parse_many([(path, path)])
    assert key == path
    assert isinstance(outcome, Document)
    assert outcome.text == "Words in a file."


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    assert refusal(tmp_path / "pipe.txt").code == "unsupported"
    assert refusal(tmp_path).code in ("unsupported", "unreadable")
    assert refusal(tmp_path / "missing.txt").code == "unreadable"
    assert refusal(written(tmp_path, "empty.txt", b"")).code == "empty"
    assert refusal(written(tmp_path, "blank.txt", b" \n\t\n")).code == "empty"
    (tmp_path / "loop").symlink_to("loop")
    assert refusal(tmp_path / "loop").code == "unreadable"


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "a.txt", b"words")

    def refuse(*arguments: object, **options: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    refused = refusal(path)
    assert refused.code == "unreadable"
    assert "permission" in refused.reason


def test_encrypted_office_files(tmp_path: Path) -> None:
    ole = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 500 + "EncryptedPackage".encode("utf-16-le") + b"\0" * 500
    assert refusal(written(tmp_path, "a.docx", ole)).code == "encrypted"
    with zipfile.ZipFile(FIXTURES / "report_en.odt") as source:
        parts = {n: source.read(n) for n in source.namelist()}
    parts["META-INF/manifest.xml"] = parts["META-INF/manifest.xml"].replace(
        b"</manifest:manifest>", b"<manifest:encryption-data/></manifest:manifest>"
    )
    assert refusal(written(tmp_path, "a.odt", zipped(parts))).code == "encrypted"


@pytest.mark.parametrize("name", ["report_en.docx", "talk.pptx", "sheets.xlsx", "report_en.odt", "report_en.epub"])
@pytest.mark.parametrize("how", ["cut", "named", "flipped"])
def test_damaged_packages(tmp_path: Path, name: str, how: str) -> None:
    data = bytearray((FIXTURES / name).read_bytes())
    if how == "cut":
        data = data[: len(data) // 2]
    elif how == "named":
        data = bytearray(b"these are just words, not a package")
    else:
        for at in range(200, len(data), 97):
            data[at] ^= 0xFF
    assert refusal(written(tmp_path, name, bytes(data))).code in ("corrupt", "encrypted", "binary")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_fuzzed_fixtures_never_raise(tmp_path: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(p.name for p in FIXTURES.glob("*.*") if p.suffix != ".pdf")))
    content = bytearray((FIXTURES / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(1, 8))] = data.draw(st.binary(max_size=8))
    outcome = attempt(os.fsencode(written(tmp_path, name, bytes(content))), Limits(seconds=10))
    assert isinstance(outcome, (Document, Refusal))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from(["txt", "md", "html", "rst", "csv", "json", "jsonl", "xml", "eml", "mbox", "ipynb", "tex", "org", "py"]),
    content=st.one_of(st.binary(max_size=300), st.text(max_size=200).map(lambda t: t.encode("utf-8", "surrogatepass"))),
)  # fmt: skip
def test_any_bytes_are_read_or_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    outcome = attempt(os.fsencode(written(tmp_path, f"a.{suffix}", content)), Limits())
    if isinstance(outcome, Document):
        outcome.text.encode()  # no lone surrogates
        assert "\0" not in outcome.text
        position = 0
        for block in outcome.blocks:
            assert position <= block.start < block.end <= len(outcome.text)
            position = block.end
    else:
        assert not any(word in outcome.reason for word in ("AttributeError", "TypeError", "NameError", "UnboundLocal"))


def test_hashes(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", b"words" * 1_000_000)
    assert hash_file(path) == hash_bytes(path.read_bytes()) == parse(path, limits=Limits()).hash
