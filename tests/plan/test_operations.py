"""What is counted for a token, against what torch sees a model of transformers do, and against real bytes."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from kogata.config import DecoderConfig
from kogata.plan.energy import energy
from kogata.plan.operations import Matrix, Operations, count, sixteen_bit
from kogata.run.cache import PagePool
from kogata.weights import load_decoder
from kogata.weights.checkpoint import DecoderCheckpoint
from kogata.weights.packed import pack_decoder

Tiny = Callable[..., tuple[Path, Any]]
KINDS = ["llama", "qwen2", "qwen3", "gemma3_text", "bitnet"]
aten = torch.ops.aten


class Seen(TorchDispatchMode):
    """Counts what torch computes; products by the formulas of its own FLOP counter."""

    def __init__(self) -> None:
        super().__init__()
        self.products = self.multiplications = self.additions = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **kwargs or {})
        if func._overloadpacket in flop_registry:
            self.products += flop_registry[func._overloadpacket](*args, **kwargs or {}, out_val=out) // 2
        match func:
            case aten.addmm.default:
                self.additions += out.numel()
            case aten.mul.Tensor | aten.mul.Scalar | aten.silu.default | aten.square.default:
                self.multiplications += out.numel()
            case aten.pow.Tensor_Scalar if args[1] == 2:
                self.multiplications += out.numel()
            case aten.gelu.default:  # 0.5 x (1 + tanh(a (x + b x^3)))
                self.multiplications += 6 * out.numel()
                self.additions += 2 * out.numel()
            case aten.mean.dim:
                self.additions += args[0].numel()
            case aten.add.Tensor if isinstance(args[1], torch.Tensor) and args[0].shape == args[1].shape:
                self.additions += out.numel()  # without eps, which is no tensor, and the mask, which is broadcast
        return out


def seen_of(model: Any, depth: int) -> Seen:
    """One token after ``depth`` others; the tables of rotary positions are not counted, which we have at hand."""
    rotary = model.model.rotary_emb
    tables, counting = rotary.forward, Seen()

    def uncounted(*args: Any, **kwargs: Any) -> Any:
        counting.__exit__(None, None, None)
        try:
            return tables(*args, **kwargs)
        finally:
            counting.__enter__()

    model.config._attn_implementation = "eager"
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the argument's name is about to change
        past = model(torch.arange(depth)[None], use_cache=True).past_key_values if depth else None
        rotary.forward = uncounted
        with counting:
            model(torch.tensor([[7]]), past_key_values=past, use_cache=True)
    return counting


@pytest.mark.parametrize("depth", [0, 1, 13])
@pytest.mark.parametrize("kind", KINDS)
def test_a_token_takes_what_torch_sees(tiny_decoder: Tiny, kind: str, depth: int) -> None:
    settings = {"sliding_window": 5} if kind == "gemma3_text" else {}
    directory, model = tiny_decoder(kind, num_hidden_layers=7, **settings)
    config = load_decoder(directory).config
    assert ("W" in config.pattern) == (kind == "gemma3_text")
    ours = count(config, sixteen_bit(config), "bf16", depth=depth)
    seen = seen_of(model, depth)
    assert ours.products.total() == seen.products
    assert (ours.f32_multiplications, ours.f32_additions) == (seen.multiplications, seen.additions)


def config_of(tiny_decoder: Tiny, kind: str = "llama", **settings: Any) -> DecoderConfig:
    return load_decoder(tiny_decoder(kind, **settings)[0]).config


def test_tokens_read_together_take_what_they_take_one_by_one(tiny_decoder: Tiny) -> None:
    config = config_of(tiny_decoder, "gemma3_text", num_hidden_layers=7, sliding_window=5)
    matrices = sixteen_bit(config)
    together = count(config, matrices, "bf16", depth=3, n_tokens=9)
    one_by_one = [count(config, matrices, "bf16", depth=3 + i) for i in range(9)]
    heads = 8 * config.vocab_size * config.d_model
    assert sum(one.products.total() for one in one_by_one) - heads == together.products.total()
    norms = 8 * 3 * config.d_model
    assert sum(one.f32_multiplications for one in one_by_one) - norms == together.f32_multiplications
    assert together.weight_bytes == one_by_one[0].weight_bytes
    # in a window layer the first of the nine sees 4 keys, and those after it are read too
    assert together.kv_bytes < sum(one.kv_bytes for one in one_by_one)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("quantise", ["f32", "bf16", "int8", "int4"])
def test_bytes_are_those_of_the_packed_model(tiny_decoder: Tiny, kind: str, quantise: Any) -> None:
    found = load_decoder(tiny_decoder(kind)[0])
    assert isinstance(found, DecoderCheckpoint)
    packed = pack_decoder(found, quantise=quantise)
    config = packed.config
    matrices = {n: Matrix(m.kind, m.n_out, m.n_in, m.group, m.nbytes) for n, m in packed.linears.items()}
    embed = packed.linears["embed"]
    unread = 0 if config.tied else embed.nbytes - embed.nbytes // embed.n_out
    assert count(config, matrices, "bf16").weight_bytes == packed.nbytes - unread
    for kv in ("f32", "bf16", "int8"):
        pool = PagePool(replace(config, d_head=16), kv, 4)
        assert count(replace(config, d_head=16), matrices, kv, depth=127).kv_bytes == sum(
            2 * group.nbytes_of_page for group in pool.groups
        )


def test_ternary_and_integer_weights_multiply_less(tiny_decoder: Tiny) -> None:
    config = config_of(tiny_decoder)
    embed = {"embed": Matrix("bf16", 262, 32, 0, 2 * 262 * 32), "head": Matrix("bf16", 262, 32, 0, 2 * 262 * 32)}

    def added(kind: str, group: int = 0) -> tuple[Operations, Operations]:
        """What a matrix of 48 rows and 64 columns adds to a model without layers."""
        base = count(config, embed, "bf16")
        return base, count(config, embed | {"layers.0.attn.out": Matrix(kind, 48, 64, group, 0)}, "bf16")

    for kind, group, multiplied, others in (
        ("bf16", 0, {"bf16": 48 * 64}, (0, 48 * 64)),
        ("f32", 0, {"f32": 48 * 64}, (0, 48 * 64)),
        # 64 activations are quantised; 48 sums are multiplied by their row's scale and by the token's
        ("ternary", 0, {}, (64 + 48 + 48, 0)),
        ("trits", 0, {}, (64 + 48 + 48, 0)),
        # with a scale for 32 columns a row has two sums, that are added
        ("ternary", 32, {}, (64 + 96 + 48, 48)),
        # activations with an offset: a row's sum of weights, times it, is added
        ("int8", 0, {"int8": 48 * 64}, (64 + 48 + 48 + 48, 48)),
        ("int4", 32, {"int8": 48 * 64}, (64 + 96 + 48 + 48, 48 + 48)),
    ):
        base, whole = added(kind, group)
        products = Counter(whole.multiplications)
        products.subtract(base.multiplications)
        extra = Counter(multiplied) + Counter({"f32": others[0]})
        assert +products == extra, kind
        sums = whole.additions["f32"] - base.additions["f32"], whole.additions["int32"] - base.additions["int32"]
        integers = 48 * 64 if kind not in ("bf16", "f32") else 0
        assert sums == (others[1], integers), kind


def test_energy_is_the_sum_of_its_parts() -> None:
    operations = Operations(Counter(ternary=10**9, int8=10**8, bf16=10**7), 10**6, 10**6, 10**9, 10**8)
    found = energy(operations)
    # 1.1e9 integer additions at 0.1 pJ, 1.1e7 of floats at 0.9; 1e8 at 0.2, 1e7 at 1.1, 1e6 at 3.7; 1.3 nJ for 8 bytes
    assert found.additions == pytest.approx(1.1e-4 + 9.9e-6)
    assert found.multiplications == pytest.approx(2e-5 + 1.1e-5 + 3.7e-6)
    assert found.memory == pytest.approx(1.1e9 / 8 * 1.3e-9)
    assert found.total == pytest.approx(found.arithmetic + found.memory)
    assert found.arithmetic == pytest.approx(found.additions + found.multiplications)
