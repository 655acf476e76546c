"""The command line in this process: what it prints, what it refuses, and with which exit code."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from command_line import Run, write_folder

from kogata import __version__
from kogata.app import cli, commands
from kogata.ask.store.lock import WriterLock

COMMANDS = [
    "index",
    "search",
    "ask",
    "serve",
    "run",
    "chat",
    "convert",
    "bench",
    "models",
    "status",
    "forget",
    "mcp",
    "doctor",
]


@pytest.fixture
def tiny(tmp_path: Path, run: Run) -> Path:
    """An index of its own for tests that write: by words, and one short text by meaning."""
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.md").write_text("# Tides\n\nHigh water comes twice a day.\n")
    assert run("index", tmp_path / "notes").code == 0
    return tmp_path / "own.sqlite"


# --- help and usage


def test_help_lists_commands_in_the_order_people_need_them(run: Run) -> None:
    for args in ([], ["--help"], ["-h"]):
        result = run(*args)
        assert result.code == 0
        listed = [line.split()[0] for line in result.out.split("Commands:")[1].splitlines() if line.startswith("  ")]
        assert listed[: len(COMMANDS)] == COMMANDS
        assert "..." not in result.out.split("Commands:")[1]  # no description is cut


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(run: Run, command: str) -> None:
    result = run(command, "--help")
    assert result.code == 0
    assert ("--json" in result.out) == (command not in ("serve", "chat", "mcp"))
    if command != "doctor":
        assert "Example" in result.out
        assert f"kogata {command}" in result.out.split("Example")[1]


def test_version(run: Run) -> None:
    assert run("--version").out == f"kogata {__version__}\n"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["serch", "x"], "serch"),
        (["search"], "QUERY"),
        (["search", "--frobnicate", "x"], "--frobnicate"),
        (["search", "x", "-k", "many"], "'many' is not a valid integer"),
        (["index", "--precision", "int3", "."], "int3"),
        (["search", "x", "--words", "--meaning"], "--words or --meaning"),
        (["index", "--exclude", "*.log"], "--exclude"),
        (["index", "--rebuild", "."], "--rebuild"),
        (["search", "x", "--threads", "0"], "--threads"),
        (["index", "/no/such/folder"], "/no/such/folder"),
        (["status", "--index", "/"], "is a folder"),
        (["status", "--index", ""], "file name"),
    ],
)
def test_bad_usage_is_named(run: Run, args: list[str], said: str) -> None:
    result = run(*args)
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert said in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize("args", [["search", "tides"], ["ask", "tides"], ["status"], ["forget", "x"], ["index"]])
def test_without_an_index_it_says_how_to_make_one(run: Run, args: list[str]) -> None:
    result = run(*args)
    assert result.code == 1
    assert "There is no index at" in result.err
    assert "kogata index" in result.err


# --- finding


def test_search_shows_where_and_what(run: Run, shelf: Path) -> None:
    result = run("search", "--index", shelf, "who", "calibrated", "the", "gauge")
    assert result.code == 0
    first = result.out.split("\n\n")[0]
    assert "tides.md" in first
    assert '"Tides"' in first
    assert "Maria Lindqvist" in first


@pytest.mark.parametrize("flag", ["--words", "--meaning", "--exact"])
def test_ways_to_search(run: Run, shelf: Path, flag: str) -> None:
    result = run("search", "--index", shelf, "--json", flag, "when does the lease end")
    found = json.loads(result.out)
    assert found["hits"][0]["path"].endswith("lease.txt")
    assert found["mode"] == {"--words": "words", "--meaning": "meaning", "--exact": "hybrid"}[flag]


def test_filters(run: Run, shelf: Path, library: Path) -> None:
    by_type = json.loads(run("search", "--index", shelf, "--json", "--type", "txt", "gauge").out)
    assert {Path(hit["path"]).name for hit in by_type["hits"]} == {"lease.txt"}
    by_path = json.loads(run("search", "--index", shelf, "--json", "--path", library / "bread.md", "gauge").out)
    assert {Path(hit["path"]).name for hit in by_path["hits"]} == {"bread.md"}


def test_an_unknown_type_lists_the_known_ones(run: Run, shelf: Path) -> None:
    result = run("search", "--index", shelf, "--type", "papyrus", "x")
    assert result.code == 2
    assert "papyrus" in result.err
    assert "pdf" in result.err


@pytest.mark.parametrize("query", ["", "   ", "\n\t", "\udcff", "a" * 1_000_000, "潮" * 1_000_000])
@pytest.mark.parametrize("command", ["search", "ask"])
def test_queries_that_are_none(run: Run, shelf: Path, command: str, query: str) -> None:
    result = run(command, "--index", shelf, query)
    assert result.code == 2
    assert result.err.startswith("error: The query")
    assert len(result.err) < 500


@pytest.mark.parametrize(
    "query",
    [
        '"', "'", "*", "(", ")", "^", "NEAR(a b, 2)", "body:tide", '"tide" AND (', "a OR", "NOT", "-- ; DROP TABLE x",
        "the", "is it of the", "潮", "満", "😀", "\x00tide", "tide\udcff", "%s %d", "tide\x1b[31m",
    ],
)  # fmt: skip
def test_odd_queries_are_only_text(run: Run, shelf: Path, query: str) -> None:
    for command in ("search", "ask"):
        result = run(command, "--index", shelf, "--", query)
        assert result.code in (0, 3), result.err
        assert "\x1b" not in result.out + result.err


def test_a_single_kanji_finds_its_document(run: Run, shelf: Path) -> None:
    found = json.loads(run("search", "--index", shelf, "--words", "--json", "潮").out)
    assert [Path(hit["path"]).name for hit in found["hits"]] == ["潮位.md"]


def test_how_many(run: Run, shelf: Path) -> None:
    assert run("search", "--index", shelf, "-k", 0, "tide").code == 2
    assert run("ask", "--index", shelf, "-k", "-3", "tide").code == 2
    assert len(json.loads(run("search", "--index", shelf, "-k", 1, "--json", "tide").out)["hits"]) == 1
    everything = json.loads(run("search", "--index", shelf, "-k", 10**9, "--json", "tide").out)
    assert 4 <= len(everything["hits"]) < 20


def test_nothing_found_has_its_own_exit_code(run: Run, shelf: Path) -> None:
    result = run("search", "--index", shelf, "--words", "xylophone")
    assert result.code == 3
    assert result.out == 'Nothing found for "xylophone".\n'


@pytest.mark.parametrize(
    ("question", "answer", "source"),
    [
        ("When was the gauge calibrated?", "May 2021", "tides.md"),
        ("When does the lease of the boat house end?", "30 June 2027", "lease.txt"),
        ("満潮は一日に何回起こりますか", "二回", "潮位.md"),
    ],
)
def test_ask_answers_with_a_source(run: Run, shelf: Path, question: str, answer: str, source: str) -> None:
    result = run("ask", "--index", shelf, question)
    assert result.code == 0
    sentences, _, sources = result.out.partition("\n\n")
    assert answer in sentences
    assert "[1]" in sentences
    assert source in sources.split("\n\n")[0]
    assert sources.startswith("  [1] ")


def test_ask_says_when_it_is_not_there(run: Run, shelf: Path) -> None:
    result = run("ask", "--index", shelf, "Which chess opening did the champion of Uruguay prefer in 1934?")
    assert result.code == 3
    assert result.out.startswith("Not found in these documents")


def test_a_query_from_stdin(run: Run, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    for data, code in [(b"lease of the boat house\n", 0), (b"caf\xe9", 2), (b"", 2), (b"x" * 5_000_000, 2)]:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
        result = run("search", "--index", shelf, "-")
        assert result.code == code, result.err


# --- JSON


@pytest.mark.parametrize(
    ("args", "field"),
    [
        (["search", "tide"], "hits"),
        (["ask", "When was the gauge calibrated?"], "citations"),
        (["status"], "folders"),
        (["status", "--files"], "files"),
        (["status", "--skipped"], "skipped"),
    ],
)
def test_json_is_one_object_on_one_line(run: Run, shelf: Path, args: list[str], field: str) -> None:
    result = run(*args, "--index", shelf, "--json")
    assert result.out.count("\n") == 1
    assert json.loads(result.out)[field]
    assert result.err == ""


# --- status


def test_status_says_what_is_there_and_what_is_not(run: Run, shelf: Path, library: Path) -> None:
    result = run("status", "--index", shelf)
    assert result.code == 0
    assert "multilingual-e5-small" in result.out
    assert str(library) in result.out
    assert "Not indexed: 1 file" in result.out
    skipped = run("status", "--index", shelf, "--skipped").out
    assert "broken.pdf" in skipped
    files = run("status", "--index", shelf, "--files").out.splitlines()
    assert sum("words and meaning" in line for line in files) == 4
    assert sum("not indexed" in line for line in files) == 1


def test_verify(run: Run, tiny: Path) -> None:
    assert run("status", "--verify").out == "The index is sound.\n"
    assert json.loads(run("status", "--verify", "--json").out) == {"index": [], "mended": []}
    segment = next(tiny.with_name(tiny.name + ".segments").glob("*.seg"))
    data = bytearray(segment.read_bytes())
    data[4200] ^= 1
    segment.write_bytes(data)
    result = run("status", "--verify")
    assert result.code == 1
    assert segment.name in result.out
    assert run("index").code == 0
    assert run("status", "--verify").code == 0
    with sqlite3.connect(tiny) as db:
        db.execute("UPDATE texts SET body = x'00'")
    db.close()
    result = run("status", "--verify")
    assert result.code == 1
    assert "The index is damaged" in result.out


# --- writing


def test_indexing_reports_and_is_incremental(run: Run, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "docs")
    first = run("index", folder)
    assert first.code == 0
    assert "4 documents indexed" in first.out
    assert "Not indexed: 1 file" in first.out
    assert "words:" in first.err
    again = run("index")
    assert "Nothing has changed" in again.out
    (folder / "new.md").write_text("# New\n\nThe ferry leaves at noon.\n")
    (folder / "bread.md").unlink()
    report = json.loads(run("index", "--json").out)
    assert (report["added"], report["removed"], report["unchanged"]) == (1, 1, 3)


def test_an_empty_folder_is_said_to_be_empty(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = run("index", tmp_path / "empty")
    assert result.code == 0
    assert "nothing in it to index" in result.out


def test_exclude(run: Run, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "docs")
    run("index", folder, "--exclude", "*.pdf", "--exclude", "bread.*")
    assert json.loads(run("status", "--json").out)["documents"] == 3


def test_odd_names_are_shown_safely(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    for name in (b"line\nbreak.md", b"not utf-8 \xff.md", b"esc\x1b[2J.md"):
        with open(os.fsencode(folder) + b"/" + name, "w") as file:
            file.write("# Odd\n\nThe heron stands in the shallow water.\n")
    assert run("index", folder).code == 0
    found = run("search", "heron").out
    assert "line␊break.md" in found
    assert "not utf-8 \ufffd.md" in found
    assert "esc␛[2J.md" in found
    assert "\x1b" not in found
    assert len(json.loads(run("search", "heron", "--json").out)["hits"]) == 3


def test_forget(run: Run, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "docs")
    run("index", folder)
    assert run("forget", folder / "bread.md").out.startswith("1 document removed")
    assert run("search", "--words", "dough").code == 3
    assert (folder / "bread.md").exists()
    unknown = run("forget", tmp_path / "elsewhere")
    assert unknown.code == 2
    assert "knows nothing of" in unknown.err
    assert json.loads(run("forget", folder, "--json", "--yes").out)["forgotten"] == 3


def test_forget_asks_before_many_go(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "_MANY", 2)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    folder = write_folder(tmp_path / "docs")
    run("index", folder)
    monkeypatch.setattr(commands.click, "confirm", lambda *args, **options: False)
    kept = run("forget", folder)
    assert "Nothing was removed" in kept.err
    assert json.loads(run("status", "--json").out)["documents"] == 4
    assert run("forget", folder, "--yes").code == 0


def test_a_second_indexer_hears_who_is_at_it(run: Run, tiny: Path) -> None:
    with WriterLock(tiny):
        result = run("index")
        assert run("search", "--words", "tides").code == 0
    assert result.code == 1
    assert "Another process is writing to this index" in result.err
    assert run("index").code == 0


def test_a_damaged_index_is_named(run: Run, tiny: Path, tmp_path: Path) -> None:
    data = tiny.read_bytes()
    for name, content in [
        ("short", data[: len(data) // 2]),
        ("other", b"not a database at all" * 99),
        ("nothing", b"x"),
    ]:
        place = tmp_path / f"{name}.sqlite"
        place.write_bytes(content)
        for command in (["status"], ["search", "--words", "tides"], ["index"]):
            result = run(*command, "--index", place)
            assert result.code == 1, (name, command, result.out)
            assert str(place) in result.err
            assert "Traceback" not in result.err


def test_an_index_of_a_later_version_is_refused(run: Run, tiny: Path, tmp_path: Path) -> None:
    place = tmp_path / "later.sqlite"
    shutil.copy(tiny, place)
    with sqlite3.connect(place) as db:
        db.execute("PRAGMA user_version = 9999")
    db.close()
    for command in (["status"], ["search", "x"], ["index"]):
        result = run(*command, "--index", place)
        assert result.code == 1
        assert "later Kogata" in result.err


# --- faults of our own


def test_the_unexpected_is_one_line(run: Run, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> int:
        raise ZeroDivisionError("division\nby zero\x1b[2J")

    monkeypatch.setattr(commands, "status", fail)
    result = run("status")
    assert result.code == 1
    assert result.err.splitlines()[0] == "error: something unexpected happened: ZeroDivisionError: division␊by zero␛[2J"
    assert "report" in result.err
    assert "Traceback" not in result.err
    monkeypatch.setenv("KOGATA_DEBUG", "1")
    assert "Traceback" in run("status").err


def test_the_fallback_is_said_once(run: Run, shelf: Path) -> None:
    from kogata.ops import dispatch

    with dispatch.use("fallback"):
        for command in (["search", "--index", shelf, "tide"], ["ask", "--index", shelf, "What is a tide gauge?"]):
            assert run(*command).err.count("slow fallback") == 1
        assert run("search", "--index", shelf, "--words", "tide").err == ""


def test_a_vanished_working_folder(run: Run, shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert run("search", "--index", shelf, "--words", "tide").code == 0


def test_main_takes_the_process_arguments(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["kogata", "--version"])
    assert cli.main() == 0
    assert capsys.readouterr().out.startswith("kogata ")
