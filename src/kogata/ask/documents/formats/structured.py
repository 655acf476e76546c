"""JSON and JSON lines: names and values as lines of text, one paragraph an object."""

from __future__ import annotations

import json
from collections.abc import Iterator

from kogata.ask.documents.builder import Builder, squeeze
from kogata.ask.documents.model import Refused
from kogata.ask.documents.source import Source

_MOST_NUMBERS = 32
_TITLES = ("title", "name", "heading", "subject", "label")


def read(source: Source, out: Builder) -> None:
    """Add the values of a JSON file, or of each line of a JSON lines file."""
    text = source.text(out)
    if source.suffix in (".jsonl", ".ndjson"):
        _lines(text, out)
        return
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if _looks_like_lines(text):
            _lines(text, out)
            return
        out.note(f"It is not valid JSON (line {error.lineno}); it was read as plain text.")
        out.add("code", text)
        return
    _top(value, out)


def _looks_like_lines(text: str) -> bool:
    first = text.lstrip().split("\n", 1)[0]
    try:
        return isinstance(json.loads(first), (dict, list))
    except (json.JSONDecodeError, RecursionError):
        return False


def _lines(text: str, out: Builder) -> None:
    bad = 0
    for line in text.split("\n"):
        if not line.strip():
            continue
        try:
            _object(json.loads(line), out)
        except json.JSONDecodeError:
            bad += 1
        except RecursionError:
            raise Refused("corrupt", "It is nested too deeply to be read.") from None
    if bad:
        out.note(f"{bad:,} lines are not valid JSON and were left out.")


def _top(value: object, out: Builder) -> None:
    if isinstance(value, list):
        for item in value:
            _object(item, out)
    elif isinstance(value, dict) and any(isinstance(v, (dict, list)) for v in value.values()):
        out.title = next((str(value[t]) for t in _TITLES if isinstance(value.get(t), str)), "")
        simple = {k: v for k, v in value.items() if not isinstance(v, (dict, list))}
        _object(simple, out)
        for key, item in value.items():
            if isinstance(item, (dict, list)) and item:
                out.heading(1, str(key))
                if isinstance(item, list) and isinstance(item[0], (dict, list)):
                    for entry in item:
                        _object(entry, out)
                else:
                    _object(item, out)
    else:
        _object(value, out)


def _object(value: object, out: Builder) -> None:
    out.add("paragraph", "\n".join(_flat(value, "", out)))


def _flat(value: object, path: str, out: Builder) -> Iterator[str]:
    """``path: value`` for every value inside."""
    stack: list[tuple[object, str]] = [(value, path)]
    while stack:
        value, path = stack.pop()
        if isinstance(value, dict):
            stack.extend((v, f"{path}.{k}" if path else str(k)) for k, v in reversed(value.items()))
        elif isinstance(value, list):
            if all(not isinstance(v, (dict, list)) for v in value):
                if len(value) > _MOST_NUMBERS and all(isinstance(v, (int, float)) for v in value):
                    out.note("Long arrays of numbers were left out.")
                    continue
                value = ", ".join(_shown(v) for v in value)
                if value:
                    yield f"{path}: {value}" if path else value
            else:
                stack.extend((v, path) for v in reversed(value))
        else:
            text = _shown(value)
            if text:
                yield f"{path}: {text}" if path else text


def _shown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return squeeze(value) if isinstance(value, str) else str(value)
