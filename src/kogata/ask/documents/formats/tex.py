"""LaTeX: sections, paragraphs, items, tables and code as on the printed page; formulas as written."""

from __future__ import annotations

import re

from kogata.ask.documents.builder import Builder, clean
from kogata.ask.documents.formats.plain import join_lines
from kogata.ask.documents.source import Source

_COMMENT = re.compile(r"(?<!\\)((?:\\\\)*)%[^\n]*\n?")
_SECTION = re.compile(
    r"\\(part|chapter|section|subsection|subsubsection|paragraph|subparagraph)\*?\s*(?:\[[^\]]*\])?\s*{"
)
_LEVELS = {
    "part": 1,
    "chapter": 2,
    "section": 3,
    "subsection": 4,
    "subsubsection": 5,
    "paragraph": 6,
    "subparagraph": 7,
}
_ENVIRONMENT = re.compile(r"\\(begin|end)\s*{([^{}]*)}(?:\[[^\]]*\])?")
_CODE = frozenset(("verbatim", "Verbatim", "lstlisting", "minted", "alltt", "code"))
_DEEPEST_MACRO = 4
_LISTS = frozenset(("itemize", "enumerate", "description"))
_TABLES = frozenset(("tabular", "tabular*", "tabularx", "longtable", "array"))
_DROPPED = re.compile(
    r"\\(?:label|ref|eqref|pageref|autoref|cref|Cref|cite[a-zA-Z]*|nocite|input|include|includegraphics|bibliography|"
    r"bibliographystyle|usepackage|documentclass|vspace|hspace|setlength|setcounter|addtocounter|thispagestyle|"
    r"pagestyle|index|hypersetup|DeclareMathOperator|definecolor|color|fontsize|addcontentsline|thanks)"
    r"(?![A-Za-z])"
    r"\*?\s*(?:\[[^\]]*\])*\s*(?:{[^{}]*}\s*)*"
)
_ACCENTS = {"'": "\u0301", "`": "\u0300", "^": "\u0302", '"': "\u0308", "~": "\u0303", "=": "\u0304", "c": "\u0327",
            "v": "\u030c", "u": "\u0306", ".": "\u0307", "H": "\u030b", "k": "\u0328", "r": "\u030a"}  # fmt: skip
_ACCENT = re.compile(
    r"\\(['`^\"~=.])\s*(?:{\\?([A-Za-zıij])}|\\?([A-Za-z]))|\\([cvuHkr])\s*(?:{([A-Za-z])}|\s([A-Za-z]))"
)
_SYMBOLS = {r"\ss": "ß", r"\ae": "æ", r"\AE": "Æ", r"\oe": "œ",
            r"\o": "ø", r"\O": "Ø", r"\l": "ł", r"\aa": "å", r"\OE": "Œ", r"\L": "Ł", r"\AA": "Å",
            r"\ldots": "…", r"\dots": "…",
            r"\textendash": "–", r"\textemdash": "—", r"\LaTeX": "LaTeX", r"\TeX": "TeX",
            r"\S": "§", r"\copyright": "©", r"\textquotesingle": "'", r"\textbackslash": "\\",
            r"\pounds": "£"}  # fmt: skip
_SYMBOL = re.compile(
    r"\\(?:" + "|".join(sorted((s[1:] for s in _SYMBOLS), key=len, reverse=True)) + r")(?![A-Za-z])\s?(?:{})?"
)
_DISPLAY = r"{(?:equation|align|gather|multline|eqnarray|displaymath|math)\*?}"
_MATH = re.compile(
    r"(?<!\\)(\$\$?)(.+?)(?<!\\)\1|\\\((.+?)\\\)|\\\[(.+?)\\\]|\\begin" + _DISPLAY + r"(.+?)\\end" + _DISPLAY, re.S
)
_NUMBERED = re.compile(r"\\(?:label|tag)\s*{[^{}]*}|\\(?:nonumber|notag)(?![A-Za-z])")
_MACRO = re.compile(
    r"\\(?:(?:re)?newcommand|providecommand)\*?\s*{?\s*\\([A-Za-z]+)\s*}?\s*(?:\[(\d)\])?\s*(?=[{\[])"
    r"|\\def\s*\\([A-Za-z]+)((?:#\d)*)(?={)"
)


def read(source: Source, out: Builder) -> None:
    """Add the body of a LaTeX file."""
    text = clean(source.text(out, declared=True))
    if source.suffix in (".bib", ".sty", ".cls"):
        for entry in re.split(r"\n\s*\n|\n(?=@)", text):
            out.add("code", entry)
        return
    text, macros = _without_definitions(text)
    title = re.search(r"\\title\s*(?:\[[^\]]*\])?\s*{", text)
    if title:
        out.title = _plain(_braced(text, title.end() - 1)[0])
        out.heading(1, out.title)
    if author := re.search(r"\\author\s*(?:\[[^\]]*\])?\s*{", text):
        out.paragraph(_plain(re.sub(r"\s*\\and(?![A-Za-z])", ",", _braced(text, author.end() - 1)[0])))
    begin, end = text.find(r"\begin{document}"), text.rfind(r"\end{document}")
    if begin >= 0:
        text = text[begin + len(r"\begin{document}") : end if end > begin else len(text)]
    _blocks(text, macros, out)


Macros = dict[str, tuple[int, str]]  # name -> number of arguments, body


def _without_definitions(text: str) -> tuple[str, Macros]:
    """The text without what defines macros, and these."""
    macros: Macros = {}
    parts: list[str] = []
    position = 0
    for match in _MACRO.finditer(text):
        if match.start() < position:
            continue
        parts.append(text[position : match.start()])
        start = match.end()
        if text[start] == "[":  # an argument with a default is rare: such a macro is dropped
            position = max(start, text.find("]", start) + 1)
            position = _braced(text, position)[1] if text[position : position + 1] == "{" else position
            continue
        body, position = _braced(text, start)
        macros[match[1] or match[3]] = (int(match[2] or 0) or (match[4] or "").count("#"), body)
    return "".join([*parts, text[position:]]), macros


def _expanded(text: str, macros: Macros) -> str:
    """The text with macros replaced by what they stand for, also in one another; what would run away stays."""
    if not macros:
        return text
    name = re.compile(r"\\(" + "|".join(sorted(macros, key=len, reverse=True)) + r")(?![A-Za-z])[ \t]*(?:{})?")
    most = 2 * len(text) + 10_000
    for _ in range(_DEEPEST_MACRO):
        parts: list[str] = []
        position = length = 0
        for match in name.finditer(text):
            if match.start() < position or length > most:
                continue
            n_arguments, body = macros[match[1]]
            parts.append(text[position : match.start()])
            position = match.end()
            for number in range(1, n_arguments + 1):
                if text[position : position + 1] != "{":
                    break
                argument, position = _braced(text, position)
                body = body.replace(f"#{number}", argument)
            parts.append(body)
            length += len(parts[-1]) + len(parts[-2])
        if not parts:
            break
        text = "".join([*parts, text[position:]])
    return text


def _blocks(text: str, macros: Macros, out: Builder) -> None:
    """Code first (nothing inside it means anything), then the rest between."""
    start = 0
    for match in re.finditer(r"\\begin\s*{(" + "|".join(map(re.escape, _CODE)) + r")\*?}(?:\[[^\]]*\]|{[^}]*})*", text):
        if match.start() < start:
            continue
        end = text.find(f"\\end{{{match[1]}", match.end())
        end = len(text) if end < 0 else end
        _prose(_expanded(text[start : match.start()], macros), out)
        out.add("code", text[match.end() : end])
        start = text.find("}", end) + 1 or len(text)
    _prose(_expanded(text[start:], macros), out)


def _prose(text: str, out: Builder) -> None:
    text = _COMMENT.sub(r"\1", text)
    text = re.sub(r"\\(?:foot|margin)note\s*{", r" \\inlinenote{", text)
    position = 0
    for match in _SECTION.finditer(text):
        if match.start() < position:
            continue
        _paragraphs(text[position : match.start()], out)
        name, position = _braced(text, match.end() - 1)
        out.heading(_LEVELS[match[1]] + 1, _plain(name))
    _paragraphs(text[position:], out)


def _paragraphs(text: str, out: Builder) -> None:
    lists: list[str] = []
    position = 0
    for match in _ENVIRONMENT.finditer(text):
        if match.start() < position:
            continue
        kind, name = match[1], match[2].rstrip("*")
        if name in _TABLES and kind == "begin":
            _flow(text[position : match.start()], lists, out)
            end = text.find(f"\\end{{{match[2]}}}", match.end())
            end = len(text) if end < 0 else end
            _table(text[match.end() : end], out)
            position = end
            continue
        if name in _LISTS or name in (
            "figure",
            "table",
            "quote",
            "quotation",
            "abstract",
            "center",
            "theorem",
            "proof",
        ):
            _flow(text[position : match.start()], lists, out)
            position = match.end()
            if name in _LISTS:
                if kind == "begin":
                    lists.append(name)
                elif lists:
                    lists.pop()
    _flow(text[position:], lists, out)


def _flow(text: str, lists: list[str], out: Builder) -> None:
    if lists:
        items = re.split(r"\\item(?![A-Za-z])\s*(?:\[([^\]]*)\])?", text)
        _text(items[0], out)
        for label, item in zip(items[1::2], items[2::2], strict=False):
            words = _plain(item)
            if words:
                mark = f"{_plain(label)}: " if label else "- "
                out.add("list", "  " * (len(lists) - 1) + mark + words)
    else:
        _text(text, out)


def _text(text: str, out: Builder) -> None:
    for paragraph in re.split(r"\n\s*\n|\\par(?![A-Za-z])", text):
        out.paragraph(_plain(paragraph))


def _table(text: str, out: Builder) -> None:
    if text.startswith("{"):
        text = text[_braced(text, 0)[1] :]
    text = re.sub(r"\\(?:hline|toprule|midrule|bottomrule|cline{[^}]*}|cmidrule(?:\([^)]*\))?{[^}]*})", "", text)
    rows = [[_plain(cell) for cell in re.split(r"(?<!\\)&", row)] for row in re.split(r"\\\\(?:\[[^\]]*\])?", text)]
    out.table(rows)


def _braced(text: str, at: int) -> tuple[str, int]:
    """The group that opens at ``at`` and the place behind it."""
    depth = 0
    for index in range(at, min(len(text), at + 20_000)):
        if text[index] == "{" and text[index - 1 : index] != "\\":
            depth += 1
        elif text[index] == "}" and text[index - 1 : index] != "\\":
            depth -= 1
            if depth == 0:
                return text[at + 1 : index], index + 1
    return text[at + 1 : at + 200], min(len(text), at + 200)


def _plain(text: str) -> str:
    """Commands resolved or removed; formulas kept as written."""
    formulas: list[str] = []

    def keep(match: re.Match[str]) -> str:
        formula = _NUMBERED.sub("", next(g for g in match.groups()[1:] if g is not None))
        formulas.append(" ".join(formula.split()))
        return f"\ue000{len(formulas) - 1}\ue001"

    text = _MATH.sub(keep, text.replace("\ue000", "").replace("\ue001", ""))
    text = re.sub(r"\\multi(?:column|row)\s*{[^{}]*}\s*{[^{}]*}", "", text)
    text = _DROPPED.sub("", text)
    text = _ENVIRONMENT.sub(" ", text)
    text = _ACCENT.sub(_accented, text)
    text = _SYMBOL.sub(lambda m: _SYMBOLS["\\" + re.match(r"[A-Za-z]+", m[0][1:])[0]], text)  # type: ignore[index]
    text = re.sub(r"\\href\s*{[^{}]*}", "", text)
    text = re.sub(r"\\inlinenote\s*{([^{}]*)}", r"(\1)", text)
    text = re.sub(r"\\\\(?:\[[^\]]*\])?|\\newline\b", "\n", text)
    text = re.sub(r"\\([&%$#_{}])", "\ue002\\1", text)  # what is escaped is meant
    text = re.sub(r"\\[A-Za-z]+\*?(?:\[[^\]]*\])?|\\.", "", text)
    text = re.sub(r"(?<!\ue002)[{}]", "", text).replace("\ue002", "")
    text = text.replace("``", "“").replace("''", "”").replace("---", "—").replace("--", "–").replace("~", " ")
    text = re.sub(r"\ue000(\d+)\ue001", lambda m: formulas[int(m[1])], text)
    text = re.sub(r"[ \t]+(?=[.,;:)])", "", text)
    return join_lines([line for line in text.split("\n") if line.strip()] or [""]).strip()


def _accented(match: re.Match[str]) -> str:
    import unicodedata

    mark = match[1] or match[4]
    letter = match[2] or match[3] or match[5] or match[6]
    return unicodedata.normalize("NFC", letter + _ACCENTS[mark])
