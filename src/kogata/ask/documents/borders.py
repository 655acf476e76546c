"""Where sentences end, in English and Japanese, as exact offsets.

Rules, not a model: what ends a sentence is looked at one candidate at a time, with what stands before and after it.
"""

from __future__ import annotations

import re
import unicodedata

_CLOSERS = ")]}\"'”’»」』）】》〉］｝＞>"
_CANDIDATE = re.compile(rf"(?:[。．｡！？‼⁇⁈⁉]+|[.!?…]+)[{re.escape(_CLOSERS)}]*|\n+")
_LATIN_CLOSERS = re.compile(r"[)\]}\"'”’»>]+$")
_BULLET = re.compile(
    r"[^\S\n]*(?:[-*+•‣◦▪●○■□◆◇▶・]|\(?[0-9]{1,3}[.)）]|[①-⑳]|\([a-z]\)|#{1,6} )(?=[^\S\n]|[^\x00-\x7f])"
)
_OPENERS = {"「": "」", "『": "』", "（": "）", "【": "】", "〈": "〉", "《": "》", "〔": "〕", "［": "］"}
_LONGEST_QUOTE = 240
_CJK = re.compile(r"[\u3005-\u30ff\u3400-\u9fff\uf900-\ufaff\uff66-\uff9f]")

# A full stop after these never ends a sentence …
_TITLES_WORDS = """
    mr mrs ms mx dr prof rev hon st mt ft sr sra mme mlle gen col lt capt cmdr sgt maj adm gov sen rep pres
    messrs e.g i.e eg ie cf viz vs v approx ca resp fig figs eq eqs eqn sec sect ch chap vol vols pp ref refs tab
    thm def lem cor prop alg app ed eds trans esp incl excl max min avg est dept univ assn bros
"""
_TITLES = frozenset(_TITLES_WORDS.split())
# … after these only before a number …
_NUMBERED_WORDS = """
    no nos art p n para cl col ex jan feb mar apr jun jul aug sep sept oct nov dec
"""
_NUMBERED = frozenset(_NUMBERED_WORDS.split())
# … and after these only where a sentence plainly begins.
_MAY_END_WORDS = """
    etc inc ltd co corp llc plc jr sr al ph.d m.d b.a m.a b.sc m.sc u.s u.k u.n e.u u.s.a d.c l.a a.m p.m a.d
    b.c b.c.e c.e ave blvd rd hwy sq
"""
_MAY_END = frozenset(_MAY_END_WORDS.split())
_STARTERS_WORDS = """
    The A An In On At It He She They We You I This That These Those There Here When While Where What Which Who
    Why How If As After Before Since Because Although Though However But And Or So Yet For From By With Without
    To Its His Her Their Our My Your Some Many Most All Both Each Every No Not One Two Then Thus Hence Also
    Today During Under Over
"""
_STARTERS = frozenset(_STARTERS_WORDS.split())
# A quotation that goes on like this belongs to the sentence around it.
_GOES_ON = re.compile(r"[^\S\n]*(?:[とっをはがにでのもへやか、，,]|など|から|まで|より|なの|だ|である)")


def sentences(text: str, lang: str | None = None) -> list[tuple[int, int]]:
    """Sentence borders.

    Args:
        text: Any text, such as a passage of a document; blank lines always end a sentence, and list items, table rows
            and headings on lines of their own are their own.
        lang: ``"en"`` or ``"ja"`` to apply only that language's marks; None looks at each mark by itself.

    Returns:
        (start, end) pairs in characters, in order, not overlapping; white space around a sentence is outside.
    """
    spans: list[tuple[int, int]] = []
    quoted = _quoted(text) if lang != "en" else []
    quote = 0
    start = 0
    for match in _CANDIDATE.finditer(text):
        at, end = match.span()
        if at < start:
            continue
        while quote < len(quoted) and quoted[quote][1] <= at:
            quote += 1
        if text[at] == "\n":
            is_border = _line_ends(text, start, at, end)
        elif text[at] in "。．｡！？‼⁇⁈⁉":
            inside = quote < len(quoted) and quoted[quote][0] < at
            is_border = lang != "en" and not (inside and end < quoted[quote][1]) and _ends_japanese(text, at, end)
            if inside and end > quoted[quote][1] and _GOES_ON.match(text, end):
                is_border = False
        else:
            inside = quote < len(quoted) and quoted[quote][0] < at and end < quoted[quote][1]
            is_border = not inside and _ends_latin(text, start, at, end)
        if is_border:
            _append(spans, text, start, end)
            start = end
    _append(spans, text, start, len(text))
    return spans


def _append(spans: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if start == end:
        return
    if spans and not any(map(str.isalnum, text[start:end])) and "\n\n" not in text[spans[-1][1] : start]:
        spans[-1] = (spans[-1][0], end)  # stray closing marks belong to what they close
    else:
        spans.append((start, end))


def _quoted(text: str) -> list[tuple[int, int]]:
    """Outermost bracketed stretches of Japanese text: (opening, one past closing), the short and well-formed ones."""
    found: list[tuple[int, int]] = []
    stack: list[tuple[str, int]] = []
    for match in re.finditer(r"[「『（【〈《〔［」』）】〉》〕］]|\n\n", text):
        mark = match[0]
        if mark == "\n\n":
            stack.clear()
        elif mark in _OPENERS:
            stack.append((_OPENERS[mark], match.start()))
        elif stack and any(closing == mark for closing, _ in stack):
            while stack[-1][0] != mark:
                stack.pop()
            _, opening = stack.pop()
            if match.end() - opening <= _LONGEST_QUOTE:
                while found and found[-1][0] > opening:
                    found.pop()
                found.append((opening, match.end()))
    return found


def _line_ends(text: str, start: int, at: int, end: int) -> bool:
    """Does a sentence end at this run of line ends? Not where a line is merely full."""
    if end - at > 1 or not text[end : end + 1].strip():
        return True
    line = text[text.rfind("\n", 0, at) + 1 : at].rstrip()
    stop = text.find("\n", end)
    after = text[end : stop if stop >= 0 else len(text)]
    if " | " in line or " | " in after or _BULLET.match(after):
        return True
    width = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line[:80])
    if width < 40 or line[-1:] in "。！？.!?:：;；」』":
        return True
    first, last = after.lstrip()[:1], line[-1:]
    if first.islower() or first.isdigit() or first in "(（「『\"'“‘" or last in ",、，":
        return False
    return not (_CJK.match(first) and _CJK.match(last)) and not (last.islower() and width >= 55)


def _ends_japanese(text: str, at: int, end: int) -> bool:
    if text[at] == "．" and (text[at - 1 : at].isdigit() or text[end : end + 1].isdigit()):
        return False
    if text[at] in "！？" and text[end : end + 1] in "、，":
        return False
    # 「え？」と聞いた: what follows the closing bracket decides, if there was one.
    return not (end - at > 1 and text[end - 1] in "」』）】》〉］" and _GOES_ON.match(text, end))


def _ends_latin(text: str, start: int, at: int, end: int) -> bool:
    marks = _LATIN_CLOSERS.sub("", text[at:end]).rstrip(_CLOSERS)
    after = text[end : end + 1]
    if after and not after.isspace():
        before_is_cjk = bool(_CJK.match(text[at - 1 : at]))
        after_is_cjk = bool(_CJK.match(after)) or after in "「『（"
        if "." in marks and not before_is_cjk:
            return False
        return before_is_cjk and (after_is_cjk or "!" in marks or "?" in marks) and not _GOES_ON.match(text, end)
    following = text[end : end + 64].lstrip(" \t\u3000\n\"'“‘«([{「『（")
    if not following:
        return True
    next_word = re.match(r"\w+(?:['’]\w+)?", following)
    if following[0].islower() and not (marks == "." and _looks_like_name(following)):
        return False
    if marks != ".":
        return True
    return not _abbreviates(text, start, at, end, next_word[0] if next_word else "")


def _looks_like_name(following: str) -> bool:
    """Lower case that begins a sentence: iPhone, eBay, macOS, pH."""
    return bool(re.match(r"(?:i[A-Z]|e[A-Z]|mac[A-Z]|p[A-Z]|x\d)", following))


def _abbreviates(text: str, start: int, at: int, end: int, next_word: str) -> bool:
    token_match = re.search(r"[\w.&-]+$", text[max(start, at - 24) : at])
    if token_match is None:
        return False
    token = token_match[0]
    lowered = token.lower().lstrip("-")
    if token.isdigit():  # "1. First item" at the start of a sentence is a number, "in 1990. Then" is not
        return not text[start:at].strip().removesuffix(token).strip("([ ")
    if end - at > 1 and text[at + 1] in ")]}\"'”’»":
        return lowered in _TITLES or (lowered in _MAY_END and next_word not in _STARTERS)
    if lowered in _TITLES:
        return True
    if lowered in _NUMBERED:
        return next_word[:1].isdigit() or (lowered in ("p", "n") and next_word not in _STARTERS)
    if lowered in _MAY_END:
        return next_word not in _STARTERS
    if len(token) == 1 and token.isupper():  # an initial; "vitamin C." before a plain beginning is none
        return next_word not in _STARTERS
    if re.fullmatch(r"(?:[A-Za-z]\.)+[A-Za-z]", token):  # U.S.S.R, J.R.R
        return next_word not in _STARTERS
    return False
