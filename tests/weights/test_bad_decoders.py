"""Decoders that are broken, lying, incomplete or of another kind: each refused with a sentence that helps."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from kogata.errors import ModelError
from kogata.weights import TernaryTensor, load_decoder, load_encoder

Tiny = Callable[..., tuple[Path, Any]]


@pytest.fixture
def model(tiny_decoder: Tiny) -> Path:
    return tiny_decoder("qwen3")[0]


@pytest.fixture
def packed(tiny_decoder: Tiny) -> Path:
    return tiny_decoder("llama", quantised={"linear_class": "bitlinear"})[0]


def change(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | values))


def change_tensors(directory: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    tensors = load_file(directory / "model.safetensors")
    edit(tensors)
    save_file(tensors, directory / "model.safetensors")


def refused(directory: Path | str, message: str) -> ModelError:
    with pytest.raises(ModelError, match=message) as caught:
        load_decoder(directory)
    assert len(str(caught.value)) < 1000
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value


def test_the_models_themselves_are_good(model: Path, packed: Path) -> None:
    load_decoder(model)
    load_decoder(packed)


def test_what_is_not_a_model(tmp_path: Path, model: Path) -> None:
    refused(tmp_path, "is not a model: it has no config.json")
    refused(tmp_path / "none", "There is no model")
    refused(model / "model.safetensors", "is a file; a model is the directory")
    for name in ("", "a b", "/no/such/place", "../x", "a\0b", "x" * 5000, "https://hf.co/a/b"):
        assert "microsoft/bitnet-b1.58-2B-4T" in str(refused(name, "There is no model").hint)
    assert "Is bitnet-2b meant?" in str(refused("bitnet2b", "There is no model").hint)


def test_encoders_and_decoders_are_told_apart(model: Path, tiny: Tiny) -> None:
    refused(tiny("bert")[0], "'bert' cannot be run as a text generator; Kogata runs llama, qwen2")
    with pytest.raises(ModelError, match="'qwen3' cannot be run as an embedding model; Kogata runs bert"):
        load_encoder(model)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null", b'{"a":' * 100_000, b"\xff", b" " * 20 * 2**20])
def test_settings_that_are_no_objects(model: Path, name: str, content: bytes) -> None:
    (model / name).write_bytes(content)
    refused(model, rf"{name} (is not JSON|does not hold a JSON object|is not UTF-8 text|is larger than 16 MB)")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden_size": 24}, r"'model.embed_tokens.weight'.*shape \[262, 32\].*config.json makes it \[262, 24\]"),
        ({"intermediate_size": 50}, r"'model.layers.0.mlp.gate_proj.weight'.*\[48, 32\].*\[50, 32\]"),
        ({"vocab_size": 300}, r"'model.embed_tokens.weight'.*\[262, 32\].*\[300, 32\]"),
        ({"num_hidden_layers": 4, "layer_types": None}, r"'model.layers.3.input_layernorm.weight'.*4 layers"),
        ({"num_hidden_layers": 2, "layer_types": None}, "weights of layer 2, but its config.json says 2 layers"),
        ({"num_key_value_heads": 4}, r"self_attn.k_proj.weight'.*\[24, 32\].*\[48, 32\]"),
        ({"head_dim": 16}, r"self_attn.q_proj.weight'.*\[48, 32\].*\[64, 32\]"),
        ({"attention_bias": True}, "lacks the tensor 'model.layers.0.self_attn.q_proj.bias'"),
        ({"model_type": "llama"}, "holds the tensor 'model.layers.0.self_attn.k_norm.weight', which its"),
        ({"model_type": "gemma3_text"}, "'rope_parameters' name neither 'full_attention' nor"),
        ({"model_type": "mamba"}, "'mamba' cannot be run as a text generator"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantised by 'awq'"),
        ({"quantization_config": {"quant_method": "bitnet"}}, "stored as F32; config.json says 'bitlinear', whose"),
        (
            {"quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear"}},
            "lacks the tensor 'model.layers.0.self_attn.q_proj.weight_scale'",
        ),
        (
            {"quantization_config": {"quant_method": "bitnet", "use_rms_norm": True}},
            "lacks the tensor 'model.layers.0.self_attn.q_proj.rms_norm.weight'",
        ),
    ],
)  # fmt: skip
def test_a_config_that_contradicts_the_weights(model: Path, values: dict[str, Any], message: str) -> None:
    change(model / "config.json", **values)
    refused(model, message)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"quantization_config": None}, "'model.layers.0.self_attn.q_proj.weight' is stored as U8"),
        (
            {"quantization_config": {"quant_method": "bitnet", "quantization_mode": "online"}},
            r"q_proj.weight' is stored as U8; F64, F32, F16, BF16 is accepted",
        ),
        (
            {"quantization_config": {"quant_method": "bitnet", "modules_to_not_convert": ["lm_head", "q_proj"]}},
            "'model.layers.0.self_attn.q_proj.weight' is stored as U8",
        ),
        ({"intermediate_size": 44}, r"gate_proj.weight'.*\[12, 32\].*\[11, 32\]"),
        ({"intermediate_size": 46}, "packs 46 rows, which are no multiple of 4"),
    ],
)  # fmt: skip
def test_a_config_that_contradicts_packed_weights(packed: Path, values: dict[str, Any], message: str) -> None:
    change(packed / "config.json", **values)
    refused(packed, message)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_scales_that_are_no_scales(packed: Path, scale: float) -> None:
    name = "model.layers.1.mlp.up_proj.weight_scale"
    change_tensors(packed, lambda tensors: tensors.update({name: np.array([scale], np.float32)}))
    refused(packed, rf"'{name}' in .* is not one number above 0")
    change_tensors(packed, lambda tensors: tensors.update({name: np.ones(2, np.float32)}))
    refused(packed, "is not one number above 0")
    change_tensors(packed, lambda tensors: tensors.update({name: np.ones(1, np.int32)}))
    refused(packed, "is stored as I32")
    change_tensors(packed, lambda tensors: tensors.pop(name))
    refused(packed, f"lacks the tensor '{name}'")


def test_bytes_that_hold_other_codes(packed: Path) -> None:
    def spoil(tensors: dict[str, Any]) -> None:
        tensors["model.layers.2.mlp.down_proj.weight"][3, 5] |= 0b1100

    change_tensors(packed, spoil)
    refused(packed, r"'model.layers.2.mlp.down_proj.weight' in .* holds codes other than -1, 0 and 1")


def test_codes_stored_as_numbers_that_are_none(tiny_decoder: Tiny) -> None:
    how = {"linear_class": "autobitlinear", "quantization_mode": "offline"}
    directory, _ = tiny_decoder("llama", quantised=how)

    def spoil(tensors: dict[str, Any]) -> None:
        tensors["model.layers.0.self_attn.v_proj.weight"][0, 0] = 0.5

    change_tensors(directory, spoil)
    tensor = load_decoder(directory).tensors["layers.0.attn.v.weight"]
    with pytest.raises(ModelError, match="not all -1, 0 or 1"):
        tensor.codes_i8()  # type: ignore[union-attr]


@pytest.mark.parametrize("keep", [0, 4, 8, 100, 9000, -1])
def test_truncated_weights(model: Path, keep: int) -> None:
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    refused(model, r"model\.safetensors (is empty|is not a usable safetensors file)")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_numbers_that_are_not_finite(tiny_decoder: Tiny, value: float, dtype: str) -> None:
    import torch

    directory, made = tiny_decoder("llama")
    with torch.no_grad():
        made.model.layers[2].mlp.down_proj.weight[31, 47] = value
    made.to(getattr(torch, dtype)).save_pretrained(directory)
    refused(directory, r"'model.layers.2.mlp.down_proj.weight' in .*model\.safetensors holds .* not finite")


def test_whole_numbers_as_weights(model: Path) -> None:
    change_tensors(model, lambda tensors: tensors.update({"model.norm.weight": np.ones(32, np.int8)}))
    refused(model, "'model.norm.weight' is stored as I8; F64, F32, F16, BF16 is accepted")


@pytest.mark.parametrize("name", ["lm_head.weight", "model.norm.weight", "model.layers.1.self_attn.k_norm.weight"])
def test_a_missing_tensor(model: Path, name: str) -> None:
    change_tensors(model, lambda tensors: tensors.pop(name))
    refused(model, f"lacks the tensor '{name}'")


def test_tensors_that_would_change_the_result(model: Path) -> None:
    change_tensors(model, lambda tensors: tensors.update({"model.layers.0.mlp.up_proj.bias": np.ones(48, np.float32)}))
    refused(model, "holds the tensor 'model.layers.0.mlp.up_proj.bias', which its config.json does not call for")


def test_weights_of_something_else(model: Path) -> None:
    save_file({"conv.weight": np.zeros((3, 3), np.float32)}, model / "model.safetensors")
    refused(model, "does not hold a decoder: no tensor is called 'embed_tokens.weight'")


def test_two_decoders(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    save_file({f"{side}.{name}": tensors[name] for side in "ab" for name in tensors}, model / "model.safetensors")
    refused(model, "holds 2 word embeddings; a decoder has one")


def test_missing_shards(tiny_decoder: Tiny) -> None:
    directory, made = tiny_decoder("qwen3")
    (directory / "model.safetensors").unlink()
    made.save_pretrained(directory, max_shard_size="20KB")
    lost = sorted(directory.glob("model-*.safetensors"))[1]
    kept = lost.read_bytes()
    lost.unlink()
    refused(directory, f"{lost.name} does not exist")
    lost.write_bytes(kept[:-10])
    refused(directory, f"{lost.name} is not a usable safetensors file: it is cut off")
    lost.write_bytes(kept)
    load_decoder(directory)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth"])
def test_pickles_are_never_loaded(model: Path, name: str) -> None:
    (model / "model.safetensors").unlink()
    (model / name).write_bytes(b"cos\nsystem\n(S'touch /tmp/pwned'\ntR.")
    refused(model, f"only in {name}, a pickle, which Kogata never loads")


# Tokens and templates


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"version": "1.0", "model": null}', '{"a":' * 100_000])
def test_a_broken_tokenizer(model: Path, content: str) -> None:
    (model / "tokenizer.json").write_text(content)
    refused(model, r"tokenizer\.json is not")


def test_no_tokenizer(model: Path) -> None:
    (model / "tokenizer.json").unlink()
    assert "save_pretrained" in str(refused(model, "has no tokenizer.json").hint)


@pytest.mark.parametrize("token", [-1, 262, 10**30, True, 2.0, "</s>", [259, None], [[259]], {"a": 1}])
def test_ends_that_are_no_tokens(model: Path, token: object) -> None:
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": token}))
    refused(model, "The model ends texts with token .*, but has words 0 to 261 only")


def test_a_thousand_ends(model: Path) -> None:
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": [1] * 1001}))
    refused(model, "names 1001 tokens that end a text; 1000 are enough")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"special_tokens": {"<s>": {"id": "<s>", "ids": [10**6], "tokens": ["<s>"]}}}, "begins texts with token"),
        ({"special_tokens": {}}, "'post_processor' is not one that can be read|tokenizer that can be read"),
        ({"special_tokens": {"<s>": {"id": "<s>", "ids": [], "tokens": []}}}, "can be read"),
        ({"single": 3}, "can be read"),
    ],
)  # fmt: skip
def test_broken_post_processors(model: Path, change: dict[str, Any], message: str) -> None:
    content = json.loads((model / "tokenizer.json").read_text())
    content["post_processor"] |= change
    (model / "tokenizer.json").write_text(json.dumps(content))
    refused(model, message)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"chat_template": 3}, "'chat_template' is neither text nor a list"),
        ({"chat_template": {"default": "x"}}, "'chat_template' is neither text nor a list"),
        ({"chat_template": ["x"]}, "a chat template without 'name' and 'template'"),
        ({"chat_template": [{"name": "default"}]}, "a chat template without 'name' and 'template'"),
        ({"chat_template": [{"name": "default", "template": 3}]}, "'chat_template' is neither text nor a list"),
        ({"chat_template": "x" * 2**21}, "larger than 1 MB"),
        ({"bos_token": 3}, "'bos_token' is neither text nor an object"),
        ({"eos_token": ["</s>"]}, "'eos_token' is neither text nor an object"),
        ({"eos_token": {"content": 3}}, "'eos_token' is neither text nor an object"),
    ],
)
def test_broken_settings_of_the_tokenizer(model: Path, values: dict[str, Any], message: str) -> None:
    (model / "tokenizer_config.json").write_text(json.dumps(values))
    refused(model, message)


def test_a_template_of_two_megabytes(model: Path) -> None:
    (model / "chat_template.jinja").write_text("x" * 2**21)
    refused(model, "chat_template.jinja is larger than 1 MB")


def test_a_good_model_loads_after_every_refusal(model: Path) -> None:
    kept = (model / "config.json").read_text()
    change(model / "config.json", hidden_size=24)
    refused(model, "shape")
    (model / "config.json").write_text(kept)
    load_decoder(model)


# Damage of every kind


def other(rng: random.Random, value: Any) -> Any:
    """A JSON value with one thing in it changed, or gone."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(sorted(value))
        if rng.random() < 0.15:
            return {name: inner for name, inner in value.items() if name != key}
        return value | {key: other(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.7:
        at = rng.randrange(len(value))
        return [*value[:at], other(rng, value[at]), *value[at + 1 :]]
    numbers: list[Any] = [0, -1, 1, 2, 3, 4, 7, 10**6, 10**30, 1.5, float("nan"), float("inf"), -1e308]
    return rng.choice([*numbers, None, True, False, "", "x", "yarn", "full_attention", [], {}, [1], ["x"], {"a": 1}])


def damage(rng: random.Random, path: Path) -> None:
    if path.suffix == ".json" and rng.random() < 0.8:
        path.write_text(json.dumps(other(rng, other(rng, json.loads(path.read_text())))))
        return
    content = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(min(len(content), 4000))  # mostly the header of weights
        if rng.random() < 0.5:
            content[at] ^= 1 << rng.randrange(8)
        else:
            del content[at : at + rng.randint(1, 9)]
    path.write_bytes(content)


def hammer(directories: list[Path], place: Path, seed: int, rounds: int) -> int:
    """Loads damaged copies, all of which load or are refused; how many load."""
    rng = random.Random(seed)
    loaded = 0
    for _ in range(rounds):
        shutil.copytree(rng.choice(directories), place / "copy")
        damage(rng, rng.choice(sorted((place / "copy").iterdir())))
        try:
            for tensor in load_decoder(place / "copy").tensors.values():
                if isinstance(tensor, TernaryTensor):
                    tensor.codes_i8()
            loaded += 1
        except ModelError:
            pass
        shutil.rmtree(place / "copy")
    return loaded


@pytest.fixture
def victims(tiny_decoder: Tiny) -> list[Path]:
    directories = [
        tiny_decoder("llama", quantised={"linear_class": "bitlinear", "use_rms_norm": True})[0],
        tiny_decoder("gemma3_text", sliding_window=3)[0],
        tiny_decoder("qwen3", tie_word_embeddings=True)[0],
    ]
    template = [{"name": "default", "template": "{{ bos_token }}"}]
    told = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": template}
    for directory in directories:
        (directory / "tokenizer_config.json").write_text(json.dumps(told))
    return directories


def test_damaged_directories(victims: list[Path], tmp_path: Path) -> None:
    # Some damage changes nothing that is read, or only a weight.
    assert 0 < hammer(victims, tmp_path, seed=1, rounds=100) < 60


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 6))
def test_many_damaged_directories(victims: list[Path], tmp_path: Path, seed: int) -> None:
    hammer(victims, tmp_path, seed, rounds=5_000)
