"""PDF through PDFium: text in reading order, headings by size and outline, rubbish and scans named."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from kogata.ask.documents.builder import Builder
from kogata.ask.documents.formats.garbled import is_garbled
from kogata.ask.documents.formats.glyphs import read_glyphs, turned, without_ruby
from kogata.ask.documents.formats.layout import BULLET, Paragraph, lines_of, paragraphs_of, read_order
from kogata.ask.documents.formats.plain import add_paragraphs
from kogata.ask.documents.model import Refused
from kogata.ask.documents.source import Source

_DIGITS = re.compile(r"\d+")
_PAGE_NUMBER = re.compile(
    r"[\s\-–—|/().]*(?:page|p\.|頁|ページ|第)?\s*(\d{1,4}|[ivxlc]{1,7})(?:\s*(?:/|of|頁|ページ)\s*\d*)?[\s\-–—|().]*",
    re.I,
)
_LEADER = re.compile(r"\s*(?:[.·…‥・] ?){5,}\s*")  # from a title to its page in a table of contents
_IMAGE, _PATH = 3, 2  # FPDF_PAGEOBJ_IMAGE, FPDF_PAGEOBJ_PATH


@dataclass(slots=True)
class _Page:
    number: int
    paragraphs: list[Paragraph] = field(default_factory=list)
    height: float = 0.0
    is_vertical: bool = False
    state: str = "text"  # or "empty", "picture", "garbled"
    read_by_ocr: str = ""


def read(source: Source, out: Builder) -> None:
    """Add the pages of a PDF."""
    document = _open(source.data)
    try:
        out.n_pages = len(document)
        out.title = _title(document)
        pages = [_page(document, number, out) for number in range(1, len(document) + 1)]
        _recognise(document, pages, source, out)
        outline = _outline(document)
    finally:
        document.close()
    _drop_furniture(pages)
    _emit(pages, outline, out)


def _open(data: bytes) -> Any:
    import pypdfium2

    try:
        return pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise Refused("encrypted", "It is protected by a password; save a copy without one.") from None
        raise Refused("corrupt", "It is a damaged PDF.") from None


def _title(document: Any) -> str:
    title = str(document.get_metadata_value("Title") or "").replace("\0", "").strip()
    # Word processors leave their file's name there.
    return "" if re.search(r"\.(?:docx?|odt|tex|dvi|indd|pptx?|xlsx?|html?)$|^untitled", title, re.I) else title


def _page(document: Any, number: int, out: Builder) -> _Page:
    import pypdfium2

    result = _Page(number)
    try:
        page = document[number - 1]
    except pypdfium2.PdfiumError:
        out.note(f"Page {number} is damaged and was left out.")
        result.state = "empty"
        return result
    try:
        result.height = page.get_height()
        page_text = page.get_textpage()
        glyphs = read_glyphs(page_text)
        page_text.close()
        if glyphs.n_characters < 10 and _has_picture(page):
            result.state = "picture"
        elif glyphs.n_characters == 0:
            result.state = "empty"
        upright = [p for p in glyphs.pieces if not p.vertical]
        vertical = [p for p in glyphs.pieces if p.vertical]
        n_vertical, n_upright = sum(len(p.text) for p in vertical), sum(len(p.text) for p in upright)
        if n_vertical > n_upright:
            # Single characters and digits set across stand within the columns; longer runs are captions and the like.
            result.is_vertical = True
            pieces = [turned(p) for p in glyphs.pieces if p.vertical or len(p.text) <= 4]
            apart = [p for p in upright if len(p.text) > 4]
        else:
            pieces, apart = upright, [turned(p) for p in vertical]
        for group in (pieces, apart):
            group, n_ruby = without_ruby(group)
            if n_ruby:
                out.note("Ruby was left out.")
            for region in read_order(group):
                result.paragraphs += paragraphs_of(lines_of(region))
        text = "\n".join(p.text for p in result.paragraphs)
        if glyphs.n_characters >= 10 and (glyphs.n_unknown > 0.2 * glyphs.n_characters or is_garbled(text)):
            result.state = "garbled"
    finally:
        page.close()
    return result


def _has_picture(page: Any) -> bool:
    paths = 0
    for thing in page.get_objects(max_depth=3):
        if thing.type == _IMAGE:
            return True
        paths += thing.type == _PATH
    return paths > 200  # text drawn as outlines


def _recognise(document: Any, pages: list[_Page], source: Source, out: Builder) -> None:
    """Pages without readable text: OCR where tesseract is installed, else said in the notes or a refusal."""
    pictures = [p for p in pages if p.state == "picture"]
    garbled = [p for p in pages if p.state == "garbled"]
    if not pictures and not garbled:
        return
    for page in garbled:
        page.paragraphs.clear()
    if source.limits.ocr:
        from kogata.ask.documents.formats.ocr import recognise

        recognise(document, pictures + garbled, source.deadline, out)
    # A page that OCR did not get to keeps what little text it has.
    left = [p for p in pages if p.state in ("picture", "garbled") and not p.read_by_ocr]
    readable = [p for p in pages if p.read_by_ocr or (p.paragraphs and p.state == "text")]
    if not readable:
        if garbled:
            raise Refused(
                "garbled", "Its fonts do not say which characters they show, so its text comes out as rubbish."
            )
        raise Refused("scanned", "It holds pictures of pages without text (a scan); install tesseract to have it read.")
    for state, words in (
        ("picture", "are pictures without text"),
        ("garbled", "hold text without readable characters"),
    ):
        numbers = [p.number for p in left if p.state == state]
        if numbers:
            out.note(f"{_count(len(numbers))} left out because they {words}: {_ranges(numbers)}.")


def _count(n: int) -> str:
    return "1 page was" if n == 1 else f"{n:,} pages were"


def _ranges(numbers: list[int]) -> str:
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    words = [str(a) if a == b else f"{a}-{b}" for a, b in ranges]
    return ", ".join(words[:20]) + (" …" if len(words) > 20 else "")


def _outline(document: Any) -> dict[tuple[int, str], int]:
    """(page, squeezed title) -> level, from 1."""
    import pypdfium2

    outline: dict[tuple[int, str], int] = {}
    try:
        for bookmark in document.get_toc(max_depth=6):
            destination = bookmark.get_dest()
            index = destination.get_index() if destination is not None else None
            if index is not None and len(outline) < 20_000:
                outline[index + 1, _key(bookmark.get_title())] = bookmark.level + 1
    except (pypdfium2.PdfiumError, ValueError, RecursionError):
        pass
    return outline


def _key(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).casefold()[:80]


def _drop_furniture(pages: list[_Page]) -> None:
    """Running headers and footers: the same first or last line (but for digits) on many pages; page numbers."""
    if len(pages) < 2:
        return
    seen: Counter[str] = Counter()
    smallest: dict[str, float] = {}
    edges: list[tuple[_Page, Paragraph, str]] = []
    for page in pages:
        for paragraph in _edge_paragraphs(page):
            key = _DIGITS.sub("#", "".join(paragraph.text.split()))
            if len(key) <= 120:
                edges.append((page, paragraph, key))
                seen[key] += 1
                smallest[key] = min(paragraph.size, smallest.get(key, paragraph.size))
    offsets = Counter(
        int(number[1]) - page.number
        for page, paragraph, _ in edges
        if (number := _PAGE_NUMBER.fullmatch(paragraph.text)) and number[1].isdigit()
    )
    n_pages = sum(1 for page in pages if page.paragraphs)
    for page, paragraph, key in edges:
        number = _PAGE_NUMBER.fullmatch(paragraph.text)
        if number:
            # Numbers that count with the pages, not a lone figure at the foot of one.
            is_furniture = (
                offsets[int(number[1]) - page.number] >= 2 if number[1].isdigit() else seen[key] >= 1 and n_pages >= 3
            )
        else:
            # The title itself stands larger above the first page than on top of the others.
            is_small = paragraph.size < 1.3 * smallest[key]
            is_furniture = n_pages >= 3 and seen[key] >= max(3, 0.3 * n_pages) and is_small
        if is_furniture:
            page.paragraphs = [p for p in page.paragraphs if p is not paragraph]


def _edge_paragraphs(page: _Page) -> list[Paragraph]:
    """One-line paragraphs within the outer eighths of the page."""
    if page.read_by_ocr or page.height <= 0:
        return []
    short = [p for p in page.paragraphs if len(p.lines) == 1]
    if page.is_vertical:  # turned or not, what is set across stands at the top or bottom
        return [
            p for p in short if p is page.paragraphs[0] or p is page.paragraphs[-1] or _PAGE_NUMBER.fullmatch(p.text)
        ]
    return [p for p in short if p.lines[0].y0 > 0.87 * page.height or p.lines[0].y1 < 0.13 * page.height]


def _emit(pages: list[_Page], outline: dict[tuple[int, str], int], out: Builder) -> None:
    levels, body = _heading_sizes(pages)
    held: list[tuple[int, str]] = []  # footnotes and captions that stand between the parts of a paragraph
    is_open = False
    for page in pages:
        if page.read_by_ocr:
            _emit_held(held, out)
            out.page = page.number
            add_paragraphs(page.read_by_ocr, out)
            is_open = False
        for paragraph in [] if page.read_by_ocr else page.paragraphs:
            text = _LEADER.sub(" … ", paragraph.text)
            if is_open and not paragraph.is_table and paragraph.size < 0.97 * body:
                held.append((page.number, text))
                continue
            level = _level(paragraph, text, levels, outline, page.number)
            goes_on = is_open and not level and not paragraph.is_table and _goes_on(text)
            if not goes_on:
                _emit_held(held, out)
            out.page = page.number
            if level:
                out.heading(level, text)
            elif paragraph.is_table:
                out.add("table", text)
            elif goes_on:
                out.go_on(text)
            elif BULLET.match(text):
                out.add("list", text)
            else:
                out.paragraph(text)
            is_open = paragraph.is_open and not level
            if not is_open:
                _emit_held(held, out)
    _emit_held(held, out)


def _emit_held(held: list[tuple[int, str]], out: Builder) -> None:
    for number, text in held:
        out.page = number
        out.paragraph(text)
    held.clear()


def _goes_on(text: str) -> bool:
    return text[:1].islower() or "\u3040" <= text[:1] <= "\u9fff"


def _heading_sizes(pages: list[_Page]) -> tuple[dict[float, int], float]:
    """Sizes clearly above the body's -> heading level, the biggest first; and the body's size."""
    weights: Counter[float] = Counter()
    for page in pages:
        for paragraph in page.paragraphs:
            weights[_rounded(paragraph.size)] += sum(len(line.text) for line in paragraph.lines)
    if not weights:
        return {}, 0.0
    body = max(weights, key=lambda size: weights[size])
    above = sorted((size for size in weights if size >= 1.13 * body), reverse=True)
    # Many big sizes (a poster, slides) are not an outline: the four smallest ranks suffice.
    return {size: min(rank, 5) for rank, size in enumerate(above, start=1)}, body


def _rounded(size: float) -> float:
    return round(size * 2) / 2


def _level(
    paragraph: Paragraph, text: str, levels: dict[float, int], outline: dict[tuple[int, str], int], number: int
) -> int:
    if paragraph.is_table or len(text) > 200 or len(paragraph.lines) > 3 or not any(c.isalpha() for c in text):
        return 0
    if outline and (level := outline.get((number, _key(text)))):
        return level
    if len(text) > 120 or len(text) < 2 or text[-1] in ".。,、;-" or _LEADER.search(paragraph.text):
        return 0
    return levels.get(_rounded(paragraph.size), 0)
