# ruff: noqa: E501  (sample documents read best unbroken)
"""Worker processes: hostile files cost themselves and nobody else; nothing outlives the pool."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kogata.ask.documents import Document, Limits, ParserPool, Refusal
from kogata.errors import DocumentError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="processes are looked at through /proc")


def children() -> set[int]:
    """Worker processes of this process, from /proc."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "stat").read_text().rpartition(")")[2].split()
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if int(words[1]) == os.getpid() and words[0] != "Z" and b"documents.worker" in command:
                found.add(int(entry.name))
    return found


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return condition()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = []
    for number in range(12):
        path = tmp_path / f"file{number}.txt"
        path.write_text(f"This is file number {number}.\n", encoding="utf-8")
        paths.append(path)
    return paths


def form_bomb(path: Path) -> Path:
    """A PDF of 1 kB that draws ten forms that draw ten forms …: 10^9 words on its only page."""
    levels = 9
    content = b"/X%d Do" % levels
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Count 1 /Kids [3 0 R] >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R /Resources << /XObject << /X%d %d 0 R >> >> >>"
        % (levels, 6 + levels),
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]  # fmt: skip
    for level in range(levels + 1):
        body = b"BT /F1 12 Tf 60 700 Td (word) Tj ET" if level == 0 else b"/X%d Do " % (level - 1) * 10
        resources = b"/Font << /F1 5 0 R >>" if level == 0 else b"/XObject << /X%d %d 0 R >>" % (level - 1, 5 + level)
        objects.append(
            b"<< /Type /XObject /Subtype /Form /BBox [0 0 595 842] /Resources << %s >> /Length %d >>\nstream\n%s\nendstream"
            % (resources, len(body), body)
        )
    out, offsets = b"%PDF-1.4\n", []
    for number, thing in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, thing)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"xref\n0 %d\n0000000000 65535 f \n%strailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (
        len(objects) + 1, table, len(objects) + 1, len(out)
    )  # fmt: skip
    path.write_bytes(out)
    return path


def test_every_file_comes_back_once_with_its_key(files: list[Path]) -> None:
    with ParserPool(2) as pool:
        outcomes = dict(pool.parse_many((index, path) for index, path in enumerate(files)))
        again = dict(pool.parse_many([("a", files[0])]))  # workers are kept
        assert len(children()) == 2
    assert set(outcomes) == set(range(12))
    for index, outcome in outcomes.items():
        assert isinstance(outcome, Document)
        assert outcome.text == f"This is file number {index}."
    assert isinstance(again["a"], Document)
    assert not children()


def test_what_comes_through_the_pipe_is_what_parse_gives(tmp_path: Path) -> None:
    from kogata.ask.documents import parse

    fixtures = Path(__file__).parents[2] / "fixtures" / "documents"
    paths = sorted(fixtures.glob("*.*"))
    with ParserPool(2) as pool:
        for path, outcome in pool.parse_many((p, p) for p in paths):
            assert outcome == parse(path), path.name


def test_a_killed_worker_is_a_refusal_and_the_rest_goes_on(files: list[Path]) -> None:
    with ParserPool(1, Limits(seconds=30)) as pool:
        list(pool.parse_many([("first", files[0])]))
        worker = children().pop()
        os.kill(worker, signal.SIGSTOP)  # so that the next file is certainly in its hands
        done: dict[object, object] = {}
        thread = threading.Thread(target=lambda: done.update(pool.parse_many((p.name, p) for p in files)))
        thread.start()
        time.sleep(0.2)
        os.kill(worker, signal.SIGSEGV)
        os.kill(worker, signal.SIGCONT)
        thread.join(60)
    refused = [outcome for outcome in done.values() if isinstance(outcome, Refusal)]
    assert len(done) == 12
    assert [r.code for r in refused] == ["crashed"]
    assert "SIGSEGV" in refused[0].reason


def test_a_stopped_worker_is_ended_by_the_clock(files: list[Path]) -> None:
    with ParserPool(1, Limits(seconds=0.5)) as pool:
        list(pool.parse_many([("first", files[0])]))
        os.kill(children().pop(), signal.SIGSTOP)
        done = dict(pool.parse_many([(1, files[1]), (2, files[2])]))
    refused = done[1]
    assert isinstance(refused, Refusal)
    assert refused.code == "timeout"
    assert isinstance(done[2], Document)


def test_a_file_of_endless_work_is_ended(files: list[Path], tmp_path: Path) -> None:
    slow = form_bomb(tmp_path / "slow.pdf")
    begin = time.monotonic()
    with ParserPool(1, Limits(seconds=1)) as pool:
        done = dict(pool.parse_many([("slow", slow), ("good", files[0])]))
    assert time.monotonic() - begin < 20
    refused = done["slow"]
    assert isinstance(refused, Refusal)
    assert refused.code in ("timeout", "memory", "crashed")
    assert isinstance(done["good"], Document)


def test_memory_is_limited(files: list[Path], tmp_path: Path) -> None:
    bomb = tmp_path / "wide.json"
    bomb.write_text("[" + "[]," * 12_000_000 + "[]]", encoding="ascii")  # 36 MB that become gigabytes of lists
    with ParserPool(1, Limits(memory_mb=400)) as pool:
        done = dict(pool.parse_many([("bomb", bomb), ("good", files[0])]))
    refused = done["bomb"]
    assert isinstance(refused, Refusal)
    assert refused.code in ("memory", "crashed")
    assert isinstance(done["good"], Document)


def test_a_big_parent_does_not_tire_its_workers(files: list[Path]) -> None:
    ballast = bytearray(300 << 20)  # a child's ru_maxrss begins with its parent's
    with ParserPool(1, Limits(memory_mb=400)) as pool:
        list(pool.parse_many([(1, files[0])]))
        first = children()
        list(pool.parse_many([(2, files[1])]))
        assert children() == first
    del ballast


def test_results_may_be_left_untaken(files: list[Path]) -> None:
    with ParserPool(2) as pool:
        first = next(iter(pool.parse_many((p, p) for p in files)))
        assert isinstance(first[1], Document)
        assert len(dict(pool.parse_many((p, p) for p in files))) == 12
    assert not children()


def test_the_input_is_read_only_a_little_ahead(files: list[Path]) -> None:
    taken = 0

    def endless() -> Iterator[tuple[int, Path]]:
        nonlocal taken
        while True:
            taken += 1
            yield taken, files[0]

    with ParserPool(2) as pool:
        results = pool.parse_many(endless())
        for _ in range(5):
            next(results)
        assert taken <= 5 + 4


def test_an_error_of_the_input_comes_out(files: list[Path]) -> None:
    def broken() -> Iterator[tuple[int, Path]]:
        yield 1, files[0]
        raise RuntimeError("the caller's own")

    with ParserPool(2) as pool, pytest.raises(RuntimeError, match="own"):
        list(pool.parse_many(broken()))


def test_a_worker_that_cannot_start_is_an_error_not_a_refusal(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with ParserPool(1) as pool, pytest.raises(DocumentError, match="cannot start"):
        list(pool.parse_many([(1, files[0])]))


def test_a_module_in_the_folder_is_not_imported(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(3)\n")
    monkeypatch.chdir(tmp_path)
    with ParserPool(1) as pool:
        assert isinstance(dict(pool.parse_many([(1, files[0])]))[1], Document)


SCRIPT = """
import sys, time
from kogata.ask.documents import ParserPool
def endless():
    while True:
        yield 1, sys.argv[1]
with ParserPool(2) as pool:
    for n, _ in enumerate(pool.parse_many(endless())):
        if n == 3:
            print("running", flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_die_with_their_parent(how: signal.Signals, files: list[Path]) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(files[0])],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert parent.stdout is not None
    assert parent.stdout.readline() == "running\n"
    workers = _workers_of(parent.pid)
    assert len(workers) == 2
    parent.send_signal(how)
    parent.wait(60)
    parent.stdout.close()
    assert wait_until(lambda: not any(_is_alive(pid) for pid in workers))


def _workers_of(parent: int) -> list[int]:
    return [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and _parent(entry) == parent
    ]  # fmt: skip


def _parent(entry: Path) -> int:
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return -1


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_limits_of_the_worker(files: list[Path]) -> None:
    with ParserPool(1, Limits(memory_mb=700)) as pool:
        list(pool.parse_many([(1, files[0])]))
        limits = Path(f"/proc/{children().pop()}/limits").read_text()
    rows = {line[:26].strip(): line[26:].split()[0] for line in limits.splitlines()[1:]}
    assert rows["Max address space"] == str(700 << 20)
    assert rows["Max core file size"] == "0"
    assert rows["Max open files"] == "64"
    assert rows["Max cpu time"] != "unlimited"


def test_a_zip_bomb_in_a_worker(tmp_path: Path, files: list[Path]) -> None:
    bomb = tmp_path / "bomb.docx"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("word/document.xml", "w") as part:
        for _ in range(600):
            part.write(b" " * 1_000_000)
    with ParserPool(1) as pool:
        done = dict(pool.parse_many([("bomb", bomb), ("good", files[0])]))
    refused = done["bomb"]
    assert isinstance(refused, Refusal)
    assert refused.code == "too_large"
    assert isinstance(done["good"], Document)
