"""Large files of the hub: whatever breaks off their download, it goes on from there, and what is here is whole."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub.hf_api import BlobLfsInfo, RepoSibling
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kogata.errors import ModelError
from kogata.weights import download, fetch, gguf_hub, load_decoder
from kogata.weights.recommended import RECOMMENDED, Recommended
from local_hub import LARGE, Hub

Tiny = Callable[..., tuple[Path, Any]]
SIZE = 3_000_000
NAME = "model-Q8_0.gguf"


@pytest.fixture
def model(local_hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A hub with one large file in the model a/b; nothing is waited for between attempts."""
    local_hub.models["a/b"] = {NAME: np.random.default_rng(0).bytes(SIZE)}
    monkeypatch.setattr(download, "_WAITS", (0.0,) * 3)
    return local_hub


def fetched(hub: Hub) -> list[tuple[int, int]]:
    """Fetches it, looks whether it is what the hub has, and returns how the progress was told."""
    told: list[tuple[int, int]] = []
    fetch("a/b:Q8_0", "writer", lambda done, total: told.append((done, total)))
    (found,) = Path(download.model_folder("a/b")).glob(f"snapshots/*/{NAME}")
    assert found.read_bytes() == hub.models["a/b"][NAME]
    assert told[-1] == (SIZE, SIZE)
    left = [path.name for path in download.model_folder("a/b").rglob("*") if "kogata" in path.name]
    assert left == [], "nothing but the client's own layout stays"
    return told


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.integers(0, SIZE), max_size=5), st.booleans())
def test_a_connection_that_breaks_goes_on_where_it_stopped(model: Hub, cuts: list[int], ranges: bool) -> None:
    """With a server that sends parts nothing is sent twice; another one begins anew, with the same end."""
    shutil.rmtree(download.model_folder("a/b"), ignore_errors=True)
    model.cut, model.ranges = [max(cut, 1) for cut in cuts], ranges
    model.asked.clear()
    if ranges and len(cuts) <= 3:
        done = [done for done, _ in fetched(model)]
        begun = model.sent(NAME)
        assert begun == sorted(begun), "each begins behind the one before"
        assert done == sorted(done)
        return
    try:  # too many attempts may fail one after another
        fetched(model)
    except ModelError:
        model.cut.clear()
        fetched(model)


def test_a_process_that_is_killed_leaves_what_it_has(model: Hub, tmp_path: Path) -> None:
    half = SIZE // 2
    model.pause = lambda at: time.sleep(5) if at > half else None
    code = "from kogata.weights import fetch\nfetch('a/b:Q8_0', 'writer', lambda *_: None)"
    environment = os.environ | {"HF_ENDPOINT": model.url, "HF_HUB_CACHE": str(tmp_path / "hub")}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    part = download.model_folder("a/b") / "blobs"
    end = time.monotonic() + 30
    while not (there := list(part.glob("*.incomplete"))) or there[0].stat().st_size < half:
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (pending,) = download.pending(download.model_folder("a/b"))
    assert (pending.name, pending.size) == (NAME, SIZE)
    model.pause = None
    fetched(model)
    first, second = model.sent(NAME)
    print("began at", first, "then at", second)
    assert (first, second) == (0, there[0].stat().st_size if there[0].exists() else second)
    assert second >= half


def test_ctrl_c_says_that_it_can_go_on(model: Hub) -> None:
    def stop(done: int, total: int) -> None:
        if done > SIZE // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"[\d,]+ bytes of 3,000,000 bytes are here; the same"):
        fetch("a/b:Q8_0", "writer", stop)
    told = fetched(model)
    assert told[0][0] > SIZE // 2
    assert model.sent(NAME)[1] > SIZE // 2


@pytest.mark.parametrize("kept", [b"", b"x" * 1000, b"x" * SIZE, b"x" * (SIZE + 5)])
def test_what_is_here_but_wrong_is_thrown_away(model: Hub, kept: bytes) -> None:
    with pytest.raises(KeyboardInterrupt):
        fetch("a/b:Q8_0", "writer", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    (part,) = (download.model_folder("a/b") / "blobs").glob("*.incomplete")
    part.write_bytes(kept)
    if 0 < len(kept) <= SIZE:
        with pytest.raises(ModelError, match=r"arrived damaged: its hash is not the one .* thrown away"):
            fetched(model)
    fetched(model)


def test_what_arrives_damaged_is_not_taken(model: Hub) -> None:
    model.damage = True
    with pytest.raises(ModelError, match="arrived damaged"):
        fetched(model)
    assert list(download.model_folder("a/b").glob("blobs/*")) == []
    model.damage = False
    fetched(model)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_that_is_busy_is_asked_again(model: Hub, status: int) -> None:
    model.statuses = [status] * 3
    fetched(model)
    model.models["a/b"] = {NAME: bytes(SIZE)}
    model.statuses = [status] * 10
    shutil.rmtree(download.model_folder("a/b"))
    with pytest.raises(
        ModelError, match=rf"could not be fetched whole: {status}\. 0 bytes of 3,000,000 bytes are here"
    ):
        fetched(model)


def test_a_file_that_may_not_be_read(model: Hub) -> None:
    model.statuses = [403] * 3
    with pytest.raises(ModelError, match="could not be fetched"):
        fetched(model)


def test_a_disk_that_is_too_small_is_said_before_anything_is_fetched(
    model: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("", (), {"free": SIZE - 1})())
    with pytest.raises(ModelError, match=r"a/b takes 3,000,000 bytes more on disk, and 2,999,999 bytes are free"):
        fetched(model)
    assert model.asked == []


def test_room_is_asked_for_what_is_not_here_yet(
    local_hub: Hub, tiny_decoder: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard that is whole takes no more room: with just enough for the second one, the download goes on."""
    directory, made = tiny_decoder("llama", hidden_size=64)
    (directory / "model.safetensors").unlink()
    made.save_pretrained(directory, max_shard_size="150KB")
    files = {path.name: path.read_bytes() for path in sorted(directory.iterdir())}
    shards = sorted(name for name in files if name.startswith("model-"))
    assert len(shards) > 1
    assert all(len(files[name]) > LARGE for name in shards)
    local_hub.models["a/b"] = files
    sizes = [len(files[name]) for name in shards]
    stop = sum(len(data) for name, data in files.items() if name not in shards) + sizes[0] + 1

    def interrupt(done: int, total: int) -> None:
        if done >= stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch("a/b", "writer", interrupt)
    parts = sum(path.stat().st_size for path in download.model_folder("a/b").glob("blobs/*.incomplete"))
    left = sum(sizes[1:]) - parts
    print("shards", sizes, "of which here", sizes[0], "and a part of", parts)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("", (), {"free": left})())
    fetch("a/b", "writer", lambda *_: None)
    assert local_hub.sent(shards[0]) == [0]
    assert load_decoder("a/b").name == "a/b"


def test_a_caller_without_a_bar_gets_the_clients(model: Hub, capfd: pytest.CaptureFixture[str]) -> None:
    gguf_hub.fetch("a/b:Q8_0", "")
    drawn = capfd.readouterr().err
    print(drawn)
    assert "a/b" in drawn
    assert "3.00M/3.00M" in drawn
    assert NAME not in drawn, "no second bar, of the client's own download"


@pytest.mark.parametrize(
    "name",
    ["../model.gguf", "a/../../model.gguf", "/model.gguf", "a\\..\\model.gguf", "C:model.gguf", "a//b.gguf", "./a"],
)
def test_names_that_lead_out_of_the_folder_are_not_fetched_here(name: str) -> None:
    files = [RepoSibling(rfilename=one, size=1, lfs=BlobLfsInfo(1, "c" * 64, 130)) for one in (name, "a/model.gguf")]
    found = download.large_files(files, [name, "a/model.gguf"])
    assert [file.name for file in found] == ["a/model.gguf"]


def test_two_processes_fetch_a_file_once(model: Hub, tmp_path: Path) -> None:
    model.pause = lambda at: time.sleep(0.02)
    code = "from kogata.weights import fetch\nfetch('a/b:Q8_0', 'writer', lambda *_: None)"
    environment = os.environ | {"HF_ENDPOINT": model.url, "HF_HUB_CACHE": str(tmp_path / "hub")}
    several = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(3)]
    assert [process.wait(timeout=60) for process in several] == [0, 0, 0]
    assert model.sent(NAME) == [0]


def test_a_model_comes_whole_and_is_used_offline(
    local_hub: Hub, tiny_decoder: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    directory, _ = tiny_decoder("llama", hidden_size=64)
    local_hub.models["a/b"] = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert len(local_hub.models["a/b"]["model.safetensors"]) > LARGE
    local_hub.cut = [30_000]
    monkeypatch.setattr(download, "_WAITS", (0.0,))
    told: list[tuple[int, int]] = []
    fetch("a/b", "writer", lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1] == sum(len(data) for data in local_hub.models["a/b"].values())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load_decoder("a/b").name == "a/b"


def test_a_short_name_means_its_model(
    local_hub: Hub, tiny_decoder: Tiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    directory, _ = tiny_decoder("llama")
    local_hub.models["someone/short"] = {path.name: path.read_bytes() for path in directory.iterdir()}
    short = Recommended("shorty", "someone/short", "writer", "MIT", 1, 1, False, "a test")
    monkeypatch.setattr("kogata.weights.recommended.RECOMMENDED", (*RECOMMENDED, short))
    assert load_decoder("shorty").name == "someone/short"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shorty").mkdir()
    with pytest.raises(ModelError, match=r"config\.json"):
        load_decoder("shorty")
    with pytest.raises(ModelError, match=r"no model 'bitnet-2'") as error:
        load_decoder("bitnet-2")
    assert "bitnet-2b" in str(error.value.hint)
    with pytest.raises(ModelError, match=r"multilingual-e5-small is no writer but an embedder"):
        load_decoder("multilingual-e5-small")


def test_recommended_models_are_named_once() -> None:
    names = [model.name for model in RECOMMENDED]
    assert len(set(names)) == len(names)
    assert all(model.licence and model.purpose and model.memory for model in RECOMMENDED)
    json.dumps([model.to_dict() for model in RECOMMENDED])
