"""The remembered digests: right after every change of a file, and harmless whatever happens to the cache."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from kogata.errors import ModelError
from kogata.weights.files import map_file
from kogata.weights.identity import digest_of, identity_of


class Inspector:
    """Counts how often a file was looked over."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


def digest(path: Path, inspect: Inspector) -> str:
    return digest_of(path, map_file(path), inspect)


def expected(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_is_hashed_and_inspected_once(tmp_path: Path) -> None:
    path, inspect = tmp_path / "a", Inspector()
    path.write_bytes(b"weights")
    assert digest(path, inspect) == digest(path, inspect) == expected(path)
    assert inspect.times == 1


def test_any_change_is_noticed(tmp_path: Path) -> None:
    path, inspect = tmp_path / "a", Inspector()
    path.write_bytes(b"weights")
    digest(path, inspect)
    times = path.stat()
    # Other bytes of the same size, later.
    path.write_bytes(b"WEIGHTS")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    assert digest(path, inspect) == expected(path)
    # Replaced by rename with the same time and size: another inode.
    other = tmp_path / "b"
    other.write_bytes(b"w3ights")
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    other.rename(path)
    assert digest(path, inspect) == expected(path)
    assert inspect.times == 3


def test_links_share_what_is_remembered(tmp_path: Path) -> None:
    path, inspect = tmp_path / "a", Inspector()
    path.write_bytes(b"weights")
    (tmp_path / "link").symlink_to(path)
    assert digest(path, inspect) == digest(tmp_path / "link", inspect)
    assert inspect.times == 1


def test_a_file_that_is_refused_is_not_remembered(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"nan")

    def refuse() -> None:
        raise ModelError("not finite")

    for _ in range(2):
        with pytest.raises(ModelError, match="not finite"):
            digest_of(path, map_file(path), refuse)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"format": 1, "files": 3}',
        b'{"format": 9, "files": {}}',
        b'{"a":' * 100_000,
    ],
)
def test_a_broken_cache_is_replaced(tmp_path: Path, cache_folder: Path, content: bytes) -> None:
    path, inspect = tmp_path / "a", Inspector()
    path.write_bytes(b"weights")
    digest(path, inspect)
    (cache,) = (file for file in cache_folder.rglob("*") if file.is_file())
    cache.write_bytes(content)
    assert digest(path, inspect) == digest(path, inspect) == expected(path)
    assert inspect.times == 2
    assert set(json.loads(cache.read_text())) == {"format", "files"}


@pytest.mark.parametrize("entry", [None, 3, [], [7], [7, 7, 7, 7, "x"], ["a"] * 5, {"digest": "x"}])
def test_a_lying_entry_is_ignored(tmp_path: Path, cache_folder: Path, entry: object) -> None:
    path, inspect = tmp_path / "a", Inspector()
    path.write_bytes(b"weights")
    digest(path, inspect)
    (cache,) = (file for file in cache_folder.rglob("*") if file.is_file())
    content = json.loads(cache.read_text())
    if isinstance(entry, list) and len(entry) == 5:
        entry = [*content["files"][str(path)][:4], entry[4]]
    content["files"][str(path)] = entry
    cache.write_text(json.dumps(content))
    assert digest(path, inspect) == expected(path)
    assert inspect.times == 2


def test_without_a_place_for_the_cache_it_still_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    path, inspect = tmp_path / "a", Inspector()
    path.write_bytes(b"weights")
    assert digest(path, inspect) == digest(path, inspect) == expected(path)
    assert inspect.times == 2


def test_many_at_once_leave_a_whole_cache(tmp_path: Path, cache_folder: Path) -> None:
    paths = [tmp_path / str(i) for i in range(300)]
    for path in paths:
        path.write_bytes(path.name.encode())
    wrong: list[Path] = []

    def work(some: list[Path]) -> None:
        wrong.extend(path for path in some if digest(path, Inspector()) != expected(path))

    threads = [threading.Thread(target=work, args=(paths[i::4],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    files = [file for file in cache_folder.rglob("*") if file.is_file()]
    assert len(files) == 1
    assert 0 < len(json.loads(files[0].read_text())["files"]) <= 200


def test_identity_is_a_function_of_the_facts() -> None:
    facts = {"weights": ["a"], "prompts": {"query": "質問: ", "document": ""}, "max_length": 512}
    assert identity_of(facts) == identity_of(dict(reversed(facts.items())))
    assert len(identity_of(facts)) == 32
    for key, value in (("weights", ["b"]), ("prompts", {"query": "", "document": ""}), ("max_length", 511)):
        assert identity_of(facts | {key: value}) != identity_of(facts)


def test_mapped_files_are_read_only(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    mapped = map_file(tmp_path / "a")
    assert mapped.dtype == np.uint8
    assert mapped.tobytes() == b"abc"
    assert not mapped.flags.writeable
