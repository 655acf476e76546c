"""Hub models without a network: from the cache, or refused quickly and clearly."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kogata.errors import ModelError
from kogata.weights import hub, load_decoder, load_encoder
from local_hub import LARGE, Hub

Tiny = Callable[..., tuple[Path, Any]]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
PRINT_ERROR = (
    "import sys\nfrom kogata.errors import ModelError\nfrom kogata.weights import load_encoder\n"
    "try: print('loaded', load_encoder(sys.argv[1]).name)\nexcept ModelError as error: print(error, '|', error.hint)"
)


def run(name: str, load: str = "load_encoder", **environment: str) -> tuple[str, float]:
    """What a process of its own prints, and how long it took."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", PRINT_ERROR.replace("load_encoder", load), name],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=100,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout.strip(), time.perf_counter() - started


def cached(cache: Path, hub_id: str, model: Path) -> Path:
    """The model in a hub cache as huggingface_hub lays it out."""
    repository = cache / f"models--{hub_id.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    shutil.copytree(model, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return snapshot


@pytest.mark.parametrize("name", ["a/b", "intfloat/multilingual-e5-small", "BAAI/bge-m3", "A1/x_y.z-1"])
def test_hub_ids(name: str) -> None:
    assert hub.is_hub_id(name)


@pytest.mark.parametrize(
    "name", ["a", "/a/b", "a/b/c", "./a", "../a", "a/..", "a/b..c", "~/a", "a b/c", "a/", "", "a/b\n"]
)
def test_other_names(name: str) -> None:
    assert not hub.is_hub_id(name)


def test_a_cached_model_is_used_without_the_network(tiny: Tiny, tmp_path: Path) -> None:
    model, _ = tiny("bert")
    cached(tmp_path / "hub", "someone/tiny", model)
    # Nobody answers at this address: the network cannot have been needed.
    said, _ = run("someone/tiny", HF_HUB_CACHE=str(tmp_path / "hub"), HF_ENDPOINT="http://127.0.0.1:9")
    assert said == "loaded someone/tiny"


def test_offline_and_not_cached(tmp_path: Path) -> None:
    said, _ = run("someone/none", HF_HUB_CACHE=str(tmp_path), HF_HUB_OFFLINE="1")
    assert "someone/none is neither a directory nor a model in the local cache" in said
    assert "HF_HUB_OFFLINE is set" in said
    assert "'default', which needs no network" in said


def test_nobody_answers(tmp_path: Path) -> None:
    said, seconds = run(
        "someone/none", HF_HUB_CACHE=str(tmp_path), HF_HUB_OFFLINE="0", HF_ENDPOINT="http://127.0.0.1:9"
    )
    assert "the hub cannot be reached" in said
    assert seconds < 30


def test_a_half_downloaded_model_is_not_taken_for_whole(tiny: Tiny, tmp_path: Path) -> None:
    model, _ = tiny("bert")
    snapshot = cached(tmp_path / "hub", "someone/tiny", model)
    (snapshot / "model.safetensors").unlink()
    said, _ = run("someone/tiny", HF_HUB_CACHE=str(tmp_path / "hub"), HF_ENDPOINT="http://127.0.0.1:9")
    assert "someone/tiny lacks model.safetensors" in said
    assert "interrupted" in said


def test_a_half_downloaded_shard_is_noticed(tiny: Tiny, tmp_path: Path) -> None:
    model, made = tiny("bert")
    (model / "model.safetensors").unlink()
    made.save_pretrained(model, max_shard_size="4KB")
    snapshot = cached(tmp_path / "hub", "someone/tiny", model)
    assert run("someone/tiny", HF_HUB_CACHE=str(tmp_path / "hub"), HF_HUB_OFFLINE="1")[0] == "loaded someone/tiny"
    lost = sorted(snapshot.glob("model-*.safetensors"))[-1]
    lost.unlink()
    said, _ = run("someone/tiny", HF_HUB_CACHE=str(tmp_path / "hub"), HF_HUB_OFFLINE="1")
    assert f"someone/tiny lacks {lost.name}" in said


def test_decoders_come_from_the_cache_too(tiny_decoder: Tiny, tmp_path: Path) -> None:
    model, made = tiny_decoder("qwen3")
    (model / "model.safetensors").unlink()
    made.save_pretrained(model, max_shard_size="20KB")
    snapshot = cached(tmp_path / "hub", "someone/writer", model)
    offline = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    assert run("someone/writer", "load_decoder", **offline)[0] == "loaded someone/writer"
    said, _ = run("someone/none", "load_decoder", **offline)
    assert "HF_HUB_OFFLINE is set" in said
    assert "or give a model's directory" in said
    assert "default" not in said
    (snapshot / "tokenizer.json").unlink()
    assert "someone/writer lacks tokenizer.json" in run("someone/writer", "load_decoder", **offline)[0]


def test_everything_that_is_read_is_fetched(local_hub: Hub, tiny_decoder: Tiny) -> None:
    model, _ = tiny_decoder("llama")
    there = {path.name: path.read_bytes() for path in model.iterdir()}
    others = ["pytorch_model.bin", "modeling_x.py", "README.md", "onnx/config.json", "original/consolidated.00.pth"]
    local_hub.models["a/b"] = there | dict.fromkeys(others, b"not this")
    assert load_decoder("a/b").name == "a/b"
    assert sorted({name for name, _ in local_hub.asked}) == sorted(there)


@pytest.mark.slow
def test_an_address_that_swallows_everything_does_not_hang(tmp_path: Path) -> None:
    # TEST-NET-1 of RFC 5737: packets to it are dropped or refused by the first router.
    said, seconds = run("someone/none", HF_HUB_CACHE=str(tmp_path), HF_ENDPOINT="http://192.0.2.1")
    assert "|" in said
    assert seconds < 90


@pytest.mark.parametrize(
    ("status", "message"), [(404, "There is no model a/b"), (403, "asks for its terms"), (401, "asks for its terms")]
)
@pytest.mark.parametrize("name", ["a/b", "a/b:Q8_0"])
def test_what_the_hub_says_is_passed_on(local_hub: Hub, status: int, message: str, name: str) -> None:
    local_hub.refused["a/b"] = status
    with pytest.raises(ModelError, match=message):
        load_decoder(name)


def test_what_cannot_be_run_is_refused_before_its_weights_are_fetched(local_hub: Hub) -> None:
    config = b'{"model_type": "mamba", "architectures": ["MambaForCausalLM"]}'
    local_hub.models["a/b"] = {"config.json": config, "model.safetensors": bytes(LARGE), "tokenizer.json": b"{}"}
    with pytest.raises(ModelError, match=r"The architecture 'mamba' cannot be run; Kogata runs .*llama"):
        load_decoder("a/b")
    assert local_hub.sent("model.safetensors") == []


def test_a_full_disk_is_no_traceback(local_hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def refuse(*_: object, **__: object) -> str:
        raise OSError(28, "No space left on device")

    local_hub.models["a/b"] = {"config.json": b"{}"}
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(ModelError, match=r"could not be fetched.*No space left"):
        load_encoder("a/b")
