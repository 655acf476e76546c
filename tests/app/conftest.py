"""Fixtures of the command line's tests."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Result, Run, write_folder

from kogata.app.cli import main


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees or touches the index of whoever runs it."""
    monkeypatch.setenv("KOGATA_INDEX", str(tmp_path / "own.sqlite"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("KOGATA_DEBUG", raising=False)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Run a command line in this process."""
    before = signal.getsignal(signal.SIGINT)  # a command that was stopped lets the next Ctrl-C end the process

    def run(*args: str | Path) -> Result:
        capsys.readouterr()
        code = main([str(arg) for arg in args])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    yield run
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that :func:`shelf` has indexed."""
    return write_folder(tmp_path_factory.mktemp("library") / "docs")


@pytest.fixture(scope="session")
def shelf(library: Path) -> Path:
    """An index of :func:`library`, with meaning; tests only read it."""
    place = library.parent / "shelf.sqlite"
    assert main(["index", "--index", str(place), str(library)]) == 0
    return place
