"""`kogata mcp` through the protocol's own client."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

import kogata

pytest.importorskip("mcp")
from mcp import ClientSession
from mcp.client.stdio import StdioServerParameters, stdio_client


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("mcp")
    docs = home / "docs"
    docs.mkdir()
    tides, bread = docs / "tides.md", docs / "bread.md"
    with kogata.Index(home / "index.sqlite") as index:
        tides.write_text("# Tides\n\nThe tide gauge in Miura was calibrated in May 2021. It is on the pier.\n")
        index.add(docs)
        bread.write_text("# Bread\n\nThe dough rests for twelve hours in a cold room.\n")
        index.add(docs)
    return home / "index.sqlite"


def call(place: Path, calls: list[tuple[str, dict[str, Any]]]) -> tuple[list[str], list[tuple[bool, str]]]:
    """The tools there are, and of each call whether it is an error, and its text."""

    async def talk() -> tuple[list[str], list[tuple[bool, str]]]:
        command = StdioServerParameters(
            command=sys.executable, args=["-m", "kogata.app.cli", "mcp", "--index", str(place)]
        )
        async with stdio_client(command) as (incoming, outgoing), ClientSession(incoming, outgoing) as session:
            await session.initialize()
            tools = [tool.name for tool in (await session.list_tools()).tools]
            answers = []
            for name, given in calls:
                result = await session.call_tool(name, given)
                answers.append((bool(result.is_error), "".join(part.text for part in result.content)))
            return tools, answers

    return asyncio.run(asyncio.wait_for(talk(), 60))


def test_an_assistant_finds_asks_and_reads(place: Path) -> None:
    tools, answers = call(
        place,
        [
            ("search", {"query": "tide gauge", "k": 1}),
            ("ask", {"question": "When was the tide gauge calibrated?"}),
            ("ask", {"question": "Who painted the ceiling of the chapel?"}),
            ("read", {"document": 1, "end": 7}),
            ("status", {}),
        ],
    )
    assert tools == ["search", "ask", "read", "status"]
    assert [error for error, _ in answers] == [False] * 5
    search, ask, nothing, read, status = (text for _, text in answers)
    assert "tides.md" in search
    assert "May 2021" in search
    assert "calibrated in May 2021. [1]" in ask
    assert "tides.md, Tides" in ask
    assert nothing.startswith("Not found in these documents.")
    assert read.endswith("tides.md, characters 0 to 7 of 77\n\nTides\n\n"), read
    assert status.startswith("2 documents, 2 passages\n")


def test_what_is_not_accepted_is_said(place: Path) -> None:
    wrong: list[tuple[str, dict[str, Any], str]] = [
        ("search", {"query": "  "}, "The query is empty."),
        ("search", {"query": "tide", "k": 0}, "greater than or equal to 1"),
        ("search", {"query": "tide", "kinds": ["pdx"]}, "There is no document type 'pdx'"),
        ("ask", {}, "Field required"),
        ("read", {"document": 99}, "There is no document 99."),
        ("read", {"document": 2**70}, "less than"),
    ]
    _, answers = call(place, [*((tool, given) for tool, given, _ in wrong), ("search", {"query": "tide"})])
    *refused, good = answers
    for (error, text), (tool, given, said) in zip(refused, wrong, strict=True):
        assert error, (tool, given, text)
        assert said in text, (tool, given, text)
    assert not good[0], good


def test_without_an_index_the_assistant_is_told(tmp_path: Path) -> None:
    _, ((error, text),) = call(tmp_path / "none.sqlite", [("search", {"query": "tide"})])
    assert error
    assert "There is no index" in text
