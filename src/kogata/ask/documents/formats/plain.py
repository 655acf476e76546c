"""Plain text: paragraphs at blank lines, hard-wrapped lines joined, Aozora Bunko's ruby and notes taken out."""

from __future__ import annotations

import re
import unicodedata

from kogata.ask.documents.builder import WIDE, Builder, clean
from kogata.ask.documents.source import Source

_BLANK_LINES = re.compile(r"\n[^\S\n]*(?:\n[^\S\n]*)+")
_LIST = re.compile(r"[^\S\n]*(?:[-*+•‣◦・]|\(?\d{1,3}[.)]|[①-⑳])[ \u3000\t]")
_STAMP = re.compile(
    r"\W{0,2}(?:\d{4}[-/.年]\d{1,2}|\d{1,2}[-/.:]\d{1,2}|[A-Z][a-z]{2} [ \d]\d \d\d:)"
)  # of an entry in a log
_CUE = re.compile(r"^(?:(\d+):)?(\d\d):\d\d[.,]\d{3} +--> +\S+.*\n", re.M)
_TAG = re.compile(r"</?[A-Za-z][^<>\n]*>|<[\d:.]+>|{\\[^{}\n]*}")
_AOZORA = re.compile(r"《[ぁ-ゖァ-ヺー・]+》|［＃[^］\n]*］")
_AOZORA_LEGEND = re.compile(r"-{20,}\n【テキスト中に現れる記号について】.*?-{20,}\n", re.S)
# First parts that usually keep their hyphen ("well-known", "self-evident").
_COMPOUND_WORDS = """
    self well ill non half full part high low long short large small all cross so then ex best better much most time
    state one two three four five six ten first second third old new real left right hand single double open
    light heavy deep free cost user data
"""
_COMPOUNDS = frozenset(_COMPOUND_WORDS.split())


def read(source: Source, out: Builder) -> None:
    """Add the paragraphs of a text file."""
    text = clean(source.text(out))
    if source.suffix in (".srt", ".vtt"):
        _add_subtitles(text, out)
        return
    if len(_AOZORA.findall(text, 0, 1 << 20)) >= 3:
        text = _plain_aozora(text, out)
    add_paragraphs(text, out)


def _add_subtitles(text: str, out: Builder) -> None:
    """What is said, a paragraph a minute with its time as heading; sentences go on from one title to the next."""
    said: dict[str, list[str]] = {}
    for cue in _BLANK_LINES.split(text):
        if time := _CUE.search(cue):
            minute = f"{int(time[1] or 0)}:{time[2]}:00"
            said.setdefault(minute, []).append(" ".join(_TAG.sub("", cue[time.end() :]).split()))
    if not said:
        add_paragraphs(text, out)
    for minute, sayings in said.items():
        out.under(minute)
        out.paragraph(join_lines(sayings))


def add_paragraphs(text: str, out: Builder) -> None:
    """Blank lines part paragraphs; a paragraph wrapped by hand becomes one line, a list or table keeps its lines."""
    for paragraph in _BLANK_LINES.split(text):
        lines = [line.rstrip() for line in paragraph.split("\n") if line.strip()]
        if not lines:
            continue
        if len(lines) > 1 and sum(bool(_LIST.match(line) or _STAMP.match(line)) for line in lines) * 2 >= len(lines):
            out.add("list", "\n".join(lines))
        elif is_wrapped(lines):
            out.paragraph(join_lines(lines))
        else:
            out.add("paragraph", "\n".join(lines))


def is_wrapped(lines: list[str]) -> bool:
    """Whether line ends are only where a line was full: all but the last about equally wide."""
    if len(lines) < 2:
        return False
    widths = [_columns(line) for line in lines]
    widest = max(widths)
    return 40 <= widest <= 120 and min(widths[:-1]) >= 0.75 * widest


def _columns(line: str) -> int:
    if line.isascii():
        return len(line)
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)


def join_lines(lines: list[str]) -> str:
    """One line of several: nothing between Japanese characters, a space elsewhere, cut words made whole."""
    joined = lines[0].strip()
    for line in lines[1:]:
        line = line.strip()
        if not line or not joined or (WIDE.match(line) and WIDE.match(joined[-1])):
            joined += line
        elif joined[-1] in "-‐\u00ad" and joined[-2:-1].isalnum() and line[0].isalnum():
            joined = (joined[:-1] if cut_word(joined, line) else joined) + line
        else:
            joined += " " + line
    return joined


def cut_word(before: str, after: str) -> bool:
    """Whether the hyphen at the end of ``before`` only cuts a word at the line's end ("inter-" + "national")."""
    if before[-1:] not in ("-", "\u00ad", "‐") or not after[:1].islower():
        return False
    if before.endswith("\u00ad"):
        return True
    head = re.search(r"[^\W\d_]+$", before[:-1])
    if head is not None and head[0].lower() in _COMPOUNDS:
        return False
    # "state-of-" + "the-art", "x-" and "3-" keep their hyphen.
    return head is not None and len(head[0]) >= 2 and before[-len(head[0]) - 2 : -len(head[0]) - 1] not in ("-", "‐")


def _plain_aozora(text: str, out: Builder) -> str:
    out.note("Ruby and editors' notes in Aozora Bunko's notation were left out.")
    text = _AOZORA_LEGEND.sub("", text, count=1)
    return _AOZORA.sub("", text).replace("｜", "")
