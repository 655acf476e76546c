"""Words: what goes into the full-text index, and how a person's query becomes a safe FTS5 expression.

SQLite's FTS5 ranks with BM25 (k1 = 1.2, b = 0.75) but its tokenizers know nothing of Japanese: neither ``unicode61``
nor ``trigram`` finds 潮位. So the text is prepared here and FTS5 only splits, folds accents and stems (Porter, English
endings): runs of kanji, kana and hangul become overlapping pairs of characters plus the single characters, and
identifiers also go in as their parts. Both live in a column of their own, so that phrases over plain words stay intact.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import pairwise

from kogata.errors import BadInput

COLUMNS = ("body", "parts", "title")
"""Columns of the FTS5 table, in the order of :func:`index_fields`."""

TOKENIZE = "porter unicode61 remove_diacritics 2"
"""The FTS5 ``tokenize`` option that :func:`match_query` counts on."""

COLUMN_WEIGHTS = (1.0, 1.0, 1.0)
"""Weights for FTS5's ``bm25(words, …)``, one for each column."""

MAX_QUERY_CHARS = 8_000
"""Longest query accepted, in characters: about three pages of English or ten of Japanese."""

CJK = (
    "\u3005-\u3007"  # 々 〆 〇
    "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"  # kana, their iteration and long-vowel marks
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"  # kanji
    "\uac00-\ud7a3"  # hangul
)
CJK_RUN = re.compile(f"[{CJK}]+")
_CJK_OR_WORD = re.compile(f"(?P<cjk>[{CJK}]+)|(?P<word>[^\\W_{CJK}][^\\W{CJK}]*)")
_NO_WORD = re.compile(f"[^\\w\\s]+|[{CJK}]+")
_UNSAFE = re.compile("[\ud800-\udfff\x00]")  # lone surrogates cannot be stored as UTF-8; NUL would end an expression

# Identifiers and amounts that people write in several ways: each rule adds parts, the word itself stays as it is.
_SIGNED = re.compile(r"(?<![^\W_])([A-Za-z]{1,2})(\+\+|#)(?![\w+#])")  # C++, g++, C#
_GROUPED = re.compile(r"(?<![\w,.])\d{1,3}(?:,\d{3})+(?![\d,])")  # 1,204
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[0-9])(?=[A-Za-z])")
_HUMPED = re.compile(r"(?<![^\W_])(?:[A-Z]?[a-z0-9]+[A-Z]|[A-Z]{2,}[a-z]|\d+[A-Za-z])[A-Za-z0-9]*(?![^\W_])")
_CONTRACTED = re.compile(r"(?<=[^\W_])['’](?:s|t|d|ll|m|re|ve)(?![^\W_])", re.IGNORECASE)  # Panthers's, don't
_SIGN_NAMES = {"++": "plusplus", "#": "sharp"}
# Words joined by the punctuation of code, file names, numbers and dates: std::vector, nsa.pdf, 3.5, 2024-05-01.
_JOINED = re.compile(f"[^\\W{CJK}]+(?:(?:::|->|[.\\-/:'’@&_,])[^\\W{CJK}]+)+")

_STOP_WORDS = (
    "a about am an and any are as at be been being but by can could did do does doing for from had has have having he "
    "her hers him his how i if in into is it its itself may me might my no nor not of on or our ours shall she should "
    "so some such than that the their them then there these they this those to too us was we were what when where "
    "which while who whom whose why will with would you your yours"
)
# Pairs of hiragana in over 10 % of the passages or 1 % of the questions of JaQuAD's train split: endings, particles.
_STOP_PAIRS = (
    "あっ あり ある いう いく いた いっ いつ いて いで いな いの いま いる うち うな うに えた "
    "えて えら える おい おり かけ かし かっ かに から かれ があ がよ きた きな くな くら けた "
    "けて ける こで こと こに この これ させ さら され しい しか した して しま すか する その "
    "それ たか たが たこ たた たと たの ため たも だっ ちら った って つい つか つで つの てい "
    "てお ての ては ても であ でき でし です での では でも とい とか とが とし とす とで とと "
    "とど とな とに との とは とも とを どこ どち どの どれ ない なか なく なっ など なの なり "
    "なる にあ にお につ にな には にも によ のう のか のこ のた ので のど のは のほ のよ はい "
    "はど はな ばれ への ほか まし ます また まっ まで まれ めた めて めに もあ もの よう よっ "
    "より よる らい らか らが らで らに らの られ りま るか るが るこ るた ると るの るよ れく "
    "れた れて れに れま れら れる われ んだ んで ーの ーは"
)
STOP_WORDS = frozenset(_STOP_WORDS.split() + _STOP_PAIRS.split())
"""Terms so common that they only cost time: left out of a query as long as anything else is in it."""


def check_query(query: str) -> str:
    """Return the query without what cannot be searched (lone surrogates, NUL), composed (NFC), its ends stripped.

    Raises:
        BadInput: If it is empty or longer than :data:`MAX_QUERY_CHARS`.
    """
    if len(query) > MAX_QUERY_CHARS:
        raise BadInput(
            f"The query has {len(query):,} characters; at most {MAX_QUERY_CHARS:,} are accepted.",
            hint="Search for a sentence or a paragraph of it.",
        )
    cleaned = unicodedata.normalize("NFC", _UNSAFE.sub(" ", query)).strip()
    if not cleaned:
        raise BadInput("The query is empty. Give a question or a few words to look for.")
    return cleaned


def fold(text: str) -> str:
    """Compatibility forms folded: half-width kana to full width, full-width Latin to ASCII, 々 to what it repeats."""
    if text.isascii():
        return text.replace("\x00", " ")
    text = unicodedata.normalize("NFKC", _UNSAFE.sub(" ", text))
    return _unroll(text) if any(mark in text for mark in "々ゝゞヽヾ") else text


def _unroll(text: str) -> str:
    """Replace iteration marks by the character they repeat: 人々 as 人人, いすゞ as いすず. Lengths do not change."""
    characters = list(text)
    for i in range(1, len(characters)):
        before = characters[i - 1]
        if characters[i] == "々" and CJK_RUN.match(before):
            characters[i] = before
        elif characters[i] in "ゝヽ" and CJK_RUN.match(before):
            plain = unicodedata.normalize("NFD", before)[0]
            characters[i] = plain
        elif characters[i] in "ゞヾ" and CJK_RUN.match(before):
            voiced = unicodedata.normalize("NFC", unicodedata.normalize("NFD", before)[0] + "\u3099")
            characters[i] = voiced if len(voiced) == 1 else before
    return "".join(characters)


def index_fields(text: str, title: str = "", heading: Sequence[str] = ()) -> tuple[str, ...]:
    """What goes into the FTS5 table for one chunk, one string for each of :data:`COLUMNS`."""
    body, parts = _split(fold(text))
    title_body, title_parts = _split(fold("\n".join([title, *heading])))
    return body, parts, f"{title_body} {title_parts}".strip()


def _split(text: str) -> tuple[str, str]:
    """Plain words apart from character pairs and the parts of identifiers."""
    parts = _identifier_parts(text)
    if text.isascii():
        return text, " ".join(parts)
    for run in CJK_RUN.findall(text):
        parts.extend(run)
        parts.extend(map("".join, pairwise(run)))
    # SQLite and Python do not agree on every rare sign: what is no letter or digit here is none there either.
    return _NO_WORD.sub(" ", text), " ".join(parts)


def _identifier_parts(text: str) -> list[str]:
    parts: list[str] = []
    for humped in _HUMPED.findall(text):
        parts += _HUMP.split(humped)
    if "," in text:
        parts += [amount.replace(",", "") for amount in _GROUPED.findall(text)]
    if "+" in text or "#" in text:
        parts += [letters + _SIGN_NAMES[sign] for letters, sign in _SIGNED.findall(text)]
    return parts


def match_query(query: str) -> str | None:
    """A safe FTS5 MATCH expression: any of the query's words, best first by BM25. None: nothing to search by words.

    Every term is a quoted string of letters and digits, so no FTS5 syntax in a query is ever interpreted.

    Raises:
        BadInput: If the query is empty or longer than :data:`MAX_QUERY_CHARS`.
    """
    phrases = query_phrases(query)
    return " OR ".join(f'"{phrase}"' for phrase in phrases) or None


def phrases_of(match: str) -> list[str]:
    """The quoted phrases of an expression from :func:`match_query`, in order, with their quotation marks."""
    return re.findall('"[^"]*"', match)


def query_phrases(query: str) -> list[str]:
    """The words, character pairs and short phrases of a query, in order, without stop words where others are there.

    Repeated words stay repeated: BM25 counts them as often as they are asked for.
    """
    text = _CONTRACTED.sub(" ", fold(check_query(query)))
    phrases = [phrase for phrase in _all_phrases(text) if phrase.casefold() not in STOP_WORDS]
    return phrases or list(_all_phrases(text))


def _all_phrases(text: str) -> Iterator[str]:
    yield from (letters + _SIGN_NAMES[sign] for letters, sign in _SIGNED.findall(text))
    for joined in _JOINED.findall(text):
        yield " ".join(re.findall(r"[^\W_]+", joined))
    for humped in _HUMPED.findall(text):
        yield " ".join(_HUMP.split(humped))
    yield from (amount.replace(",", "") for amount in _GROUPED.findall(text))
    for match in _CJK_OR_WORD.finditer(text):
        if match["word"]:
            yield from (word for word in match["word"].split("_") if word)
        elif len(run := match["cjk"]) == 1:
            yield run
        else:
            yield from map("".join, pairwise(run))
