# ruff: noqa: E501  (sample documents read best unbroken)
"""Finding files: what is left out and why; git itself is the oracle for .gitignore."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from kogata.ask.documents import Found, Skipped, discover, kinds
from kogata.errors import BadInput


def make(root: Path, *names: str, text: str = "some text\n") -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def found(root: Path, **options: object) -> list[str]:
    items = discover([root], **options)  # type: ignore[arg-type]
    return sorted(os.fsdecode(i.path)[len(str(root)) + 1 :] for i in items if isinstance(i, Found))


def skipped(root: Path, **options: object) -> dict[str, str]:
    items = discover([root], **options)  # type: ignore[arg-type]
    return {os.fsdecode(i.path)[len(str(root)) + 1 :]: i.code for i in items if isinstance(i, Skipped)}


def test_what_nobody_means_is_left_out(tmp_path: Path) -> None:
    make(
        tmp_path, "a.txt", "sub/b.md", ".hidden.txt", ".git/config", ".hg/x", "node_modules/p/index.js",
        "env/pyvenv.cfg", "env/lib/x.py", "__pycache__/x.py", ".cache/y.txt", "~$doc.docx", "old.txt~", "pic.png",
    )  # fmt: skip
    make(tmp_path, "cache/c.txt")
    (tmp_path / "cache" / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n")
    (tmp_path / "empty.txt").touch()
    assert found(tmp_path) == ["a.txt", "sub/b.md"]
    assert skipped(tmp_path) == {
        ".hidden.txt": "hidden", ".git": "left_out", ".hg": "left_out", "node_modules": "left_out", "env": "left_out",
        "__pycache__": "left_out", ".cache": "hidden", "~$doc.docx": "left_out", "old.txt~": "left_out",
        "pic.png": "binary", "cache": "left_out", "empty.txt": "empty",
    }  # fmt: skip


def test_a_named_file_is_always_taken(tmp_path: Path) -> None:
    make(tmp_path, ".hidden.txt", "ignored.log", "node_modules/x.txt")
    make(tmp_path, ".gitignore", text="*.log\n")
    items = list(discover([tmp_path / ".hidden.txt", tmp_path / "ignored.log", tmp_path / "node_modules"]))
    assert [os.path.basename(os.fsdecode(i.path)) for i in items] == [".hidden.txt", "ignored.log", "x.txt"]
    assert all(isinstance(i, Found) for i in items)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_gitignore_as_git_itself_reads_it(tmp_path: Path) -> None:
    make(
        tmp_path, "a.txt", "b.log", "keep.log", "build/x.txt", "src/build/y.txt", "src/z.tmp", "src/deep/k.tmp",
        "src/deep/keep.tmp", "docs/a.md", "docs/b.md", "docs/sub/a.md", "only/at/root.txt", "root.txt", "x/foo/bar/t.txt",
        "sp ace.txt", "#hash.txt", "日本語.txt", "除外.txt",
    )  # fmt: skip
    make(
        tmp_path,
        ".gitignore",
        text="# comment\n*.log\n!keep.log\nbuild/\n/root.txt\nx/**/t.txt\n\\#hash.txt\n除外.txt\nsp ace.txt\n",
    )
    make(tmp_path, "src/.gitignore", text="*.tmp\n!deep/keep.tmp\n")
    make(tmp_path, "docs/.gitignore", text="/a.md\n")
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(tmp_path), *words], capture_output=True, text=True, check=True, env=environment
        ).stdout

    git("init", "-q")
    (tmp_path / ".git" / "info").mkdir(exist_ok=True)
    (tmp_path / ".git" / "info" / "exclude").write_text("docs/b.md\n")
    listed = git("-c", "core.quotePath=false", "ls-files", "-o", "--exclude-standard", "-z").split("\0")
    expected = sorted(name for name in listed if name and not os.path.basename(name).startswith("."))
    assert found(tmp_path) == expected
    assert "keep.log" in expected
    assert "docs/b.md" not in expected
    # From a folder inside, the rules above it hold too.
    inside = [name[len("src/") :] for name in expected if name.startswith("src/")]
    assert found(tmp_path / "src") == inside


def test_a_repository_inside_has_its_own_rules(tmp_path: Path) -> None:
    make(tmp_path, "inner/a.log", "b.log", "inner/.git/HEAD")
    make(tmp_path, ".gitignore", text="*.log\n")
    assert found(tmp_path) == ["inner/a.log"]


def test_exclude(tmp_path: Path) -> None:
    make(tmp_path, "a.txt", "b.csv", "drafts/c.txt", "sub/drafts/d.txt", "sub/e.csv")
    assert found(tmp_path, exclude=["*.csv", "drafts/"]) == ["a.txt"]
    assert found(tmp_path, exclude=["/drafts/"]) == ["a.txt", "b.csv", "sub/drafts/d.txt", "sub/e.csv"]
    assert skipped(tmp_path, exclude=["*.csv"])["b.csv"] == "excluded"


def test_links(tmp_path: Path) -> None:
    make(tmp_path, "root/a.txt", "root/sub/b.txt", "outside/c.txt", "outside/d.txt")
    root = tmp_path / "root"
    (root / "0_same.txt").symlink_to(root / "a.txt")
    (root / "c.txt").symlink_to(tmp_path / "outside" / "c.txt")
    (root / "self").symlink_to(root / "self")
    (root / "up").symlink_to(root)
    (root / "sub" / "parent").symlink_to("..")
    (root / "folder").symlink_to(tmp_path / "outside")
    (root / "gone").symlink_to(tmp_path / "nothing")
    assert found(root) == ["a.txt", "c.txt", "sub/b.txt"]
    assert skipped(root) == {
        "0_same.txt": "link", "self": "loop", "up": "loop", "sub/parent": "loop", "folder": "link", "gone": "unreadable",
    }  # fmt: skip


def test_special_files_and_odd_names(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    with socket.socket(socket.AF_UNIX) as listening:
        folder = os.getcwd()
        os.chdir(tmp_path)  # the path of a socket may not be long
        try:
            listening.bind("socket.txt")
        finally:
            os.chdir(folder)
        names = [b"new\nline.txt", b"latin-\xe9.txt", b"\xff\xfe.md", "日本.txt".encode(), b"-dash.txt"]
        for name in names:
            with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
                file.write(b"text")
        items = list(discover([tmp_path]))
    assert {os.path.basename(i.path) for i in items if isinstance(i, Found)} == set(names)
    assert {os.path.basename(i.path): i.code for i in items if isinstance(i, Skipped)} == {
        b"pipe.txt": "special", b"socket.txt": "special",
    }  # fmt: skip


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not stop root")
def test_no_permission(tmp_path: Path) -> None:
    make(tmp_path, "locked/a.txt", "b.txt")
    (tmp_path / "locked").chmod(0)
    try:
        assert found(tmp_path) == ["b.txt"]
        assert skipped(tmp_path) == {"locked": "unreadable"}
    finally:
        (tmp_path / "locked").chmod(0o700)


def test_unreadable_folders_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "locked/a.txt", "b.txt")
    real = os.scandir

    def scandir(path: bytes) -> object:
        if path.endswith(b"locked"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert found(tmp_path) == ["b.txt"]
    assert skipped(tmp_path) == {"locked": "unreadable"}


def test_counting_and_overlapping_roots(tmp_path: Path) -> None:
    make(tmp_path, "a.txt", "sub/b.txt", "sub/c.txt")
    assert discover([tmp_path]).count() == (3, 30)
    assert discover([tmp_path, tmp_path / "sub", tmp_path]).count() == (3, 30)
    assert discover([tmp_path / "sub", tmp_path]).count() == (3, 30)
    (tmp_path / "nothing").mkdir()
    assert discover([tmp_path / "nothing"]).count() == (0, 0)
    assert discover([]).count() == (0, 0)


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file"):
        discover([tmp_path / "missing"])
    with pytest.raises(BadInput):
        discover([b"nul\0name"])


def test_guesses_of_kinds(tmp_path: Path) -> None:
    make(tmp_path, "README", "a.PDF", "b.Tar.gz", "c.py", "d", "e.html", "f.tsv")
    guesses = {os.path.basename(i.path): i.kind_guess for i in discover([tmp_path]) if isinstance(i, Found)}
    assert guesses == {
        b"README": "txt",
        b"a.PDF": "pdf",
        b"c.py": "code",
        b"d": None,
        b"e.html": "html",
        b"f.tsv": "csv",
    }
    every = [suffix for suffixes in kinds().values() for suffix in suffixes]
    assert len(every) == len(set(every))
