"""GGUF files of hub models, without a network: from the cache, or refused quickly and clearly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gguf_writer import write_gguf
from kogata.errors import ModelError
from kogata.weights import gguf_hub, load_decoder
from local_hub import Hub

Tiny = Callable[..., tuple[Path, Any]]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = [
    "README.md", "model-Q4_K_M.gguf", "model-Q4_K_S.gguf", "model-Q8_0.gguf", "mmproj-model-Q8_0.gguf",
    "model.f16.gguf", "BF16/model-BF16-00001-of-00002.gguf", "BF16/model-BF16-00002-of-00002.gguf", "a-x.gguf",
    "b-x.gguf",
]  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["a/b:Q8_0", "a/b:q4_k_m", "a/b/c.gguf", "a/b:c.gguf", "a/b/d/c-00001-of-00002.gguf", "A.b/c_d-e:UD-Q4_K_XL"],
)
def test_names_of_files(name: str) -> None:
    assert gguf_hub.is_gguf_id(name)


@pytest.mark.parametrize(
    "name", ["a/b", "a", "a:Q8_0", "/a/b:Q8_0", "a/b:", "a/b/c", "a/b/../c.gguf", "../b:Q8_0", "a/b/../../c/d.gguf",
             "a/b:Q8 0", "C:/a/b.gguf", "https://a/b/c.gguf", "a/b:" + "x" * 100, "./a/b.gguf"]
)  # fmt: skip
def test_other_names(name: str) -> None:
    assert not gguf_hub.is_gguf_id(name)


@pytest.fixture
def cached(tiny_decoder: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The snapshot of someone/tiny in a hub cache, with one file; the hub is not asked."""
    import huggingface_hub.constants
    import huggingface_hub.file_download
    from huggingface_hub import _snapshot_download

    directory, _ = tiny_decoder("qwen3", num_hidden_layers=1)
    repository = tmp_path / "hub" / "models--someone--tiny"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    write_gguf(directory, snapshot / "tiny-Q8_0.gguf")
    for module in (huggingface_hub.constants, huggingface_hub.file_download, _snapshot_download):
        if hasattr(module, "HF_HUB_CACHE"):
            monkeypatch.setattr(module, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return snapshot


@pytest.mark.parametrize("name", ["someone/tiny:Q8_0", "someone/tiny:q8_0", "someone/tiny/tiny-Q8_0.gguf"])
def test_a_cached_file_is_used_without_the_network(cached: Path, name: str) -> None:
    assert load_decoder(name).name == name


@pytest.mark.parametrize("name", ["someone/tiny:Q4_0", "someone/tiny/other.gguf", "someone/none:Q8_0"])
def test_what_is_not_cached_cannot_be_had_offline(cached: Path, name: str) -> None:
    with pytest.raises(ModelError, match=r"neither a directory nor a model in the local cache.*HF_HUB_OFFLINE is set"):
        load_decoder(name)


@pytest.fixture
def several(local_hub: Hub) -> Hub:
    """A hub with one model of several files."""
    local_hub.models["a/b"] = {name: f"{name} ".encode() * 1000 for name in FILES}
    return local_hub


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("a/b:Q8_0", ["model-Q8_0.gguf"]),
        ("a/b:q4_k_m", ["model-Q4_K_M.gguf"]),
        ("a/b:F16", ["model.f16.gguf"]),
        ("a/b:BF16", ["BF16/model-BF16-00001-of-00002.gguf", "BF16/model-BF16-00002-of-00002.gguf"]),
        ("a/b/model-Q4_K_S.gguf", ["model-Q4_K_S.gguf"]),
        ("a/b:a-x.gguf", ["a-x.gguf"]),
        (
            "a/b/BF16/model-BF16-00002-of-00002.gguf",
            ["BF16/model-BF16-00001-of-00002.gguf", "BF16/model-BF16-00002-of-00002.gguf"],
        ),
    ],
)
def test_which_files_are_fetched(several: Hub, name: str, files: list[str]) -> None:
    found = gguf_hub.fetch(name, "")
    assert found.read_bytes() == several.models["a/b"][files[0]]
    assert found.as_posix().endswith("/" + files[0])
    assert several.asked == [(file, 0) for file in files]
    assert gguf_hub.fetch(name, "") == found
    assert len(several.asked) == len(files), "once here, nothing is asked for"


def test_what_is_not_there_is_answered_with_what_is(several: Hub) -> None:
    with pytest.raises(ModelError, match=r"has no file of the kind 'Q4_K'; name one of BF16/.*, model-Q4_K_M\.gguf, "):
        gguf_hub.fetch("a/b:Q4_K", "")
    with pytest.raises(ModelError, match=r"has several files of the kind 'x'; name one of a-x\.gguf, b-x\.gguf\."):
        gguf_hub.fetch("a/b:x", "")
    with pytest.raises(ModelError, match="has no such file"):
        gguf_hub.fetch("a/b/c.gguf", "")
    assert several.asked == []
