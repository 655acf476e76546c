"""What kind of thing a question asks for, and whether a sentence has one that the question does not already name."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

_ASKS_AMOUNT = re.compile(
    r"\bhow (?:many|much|long|old|far|tall|high|large|big|deep|wide|heavy|often|fast|late|early)\b"
    r"|\b(?:what|which) (?:is the |was the )?(?:year|decade|century|percent(?:age)?|number|date|day|month|age"
    r"|population|size|score|amount|proportion|rank|price|cost|length|height|weight|distance|temperature|ratio)\b"
    r"|\bwhen\b|\bnumber of\b"
    r"|何[年月日時分秒人個件回度枚冊階歳才位割倍曜世種代番匹頭台本点名社校軒戸kmcg%キメトグセパ]"
    r"|いつ|いくつ|いくら|どのくらい|どれくらい|どれほど|どれだけ|割合は|人口は",
    re.IGNORECASE,
)
_ASKS_NAME = re.compile(
    r"\b(?:who|whose|whom|where)\b"
    r"|\b(?:what|which) (?:person|man|woman|people|player|team|country|city|town|state|company|university|school|king"
    r"|queen|emperor|president|author|scientist|language|river|actor|actress|singer|artist|group|organi[sz]ation)\b"
    r"|\bname of\b|\bnamed\b|\bcalled\b"
    r"|誰|だれ|どこ|何処|何という|なんという|何と呼|どの国|どの[都県市町村]|名前は|名称は|何者",
    re.IGNORECASE,
)
_AMOUNT = re.compile(
    r"\d+(?:[.,]\d+)*|[一二三四五六七八九十百千万億]+(?=[年月日人個件回度枚階歳才位割倍世種本台点名代番つ])"
    r"|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|hundreds?|thousands?|millions?|billions?"
    r"|half|twice|dozens?|first|second|third|fourth|century|centuries|decades?|percent)\b",
    re.IGNORECASE,
)
# Capitals inside a sentence, capitalised pairs, acronyms, katakana words.
_NAME = re.compile(r"(?<=[\w,;:'\")] )[A-Z][\w’'-]+|\b[A-Z][a-z]+ [A-Z][a-z]+|[ァ-ヴー]{3,}|\b[A-Z]{2,}\b")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a question asks for: an amount or date, a name, both or neither; and what it names itself."""

    amount: bool
    name: bool
    question: str

    def offered_by(self, sentence: str) -> tuple[bool, bool]:
        """Whether the sentence has (an amount, a name) of the kind asked for that is not in the question."""
        sentence = unicodedata.normalize("NFKC", sentence)
        amount = self.amount and any(m.group().lower() not in self.question for m in _AMOUNT.finditer(sentence))
        name = self.name and any(m.group().lower() not in self.question for m in _NAME.finditer(sentence))
        return amount, name


def wanted(question: str) -> Wanted:
    """Read the kind of a question off its question words, English or Japanese."""
    plain = unicodedata.normalize("NFKC", question)
    return Wanted(bool(_ASKS_AMOUNT.search(plain)), bool(_ASKS_NAME.search(plain)), plain.lower())
