"""English word endings: Porter's algorithm ("An algorithm for suffix stripping", Program 14(3), 1980).

SQLite's ``porter`` tokenizer does this inside the index. The same here lets snippets and answers recognise in a text
the words that the index matched; the tests hold the two equal.
"""

from __future__ import annotations

import re
from functools import lru_cache

_STEP_2 = (
    ("ational", "ate"), ("tional", "tion"), ("enci", "ence"), ("anci", "ance"), ("izer", "ize"), ("logi", "log"),
    ("bli", "ble"), ("alli", "al"), ("entli", "ent"), ("eli", "e"), ("ousli", "ous"), ("ization", "ize"),
    ("ation", "ate"), ("ator", "ate"), ("alism", "al"), ("iveness", "ive"), ("fulness", "ful"), ("ousness", "ous"),
    ("aliti", "al"), ("iviti", "ive"), ("biliti", "ble"),
)  # fmt: skip
_STEP_3 = (
    ("icate", "ic"), ("ative", ""), ("alize", "al"), ("iciti", "ic"), ("ical", "ic"), ("ful", ""), ("ness", ""),
)  # fmt: skip
_STEP_4 = (
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou", "ism", "ate", "iti",
    "ous", "ive", "ize",
)  # fmt: skip
_STEP_4_LONGEST_FIRST = sorted(_STEP_4, key=len, reverse=True)
_STEP_2_LONGEST_FIRST = sorted(_STEP_2, key=lambda rule: len(rule[0]), reverse=True)
_STEP_3_LONGEST_FIRST = sorted(_STEP_3, key=lambda rule: len(rule[0]), reverse=True)
_VOWEL_THEN_CONSONANT = re.compile("v+c+")
_MAX_LENGTH = 64


def _shape(word: str) -> str:
    """The word as c (consonant) and v (vowel); y is a vowel after a consonant."""
    shape = ""
    for i, letter in enumerate(word):
        vowel = letter in "aeiou" or (letter == "y" and i > 0 and shape[-1] == "c")
        shape += "v" if vowel else "c"
    return shape


def _measure(word: str) -> int:
    """Porter's m: how many times a vowel run is followed by a consonant run."""
    return len(_VOWEL_THEN_CONSONANT.findall(_shape(word)))


def _ends_double_consonant(word: str) -> bool:
    return len(word) > 1 and word[-1] == word[-2] and _shape(word)[-1] == "c"


def _ends_cvc(word: str) -> bool:
    return len(word) > 2 and _shape(word)[-3:] == "cvc" and word[-1] not in "wxy"


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """Return the stem of a lower-case word: searching, searched and searches give search."""
    if not 2 < len(word.encode()) < _MAX_LENGTH:
        return word
    word = _plurals(word)
    word = _past_and_progressive(word)
    if word.endswith("y") and "v" in _shape(word[:-1]):
        word = word[:-1] + "i"
    word = _replace(word, _STEP_2_LONGEST_FIRST)
    word = _replace(word, _STEP_3_LONGEST_FIRST)
    word = _strip(word)
    return _tidy(word)


def _plurals(word: str) -> str:
    if word.endswith(("sses", "ies")) and word not in ("sses", "ies"):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _past_and_progressive(word: str) -> str:
    if word.endswith("eed") and len(word) > 3:
        return word[:-1] if _measure(word[:-3]) > 0 else word
    for ending in ("ed", "ing"):
        base = word[: -len(ending)]
        if word.endswith(ending):
            if "v" not in _shape(base):
                return word
            if base.endswith(("at", "bl", "iz")):
                return base + "e"
            if _ends_double_consonant(base) and base[-1] not in "lsz":
                return base[:-1]
            return base + "e" if _measure(base) == 1 and _ends_cvc(base) else base
    return word


def _replace(word: str, rules: list[tuple[str, str]]) -> str:
    for ending, replacement in rules:
        if word.endswith(ending):
            base = word[: -len(ending)]
            return base + replacement if _measure(base) > 0 else word
    return word


def _strip(word: str) -> str:
    for ending in _STEP_4_LONGEST_FIRST:
        if word.endswith(ending):
            base = word[: -len(ending)]
            if ending == "ion" and not base.endswith(("s", "t")):
                return word
            return base if _measure(base) > 1 else word
    return word


def _tidy(word: str) -> str:
    if word.endswith("e"):
        base = word[:-1]
        m = _measure(base)
        if m > 1 or (m == 1 and not _ends_cvc(base)):
            word = base
    if word.endswith("ll") and _measure(word) > 1:
        word = word[:-1]
    return word
