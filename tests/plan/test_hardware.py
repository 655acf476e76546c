"""What the machine is, against what other programs and the kernel say about it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kogata.plan import Hardware, cgroup, hardware, this_machine


def test_plain_values_and_sane_figures() -> None:
    machine = this_machine()
    data = json.loads(json.dumps(machine.to_dict()))
    assert data["cpu"] == machine.cpu != ""
    assert 1 <= machine.usable_cores <= machine.allowed_cores <= machine.logical_cores
    if machine.memory_bytes and machine.available_bytes:
        assert 0 <= machine.available_bytes <= machine.memory_bytes


@pytest.mark.skipif(sys.platform != "linux", reason="lscpu is Linux's")
def test_agrees_with_lscpu() -> None:
    try:
        raw = subprocess.run(
            ["lscpu", "--json"], capture_output=True, check=True, env={**os.environ, "LC_ALL": "C"}
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no lscpu here")

    def flat(rows: list[dict]) -> dict[str, str]:  # newer versions nest
        out = {}
        for row in rows:
            out[row["field"].rstrip(":")] = row["data"]
            out.update(flat(row.get("children", [])))
        return out

    said, machine = flat(json.loads(raw)["lscpu"]), this_machine()
    assert machine.arch == said["Architecture"]
    assert machine.logical_cores == int(said["CPU(s)"])
    if machine.arch == "x86_64":
        assert machine.cpu == said["Model name"]
        flags = said["Flags"].split()
        for ours, theirs in [("avx2", "avx2"), ("avxvnni", "avx_vnni"), ("avx512bf16", "avx512_bf16"), ("fma", "fma")]:
            assert (ours in machine.isa) == (theirs in flags), ours


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity here")
def test_affinity_is_respected() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from kogata.plan import this_machine; m = this_machine(); print(m.allowed_cores, m.usable_cores)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["1", "1"]


def test_imports_no_numpy() -> None:
    code = "import sys, kogata.plan; kogata.plan.this_machine(); print('numpy' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "False"
    )


def _hierarchy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = tmp_path / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    (tmp_path / "self").write_text(lines)
    monkeypatch.setattr(cgroup, "_ROOT", tmp_path / "fs")
    monkeypatch.setattr(cgroup, "_SELF", tmp_path / "self")
    monkeypatch.setattr(cgroup.sys, "platform", "linux")


def test_version_2_takes_the_tightest_group_on_the_way_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "a/cpu.max": "150000 100000",
        "a/b/cpu.max": "max 100000",
        "a/memory.max": "max",
        "a/b/memory.max": "2147483648",
        "a/b/memory.current": "1073741824",
    }
    _hierarchy(tmp_path, monkeypatch, "0::/a/b\n", files)
    assert cgroup.cpu_quota() == 1.5
    assert cgroup.memory() == (2147483648, 1073741824)


def test_version_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "cpu,cpuacct/docker/x/cpu.cfs_quota_us": "50000",
        "cpu,cpuacct/docker/x/cpu.cfs_period_us": "100000",
        "cpu,cpuacct/cpu.cfs_quota_us": "-1",
        "cpu,cpuacct/cpu.cfs_period_us": "100000",
        "memory/docker/x/memory.limit_in_bytes": "9223372036854771712",
        "memory/memory.limit_in_bytes": "536870912",
        "memory/memory.usage_in_bytes": "1024",
    }
    _hierarchy(tmp_path, monkeypatch, "4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n0::/\n", files)
    assert cgroup.cpu_quota() == 0.5
    assert cgroup.memory() == (536870912, 1024)


def test_inside_a_container_the_root_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _hierarchy(tmp_path, monkeypatch, "0::/../../elsewhere\n", {"cpu.max": "200000 100000", "memory.max": "max"})
    assert cgroup.cpu_quota() == 2.0
    assert cgroup.memory() == (None, None)


@pytest.mark.parametrize("text", ["", "max", "junk here", "100 0", "-1 100000", "\ufffd"])
def test_odd_quota_files_mean_no_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    _hierarchy(tmp_path, monkeypatch, "0::/\n", {"cpu.max": text, "memory.max": text})
    assert cgroup.cpu_quota() is None
    assert cgroup.memory() == (None, None)


def test_limits_reach_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"cpu.max": "50000 100000", "memory.max": "67108864", "memory.current": "60000000"}
    _hierarchy(tmp_path, monkeypatch, "0::/\n", files)
    machine = this_machine()
    assert (machine.quota_cores, machine.usable_cores) == (0.5, 1)
    assert (machine.memory_bytes, machine.available_bytes) == (67108864, 7108864)


def test_arm_names(monkeypatch: pytest.MonkeyPatch) -> None:
    core = {"features": "fp asimd asimddp i8mm bf16 sve2", "processor": "0"}
    monkeypatch.setattr(hardware, "_cpuinfo", lambda: [core])
    assert this_machine().isa == ("neon", "dotprod", "i8mm", "bf16", "sve2")


@pytest.mark.parametrize(
    ("text", "cores"), [("0", 1), ("0-3", 4), ("0-1,8-9,12", 5), ("", None), ("x", None), ("1-y", None)]
)
def test_cpu_lists(text: str, cores: int | None) -> None:
    assert hardware._count(text) == cores


def test_nothing_known_is_not_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_read", lambda path: None)
    monkeypatch.setattr(hardware, "_cpuinfo", list)
    monkeypatch.setattr(cgroup, "memory", lambda: (None, None))
    machine = this_machine()
    assert isinstance(machine, Hardware)
    assert machine.caches == ()
    assert machine.isa == ()
    assert machine.memory_bytes is None
