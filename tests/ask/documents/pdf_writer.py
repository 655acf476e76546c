"""PDF files written by hand, byte by byte, so that tests decide on fonts, character maps and places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Run:
    """Bytes shown at a place: (x, y) in points from the lower left corner, with a font of :func:`pdf`."""

    x: float
    y: float
    codes: bytes
    font: str = "F1"
    size: float = 12.0


def type0(encoding: str, name: str = "MS-Mincho") -> tuple[bytes, ...]:
    """A composite font with a predefined character map whose glyphs are not in the file."""
    return (
        b"<< /Type /Font /Subtype /Type0 /BaseFont /%s-%s /Encoding /%s /DescendantFonts [{1} 0 R] >>"
        % (name.encode(), encoding.encode(), encoding.encode()),
        b"<< /Type /Font /Subtype /CIDFontType2 /BaseFont /%s /CIDSystemInfo << /Registry (Adobe) /Ordering (Japan1)"
        b" /Supplement 2 >> /DW 1000 /FontDescriptor {2} 0 R >>" % name.encode(),
        b"<< /Type /FontDescriptor /FontName /%s /Flags 4 /FontBBox [0 -137 1000 859] /ItalicAngle 0 /Ascent 859"
        b" /Descent -137 /CapHeight 700 /StemV 80 >>" % name.encode(),
    )


def latin(name: str = "Helvetica") -> tuple[bytes, ...]:
    """One of the fourteen standard fonts."""
    return (b"<< /Type /Font /Subtype /Type1 /BaseFont /%s /Encoding /WinAnsiEncoding >>" % name.encode(),)


def pdf(
    pages: Sequence[Sequence[Run]],
    fonts: dict[str, tuple[bytes, ...]] | None = None,
    *,
    size: tuple[int, int] = (595, 842),
    extra: bytes = b"",
    image: bool = False,
) -> bytes:
    """A PDF of pages of runs.

    Args:
        extra: Operators before each page's text.
        image: Put a grey picture on every page.
    """
    fonts = fonts or {"F1": latin()}
    objects: list[bytes] = [b"", b""]  # catalogue and page tree come last
    references = b""
    for name, parts in fonts.items():
        first = len(objects) + 1
        for part in parts:
            for index in range(3):
                part = part.replace(b"{%d}" % index, b"%d" % (first + index))
            objects.append(part)
        references += b"/%s %d 0 R " % (name.encode(), first)
    resources = b"<< /Font << %s>> " % references
    if image:
        objects.append(
            b"<< /Type /XObject /Subtype /Image /Width 2 /Height 2 /ColorSpace /DeviceGray /BitsPerComponent 8"
            b" /Length 4 >>\nstream\n\x80\x90\xa0\xb0\nendstream"
        )
        resources += b"/XObject << /Im1 %d 0 R >> " % len(objects)
        extra += b" q 500 0 0 700 40 60 cm /Im1 Do Q "
    resources += b">>"
    numbers = []
    for runs in pages:
        shown = b" ".join(
            b"BT /%s %g Tf 1 0 0 1 %g %g Tm <%s> Tj ET" % (r.font.encode(), r.size, r.x, r.y, r.codes.hex().encode())
            for r in runs
        )
        content = extra + shown
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content))
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 %d %d] /Resources %s /Contents %d 0 R >>"
            % (*size, resources, len(objects))
        )
        numbers.append(len(objects))
    objects[0] = b"<< /Type /Catalog /Pages 2 0 R >>"
    objects[1] = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (
        len(numbers),
        b" ".join(b"%d 0 R" % number for number in numbers),
    )
    out = b"%PDF-1.4\n"
    offsets = []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return out + b"xref\n0 %d\n0000000000 65535 f \n%strailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (
        len(objects) + 1,
        table,
        len(objects) + 1,
        len(out),
    )


def lines(text: str, x: float, y: float, *, step: float = 14.0, size: float = 12.0, font: str = "F1") -> list[Run]:
    """Each line of a Latin text below the other."""
    return [Run(x, y - index * step, line.encode("cp1252"), font, size) for index, line in enumerate(text.split("\n"))]
