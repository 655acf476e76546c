"""`kogata bench`: its table, its JSON, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Run

from kogata.plan.energy import SOURCE

Tiny = Callable[..., tuple[Path, Any]]
QUICK = ("--prompt", 8, "--tokens", 2, "--repeat", 1)


def test_the_table_for_people(run: Run) -> None:
    found = run("bench", "--depths", "0,100", "--threads", "1,2", *QUICK)
    assert found.code == 0, found.err
    assert found.out.startswith("tiny: ")
    rows = [line.split() for line in found.out.splitlines() if line.startswith("  ") and "%" in line]
    assert [row[:2] for row in rows] == [["1", "0"], ["1", "100"], ["2", "0"], ["2", "100"]]
    assert all(len(row) == 9 for row in rows), rows
    assert "To write a token at depth 100" in found.out
    said = " ".join(found.out.split())
    assert "The energy is modelled" in said
    assert SOURCE in said


def test_the_document_for_scripts(run: Run, tiny_decoder: Tiny) -> None:
    directory, _ = tiny_decoder("llama", head_dim=16, max_position_embeddings=256)
    args = ("--quantize", "int8", "--kv", "int8", "--threads", "1", "--depths", "64,0", "--json")
    found = json.loads(run("bench", directory, *args, *QUICK).out)
    assert (found["prompt"], found["tokens"], found["repeat"]) == (8, 2, 1)
    assert found["model"]["kv"] == "int8"
    assert list(found["model"]["bytes_by_storage"]) == ["int8"]
    assert [(one["threads"], one["depth"]) for one in found["speed"]] == [(1, 64), (1, 0)]
    for one in found["speed"]:
        assert one["decode"]["share"] == pytest.approx(one["decode"]["median"] / one["decode"]["floor"])
    deep, first = found["token"]
    assert (deep["depth"], first["depth"]) == (64, 0)
    assert deep["this_model"]["weight_bytes"] == first["this_model"]["weight_bytes"]
    assert deep["this_model"]["kv_bytes"] == 65 * first["this_model"]["kv_bytes"]
    assert deep["sixteen_bits"]["multiplications"]["int8"] == 0 < deep["this_model"]["multiplications"]["int8"]
    assert set(deep["this_model"]["modelled_joules"]) == {"multiplications", "additions", "memory"}
    assert found["hardware"]["cpu"]


def test_by_default_as_much_as_the_model_takes(run: Run, tiny_decoder: Tiny) -> None:
    directory, _ = tiny_decoder("llama", head_dim=16, max_position_embeddings=256)
    found = json.loads(run("bench", directory, "--threads", "1", "--repeat", 1, "--json").out)
    assert found["prompt"] == 128
    assert [one["depth"] for one in found["speed"]] == [0, 128]


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["--depths", "many"], 2, "'many' is no list of whole numbers; 0,4096 is."),
        (["--depths", "0,,1"], 2, "'0,,1' is no list"),
        (["--threads", "-1"], 2, "'-1' is no list"),
        (["--threads", "0"], 2, "threads is 0; 1 to 256 is accepted"),
        (["--depths", "999999"], 2, "depths is 999,999; 0 to 2,048 is accepted"),
        (["--depths", "2048"], 2, "context and memory of tiny hold 2,048"),
        (["--tokens", "0"], 2, "tokens is 0"),
        (["--kv", "int3"], 2, "int3"),
        (["no/such/model/here"], 1, "There is no model"),
    ],
)
def test_bad_input_is_named(run: Run, args: list[str], code: int, said: str) -> None:
    found = run("bench", *args)
    assert found.code == code
    assert said in " ".join(found.err.split())
    assert "Traceback" not in found.err
