"""What kind of thing a question asks for, and whether a sentence has one that the question does not already name."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

ASKING = re.compile(
    r"何[年月日時分秒人個件回度枚冊階歳才位割倍曜世種代番匹頭台本点名社校軒戸章]?|誰|だれ|どこ|何処|いつ|どの|どんな|どう"
    r"|どれ|どち|なぜ|いくつ|いくら|\b(?:who|whom|whose|what|which|when|where|why|how)\b",
    re.IGNORECASE,
)
"""The question word, with what is counted where that is written on to it."""

POINTS_BACK = re.compile(
    r"(?:この|その|これ|それ|ここ|そこ|同|当|彼|He|She|It|They|This|That|These|Those|His|Her|Its|Their)(?:[^a-z]|$)"
)
"""The start of a sentence that goes on about what the one before named."""

_NUMBER = r"[0-9一二三四五六七八九十百千万億兆数両][0-9.,万億兆千百十]*"
_UNIT = re.compile(
    r"何(世紀|[かヶカ]月|%|パーセント|[年月日時分秒人個件回度枚冊階歳才位割倍種代番匹頭台本点名社校軒戸章つ円条巻作話曲隻機両棟区"
    r"州国県市町村箇所行組丁票勝敗戦字号曜級等段]|[ァ-ヴー]{2,}|[kc]?m|kg)"
)
_SAME_UNIT = {"歳": "[歳才]", "才": "[歳才]", "%": "(?:%|パーセント|割)", "パーセント": "(?:%|パーセント|割)"}
_AMOUNT = re.compile(
    r"\d+(?:[.,]\d+)*|[一二三四五六七八九十百千万億]+(?=[年月日人個件回度枚階歳才位割倍世種本台点名代番つ])"
    r"|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|hundreds?|thousands?|millions?|billions?"
    r"|half|twice|dozens?|first|second|third|fourth|century|centuries|decades?|percent)\b",
    re.IGNORECASE,
)
# Questions for an amount or a date, and how one is written; the first that fits counts.
_AMOUNTS = [
    (re.compile(asks, re.IGNORECASE), offers if isinstance(offers, re.Pattern) else re.compile(offers))
    for asks, offers in (
        (r"いつ|日付|時期は", _NUMBER + "(?:年|月|日|世紀|時)"),
        (r"いくら", _NUMBER + "(?:円|ドル|ポンド|フラン|マルク|両|元|ユーロ)"),
        (r"いくつ|どのくらい|どれ(?:くらい|ほど|だけ)|(?:人口|割合|率|数|さ|距離|面積)は", _NUMBER),
        (
            r"\bwhen\b|\b(?:what|which) (?:is the |was the )?(?:year|decade|century|date|day|month)\b",
            r"\b1\d{3}s?\b|\b20\d\d\b|\b\d{1,2}th\b|January|February|March|April|\bMay\b|June|July|August|September"
            r"|October|November|December|centur|\b\d{3} (?:BC|AD)",
        ),
        (r"percent|what (?:pro)?portion", r"%|[Pp]ercent|\b[Hh]alf|[Tt]hird|[Qq]uarter"),
        (r"\bhow much\b|what (?:is|was) the (?:cost|price)", r"[$£€]|\d"),
        (
            r"\bhow (?:many|long|old|far|tall|high|large|big|deep|wide|heavy|often|fast|late|early)\b"
            r"|\b(?:what|which) (?:is the |was the )?(?:number|age|population|size|score|amount|rank|length|height"
            r"|weight|distance|temperature|ratio)\b|\bnumber of\b",
            _AMOUNT,
        ),
    )
]
_ASKS_NAME = re.compile(
    r"\b(?:who|whose|whom|where)\b"
    r"|\b(?:what|which) (?:person|man|woman|people|player|team|country|city|town|state|company|university|school|king"
    r"|queen|emperor|president|author|scientist|language|river|actor|actress|singer|artist|group|organi[sz]ation)\b"
    r"|\bname of\b|\bnamed\b|\bcalled\b"
    r"|誰|だれ|どこ|何処|何という|なんという|何と呼|どの国|どの[都県市町村]|名前は|名称は|何者",
    re.IGNORECASE,
)
_ASKS_PLACE = re.compile(
    r"どこ|何処|どの[国都県市町村地]|\bwhere\b|\b(?:which|what) (?:city|country|state|town|place|region|area)",
    re.IGNORECASE,
)
# Capitals inside a sentence, capitalised pairs, acronyms, katakana words.
_NAME = re.compile(r"(?<=[\w,;:'\")] )[A-Z][\w’'-]+|\b[A-Z][a-z]+ [A-Z][a-z]+|[ァ-ヴー]{3,}|\b[A-Z]{2,}\b")
_PLACE = re.compile(
    r"[ァ-ヴー一-龥]+(?:[都道府県市区町村国島州郡駅港城寺]|大学|学校|地方|半島|研究所|病院)|[ァ-ヴー]{3,}"
    r"|\b(?:in|at|near|from|to) (?:the )?[A-Z]"
)


# A sentence that holds a whole question repeats it; one that holds "the deposit" may well answer.
_QUESTION = re.compile(
    r"[?？]\s*$|か[。．]?\s*$|^\s*(?:who|whose|whom|what|when|where|which|why|how|is|are|was|were|do|does|did|can|will)\b",
    re.IGNORECASE,
)
_AROUND = " \t\n?？!！.。．,、;；:：\"'“”「」『』()（）#*_`>-"


def echoes(sentence: str, question: str) -> bool:
    """Whether a sentence only says the question again: such a one is no answer."""
    said, asked = sentence.lower(), question.strip(_AROUND).lower()
    return said.strip(_AROUND) == asked or (_QUESTION.search(question) is not None and asked in said)


@dataclass(frozen=True, slots=True)
class Wanted:
    """How what a question asks for is written: amounts or dates, names; and what the question names itself."""

    amounts: re.Pattern[str] | None
    names: tuple[re.Pattern[str], ...]
    question: str

    def offered_by(self, sentence: str) -> tuple[bool, bool]:
        """Whether the sentence has (an amount, a name) of the kind asked for that is not in the question."""
        sentence = unicodedata.normalize("NFKC", sentence)
        return (
            self.amounts is not None and self._is_new(self.amounts, sentence),
            any(self._is_new(names, sentence) for names in self.names),
        )

    def _is_new(self, kind: re.Pattern[str], sentence: str) -> bool:
        return any(match.group().lower() not in self.question for match in kind.finditer(sentence))


def wanted(question: str) -> Wanted:
    """Read the kind of a question off its question words, English or Japanese."""
    plain = unicodedata.normalize("NFKC", question)
    names = [offers for asks, offers in ((_ASKS_NAME, _NAME), (_ASKS_PLACE, _PLACE)) if asks.search(plain)]
    return Wanted(_amounts(plain), tuple(names), plain.lower())


def _amounts(question: str) -> re.Pattern[str] | None:
    if unit := _UNIT.search(question):  # 何人: a number of 人
        return re.compile(_NUMBER + "[余数]?" + _SAME_UNIT.get(unit[1], unit[1]))
    return next((offers for asks, offers in _AMOUNTS if asks.search(question)), None)
