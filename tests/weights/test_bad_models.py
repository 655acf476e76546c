"""Models that are broken, lying, incomplete or of another kind: each refused with a sentence that helps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from kogata.errors import ModelError
from kogata.weights import load_encoder

Tiny = Callable[..., tuple[Path, Any]]


@pytest.fixture
def model(tiny: Tiny) -> Path:
    return tiny("bert")[0]


def change(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | values))


def refused(directory: Path | str, message: str) -> ModelError:
    with pytest.raises(ModelError, match=message) as caught:
        load_encoder(directory)
    assert len(str(caught.value)) < 1000
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value


def modules(*kinds: str) -> list[dict[str, str]]:
    places = {"Transformer": "", "Pooling": "1_Pooling"}
    return [{"path": places.get(kind, kind), "type": f"sentence_transformers.models.{kind}"} for kind in kinds]


def test_the_model_itself_is_good(model: Path) -> None:
    load_encoder(model)


# What is not a model at all


def test_a_folder_without_a_config(tmp_path: Path) -> None:
    refused(tmp_path, "is not a model: it has no config.json")


def test_a_file(model: Path) -> None:
    refused(model / "model.safetensors", "is a file; a model is the directory")


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    refused(tmp_path / "none", "There is no model")


def test_folders_where_files_should_be(model: Path) -> None:
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        kept = (model / name).read_bytes()
        (model / name).unlink()
        (model / name).mkdir()
        refused(model, f"{name} is a folder where a file is expected")
        (model / name).rmdir()
        (model / name).write_bytes(kept)


def test_a_pipe_does_not_hang(model: Path) -> None:
    (model / "config.json").unlink()
    os.mkfifo(model / "config.json")
    code = "import sys; from kogata.weights import load_encoder; load_encoder(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, model], capture_output=True, text=True, timeout=20)
    assert "ModelError" in done.stderr
    assert "not a regular file" in done.stderr


def test_no_permission(model: Path) -> None:
    # Root may read everything, so the child becomes nobody, once it has imported what only root may read.
    code = (
        "import os, sys\nfrom kogata.errors import ModelError\nfrom kogata.weights import load_encoder\n"
        "if os.geteuid() == 0: load_encoder(sys.argv[1]); os.setuid(65534)\n"
        "try: load_encoder(sys.argv[1])\nexcept ModelError as error: print(error)"
    )
    for parent in model.parents[:3]:
        parent.chmod(0o755)
    for place, mode in ((model / "model.safetensors", 0), (model / "config.json", 0), (model, 0)):
        place.chmod(mode)
        done = subprocess.run([sys.executable, "-c", code, model], capture_output=True, text=True)
        place.chmod(0o755)
        assert "may not be read: permission denied" in done.stdout, done.stderr


# config.json


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", '{"a":' * 100_000, "9" * 10_000, "\ufeff{}"])
def test_a_config_that_is_no_object(model: Path, content: str) -> None:
    (model / "config.json").write_text(content)
    refused(model, r"config\.json (is not JSON|does not hold a JSON object)")


def test_a_config_that_is_not_text(model: Path) -> None:
    (model / "config.json").write_bytes(b'{"model_type": "\xff"}')
    refused(model, "config.json is not UTF-8 text")


def test_a_config_of_20_megabytes(model: Path) -> None:
    (model / "config.json").write_bytes(b" " * 20 * 2**20)
    refused(model, "larger than 16 MB")


def test_another_architecture(model: Path) -> None:
    change(model / "config.json", model_type="mpnet")
    refused(model, "'mpnet' cannot be run as an embedding model; Kogata runs bert, distilbert, roberta")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden_size": 24}, r"'embeddings.word_embeddings.weight'.*shape \[12, 16\].*config.json.*\[12, 24\]"),
        ({"intermediate_size": 25}, r"'encoder.layer.0.intermediate.dense.weight'.*\[24, 16\].*\[25, 16\]"),
        ({"vocab_size": 13}, r"'embeddings.word_embeddings.weight'.*\[12, 16\].*\[13, 16\]"),
        ({"max_position_embeddings": 512}, r"'embeddings.position_embeddings.weight'.*\[20, 16\].*\[512, 16\]"),
        ({"type_vocab_size": 1}, r"'embeddings.token_type_embeddings.weight'.*\[2, 16\].*\[1, 16\]"),
        ({"num_hidden_layers": 3}, r"lacks the tensor 'encoder.layer.2.attention.self.query.weight'.*3 layers"),
        ({"num_hidden_layers": 1}, "weights of layer 1, but its config.json says 1 layers"),
        ({"num_hidden_layers": 999}, "lacks the tensor"),
        ({"num_attention_heads": 3}, "3 attention heads do not divide"),
        ({"vocab_size": 3}, "token ids up to 11, but the model has only 3 words"),
    ],
)
def test_a_config_that_contradicts_the_weights(model: Path, values: dict[str, int], message: str) -> None:
    change(model / "config.json", **values)
    refused(model, message)


# Weights


@pytest.mark.parametrize("keep", [0, 4, 8, 100, 2000, -1])
def test_truncated_weights(model: Path, keep: int) -> None:
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    refused(model, r"model\.safetensors (is empty|is not a usable safetensors file)")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_numbers_that_are_not_finite(tiny: Tiny, value: float, dtype: str) -> None:
    import torch

    directory, made = tiny("bert")
    with torch.no_grad():
        made.encoder.layer[1].output.dense.weight[3, 5] = value
    made.to(getattr(torch, dtype)).save_pretrained(directory)
    refused(directory, r"'encoder.layer.1.output.dense.weight' in .*model\.safetensors holds .* not finite")


def test_numbers_too_large_for_float32(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    tensors["embeddings.LayerNorm.bias"] = np.full(16, 1e300)
    save_file(tensors, model / "model.safetensors")
    refused(model, "'embeddings.LayerNorm.bias'.*not finite")


def test_whole_numbers_as_weights(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    tensors["embeddings.LayerNorm.bias"] = np.zeros(16, np.int8)
    save_file(tensors, model / "model.safetensors")
    refused(model, "'embeddings.LayerNorm.bias' is stored as I8")


def test_a_missing_tensor(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    del tensors["encoder.layer.1.attention.self.key.bias"]
    save_file(tensors, model / "model.safetensors")
    refused(model, "lacks the tensor 'encoder.layer.1.attention.self.key.bias'")


def test_weights_of_something_else(model: Path) -> None:
    save_file({"conv.weight": np.zeros((3, 3), np.float32)}, model / "model.safetensors")
    refused(model, "does not hold an encoder: no tensor is called 'embeddings.word_embeddings.weight'")


def test_two_encoders(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    twice = {f"{side}.{name}": tensors[name] for side in ("query", "ctx") for name in tensors}
    save_file(twice, model / "model.safetensors")
    refused(model, "holds 2 word embeddings")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.ckpt"])
def test_pickles_are_never_loaded(model: Path, name: str) -> None:
    (model / "model.safetensors").unlink()
    (model / name).write_bytes(b"cos\nsystem\n(S'touch /tmp/pwned'\ntR.")
    error = refused(model, f"only in {name}, a pickle, which Kogata never loads")
    assert "save_pretrained" in str(error.hint)


def test_weights_in_a_format_that_is_not_read(model: Path) -> None:
    (model / "model.safetensors").rename(model / "model.onnx")
    refused(model, r"has no model.safetensors \(there is model.onnx, which cannot be read\)")
    (model / "model.onnx").unlink()
    refused(model, r"has no model.safetensors\.$")


def test_an_index_that_leads_elsewhere(model: Path) -> None:
    (model / "model.safetensors").rename(model.parent / "outside.safetensors")
    names = load_file(model.parent / "outside.safetensors")
    content = {"weight_map": dict.fromkeys(names, "../outside.safetensors")}
    (model / "model.safetensors.index.json").write_text(json.dumps(content))
    refused(model, "names '../outside.safetensors', which is not a safetensors file beside it")


# tokenizer.json


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"version": "1.0", "model": null}', '{"a":' * 100_000])
def test_a_broken_tokenizer(model: Path, content: str) -> None:
    (model / "tokenizer.json").write_text(content)
    refused(model, r"tokenizer\.json is not")


def test_no_tokenizer(model: Path) -> None:
    (model / "tokenizer.json").unlink()
    assert "save_pretrained" in str(refused(model, "has no tokenizer.json").hint)


def test_a_tokenizer_of_another_model(model: Path, minilm: Path) -> None:
    (model / "tokenizer.json").write_bytes((minilm / "tokenizer.json").read_bytes())
    refused(model, "token ids up to 30521, but the model has only 12 words")


def test_special_tokens_beyond_the_vocabulary(model: Path) -> None:
    content = json.loads((model / "tokenizer.json").read_text())
    content["post_processor"]["special_tokens"]["[CLS]"]["ids"] = [10**6]
    (model / "tokenizer.json").write_text(json.dumps(content))
    refused(model, "token ids up to 1000000, but the model has only 12 words")


# What sentence-transformers adds


@pytest.mark.parametrize("length", [0, -1, 1, 2, 21, 10**9, 10**40, True, "256", 12.5, [256]])
def test_absurd_lengths(model: Path, length: object) -> None:
    change(model / "sentence_bert_config.json", max_seq_length=length)
    refused(model, "max_seq_length to .*; 3 to 20 tokens fit this model")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "does not hold a list of modules"),
        ("[]", "does not hold a list of modules"),
        ("[1]", "without 'type' and 'path'"),
        ('[{"type": "Transformer"}]', "without 'type' and 'path'"),
        ("[", "is not JSON"),
        (json.dumps(modules("Transformer", "Pooling", "Dense")), "module 'Dense', which cannot be run"),
        (json.dumps(modules("StaticEmbedding")), "module 'StaticEmbedding'"),
        (json.dumps(modules("Transformer", "Normalize", "Pooling")), "Transformer, Normalize, Pooling; "),
        (json.dumps(modules("Pooling")), "modules are Pooling"),
        (json.dumps(modules("Transformer")), "modules are Transformer"),
        (json.dumps([{"type": "Transformer", "path": "../elsewhere"}]), "'../elsewhere', which is not inside"),
        (json.dumps([{"type": "Transformer", "path": "/etc"}]), "'/etc', which is not inside"),
        (json.dumps([{"type": "Transformer", "path": "a\0b"}]), "is not inside"),
        (json.dumps(modules("Transformer", "Pooling")), r"1_Pooling.config\.json does not exist"),
    ],
)
def test_modules(model: Path, content: str, message: str) -> None:
    (model / "modules.json").write_text(content)
    refused(model, message)


@pytest.mark.parametrize(
    ("pooling", "message"),
    [
        ({"pooling_mode_max_tokens": True}, "'max' pooling; 'mean' and 'cls'"),
        ({"pooling_mode_lasttoken": True}, "'lasttoken' pooling"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, "'cls . mean' pooling"),
        ({"pooling_mode": ["mean", "max"]}, "'mean . max' pooling"),
        ({"pooling_mode": {"a": 1}}, "pooling"),
        ({"pooling_mode_mean_tokens": True, "include_prompt": False}, "leaves the prompt out"),
    ],
)
def test_pooling_that_cannot_be_run(model: Path, pooling: dict[str, Any], message: str) -> None:
    (model / "modules.json").write_text(json.dumps(modules("Transformer", "Pooling")))
    (model / "1_Pooling").mkdir()
    change(model / "1_Pooling" / "config.json", **pooling)
    refused(model, message)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prompts": ["query: "]}, "'prompts' is not an object of strings"),
        ({"prompts": {"query": 3}}, "'prompts' is not an object of strings"),
        ({"prompts": {"query": "q"}, "default_prompt_name": "x"}, "default prompt 'x' is not among"),
        ({"default_prompt_name": ["x"]}, "default prompt"),
    ],
)
def test_prompts(model: Path, values: dict[str, Any], message: str) -> None:
    change(model / "config_sentence_transformers.json", **values)
    refused(model, message)


def test_a_good_model_loads_after_every_refusal(model: Path) -> None:
    kept = (model / "config.json").read_text()
    change(model / "config.json", hidden_size=24)
    refused(model, "shape")
    (model / "config.json").write_text(kept)
    load_encoder(model)
