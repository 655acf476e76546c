"""Source code: kept as it is, in blocks at blank lines of the outermost level, each under its definition's name."""

from __future__ import annotations

import re

from kogata.ask.documents.builder import Builder, clean
from kogata.ask.documents.source import Source

# What begins a definition at the left margin, in the common languages; the group is its name.
_DEFINITION = re.compile(
    r"(?:export\s+(?:default\s+)?|pub(?:\([^)]*\))?\s+|public\s+|private\s+|protected\s+|internal\s+|static\s+|async\s+|"
    r"abstract\s+|final\s+|sealed\s+|data\s+|unsafe\s+|extern\s+(?:\"C\"\s+)?|template\s*<[^>]*>\s*|inline\s+|constexpr\s+)*"
    r"(?:(?:def|class|func|fn|function|struct|enum|interface|trait|impl|module|namespace|type|object|record|sub|package|"
    r"protocol|extension|macro_rules!|union|defun|defmodule|resource|message|service)\b\s*(?:<[^>]*>\s*)?(?:\([^)]*\)\s*)?"
    r"([\w.:!?$@-]+)"
    r"|(?:CREATE|create)\s+(?:OR\s+REPLACE\s+|or\s+replace\s+)?(?:TABLE|VIEW|FUNCTION|PROCEDURE|table|view|function)\s+([\w.\"`]+)"
    r"|(?:const|let|var)\s+([\w$]+)\s*=\s*(?:async\s*)?(?:function\b|\([^)]*\)\s*=>)"
    r"|[\w:<>,*&\s]+?[\s*&]([\w:~]+)\s*\([^;]*$"
    r"|\[([\w.\" -]+)\]\s*$)"
)
_CONTROL_WORDS = """
    if for while switch else return do try catch elif case with match
"""
_CONTROL = frozenset(_CONTROL_WORDS.split())


def read(source: Source, out: Builder) -> None:
    """Add the blocks of a source file."""
    block: list[str] = []
    name = ""
    for line in clean(source.text(out, declared=True)).split("\n"):
        at_margin = line[:1].strip() != ""
        if at_margin and block and not block[-1].strip() and line[0] not in ")}]":
            name = _add(block, name, out)
        block.append(line.rstrip())
    _add(block, name, out)


def _add(block: list[str], name: str, out: Builder) -> str:
    """Add a block under the definition it begins, or under the last one if it is only indented; returns that name."""
    for line in block:
        if line[:1].strip() and line[0] not in "#/*@-;%":
            found = _DEFINITION.match(line)
            new = next((g for g in found.groups() if g), "") if found else ""
            name = new.strip('"`:') if new and line.split(None, 1)[0].rstrip("(") not in _CONTROL else ""
            break
    out.under(name)
    out.add("code", "\n".join(block))
    block.clear()
    return name
