"""DecoderConfig: against transformers' own reading of the same files, its refusals, and its list of parameters."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogata.config import DECODERS, DecoderConfig, Rope
from kogata.errors import ModelError

# As published, shortened to what matters.
LLAMA_3_2_1B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
}
LLAMA_1_7B = {
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "max_position_embeddings": 2048,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "rms_norm_eps": 1e-06,
    "vocab_size": 32000,
}
QWEN_2_5_7B = {
    "model_type": "qwen2",
    "hidden_act": "silu",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 131072,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "vocab_size": 152064,
}
QWEN_3_8B = {
    "model_type": "qwen3",
    "attention_bias": False,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "max_position_embeddings": 40960,
    "max_window_layers": 36,
    "num_attention_heads": 32,
    "num_hidden_layers": 36,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
GEMMA_3_1B = {
    "model_type": "gemma3_text",
    "attention_bias": False,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 1152,
    "intermediate_size": 6912,
    "max_position_embeddings": 32768,
    "num_attention_heads": 4,
    "num_hidden_layers": 26,
    "num_key_value_heads": 1,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
    "torch_dtype": "bfloat16",
    "vocab_size": 262144,
}
GEMMA_3_4B = {
    "model_type": "gemma3",
    "architectures": ["Gemma3ForConditionalGeneration"],
    "eos_token_id": [1, 106],
    "text_config": {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    },
    "torch_dtype": "bfloat16",
    "vision_config": {"hidden_size": 1152, "model_type": "siglip_vision_model"},
}
BITNET_2B4T = {
    "model_type": "bitnet",
    "hidden_act": "relu2",
    "hidden_size": 2560,
    "intermediate_size": 6912,
    "max_position_embeddings": 4096,
    "num_attention_heads": 20,
    "num_hidden_layers": 30,
    "num_key_value_heads": 5,
    "rms_norm_eps": 1e-05,
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "vocab_size": 128256,
    "quantization_config": {
        "quant_method": "bitnet",
        "linear_class": "autobitlinear",
        "quantization_mode": "offline",
    },
}
FALCON_3_1B = {
    "model_type": "llama",
    "attention_bias": False,
    "head_dim": 256,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "is_bitnet_config": True,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "num_attention_heads": 8,
    "num_hidden_layers": 18,
    "num_key_value_heads": 4,
    "quantization_config": {"modules_to_not_convert": ["lm_head"], "quant_method": "bitnet"},
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000042,
    "tie_word_embeddings": False,
    "vocab_size": 131072,
}
PUBLISHED = {
    "Llama 3.2 1B": LLAMA_3_2_1B,
    "Llama 1 7B": LLAMA_1_7B,
    "Qwen2.5 7B": QWEN_2_5_7B,
    "Qwen3 8B": QWEN_3_8B,
    "Gemma 3 1B": GEMMA_3_1B,
    "Gemma 3 4B": GEMMA_3_4B,
    "BitNet 2B4T": BITNET_2B4T,
    "Falcon3 1B": FALCON_3_1B,
}
YARN = {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}}


def model_of(values: dict[str, Any]) -> Any:
    """transformers' config of the text model, and the model itself without memory."""
    import torch
    import transformers

    config = transformers.AutoConfig.for_model(**json.loads(json.dumps(values))).get_text_config()
    with torch.device("meta"):
        return config, transformers.AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_are_read_as_transformers_reads_them(name: str) -> None:
    ours = DecoderConfig.from_hf(PUBLISHED[name])
    theirs, model = model_of(PUBLISHED[name] | {"quantization_config": None})
    assert ours.n_layers == theirs.num_hidden_layers
    assert ours.context == theirs.max_position_embeddings
    assert ours.norm_eps == theirs.rms_norm_eps
    assert ours.tied == (model.lm_head.weight is model.model.embed_tokens.weight)
    types = getattr(theirs, "layer_types", None) or ["full_attention"] * theirs.num_hidden_layers
    assert ours.pattern == "".join("W" if kind == "sliding_attention" else "F" for kind in types)
    assert ours.window == (theirs.sliding_window if "W" in ours.pattern else 0)
    attention = model.model.layers[0].self_attn
    assert ours.attention_scale == pytest.approx(attention.scaling, rel=1e-12)
    assert ours.d_head == attention.head_dim
    # Every size and every bias: the shapes of the whole model.
    assert sorted(parameter.shape for parameter in ours.parameters()) == sorted(
        tuple(parameter.shape) for parameter in model.parameters()
    )
    parameters = {"full_attention": ours.rope, "sliding_attention": ours.window_rope or ours.rope}
    for kind, rope in parameters.items():
        found = theirs.rope_parameters.get(kind, theirs.rope_parameters)
        if kind in types:
            assert (rope.kind, rope.theta) == (found["rope_type"], found["rope_theta"])
            assert rope.factor == (found.get("factor") or 1.0)


def test_what_sets_the_architectures_apart() -> None:
    llama, gemma, bitnet = (DecoderConfig.from_hf(values) for values in (LLAMA_3_2_1B, GEMMA_3_1B, BITNET_2B4T))
    assert llama.rope == Rope(
        theta=500_000.0, kind="llama3", factor=32.0, original_context=8192, low_freq_factor=1.0, high_freq_factor=4.0
    )
    assert (llama.activation, gemma.activation, bitnet.activation) == ("silu", "gelu_tanh", "relu2")
    assert (llama.sub_norms, llama.qk_norm, llama.post_norms) == (False, False, False)
    assert (gemma.sub_norms, gemma.qk_norm, gemma.post_norms) == (False, True, True)
    assert (bitnet.sub_norms, bitnet.qk_norm, bitnet.post_norms) == (True, False, False)
    assert gemma.pattern == "WWWWWF" * 4 + "WW"
    assert gemma.window_rope == Rope(theta=10_000.0)
    assert gemma.embed_scale == 34.0  # sqrt(1152) = 33.94 in bfloat16
    assert DecoderConfig.from_hf(GEMMA_3_1B | {"torch_dtype": "float16"}).embed_scale == 33.9375
    assert DecoderConfig.from_hf(GEMMA_3_1B | {"torch_dtype": None}).embed_scale == pytest.approx(
        math.sqrt(1152), rel=1e-7
    )
    assert DecoderConfig.from_hf(GEMMA_3_4B).embed_scale == 50.5  # sqrt(2560) = 50.596
    assert (bitnet.quantised, bitnet.unquantised, bitnet.linear_norms) == (True, ("head",), False)
    assert not bitnet.is_quantised("head")
    assert bitnet.is_quantised("layers.29.ffn.down")
    assert not bitnet.is_quantised("embed")
    assert not bitnet.is_quantised("layers.0.attn.norm")
    assert not llama.is_quantised("layers.0.attn.q")


def test_parameters_add_up_to_the_published_sizes() -> None:
    sizes = {"Llama 3.2 1B": 1_235_814_400, "Qwen3 8B": 8_190_735_360, "Gemma 3 1B": 999_885_952}
    for name, expected in sizes.items():
        parameters = DecoderConfig.from_hf(PUBLISHED[name]).parameters()
        assert sum(math.prod(parameter.shape) for parameter in parameters) == expected
        assert len({parameter.name for parameter in parameters}) == len(parameters)


def test_precisions() -> None:
    for parameter in DecoderConfig.from_hf(BITNET_2B4T).parameters():
        if parameter.name == "embed.weight":
            assert parameter.lowest_precision == "int4"
        elif len(parameter.shape) == 2:
            assert parameter.lowest_precision == "ternary"
        else:
            assert parameter.lowest_precision == "f32"
    assert {parameter.lowest_precision for parameter in DecoderConfig.from_hf(QWEN_2_5_7B).parameters()} == {
        "f32",
        "int4",
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_json_round_trip(name: str) -> None:
    config = DecoderConfig.from_hf(PUBLISHED[name])
    assert DecoderConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_windows_of_qwen() -> None:
    windowed = QWEN_2_5_7B | {"use_sliding_window": True, "max_window_layers": 20, "sliding_window": 4096}
    config = DecoderConfig.from_hf(windowed)
    assert config.pattern == "F" * 20 + "W" * 8
    assert config.window == 4096
    assert config.window_rope is None
    types = ["sliding_attention"] + ["full_attention"] * 27
    assert DecoderConfig.from_hf(windowed | {"layer_types": types}).pattern == "W" + "F" * 27
    assert DecoderConfig.from_hf(windowed | {"sliding_window": None}).pattern == "F" * 28


def test_stretched_contexts() -> None:
    assert DecoderConfig.from_hf(QWEN_2_5_7B | YARN).context == 131072
    assert DecoderConfig.from_hf(QWEN_2_5_7B | YARN | {"max_position_embeddings": 131072}).context == 131072
    dynamic = {"rope_scaling": {"type": "dynamic", "factor": 2}}
    assert DecoderConfig.from_hf(LLAMA_1_7B | dynamic).context == 4096
    assert DecoderConfig.from_hf(LLAMA_1_7B | {"rope_scaling": {"type": "linear", "factor": 2}}).context == 2048


def test_both_ways_to_write_a_rope_are_one() -> None:
    old = DecoderConfig.from_hf(LLAMA_3_2_1B)
    new = {key: value for key, value in LLAMA_3_2_1B.items() if not key.startswith("rope_")}
    both = LLAMA_3_2_1B["rope_scaling"] | {"rope_theta": 500000.0}
    assert DecoderConfig.from_hf(new | {"rope_parameters": both}) == old
    old = DecoderConfig.from_hf(GEMMA_3_4B)
    text = {key: value for key, value in GEMMA_3_4B["text_config"].items() if key != "rope_scaling"}
    ropes = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    assert DecoderConfig.from_hf(GEMMA_3_4B | {"text_config": text | {"rope_parameters": ropes}}) == old


@pytest.mark.parametrize(
    ("patterns", "kept"),
    [
        (None, ("head",)),
        (["lm_head"], ("head",)),
        (["lm_head", "down_proj"], ("head", "layers.0.ffn.down", "layers.1.ffn.down")),
        (["lm_head", "model.layers.1.self_attn.q_proj"], ("head", "layers.1.attn.q")),
        (["lm_head", "model.layers.1.self_attn.q"], ("head",)),
        (["lm_head", "model.layers.*.mlp.up_proj"], ("head", "layers.0.ffn.up", "layers.1.ffn.up")),
        (["lm_head", "model.layers.1.mlp."], ("head", *(f"layers.1.ffn.{part}" for part in ("gate", "up", "down")))),
        (["embed_tokens"], ()),
        ([], ()),
    ],
)
def test_which_linears_are_quantised(patterns: list[str] | None, kept: tuple[str, ...]) -> None:
    from transformers.quantizers.quantizers_utils import should_convert_module

    values = FALCON_3_1B | {"num_hidden_layers": 2}
    how = {"quant_method": "bitnet", "modules_to_not_convert": patterns}
    config = DecoderConfig.from_hf(values | {"quantization_config": how})
    assert config.unquantised == kept
    _, model = model_of({key: value for key, value in values.items() if key != "quantization_config"})
    skipped = ["lm_head"] if patterns is None else patterns
    linears = [name for name, module in model.named_modules() if type(module).__name__ == "Linear"]
    expected = [name for name in linears if not should_convert_module(name, skipped)]
    assert len(kept) == len(expected)


def test_norms_of_bitlinears() -> None:
    how = {"quant_method": "bitnet", "use_rms_norm": True, "rms_norm_eps": 1e-4}
    config = DecoderConfig.from_hf(FALCON_3_1B | {"quantization_config": how})
    assert (config.linear_norms, config.linear_norm_eps, config.norm_eps) == (True, 1e-4, 1e-6)
    shapes = {parameter.name: parameter.shape for parameter in config.parameters()}
    assert shapes["layers.3.ffn.down.norm.weight"] == (8192,)
    assert shapes["layers.3.attn.k.norm.weight"] == (2048,)
    assert "head.norm.weight" not in shapes


ROPE = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
LLAMA3 = LLAMA_3_2_1B["rope_scaling"]


def bitnet(**how: object) -> dict[str, Any]:
    return {"quantization_config": {"quant_method": "bitnet"} | how}


@pytest.mark.parametrize(
    ("base", "change", "message"),
    [
        (LLAMA_1_7B, {"model_type": "mistral"}, "'mistral' cannot be run as a text generator.*llama, qwen2, qwen3"),
        (LLAMA_1_7B, {"model_type": "bert"}, "'bert' cannot be run as a text generator"),
        (LLAMA_1_7B, {"model_type": None}, "without 'model_type'"),
        (LLAMA_1_7B, {"model_type": ["llama"]}, "without 'model_type'"),
        (LLAMA_1_7B, {"model_type": "x" * 10_000}, "cannot be run"),
        (LLAMA_1_7B, {"num_key_value_heads": 5}, "5 key and value heads do not divide 32 query heads"),
        (LLAMA_1_7B, {"hidden_size": 0}, "d_model is 0; 1 to 65,536"),
        (LLAMA_1_7B, {"hidden_size": 4096.0}, "whole number, not 4096.0"),
        (LLAMA_1_7B, {"hidden_size": True}, "whole number, not True"),
        (LLAMA_1_7B, {"hidden_size": None}, "lacks 'hidden_size'"),
        (LLAMA_1_7B, {"num_hidden_layers": 10**9}, "n_layers is 1000000000"),
        (LLAMA_1_7B, {"num_attention_heads": -1}, "n_heads is -1"),
        (LLAMA_1_7B, {"num_attention_heads": 31}, "31 attention heads do not divide.*4096"),
        (LLAMA_1_7B, {"vocab_size": 10**5000}, "vocab_size is a number of thousands of digits"),
        (LLAMA_1_7B, {"max_position_embeddings": "many"}, "context must be a whole number"),
        (LLAMA_1_7B, {"head_dim": 127}, "127 wide; rotary positions need an even number"),
        (LLAMA_1_7B, {"head_dim": 0}, "d_head is 0"),
        (LLAMA_1_7B, {"rms_norm_eps": 0.0}, "rms_norm_eps is 0.0; a number between 0 and 1"),
        (LLAMA_1_7B, {"rms_norm_eps": float("nan")}, "rms_norm_eps"),
        (LLAMA_1_7B, {"rms_norm_eps": "small"}, "rms_norm_eps"),
        (LLAMA_1_7B, {"hidden_act": "gelu"}, "activation 'gelu' cannot be run; silu, swish"),
        (LLAMA_1_7B, {"hidden_act": {"a": 1}}, "activation"),
        (LLAMA_1_7B, {"attention_bias": "yes"}, "attention_bias is 'yes'; true or false"),
        (LLAMA_1_7B, {"mlp_bias": 1}, "mlp_bias is 1; true or false"),
        (LLAMA_1_7B, {"tie_word_embeddings": None}, "tie_word_embeddings is None"),
        (LLAMA_1_7B, {"rope_theta": 0}, "rope theta is 0.0; a number from 2"),
        (LLAMA_1_7B, {"rope_theta": float("inf")}, "rope_theta inf; a number is accepted"),
        (LLAMA_1_7B, {"rope_theta": 10**400}, "rope_theta"),
        (LLAMA_1_7B, {"rope_theta": None}, "rope_theta None"),
        (LLAMA_1_7B, {"rope_scaling": "linear"}, "'rope_scaling' is 'linear'; an object"),
        (LLAMA_1_7B, {"rope_parameters": [1]}, "'rope_parameters' is"),
        (LLAMA_1_7B, {"rope_scaling": {"type": "longrope"}}, "type 'longrope' cannot be run; default, linear"),
        (LLAMA_1_7B, {"rope_scaling": {"type": ["yarn"]}}, "cannot be run"),
        (LLAMA_1_7B, {"rope_scaling": {"type": "linear"}}, "rope of type 'linear' lacks 'factor'"),
        (LLAMA_1_7B, {"rope_scaling": {"type": "linear", "factor": 0.5}}, "rope factor is 0.5; a number from 1"),
        (LLAMA_1_7B, {"rope_scaling": {"type": "linear", "factor": float("nan")}}, "factor nan"),
        (LLAMA_1_7B, {"rope_scaling": {"type": "dynamic", "factor": 10**5}}, "context is 204800000"),
        (LLAMA_1_7B, {"rope_scaling": LLAMA3 | {"low_freq_factor": 4.0}}, "the second must be larger"),
        (LLAMA_1_7B, {"rope_scaling": {"type": "llama3", "factor": 2.0}}, "lacks 'low_freq_factor'"),
        (LLAMA_1_7B, {"rope_scaling": LLAMA3 | {"original_max_position_embeddings": 0}}, "context is 0"),
        (LLAMA_1_7B, {"rope_scaling": ROPE | {"beta_fast": 1, "beta_slow": 2}}, "must not be larger"),
        (LLAMA_1_7B, {"rope_scaling": ROPE | {"beta_fast": "x"}}, "beta_fast 'x'"),
        (LLAMA_1_7B, {"rope_scaling": ROPE | {"truncate": 3}}, "rope truncate is 3"),
        (LLAMA_1_7B, {"rope_scaling": ROPE | {"attention_factor": -1.0}}, "attention_factor is -1.0"),
        (LLAMA_1_7B, {"partial_rotary_factor": 0.5}, "share of 0.5 of each head"),
        (LLAMA_1_7B, {"rope_parameters": {"full_attention": {}}}, "for Gemma 3 only"),
        (QWEN_2_5_7B, {"use_sliding_window": "no"}, "use_sliding_window is 'no'"),
        (QWEN_2_5_7B, {"use_sliding_window": True, "max_window_layers": -1}, "'max_window_layers' is -1"),
        (QWEN_2_5_7B, {"use_sliding_window": True, "max_window_layers": 1, "sliding_window": 0}, "window is 0"),
        (QWEN_2_5_7B, {"layer_types": ["sliding_attention"] * 28}, "no 'sliding_window' that is in use"),
        (QWEN_2_5_7B, {"layer_types": ["full_attention"] * 27}, "for each of its 28 layers"),
        (QWEN_2_5_7B, {"layer_types": ["linear_attention"] * 28}, "'layer_types' is"),
        (QWEN_2_5_7B, {"layer_types": "full_attention"}, "'layer_types' is"),
        (GEMMA_3_1B, {"final_logit_softcapping": 30.0}, "'final_logit_softcapping': 30.0, which cannot be run"),
        (GEMMA_3_1B, {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        (GEMMA_3_1B, {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        (GEMMA_3_1B, {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar is 0"),
        (GEMMA_3_1B, {"sliding_window_pattern": 0}, "sliding_window_pattern' is 0; 1 or more"),
        (GEMMA_3_1B, {"sliding_window": None}, "no 'sliding_window'"),
        (GEMMA_3_1B, {"rope_parameters": {"rope_type": "default"}}, "name neither 'full_attention'"),
        (GEMMA_3_1B, {"rope_parameters": {"full_attention": 3}}, "rope is 3; an object"),
        (GEMMA_3_1B, {"rope_parameters": {"sliding_attention": 3}}, "rope by 3; an object"),
        (GEMMA_3_4B, {"text_config": None}, "lacks the object 'text_config'"),
        (GEMMA_3_4B, {"text_config": {"model_type": "gemma2"}}, "'gemma2' cannot be run"),
        (BITNET_2B4T, {"quantization_config": {"quant_method": "gptq"}}, "by 'gptq'; of such files only those of"),
        (BITNET_2B4T, {"quantization_config": "bitnet"}, "'quantization_config' is 'bitnet'; an object"),
        (BITNET_2B4T, {"quantization_config": {}}, "quantised by None"),
        (FALCON_3_1B, bitnet(linear_class="x"), "bitlinear or autobitlinear"),
        (FALCON_3_1B, bitnet(quantization_mode=1), "offline or online"),
        (FALCON_3_1B, bitnet(weights="binary"), "only 'online' is known"),
        (FALCON_3_1B, bitnet(use_rms_norm=1), "use_rms_norm is 1"),
        (FALCON_3_1B, bitnet(rms_norm_eps=2), "rms_norm_eps is 2"),
        (FALCON_3_1B, bitnet(modules_to_not_convert="head"), "a list of names"),
        (FALCON_3_1B, bitnet(modules_to_not_convert=["(a+)+$"]), "perhaps with '.*'"),
        (FALCON_3_1B, bitnet(modules_to_not_convert=["x"] * 2000), "1000 are enough"),
        (BITNET_2B4T, bitnet(modules_to_not_convert=[]), "also the embedding"),
        (LLAMA_1_7B, {"weight_bits": 2, "input_bits": 8}, "weight_bits 2 and input_bits 8; 1 and 8 can be run"),
    ],
)  # fmt: skip
def test_refuses_by_name(base: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        DecoderConfig.from_hf(base | change)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope": {"theta": 1e4, "kind": "su"}}, "type 'su' cannot be run"),
        ({"rope": None}, "settings must be an object"),
        ({"rope": {}}, "'theta' is missing"),
        ({"window_rope": {"theta": 1e4}}, "no layer with sliding attention"),
        ({"pattern": "FFFX" * 4}, "one letter F or W"),
        ({"pattern": ""}, "one letter F or W"),
        ({"pattern": "W" * 16}, "window is 0"),
        ({"window": 8}, "no layer with sliding"),
        ({"activation": "gelu"}, "Unknown activation 'gelu'; silu, gelu_tanh, relu2"),
        ({"architecture": "gpt"}, "Unknown architecture 'gpt'"),
        ({"attention_scale": 0}, "attention_scale is 0"),
        ({"embed_scale": float("inf")}, "embed_scale is inf"),
        ({"tied": 1}, "tied is 1"),
        ({"unquantised": ["head"]}, "is not quantised"),
        ({"linear_norms": True}, "is not quantised"),
        ({"quantised": True, "unquantised": ["layers.16.attn.q", "head"]}, "names of its linears"),
        ({"quantised": True, "unquantised": "head"}, "a list of names"),
        ({"quantised": True}, "also the embedding"),
        ({"nsa": 1}, "Unknown model setting 'nsa'"),
    ],
)
def test_own_dictionaries_are_checked_too(change: dict[str, Any], message: str) -> None:
    values = DecoderConfig.from_hf(LLAMA_3_2_1B).to_dict()
    with pytest.raises(ModelError, match=message):
        DecoderConfig.from_dict(values | change)


def test_own_dictionaries_that_lack_something() -> None:
    values = DecoderConfig.from_hf(LLAMA_3_2_1B).to_dict()
    with pytest.raises(ModelError, match="'d_ff' is missing"):
        DecoderConfig.from_dict({key: value for key, value in values.items() if key != "d_ff"})
    for value in (None, [], "x"):
        with pytest.raises(ModelError, match="must be an object"):
            DecoderConfig.from_dict(value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
RopeMaker = Callable[[Any], dict[str, Any]]
keys = st.sampled_from(sorted({*LLAMA_3_2_1B, *QWEN_3_8B, *GEMMA_3_1B, *BITNET_2B4T, "rope_parameters", "layer_types"}))
ropes = st.dictionaries(
    st.sampled_from(["rope_type", "type", "factor", "rope_theta", "beta_fast", "mscale", "mscale_all_dim", *LLAMA3]),
    json_values | st.sampled_from(["default", "linear", "dynamic", "llama3", "yarn", 2.0, 64]),
)
quantisations = st.dictionaries(
    st.sampled_from(["linear_class", "quantization_mode", "use_rms_norm", "modules_to_not_convert", "weights"]),
    json_values | st.sampled_from(["bitlinear", "online", "binary", ["lm_head"], [".*"]]),
).map(lambda values: values | {"quant_method": "bitnet"})


@settings(deadline=None)
@given(
    base=st.sampled_from(list(PUBLISHED.values())),
    kind=st.none() | st.sampled_from(DECODERS),
    changes=st.dictionaries(keys, json_values | ropes | quantisations, max_size=2),
)
def test_any_value_gives_a_config_or_a_model_error(
    base: dict[str, Any], kind: str | None, changes: dict[str, Any]
) -> None:
    try:
        config = DecoderConfig.from_hf(base | ({"model_type": kind} if kind else {}) | changes)
    except ModelError:
        return
    assert DecoderConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@settings(deadline=None)
@given(json_values)
def test_any_json_gives_a_model_error(value: object) -> None:
    with pytest.raises(ModelError):
        DecoderConfig.from_hf(value)  # type: ignore[arg-type]
