"""The documentation says what is so: its examples run, its links lead somewhere, its tables match the code."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from kogata import errors
from kogata.app.cli import cli, main
from kogata.ask import documents
from kogata.ask.answers.answer import Answer, Citation
from kogata.ask.indexing.report import Report
from kogata.ask.search.retrieve import Hit, SearchResult
from kogata.ask.store.status import Status
from kogata.weights.recommended import RECOMMENDED
from local_hub import Hub

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "README.ja.md", ROOT / "CONTRIBUTING.md"]
REFERENCE = ROOT / "docs" / "reference"

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in a language ("" for none)."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def documented(page: str, section: str | None = None) -> set[str]:
    """Everything set as code on a page of the reference, or in one section of it."""
    text = (REFERENCE / page).read_text(encoding="utf-8")
    if section is not None:
        text = text.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return {word for code in re.findall(r"`([^`\n]+)`", text) for word in re.split(r"[^\w-]+", code)}


def test_python_guide_runs(tmp_path: Path) -> None:
    program = "\n".join(blocks(ROOT / "docs" / "guides" / "python.md", "python"))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=tmp_path, capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    assert "2 documents" in done.stdout
    assert "calibrated in May 2021 by the harbour office" in done.stdout
    assert "There is no index at" in done.stdout


@pages
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.is_file(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}, target


def kogata_commands(text: str) -> list[list[str]]:
    """The words of every kogata command in a line of shell, without variables before it."""
    found = []
    for piece in re.split(r"&&|\|", text):
        if "kogata " not in piece or piece.count("'") % 2 or piece.count('"') % 2:
            continue
        words = [word for word in shlex.split(piece, comments=True) if not re.match(r"\w+=", word)]
        if words[:1] == ["kogata"] and len(words) > 1 and words[1].isascii() and not words[1].startswith("-"):
            found.append(words[1:])
    return found


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that words name, of a group perhaps, and what it is given."""
    command: click.Command = cli
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        command, words = command.commands[words[0]], words[1:]
    return command, words


@pages
def test_commands_on_the_page_are_accepted(page: Path) -> None:
    for line in (line for block in blocks(page, "") for line in block.splitlines()):
        for words in kogata_commands(line):
            command, arguments = command_of(words)
            command.make_context(words[0], arguments)  # parses; raises click.UsageError for what is not accepted
    for mention in re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8")):
        for words in kogata_commands(mention):
            command, arguments = command_of(words)
            options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
            assert {word for word in arguments if word.startswith("-") and word != "-"} <= options, mention


def test_every_option_is_in_the_reference() -> None:
    text = (REFERENCE / "cli.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## kogata (\w+).*?\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert set(sections) == set(cli.commands)
    common = {"--index", "--json", "--help"}
    for name, command in cli.commands.items():
        known = sections[name] + (sections["index"] if "as for `index`" in sections[name] else "")
        known += sections["search"] + sections["index"] if name == "ask" else ""
        several = [command, *(command.commands.values() if isinstance(command, click.Group) else ())]
        for parameter in (parameter for one in several for parameter in one.params):
            if isinstance(parameter, click.Option) and not set(parameter.opts) & common:
                assert any(f"`{option}" in known for option in parameter.opts), f"{name} {parameter.opts}"


def test_every_variable_is_in_the_reference() -> None:
    used = set()
    for path in (ROOT / "src").rglob("*.py"):
        used |= set(re.findall(r"""environ(?:\.get\(|\[)"(KOGATA_[A-Z_]+)""", path.read_text(encoding="utf-8")))
    assert {"KOGATA_INDEX", "KOGATA_ISA"} <= used
    assert used <= documented("environment.md")


@pytest.mark.parametrize("kind", [Report, SearchResult, Hit, Answer, Citation, Status])
def test_every_field_of_the_json_is_in_the_reference(kind: type) -> None:
    names = {field.name for field in dataclasses.fields(kind)} | ({"skipped_by_code"} if kind is Report else set())
    assert names <= documented("json.md")


def test_doctors_json_is_in_the_reference(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    words = documented("json.md")
    for section, names in found.items():
        assert section in words
        if section not in ("kogata", "python"):
            assert set(names) <= words


def test_benchs_json_is_in_the_reference(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--threads", "1", "--depths", "0", "--prompt", "2", "--tokens", "1", "--repeat", "1"]
    assert main(["bench", *small, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    token, speed = found["token"][0], found["speed"][0]
    names = {*found, *found["model"], *token, *token["this_model"], *token["this_model"]["modelled_joules"]}
    names |= {*speed, *speed["prefill"], *speed["decode"]}
    words = documented("json.md", "bench")
    print("fields", sorted(names), "of which not in the reference", sorted(names - words))
    assert names <= words


def test_the_json_of_models_is_in_the_reference(local_hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    local_hub.models["a/b"] = {"model-Q8_0.gguf": bytes(20_000)}
    names = set()
    for arguments in (["fetch", "a/b:Q8_0"], ["list"], ["remove", "a/b:Q8_0"]):
        assert main(["models", *arguments, "--json"]) == 0
        for section, several in json.loads(capsys.readouterr().out).items():
            assert several, section
            names |= {section, *(name for one in several for name in one)}
    words = documented("json.md", "models")
    print("fields", sorted(names), "of which not in the reference", sorted(names - words))
    assert {"fetched", "recommended", "removed"} <= names <= words


def test_every_short_name_is_in_the_guide() -> None:
    text = (ROOT / "docs" / "guides" / "run.md").read_text(encoding="utf-8")
    section = text.split("\n## Models\n")[1].split("\n## ")[0]
    absent = [model.name for model in RECOMMENDED if f"`{model.name}`" not in section]
    assert absent == []


def test_every_error_is_in_the_reference() -> None:
    raised = {
        name for name, value in vars(errors).items() if isinstance(value, type) and value.__module__ == errors.__name__
    }
    assert raised <= documented("python-api.md")


def test_every_format_is_in_the_guide() -> None:
    text = (ROOT / "docs" / "guides" / "formats-and-troubles.md").read_text(encoding="utf-8")
    table = text.split("## What is read")[1].split("\n\nOther files")[0]
    named = {
        word
        for row in table.splitlines()
        if row.startswith("|")
        for word in row.split("|")[1].replace(",", " ").split()
    }
    assert set(documents.kinds()) == named - {"type", "(`--type`)", "---"}
    suffixes = {suffix for known in documents.kinds().values() for suffix in known}
    for suffix in re.findall(r" (\.\w+)", table):
        assert suffix in suffixes


def readme_command(page: str) -> tuple[str, str]:
    """(folder, question) of the README's command that indexes and asks."""
    text = (ROOT / page).read_text(encoding="utf-8")
    assert re.search(r"^pip install \. && kogata serve$", text, re.MULTILINE)
    found = re.search(r'^kogata index (\S+) && kogata ask "([^"]+)"$', text, re.MULTILINE)
    assert found
    return found[1], found[2]


@pytest.mark.parametrize(
    ("page", "answer", "source"),
    [
        ("README.md", "one SQLite file in your data folder", "docs/index.md"),
        ("README.ja.md", "SQLite", "docs/ja/guide.md"),
    ],
)
def test_the_readmes_question_ends_in_the_right_answer(
    page: str,
    answer: str,
    source: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("KOGATA_INDEX", str(tmp_path / "docs.sqlite"))
    folder, question = readme_command(page)
    assert main(["index", folder]) == 0
    capsys.readouterr()
    assert main(["ask", question]) == 0
    shown = capsys.readouterr().out
    first = shown.split("[1]")[0]
    assert answer in first
    assert source in shown.split("  [1] ")[1].splitlines()[0]
