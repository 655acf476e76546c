"""A small BitNet decoder: every projection ternary, embedding and head one full-precision table.

Module names are those of transformers' ``BitNetForCausalLM``, so ``state_dict`` is a checkpoint as it stands.
Shapes: B sequences, T tokens, H model width, N heads, D head width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kogata.make.nn.bitlinear import BitLinear


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a decoder. A head is ``d_model / n_heads`` wide."""

    vocab_size: int = 4096
    d_model: int = 256
    n_layers: int = 6
    n_heads: int = 4
    n_kv_heads: int = 2
    d_ff: int = 768
    context: int = 2048
    norm_eps: float = 1e-5
    rope_theta: float = 10_000.0

    @property
    def d_head(self) -> int:
        return self.d_model // self.n_heads


class RMSNorm(nn.Module):
    """``x / sqrt(mean x^2 + eps) * weight``, in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x_H: Tensor) -> Tensor:
        x_H = x_H.float()
        return x_H * torch.rsqrt(x_H.square().mean(-1, keepdim=True) + self.eps) * self.weight


class Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.q_proj = BitLinear(shape.d_model, shape.n_heads * shape.d_head)
        self.k_proj = BitLinear(shape.d_model, shape.n_kv_heads * shape.d_head)
        self.v_proj = BitLinear(shape.d_model, shape.n_kv_heads * shape.d_head)
        self.o_proj = BitLinear(shape.n_heads * shape.d_head, shape.d_model)
        self.attn_sub_norm = RMSNorm(shape.n_heads * shape.d_head, shape.norm_eps)

    def forward(self, x_BTH: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
        q_BNTD, k_BNTD, v_BNTD = (
            proj(x_BTH).unflatten(-1, (-1, self.shape.d_head)).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        q_BNTD, k_BNTD = rotate(q_BNTD, cos_TD, sin_TD), rotate(k_BNTD, cos_TD, sin_TD)
        group = self.shape.n_heads // self.shape.n_kv_heads
        k_BNTD, v_BNTD = k_BNTD.repeat_interleave(group, 1), v_BNTD.repeat_interleave(group, 1)
        o_BNTD = F.scaled_dot_product_attention(q_BNTD, k_BNTD, v_BNTD, is_causal=True)
        out_BTH: Tensor = self.o_proj(self.attn_sub_norm(o_BNTD.transpose(1, 2).flatten(-2)))
        return out_BTH


class FeedForward(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = BitLinear(shape.d_model, shape.d_ff)
        self.up_proj = BitLinear(shape.d_model, shape.d_ff)
        self.down_proj = BitLinear(shape.d_ff, shape.d_model)
        self.ffn_sub_norm = RMSNorm(shape.d_ff, shape.norm_eps)

    def forward(self, x_BTH: Tensor) -> Tensor:
        hidden = F.relu(self.gate_proj(x_BTH)).square() * self.up_proj(x_BTH)
        out_BTH: Tensor = self.down_proj(self.ffn_sub_norm(hidden))
        return out_BTH


class Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(shape.d_model, shape.norm_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = RMSNorm(shape.d_model, shape.norm_eps)
        self.mlp = FeedForward(shape)

    def forward(self, x_BTH: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
        x_BTH = x_BTH + self.self_attn(self.input_layernorm(x_BTH), cos_TD, sin_TD)
        out_BTH: Tensor = x_BTH + self.mlp(self.post_attention_layernorm(x_BTH))
        return out_BTH


class Decoder(nn.Module):
    """Tokens in, logits out; ``state_dict`` has float32 master weights.

    Args:
        shape: The sizes.
        seed: Of the initial weights.
    """

    def __init__(self, shape: Shape, seed: int = 0) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.d_model)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.n_layers))
        self.norm = RMSNorm(shape.d_model, shape.norm_eps)
        self._initialise(torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                weight.normal_(0.0, 0.02, generator=generator)
            if name.endswith(("o_proj.weight", "down_proj.weight")):  # they add up over the layers
                weight.div_((2 * self.shape.n_layers) ** 0.5)

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Logits [B, T, V] of the token after each."""
        x_BTH = self.embed_tokens(ids_BT)
        cos_TD, sin_TD = rotation(self.shape, ids_BT.shape[1])
        for layer in self.layers:
            x_BTH = layer(x_BTH, cos_TD, sin_TD)
        logits_BTV: Tensor = F.linear(self.norm(x_BTH), self.embed_tokens.weight)
        return logits_BTV

    def loss(self, ids_BT: Tensor, next_BT: Tensor) -> Tensor:
        """Each token's cross-entropy [B, T], in nats."""
        logits_BTV = self(ids_BT).float()
        return F.cross_entropy(logits_BTV.flatten(0, 1), next_BT.flatten(), reduction="none").view_as(next_BT)


def rotation(shape: Shape, length: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines [T, D/2] of the angles by which positions 0 to T-1 turn each pair."""
    frequencies = 1.0 / shape.rope_theta ** (torch.arange(0, shape.d_head, 2).float() / shape.d_head)
    angles_TD = torch.arange(length).float()[:, None] * frequencies
    return angles_TD.cos(), angles_TD.sin()


def rotate(x_BNTD: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
    """Turn the pairs (i, i + D/2) of each head by their position's angles."""
    cos_TD, sin_TD = cos_TD.to(x_BNTD.dtype), sin_TD.to(x_BNTD.dtype)
    a, b = x_BNTD.chunk(2, -1)
    return torch.cat((a * cos_TD - b * sin_TD, b * cos_TD + a * sin_TD), -1)
