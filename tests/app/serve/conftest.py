"""One server for the tests of a module."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from serve_process import Server

sys.path.insert(0, str(Path(__file__).parents[1]))
from command_line import write_folder

DOCUMENTS = 4
"""That write_folder makes, beside one that cannot be read."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serves a folder of a few documents, all of them indexed, and a model that writes."""
    place = tmp_path_factory.mktemp("served")
    server = Server(place, write_folder(place / "docs"), "--writer", "tiny")
    try:
        server.indexed(DOCUMENTS)
        yield server
    finally:
        code = server.stop()
    assert code == 0, server.errors.read_text()


@pytest.fixture
def server(served: Server) -> Iterator[Server]:
    """The same server; after the test it must still answer, and have met no defect of its own."""
    before = served.errors.stat().st_size
    yield served
    served.fine()
    said = served.errors.read_bytes()[before:]
    assert b"Traceback" not in said, said.decode()
