"""Pages on disk: what is there after a restart is what was computed, and nothing else is ever served."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cached_texts import assert_no_page_is_lost, every_model, greedy, prompt, said
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kogata.errors import BadInput
from kogata.run.cache import PageStore, disk
from kogata.run.engine import Engine

Made = Callable[..., Engine]
only_bitnet = pytest.mark.parametrize("model", ["bitnet"], indirect=True)
only_windows = pytest.mark.parametrize("model", ["gemma3", "all windows"], indirect=True)


def pages(folder: Path) -> list[Path]:
    """From the least recently used to the last one."""
    return sorted(folder.glob("*.page"), key=lambda path: path.stat().st_mtime_ns)


def lived(model: Made, folder: Path, ids: np.ndarray, n: int = 5, **given: Any) -> tuple[int, list[Any]]:
    """What an engine of its own says with what the folder has, and how much it did not compute; it is closed then."""
    store = PageStore(folder)
    one = model(store=store, **{key: given.pop(key) for key in list(given) if key in ("kv", "n_tokens")})
    answer, pieces = said(one, ids, greedy(n), **given)
    store.close()
    assert_no_page_is_lost(one)
    return answer.reused, pieces


@every_model
@pytest.mark.parametrize("kv", ["f32", "bf16", "int8"])
@pytest.mark.parametrize("n", [1, 63, 64, 65, 128, 129, 300, 700])
def test_a_prompt_after_a_restart_computes_its_last_page(model: Made, tmp_path: Path, kv: str, n: int) -> None:
    ids = prompt(n, n)
    _, alone = said(model(kv=kv), ids, greedy(80))
    assert lived(model, tmp_path, ids, 80, kv=kv) == (0, alone)
    assert len(pages(tmp_path)) == (n + 79) // 64  # the last token was chosen, not read
    assert lived(model, tmp_path, ids, 80, kv=kv) == ((n - 1) // 64 * 64, alone)


@every_model
@pytest.mark.parametrize("turns", [[100, 40, 300], [600, 1, 64], [64, 64, 64]])
def test_a_conversation_after_restarts(model: Made, tmp_path: Path, turns: list[int]) -> None:
    ids = prompt(0, 0)
    for turn, n in enumerate(turns):
        before = len(ids)
        ids = np.concatenate([ids, prompt(turn, n)])
        _, alone = said(model(), ids, greedy(33))
        reused, pieces = lived(model, tmp_path, ids, 33)
        assert pieces == alone, f"turn {turn}"
        assert reused == max(before - 1, 0) // 64 * 64
        ids = np.concatenate([ids, [piece.id for piece in pieces]]).astype(np.int32)


@every_model
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(65, 700), st.data())
def test_pages_that_are_missing_or_damaged_are_computed(
    model: Made, tmp_path: Path, n: int, data: st.DataObject
) -> None:
    """Any of them: gone, cut off, with a bit turned, under another's name, or no file at all."""
    folder, ids = tmp_path / f"{n}-{time.monotonic_ns()}", prompt(n, n)
    _, alone = lived(model, folder, ids)
    there = pages(folder)
    chosen = data.draw(st.lists(st.sampled_from(there), unique=True, min_size=1))
    whole = {path: path.read_bytes() for path in there}
    for path in chosen:
        raw = bytearray(whole[path])
        match data.draw(st.sampled_from(["gone", "cut", "turned", "renamed", "folder", "longer", "empty"])):
            case "gone":
                path.unlink()
            case "cut":
                path.write_bytes(raw[: data.draw(st.integers(0, len(raw) - 1))])
            case "turned":
                raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
                path.write_bytes(raw)
            case "renamed":
                path.write_bytes(whole[data.draw(st.sampled_from(there))])
            case "folder":
                path.unlink()
                path.mkdir()
            case "longer":
                path.write_bytes(raw + b"\0")
            case "empty":
                path.write_bytes(b"")
    reused, pieces = lived(model, folder, ids)
    print("of", n, "tokens reused:", reused)
    assert pieces == alone
    for path in (path for path in there if path.is_dir()):
        path.rmdir()
    for _ in chosen:  # what is behind another damaged page is only seen when that one is whole
        assert lived(model, folder, ids)[1] == alone
    assert lived(model, folder, ids) == ((n - 1) // 64 * 64, alone), "what was damaged is written again"


@every_model
def test_what_memory_knows_and_the_disk_knows_go_together(model: Made, tmp_path: Path) -> None:
    """A text goes on within a page from memory, then takes the rest from disk."""
    ids = prompt(0, 600)
    _, alone = lived(model, tmp_path, ids)
    store = PageStore(tmp_path)
    one = model(store=store)
    said(one, np.concatenate([ids[:100], prompt(1, 3)]), greedy(2))
    answer, pieces = said(one, ids, greedy(5))
    assert (pieces, answer.reused) == (alone, 576)
    again, pieces = said(one, ids, greedy(5))
    assert (pieces, again.reused) == (alone, 599)
    store.close()
    assert_no_page_is_lost(one)


@only_bitnet
def test_other_salts_storages_and_models_share_nothing(model: Made, tmp_path: Path) -> None:
    ids = prompt(0, 200)
    lived(model, tmp_path, ids, salt=b"a")
    assert lived(model, tmp_path, ids, salt=b"b")[0] == 0
    assert lived(model, tmp_path, ids)[0] == 0
    assert lived(model, tmp_path, ids, salt=b"a", kv="int8")[0] == 0
    one = model()
    one.decoder.identity = "another"  # type: ignore[misc]
    assert lived(model, tmp_path, ids, salt=b"a")[0] == 0


@every_model
def test_texts_at_once_in_little_memory(model: Made, tmp_path: Path) -> None:
    """Loading pages makes room as computing them does: texts step back, come again, and say what they say alone."""
    prompts = [np.concatenate([prompt(0, 70 * n), prompt(n + 1, 50)]) for n in range(6)]
    alone = [said(model(), ids, greedy(60))[1] for ids in prompts]
    for ids in prompts:
        lived(model, tmp_path, ids, 60)
    store = PageStore(tmp_path)
    one = model(n_tokens=640, store=store)
    answers = [one.submit(ids, greedy(60))[0] for ids in prompts]
    seen: list[list[Any]] = [[] for _ in answers]
    for answer, piece in one.run(answers):
        seen[answers.index(answer)].append(piece)
    print("reused:", [answer.reused for answer in answers])
    assert seen == alone
    assert all(answer.reused >= (len(ids) - 1) // 64 * 64 for answer, ids in zip(answers, prompts, strict=True))
    store.close()
    assert_no_page_is_lost(one)


@only_bitnet
def test_where_the_prompt_is_logged_nothing_comes_from_disk(model: Made, tmp_path: Path) -> None:
    ids = prompt(0, 200)
    lived(model, tmp_path, ids)
    assert lived(model, tmp_path, ids, prompt_logprobs=1)[0] == 0


@only_bitnet
@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_is_said_once_and_no_answer_ends_for_it(
    model: Made, tmp_path: Path, failing: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    ids = prompt(0, 300)
    _, alone = said(model(), ids, greedy(5))
    monkeypatch.setattr(os, failing, full)
    with caplog.at_level(logging.WARNING):
        assert lived(model, tmp_path, ids) == (0, alone)
    assert [record.getMessage() for record in caplog.records] == [
        f"prefixes are not kept in {tmp_path}: No space left on device"
    ]
    assert [path for path in tmp_path.iterdir() if path.is_file()] == [], "nothing half-written stays"
    monkeypatch.undo()
    lived(model, tmp_path, ids)
    assert lived(model, tmp_path, ids) == (256, alone)


@only_bitnet
def test_a_slow_disk_is_not_waited_for(model: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "MOST_QUEUED", 0)  # one page at a time
    slow = PageStore._write
    monkeypatch.setattr(PageStore, "_write", lambda *args: (time.sleep(0.2), slow(*args))[1])
    ids = prompt(0, 700)
    _, alone = lived(model, tmp_path, ids)
    assert 1 <= len(pages(tmp_path)) < 11
    for _ in range(12):
        assert lived(model, tmp_path, ids)[1] == alone
    assert len(pages(tmp_path)) == 11, "what was left out is kept another time"


def put_all(store: PageStore, names: list[int], size: int = 1000) -> list[bytes]:
    links = [bytes([name]) * 32 for name in names]
    for link in links:
        store.put(link, [np.full(size, link[0], np.uint8)])
    return links


def test_a_folder_stays_below_its_bound(tmp_path: Path) -> None:
    store = PageStore(tmp_path, 10_000)
    links = put_all(store, list(range(8)))
    store.close()
    for path in pages(tmp_path):
        os.utime(path, (1000, 1000))
    store = PageStore(tmp_path, 10_000)
    store.used(links[:3])
    store.close()
    store = PageStore(tmp_path, 10_000)
    links += put_all(store, list(range(8, 13)))
    store.close()
    store = PageStore(tmp_path, 10_000)
    kept = [n for n, link in enumerate(links) if link in store]
    print("kept:", kept)
    assert sum(path.stat().st_size for path in pages(tmp_path)) <= 10_000
    assert {0, 1, 2, 12} <= set(kept), "what was used last, and what is new"
    assert not {3, 4} & set(kept)
    found = store.get(links[1], 1000)
    assert found is not None
    assert np.array_equal(found, np.full(1000, 1, np.uint8))
    store.used([links[0], links[12], links[1], links[2]])
    store.close()
    PageStore(tmp_path, 3000).close()
    left = [n for n, link in enumerate(links) if (tmp_path / f"{link.hex()}.page").exists()]
    assert left == [0, 12], "a smaller bound holds at once, and of a text its first pages go last"


def test_the_disk_keeps_some_free_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: type("", (), {"free": disk.SPARED_BYTES - 1})())
    store = PageStore(tmp_path)
    put_all(store, list(range(20)))
    store.close()
    assert len(pages(tmp_path)) <= 1


def test_foreign_files_stay_and_half_files_go(tmp_path: Path) -> None:
    (tmp_path / "notes.page").write_text("mine")
    old, new = (tmp_path / f".{letter * 64}-x.part" for letter in "ab")
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    PageStore(tmp_path, 1).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [new.name, "notes.page"]


def test_the_folder_is_for_the_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "pages"
    store = PageStore(folder)
    put_all(store, [1])
    store.close()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in pages(folder)] == [0o600]


def test_a_folder_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    for name, why in (("file", "is a file"), ("file/under", "cannot be written"), ("open", "by everybody"),
                      ("a\0b", "cannot be written"), ("x" * 300, "cannot be written")):  # fmt: skip
        with pytest.raises(BadInput, match=why):
            PageStore(tmp_path / name)


WRITES = """
import sys, numpy as np
from kogata.run.cache import PageStore
store = PageStore(sys.argv[1])
print("ready", flush=True)
for n in range(100_000):
    store.put(n.to_bytes(32, "little"), [np.full(200_000, n % 251, np.uint8)])
    while store._queued > 2_000_000: pass
"""


def test_killed_while_it_writes(tmp_path: Path) -> None:
    """Whatever has a page's name is whole, wherever the process was."""
    random = np.random.default_rng(0)
    for _ in range(6):
        writer = subprocess.Popen([sys.executable, "-c", WRITES, str(tmp_path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(random.uniform(0.02, 0.3))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
    there = pages(tmp_path)
    print(len(there), "pages,", len(list(tmp_path.glob(".*.part"))), "half-written")
    assert there
    store = PageStore(tmp_path)
    for path in there:
        n = int.from_bytes(bytes.fromhex(path.stem), "little")
        found = store.get(n.to_bytes(32, "little"), 200_000)
        assert found is not None, path
        assert np.all(found == n % 251), path
    store.close()
