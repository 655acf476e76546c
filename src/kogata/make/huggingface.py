"""A decoder as a Hugging Face directory, which transformers and Kogata's own loader read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from kogata.errors import BadInput
from kogata.make.data import ASSISTANT, BOS, END, EOS, USER
from kogata.make.nn.decoder import Decoder, Shape

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    f"{{{{ '{ASSISTANT}' if message['role'] == 'assistant' else '{USER}' }}}}{{{{ message['content'] | trim }}}}{END}"
    "{% endfor %}"
    f"{{% if add_generation_prompt %}}{ASSISTANT}{{% endif %}}"
)


def config(shape: Shape, ids: dict[str, int]) -> dict[str, Any]:
    """``config.json`` of a shape; ``ids`` are those of the control tokens."""
    return {
        "architectures": ["BitNetForCausalLM"],
        "model_type": "bitnet",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.d_model,
        "intermediate_size": shape.d_ff,
        "num_hidden_layers": shape.n_layers,
        "num_attention_heads": shape.n_heads,
        "num_key_value_heads": shape.n_kv_heads,
        "hidden_act": "relu2",
        "max_position_embeddings": shape.context,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,
        "attention_bias": False,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "bos_token_id": ids[BOS],
        "eos_token_id": ids[EOS],
        # The weights are the masters, to be rounded when they are used.
        "quantization_config": {
            "quant_method": "bitnet",
            "linear_class": "autobitlinear",
            "quantization_mode": "online",
        },
    }


def save(decoder: Decoder, tokenizer: Path, log: Path, folder: Path, card: str) -> None:
    """Write a model's directory: bf16 master weights, config, tokenizer, chat template, training log and model card.

    Args:
        decoder: The model.
        tokenizer: Its ``tokenizer.json``.
        log: Of its training: ``log.jsonl``, from which :func:`load` knows how far that was.
        folder: Where to; it is replaced whole.
        card: The text of its ``README.md``.
    """
    source = tokenizer.read_text(encoding="utf-8")
    ids = {added["content"]: added["id"] for added in json.loads(source)["added_tokens"]}
    files = {
        "config.json": config(decoder.shape, ids),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": BOS,
            "eos_token": EOS,
            "add_bos_token": True,
            "clean_up_tokenization_spaces": False,
            "model_max_length": decoder.shape.context,
            "chat_template": CHAT_TEMPLATE,
        },
        "generation_config.json": {
            "bos_token_id": ids[BOS],
            "eos_token_id": [ids[EOS], ids[END]],
            "do_sample": True,
            "temperature": 0.8,
            "top_p": 0.95,
        },
    }
    unfinished = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for name, content in files.items():
        (unfinished / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (unfinished / "tokenizer.json").write_text(source, encoding="utf-8")
    shutil.copyfile(log, unfinished / "log.jsonl")
    (unfinished / "README.md").write_text(card, encoding="utf-8")
    weights = {f"model.{name}": weight.to(torch.bfloat16) for name, weight in decoder.state_dict().items()}
    save_file(weights, unfinished / "model.safetensors", metadata={"format": "pt"})
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)


def load(decoder: Decoder, folder: Path) -> int:
    """Read a directory of :func:`save` into a decoder, as float32.

    Returns:
        How many tokens it has seen, by the last line of its log.

    Raises:
        BadInput: Something is missing or damaged, or it holds a model of another shape.
    """
    try:
        weights = load_file(folder / "model.safetensors")
        seen = json.loads((folder / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])["tokens"]
    except (OSError, SafetensorError, ValueError, LookupError) as error:
        raise BadInput(f"{folder} cannot be gone on from, its weights or its log.jsonl do not read: {error}") from None
    shapes = {f"model.{name}": weight.shape for name, weight in decoder.state_dict().items()}
    if shapes != {name: weight.shape for name, weight in weights.items()}:
        raise BadInput(f"{folder} holds a model of another shape.")
    decoder.load_state_dict({name.removeprefix("model."): weight for name, weight in weights.items()})
    return int(seen)
