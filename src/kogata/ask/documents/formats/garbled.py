"""Does extracted text read like a language? Fonts without a character map give letters, but not words."""

from __future__ import annotations

import itertools
import re
from collections import Counter

_WORDS = re.compile(r"[A-Za-z]+")
_HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
_KANA_HANGUL = re.compile(r"[\u3040-\u30ff\uac00-\ud7a3]")
_STRANGE = re.compile(r"[\ue000-\uf8ff\ufffd\U000f0000-\U0010ffff]")

# Letter pairs that make up most of any text in English, French, German, Spanish, Italian, Portuguese, Dutch, romaji.
_PAIRS_WORDS = """
    th he in er an re on at en nd ti es or te of ed is it al ar st to nt ng se ha as ou io le ve co me de hi ri
    ro ic ne ea ra ce li ch ll be ma si om ur ca el ta la ns di fo ho pe ec pr no ct us ac ot il tr ly nc et ut
    ss so rs un lo wa ge ie wh ee wi em ad ol rt po we na ul ni ts mo ow pa im mi ai sh ir su id os iv ia am fi
    ci vi pl ig tu ev ld ry mp fe bl ab gh ty op wo sa ay ex ke fr oo av ag if ap gr od bo sp rd do uc bu ei ov
    by rm ep tt oc fa ef cu rn sc gi da yo cr cl du ga qu ue ff ba ey ls va um pp ua up lu go ht ru ug ds lt pi
    rc rr eg au ck ew mu br bi pt ak pu ui rg ib tl ny ki rk ys ob mm fu ph og ms ye ud mb ip ub oi rl gu dr hr
    cc tw ft wn nu af hu nn eo vo rv nf xp gn sm fl iz ok nl my gl aw ju oa eq sy sl ps jo lf nv je nk kn gs dy
    hy ze ks xt bs ik dd pt rp sk xi oe oy ws lv ya ku yu ko mo no ha so ka zu ge wo kk tz sz cq ij aa uu
"""
_PAIRS = frozenset(_PAIRS_WORDS.split())


def is_garbled(text: str) -> bool:
    """Whether a page's text is rubbish: unmapped glyphs, or letters that no language puts side by side."""
    solid = "".join(text.split())
    if len(solid) < 10:
        return False
    if len(_STRANGE.findall(solid)) > 0.15 * len(solid):
        return True
    return _wrong_letters(text, len(solid)) or _wrong_han(solid)


def _wrong_letters(text: str, n_solid: int) -> bool:
    words = [w for w in _WORDS.findall(text) if len(w) >= 3]
    # Among ordinary words short capitals are acronyms; where all is in capitals they are the text.
    if sum(w.islower() or w.istitle() for w in words) > 0.3 * len(words):
        words = [w for w in words if not (w.isupper() and len(w) <= 5)]
    words = [w.lower() for w in words]
    pairs = Counter(a + b for w in words for a, b in itertools.pairwise(w))
    total = sum(pairs.values())
    if total < 120 or total < 0.25 * n_solid:  # too little to judge by, or formulas and figures
        return False
    return sum(n for pair, n in pairs.items() if pair in _PAIRS) < 0.45 * total


def _wrong_han(solid: str) -> bool:
    han = _HAN.findall(solid)
    if len(han) < 60 or len(_KANA_HANGUL.findall(solid)) > 0.02 * len(solid):
        return False
    return sum(map(_is_everyday, han)) < 0.4 * len(han)


def _is_everyday(character: str) -> bool:
    """In the first level of JIS X 0208 or of GB 2312, or the common plane of Big5."""
    for codec, low, high in (("euc_jp", 0xB0, 0xCF), ("gb2312", 0xB0, 0xD7), ("big5", 0xA4, 0xC6)):
        try:
            if low <= character.encode(codec)[0] <= high:
                return True
        except UnicodeEncodeError:
            continue
    return False
