"""Models on this machine: listed as they are, whole or half fetched, and removed with what only they have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kogata.errors import BadInput, ModelError
from kogata.weights import download, fetch, load_decoder, stored
from kogata.weights.recommended import RECOMMENDED, Recommended
from local_hub import Hub

Tiny = Callable[..., tuple[Path, Any]]
A, B = b"a" * 50_000, b"b" * 70_000


@pytest.fixture
def hub(local_hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A hub with a model of GGUF files, two of them alike, one in two parts."""
    local_hub.models["some/ggufs"] = {
        "README.md": b"read", "m-Q8_0.gguf": A, "m-Q4_0.gguf": B, "same-F16.gguf": B,
        "m-BF16-00001-of-00002.gguf": b"1" * 20_000, "m-BF16-00002-of-00002.gguf": b"2" * 30_000,
    }  # fmt: skip
    monkeypatch.setattr(download, "_WAITS", (0.0,))
    return local_hub


def get(*names: str) -> None:
    for name in names:
        fetch(name, "writer", lambda *_: None)


def listed() -> list[tuple[str, int, int]]:
    return [(one.name, one.nbytes, one.missing) for one in stored.stored()]


def on_disk() -> int:
    folder = download.model_folder("some/ggufs")
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def test_nothing_is_here(hub: Hub) -> None:
    assert listed() == []
    with pytest.raises(BadInput, match="There is no fetched model 'some/ggufs:Q8_0'"):
        stored.remove("some/ggufs:Q8_0")


def test_files_are_listed_and_removed_one_by_one(hub: Hub) -> None:
    get("some/ggufs:Q8_0", "some/ggufs:BF16", "some/ggufs:Q4_0", "some/ggufs:F16")
    names = ["some/ggufs:BF16", "some/ggufs:F16", "some/ggufs:Q4_0", "some/ggufs:Q8_0"]
    assert listed() == list(zip(names, [50_000, 70_000, 70_000, 50_000], [0] * 4, strict=True))
    assert all(one.kind == "writer" and one.used is not None for one in stored.stored())
    before = on_disk()
    assert stored.remove("some/ggufs:Q4_0") == 0, "another file has the same bytes"
    assert stored.remove("some/ggufs:F16") == 70_000
    assert stored.remove("SOME/ggufs:bf16") == 50_000
    assert on_disk() == before - 120_000
    assert [name for name, *_ in listed()] == ["some/ggufs:Q8_0"]
    stored.remove("some/ggufs:Q8_0")
    assert not download.model_folder("some/ggufs").exists()
    get("some/ggufs:Q8_0")
    assert [name for name, *_ in listed()] == ["some/ggufs:Q8_0"]


def test_what_is_half_fetched_says_so_and_can_be_removed(hub: Hub) -> None:
    hub.cut = [30_000, 0]
    with pytest.raises(ModelError, match="30,000 bytes of 50,000 bytes are here"):
        get("some/ggufs:Q8_0")
    assert listed() == [("some/ggufs:Q8_0", 30_000, 20_000)]
    assert stored.remove("some/ggufs:Q8_0") >= 30_000
    assert listed() == []
    assert not download.model_folder("some/ggufs").exists()


def test_what_another_process_fetches_is_not_removed(hub: Hub) -> None:
    hub.cut = [30_000, 0]
    with pytest.raises(ModelError):
        get("some/ggufs:Q8_0")
    (pending,) = download.pending(download.model_folder("some/ggufs"))
    with (
        download.locked("some/ggufs", pending.sha256),
        pytest.raises(ModelError, match="is being fetched by another process"),
    ):
        stored.remove("some/ggufs:Q8_0")
    assert listed() == [("some/ggufs:Q8_0", 30_000, 20_000)]


def test_whole_models_of_both_kinds(hub: Hub, tiny_decoder: Tiny, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, directory in (("a/writer", tiny_decoder("llama")[0]), ("a/embedder", tiny("bert")[0])):
        hub.models[name] = {path.name: path.read_bytes() for path in directory.iterdir()}
    hub.models["a/picture"] = {"config.json": b'{"model_type": "vit"}', "model.safetensors": A}
    get("a/writer")
    fetch("a/embedder", "embedder", lambda *_: None)
    with pytest.raises(ModelError, match="'vit' cannot be run"):
        get("a/picture")
    short = Recommended("shorty", "a/writer", "writer", "MIT", 1, 1, False, "a test")
    monkeypatch.setattr("kogata.weights.recommended.RECOMMENDED", (*RECOMMENDED, short))
    found = {one.name: one for one in stored.stored()}
    assert {name: (one.kind, one.missing) for name, one in found.items()} == {
        "a/embedder": ("embedder", 0), "a/writer": ("writer", 0),
    }  # fmt: skip
    weights = sum(map(len, hub.models["a/writer"].values()))
    assert weights <= found["a/writer"].nbytes < weights + 2000, "and what the client notes about them"
    assert found["a/writer"].short == "shorty"
    model = load_decoder("shorty")
    assert stored.remove("shorty") == found["a/writer"].nbytes
    assert model.tensors["norm.weight"] is not None, "what is mapped stays readable"
    assert [one.name for one in stored.stored()] == ["a/embedder"]
    with pytest.raises(BadInput, match="came with Kogata and stays"):
        stored.remove("tiny")


def test_a_folder_of_ones_own_is_not_removed(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(BadInput) as error:
        stored.remove(str(tmp_path / "mine"))
    assert "does not remove" in str(error.value.hint)


def test_a_broken_cache_is_no_traceback(hub: Hub) -> None:
    folder = download.model_folder("x/broken")
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("nowhere")
    (folder / ".kogata").mkdir()
    (folder / ".kogata" / f"{'0' * 64}.json").write_text("no json")
    (folder.parent / "models--odd").mkdir()
    (folder.parent / "models--some--file").write_text("")
    assert listed() == []
