"""From bytes to text: byte order marks, declarations, then strict decoding in an order that suits Japanese.

Detectors trained on long texts guess badly on short Japanese ones, so the Japanese codecs are tried first, strictly,
and judged by what came out: kana and everyday kanji in runs speak for Japanese, single accented letters inside Latin
words for a Western code page. Only what neither explains goes to charset-normalizer.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

from kogata.ask.documents.model import Refused

_SAMPLE = 1 << 16
_BOMS = (  # UTF-32's little-endian mark begins with UTF-16's: it comes first
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_ISO_2022_JP = re.compile(rb"\x1b(?:\$[@B]|\([JI]|\$\(D)")
_DECLARED = (
    re.compile(rb"""<\?xml[^>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9_.:-]+)["']""", re.I),
    re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([A-Za-z0-9_.:-]+)""", re.I),
    re.compile(rb"""^(?:[^\n]*\n)?[^\n]*coding[:=]\s*([-\w.]+)"""),  # PEP 263, also Emacs
    re.compile(rb"""@charset\s+["']([A-Za-z0-9_.:-]+)["']""", re.I),
)
# What pages call their encodings is often a superset's older name.
_ALIASES = {"shift_jis": "cp932", "sjis": "cp932", "x-sjis": "cp932", "ms_kanji": "cp932", "windows-31j": "cp932",
            "iso-8859-1": "cp1252", "latin-1": "cp1252", "latin1": "cp1252", "us-ascii": "cp1252", "ascii": "cp1252",
            "gb2312": "gb18030", "gbk": "gb18030", "x-euc-jp": "euc_jp", "euc-jp": "euc_jp"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Decoded:
    """Text, the codec that gave it, how many characters had to be replaced, and whether the choice is a guess."""

    text: str
    encoding: str
    replaced: int = 0
    sure: bool = True


def decode(data: bytes, *, declared: bool = False, hint: str | None = None) -> Decoded:
    """Decode a text file.

    Args:
        data: The file's bytes.
        declared: Believe an encoding named inside (HTML meta, XML declaration, ``coding:`` line) if it fits.
        hint: An encoding named outside (a mail's charset), believed likewise.

    Raises:
        Refused: ``binary`` when no encoding makes text of it.
    """
    for mark, name in _BOMS:
        if data.startswith(mark) and not (name == "utf-32" and len(data) % 4):
            return _with_replacement(data, name)
    if b"\0" in data:
        return _wide(data)
    for name in _named(data, hint, declared):
        text = _strict(data, name)
        if text is not None:
            return _text_or_binary(Decoded(text, name))
    if _ISO_2022_JP.search(data, 0, _SAMPLE * 4) and data.isascii():
        for name in ("iso2022_jp", "iso2022_jp_ext", "iso2022_jp_2004"):
            text = _strict(data, name)
            if text is not None:
                return Decoded(text, name)
        return _with_replacement(data, "iso2022_jp_ext")
    if (wide := _wide_japanese(data)) is not None:
        return wide
    text = _strict(data, "utf-8")
    if text is not None:
        return _text_or_binary(Decoded(text, "utf-8"))
    return _text_or_binary(_legacy(data))


def _named(data: bytes, hint: str | None, declared: bool) -> list[str]:
    names = [hint] if hint else []
    if declared:
        head = data[:4096]
        names += [m[1].decode("ascii") for m in (pattern.search(head) for pattern in _DECLARED) if m]
    known = []
    for name in names:
        name = _ALIASES.get(name.lower(), name)
        try:
            codec = codecs.lookup(name)
        except (LookupError, ValueError):
            continue
        # "utf-16" inside a file that reads as ASCII is a lie, and codecs like rot13 or zlib do not decode text.
        if codec._is_text_encoding and not codec.name.startswith(("utf-16", "utf-32", "utf-7", "idna", "punycode")):
            known.append(codec.name)
    return known


def _strict(data: bytes, name: str) -> str | None:
    try:
        return data.decode(name)
    except (UnicodeDecodeError, LookupError):
        return None


def _with_replacement(data: bytes, name: str, *, sure: bool = True) -> Decoded:
    text = data.decode(name, "replace")
    return _text_or_binary(Decoded(text, name, text.count("\ufffd") - data.count("\ufffd".encode()), sure))


def _text_or_binary(decoded: Decoded) -> Decoded:
    """Control characters and unreadable bytes in number mean that this was never text."""
    sample = decoded.text[:_SAMPLE]
    odd = len(_CONTROLS.findall(sample)) + sample.count("\ufffd")
    if odd > max(3, len(sample) // 50):
        raise Refused("binary", "It is a binary file, not text.")
    return decoded


def _wide(data: bytes) -> Decoded:
    """UTF-16 or UTF-32 without a mark: NUL bytes in a text can mean little else."""
    best, best_share = None, 0.0
    for name, width in (("utf-32-le", 4), ("utf-32-be", 4), ("utf-16-le", 2), ("utf-16-be", 2)):
        if len(data) % width:
            continue
        text = _strict(data[: _SAMPLE * 4 // width * width], name)
        if not text or "\0" in text:
            continue
        share = sum(map(_everyday, text)) / len(text)
        if share > best_share:
            best, best_share = name, share
    if best is not None and best_share > 0.9:
        return _with_replacement(data, best)
    # A stray NUL in a text file (padding, a broken editor) does not make it binary; many do.
    if data.count(0) <= max(1, len(data) // 1000):
        return decode(data.replace(b"\0", b""), declared=True)
    raise Refused("binary", "It is a binary file, not text.")


def _wide_japanese(data: bytes) -> Decoded | None:
    """UTF-16 without a mark and without one NUL: no ASCII then. Every other byte is 0x30 (kana) or a kanji's."""
    sample = data[:_SAMPLE]
    if len(data) % 2 or len(data) < 8 or not any(b >= 0x80 or b < 0x09 for b in sample):
        return None
    for name, high in (("utf-16-le", sample[1::2]), ("utf-16-be", sample[::2])):
        n_kana = high.count(0x30)
        n_kanji = sum(0x4E <= b <= 0x9F or b == 0xFF for b in high)
        if n_kana >= 0.35 * len(high) and n_kana + n_kanji >= 0.95 * len(high):
            text = _strict(data, name)
            if text is not None and sum(map(_everyday, text[:_SAMPLE])) >= 0.95 * len(text[:_SAMPLE]):
                return Decoded(text, name)
    return None


def _everyday(character: str) -> bool:
    """A character ordinary text is made of: Latin, Greek, Cyrillic, Japanese, CJK, Hangul, common punctuation."""
    code = ord(character)
    return (
        0x20 <= code < 0x7F or character in "\t\n\r\f" or 0xA0 <= code < 0x180
        or 0x370 <= code < 0x530 or 0x2010 <= code < 0x2040
        or 0x3000 <= code < 0x3100 or 0x4E00 <= code < 0xA000 or 0xAC00 <= code < 0xD7A4 or 0xFF00 <= code < 0xFFA0
        or code in (0x2190, 0x2192, 0x2460, 0x25A0, 0x25CB, 0x25CF)
    )  # fmt: skip


_HIGH = re.compile(r"[^\x00-\x7f]+")
_KANA = re.compile(r"[ぁ-ゖァ-ヺー]")
_JAPANESE_MARKS = re.compile(r"[、。「」『』・！？（）［］【】〜～…　：；％＋－＝０-９Ａ-Ｚａ-ｚ々〆①-⑳―→■□●○◆◇★※]")
_HALF_KANA = re.compile(r"[｡-ﾟ]")


def _legacy(data: bytes) -> Decoded:
    sample = data[:_SAMPLE]
    scores: list[tuple[float, str]] = []
    for name in ("cp932", "euc_jp", "euc_jis_2004"):
        text = _strict_sample(sample, name)
        if text is not None:
            scores.append((_japanese(text), name))
    for name in ("gb18030", "cp949", "big5"):
        text = _strict_sample(sample, name)
        if text is not None:
            scores.append((_other_cjk(text, name), name))
    western = _strict_sample(sample, "cp1252")
    if western is None:
        western = sample.decode("latin-1")
    scores.append((_western(western), "cp1252"))
    scores.sort(key=lambda pair: -pair[0])  # stable: at a tie the earlier codec
    score, name = scores[0]
    if score >= 0.5:
        return _best_effort(data, name)
    if (guess := _truncated_utf8(data)) is not None:
        return guess
    return _guessed(data, scores)


def _strict_sample(sample: bytes, name: str) -> str | None:
    """Strict, but a character cut by the sample's end does not count against a codec."""
    try:
        return codecs.getincrementaldecoder(name)().decode(sample, len(sample) < _SAMPLE)
    except UnicodeDecodeError:
        return None


def _japanese(text: str) -> float:
    """Share of the characters beyond ASCII that Japanese is written with; kanji count less where kana are missing."""
    high = "".join(_HIGH.findall(text))
    if not high:
        return 0.0
    kana = len(_KANA.findall(high))
    marks = len(_JAPANESE_MARKS.findall(high))
    half = len(_HALF_KANA.findall(high))
    kanji = [c for c in high if "\u4e00" <= c <= "\u9fff"]
    everyday = sum(map(_level_one, kanji))
    # A kanji alone between Latin letters is what a French accent looks like when read as Shift_JIS.
    lone = len(re.findall(r"(?<=[A-Za-z])[^\x00-\x7f](?=[A-Za-z ]|$)", text))
    rare = len(kanji) - everyday
    # Eight kanji without one kana are more likely Korean or Chinese.
    weight = 0.9 if kana or len(kanji) < 8 else 0.76
    good = kana + marks + weight * everyday + 0.3 * rare - 0.9 * lone
    if half:  # half-width katakana is real only as words of its own kind, with little else around
        good += 0.6 * half if half > 0.8 * len(high) else -0.5 * half
    return good / len(high)


# Lead bytes of the everyday characters: GB 2312's and Big5's common levels, KS X 1001's syllables.
_EVERYDAY_ROWS = {"gb18030": (0xB0, 0xD7), "big5": (0xA4, 0xC6), "cp949": (0xB0, 0xC8)}


def _other_cjk(text: str, name: str) -> float:
    """Share of everyday characters of Chinese or Korean; 0 where kana speak for Japanese."""
    high = "".join(_HIGH.findall(text))
    if not high or len(_KANA.findall(high)) > 0.05 * len(high):
        return 0.0
    low, top = _EVERYDAY_ROWS[name]
    good = 0
    for character in high:
        code = character.encode(name)
        good += (len(code) == 2 and low <= code[0] <= top) or character in "，。、！？：；（）《》“”"
    lone = len(re.findall(r"(?<=[A-Za-z])[^\x00-\x7f](?=[A-Za-z ]|$)", text))
    return (0.88 if name == "cp949" else 0.78) * (good - 0.9 * lone) / len(high)


def _level_one(character: str) -> bool:
    """JIS X 0208 level 1: the 2,965 everyday kanji come before row 48."""
    try:
        first, second = character.encode("euc_jp")
    except (UnicodeEncodeError, ValueError):
        return False
    return 0xB0 <= first <= 0xCF and second > 0


def _western(text: str) -> float:
    """Share of the characters beyond ASCII that sit where a Western language puts them."""
    n_high = good = 0
    for match in _HIGH.finditer(text):
        run = match[0]
        n_high += len(run)
        before = text[match.start() - 1 : match.start()]
        after = text[match.end() : match.end() + 1]
        for character in run:
            if character.isalpha():
                # An accented letter lives among Latin letters; three in a row hardly ever do.
                good += len(run) <= 2 and (before.isalpha() or after.isalpha() or len(run) == 1)
            else:
                good += character in "’‘“”„–—…«»°§©®€£¥·•¿¡½¼²³±×\xa0ªº" and len(run) <= 3
    return 0.95 * good / n_high if n_high else 0.0


def _truncated_utf8(data: bytes) -> Decoded | None:
    text = data.decode("utf-8", "replace")
    bad = text.count("\ufffd")
    n_high = sum(map(len, _HIGH.findall(text[:_SAMPLE])))
    if n_high and bad <= max(2, len(text) // 200) and bad * 3 <= n_high:
        return Decoded(text, "utf-8", bad)
    return None


def _best_effort(data: bytes, name: str) -> Decoded:
    text = _strict(data, name)
    if text is not None:
        return Decoded(text, name)
    if name == "cp1252":  # five bytes are undefined there: Latin-1 has a character for each
        return Decoded(data.decode("latin-1"), "latin-1")
    return _with_replacement(data, name)


_TRIED = (
    "cp932", "shift_jis", "shift_jis_2004", "shift_jisx0213", "euc_jp", "euc_jis_2004", "euc_jisx0213", "gb18030",
    "gbk", "gb2312", "cp949", "euc_kr", "johab", "big5", "big5hkscs", "utf_16", "utf_32", "utf_7",
)  # fmt: skip


def _guessed(data: bytes, scores: list[tuple[float, str]]) -> Decoded:
    """Neither Japanese nor Western European: other languages are charset-normalizer's business."""
    from charset_normalizer import from_bytes

    # Those with rules of their own above were tried, strictly, and did not convince.
    match = from_bytes(data[:_SAMPLE], cp_exclusion=[*_TRIED]).best()
    name = match.encoding if match is not None else scores[0][1]
    decoded = _best_effort(data, name)
    return Decoded(decoded.text, decoded.encoding, decoded.replaced, sure=False)
