"""EncoderConfig: from Hugging Face's files, its refusals, and its list of parameters."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kogata.config import ENCODERS, EncoderConfig
from kogata.errors import ModelError

BERT = {
    "model_type": "bert",
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
    "pad_token_id": 0,
}


def test_reads_a_bert_config() -> None:
    config = EncoderConfig.from_hf(BERT)
    assert config == EncoderConfig("bert", 6, 384, 12, 1536, 30522, 512, 0, 2, 1e-12, "gelu")
    assert config.d_head == 32
    assert config.context == 512


def test_xlm_roberta_counts_positions_from_after_the_padding_token() -> None:
    values = {"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": 1, "type_vocab_size": 1}
    config = EncoderConfig.from_hf(BERT | values)
    assert config.position_offset == 2
    assert config.context == 512


def test_distilbert_uses_its_own_names() -> None:
    values = {
        "model_type": "distilbert",
        "dim": 768,
        "n_layers": 6,
        "n_heads": 12,
        "hidden_dim": 3072,
        "vocab_size": 30522,
        "max_position_embeddings": 512,
        "activation": "gelu",
        "pad_token_id": 0,
    }
    assert EncoderConfig.from_hf(values) == EncoderConfig("distilbert", 6, 768, 12, 3072, 30522, 512, 0, 1, 1e-12)


def test_parameters_add_up_to_the_published_size() -> None:
    # all-MiniLM-L6-v2 has 22,713,216 parameters with its pooler's 384 * 385.
    total = 0
    for parameter in EncoderConfig.from_hf(BERT).parameters():
        n = 1
        for size in parameter.shape:
            n *= size
        total += n
    assert total == 22_713_216 - 384 * 385


def test_parameter_names_are_unique_and_norms_stay_at_full_precision() -> None:
    parameters = EncoderConfig.from_hf(BERT).parameters()
    assert len({parameter.name for parameter in parameters}) == len(parameters) == 5 + 6 * 16
    for parameter in parameters:
        is_matrix = parameter.name.endswith(".weight") and len(parameter.shape) == 2
        low = is_matrix or parameter.name == "embed.word"
        assert parameter.lowest_precision == ("int4" if low else "f32"), parameter.name


def test_json_round_trip() -> None:
    config = EncoderConfig.from_hf(BERT)
    assert EncoderConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llama"}, "'llama'.*bert.*xlm-roberta"),
        ({"model_type": "mpnet"}, "'mpnet'"),
        ({"model_type": None}, "model_type"),
        ({"model_type": ["bert"]}, "model_type"),
        ({"num_attention_heads": 7}, "7 attention heads do not divide.*384"),
        ({"hidden_size": -384}, "d_model is -384"),
        ({"hidden_size": 0}, "d_model is 0"),
        ({"hidden_size": 10**12}, "d_model is 1000000000000"),
        ({"hidden_size": 384.0}, "whole number"),
        ({"hidden_size": True}, "whole number, not True"),
        ({"hidden_size": "384"}, "whole number, not '384'"),
        ({"num_hidden_layers": 10**9}, "n_layers"),
        ({"vocab_size": 10**30}, "vocab_size"),
        ({"layer_norm_eps": 0.0}, "norm_eps"),
        ({"layer_norm_eps": float("nan")}, "norm_eps"),
        ({"layer_norm_eps": "small"}, "norm_eps"),
        ({"hidden_act": "gelu_new"}, "'gelu_new'.*'gelu'"),
        ({"hidden_act": {"x": 1}}, "activation"),
        ({"position_embedding_type": "relative_key"}, "'relative_key'.*'absolute'"),
        ({"is_decoder": True}, "decoders"),
        ({"model_type": "xlm-roberta", "pad_token_id": -1}, "pad_token_id"),
        ({"model_type": "xlm-roberta", "pad_token_id": 600}, "positions from 601"),
        ({"model_type": "xlm-roberta", "pad_token_id": None}, "pad_token_id"),
    ],
)
def test_refuses_by_name(change: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        EncoderConfig.from_hf(BERT | change)


@pytest.mark.parametrize("name", [n for n in BERT if n.startswith(("hidden_size", "num_", "inter", "vocab", "max"))])
def test_names_what_is_missing(name: str) -> None:
    with pytest.raises(ModelError, match=f"lacks '{name}'"):
        EncoderConfig.from_hf({key: value for key, value in BERT.items() if key != name})


def test_own_dictionaries_are_checked_too() -> None:
    values = EncoderConfig.from_hf(BERT).to_dict()
    with pytest.raises(ModelError, match="Unknown model setting 'rope'"):
        EncoderConfig.from_dict(values | {"rope": 1})
    with pytest.raises(ModelError, match="'d_ff' is missing"):
        EncoderConfig.from_dict({key: value for key, value in values.items() if key != "d_ff"})
    with pytest.raises(ModelError, match=r"'gpt'.*bert"):
        EncoderConfig.from_dict(values | {"architecture": "gpt"})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(kind=st.sampled_from(ENCODERS), name=st.sampled_from(sorted(BERT)), value=json_values)
def test_any_value_gives_a_config_or_a_model_error(kind: str, name: str, value: object) -> None:
    try:
        config = EncoderConfig.from_hf(BERT | {"model_type": kind} | {name: value})
    except ModelError:
        return
    assert config.d_model % config.n_heads == 0
    assert config.context > 0


@given(json_values)
def test_any_json_gives_a_config_or_a_model_error(value: object) -> None:
    with pytest.raises(ModelError):
        EncoderConfig.from_hf(value)  # type: ignore[arg-type]
