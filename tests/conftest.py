"""Tiny random decoders, for the tests of more than one room."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local_hub import Hub, running

os.environ["TORCHDYNAMO_DISABLE"] = "1"  # transformers' BitNet would be compiled otherwise

#: Words of the tiny decoders: 256 bytes, two merges, four control tokens.
DECODER_WORDS = 262


@pytest.fixture(scope="session")
def byte_tokenizer() -> str:
    """A byte-level tokenizer.json that begins texts with ``<s>``."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: i for i, letter in enumerate([*letters, "th", "the"])}
    made = Tokenizer(models.BPE(vocab, [("t", "h"), ("th", "e")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(text, special=True) for text in ("<s>", "</s>", "<user>", "<end>")])
    made.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 258)])
    return made.to_str()


@pytest.fixture
def local_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that this process asks instead of the real one, and an empty cache for it in ``tmp_path / "hub"``."""
    from huggingface_hub import constants

    with running(Hub()) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        yield hub


@pytest.fixture
def tiny_decoder(tmp_path: Path, byte_tokenizer: str) -> Callable[..., tuple[Path, Any]]:
    """Makes a directory with a tiny random decoder of transformers: (directory, model).

    ``quantised`` replaces its linears as transformers does for such a ``quantization_config``; their weights are then
    stored in that form.
    """

    def make(
        kind: str = "llama", dtype: str = "float32", quantised: dict[str, Any] | None = None, **settings: Any
    ) -> tuple[Path, Any]:
        import torch
        import transformers

        stem = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3", "gemma3_text": "Gemma3", "bitnet": "BitNet"}[kind]
        sizes: dict[str, Any] = {
            "vocab_size": DECODER_WORDS,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 64,
            "bos_token_id": 258,
            "eos_token_id": 259,
            "pad_token_id": None,
        }
        if kind in ("qwen3", "gemma3_text"):
            sizes["head_dim"] = 12
        config_class = getattr(transformers, f"{stem}TextConfig" if kind == "gemma3_text" else f"{stem}Config")
        config = config_class(**sizes | settings)
        torch.manual_seed(1)
        model = getattr(transformers, f"{stem}ForCausalLM")(config).eval()
        if quantised is not None:
            made = transformers.BitNetQuantConfig(**quantised)
            skipped = ["lm_head"] if made.modules_to_not_convert is None else made.modules_to_not_convert
            transformers.integrations.replace_with_bitnet_linear(model, skipped, made)
            for module in model.modules():
                if type(module).__name__ in ("BitLinear", "AutoBitLinear"):
                    module.to_empty(device="cpu")
            model.config.quantization_config = made
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0.0, 0.3)
            for module in model.modules():
                fill(module)
        directory = tmp_path / f"tiny-{kind}-{dtype}"
        model.to(getattr(torch, dtype)).save_pretrained(directory)
        (directory / "tokenizer.json").write_text(byte_tokenizer)
        return directory, model.to(torch.float32)

    return make


def fill(module: Any) -> None:
    """Random codes and a scale for a BitLinear that has been quantised, packed where it holds them so."""
    import torch
    from transformers.integrations.bitnet import pack_weights

    if hasattr(module, "weight_scale"):
        module.weight_scale.uniform_(0.25, 1.25)
        codes = torch.randint(-1, 2, (module.out_features, module.in_features)).float()
        module.weight.copy_(pack_weights(codes) if module.weight.dtype == torch.uint8 else codes)
        module.dtype = torch.float32
        if module.bias is not None:
            module.bias.normal_()
