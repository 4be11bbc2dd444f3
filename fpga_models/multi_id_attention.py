"""MGMICA, Mask Guided Multi-ID Cross Attention: each person acts only where their mask is.

    out = Attn(text) + sum_k id_scale_k * M_k / max(sum_j M_j, 1) * A_k      [paper: the idea; ours: this form]

with one softmax per identity. All identities go through one batched attention: the weight of a person is multiplied
into the probabilities of that person's tokens, so the sum over k is the ordinary product with the values.
`inject` and `eject` are exact inverses on a stock UNet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from fpga_models.errors import PlacementError
from fpga_models.id_adapter import IdAdapter, IdKeyValue, cross_attention_sizes

EXPLICIT_SCORES = 256 * 1024
"""Up to this many scores per head, two matrix products beat the fused kernel on a CPU (head width 32, measured)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class IdentityCondition:
    """Who acts where, for one batch.

    Attributes:
        tokens: (B, K, n, D) identity tokens; padding people may hold anything, their mask is zero.
        masks: (B, K, H, W) in [0, 1] on the latent grid.
        scales: (B, K) id_scale of each person.
    """

    tokens: Tensor
    masks: Tensor
    scales: Tensor
    _weights: dict[int, Tensor] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.masks.shape[:2] != self.tokens.shape[:2] or self.scales.shape != self.tokens.shape[:2]:
            raise PlacementError(
                f"Tokens {tuple(self.tokens.shape[:2])}, masks {tuple(self.masks.shape[:2])} and scales "
                f"{tuple(self.scales.shape)} must agree in (batch, people)."
            )

    def weights(self, cells: int) -> Tensor:
        """Weight of every person in every cell of the layer that has `cells` cells: (B, cells, K)."""
        if cells not in self._weights:
            height, width = _grid(self.masks.shape[-2], self.masks.shape[-1], cells)
            shares = mask_shares(self.masks, height, width) * self.scales[:, :, None, None]
            self._weights[cells] = rearrange(shares, "b k h w -> b (h w) k")
        return self._weights[cells]


def mask_shares(masks: Tensor, height: int, width: int) -> Tensor:
    """M_k / max(sum_j M_j, 1) on a (height, width) grid, (B, K, height, width).

    Resized by the largest value in each cell, so that a face smaller than a cell still owns it.
    """
    resized = F.adaptive_max_pool2d(masks, (height, width))
    return resized / resized.sum(dim=1, keepdim=True).clamp(min=1)


def _grid(height: int, width: int, cells: int) -> tuple[int, int]:
    """Height and width of the layer with `cells` cells: each downsampling halves both, rounding up."""
    while height * width > cells:
        height, width = (height + 1) // 2, (width + 1) // 2
    if height * width != cells:
        raise PlacementError(f"Masks do not fit this layer: it has {cells} cells, halving reaches {height}x{width}.")
    return height, width


class AttentionProcessor:
    """Plain attention; `identity` is accepted and ignored, so that self-attention layers take the same arguments.

    diffusers reads the named arguments of `__call__` and silently drops any others.
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        identity: IdentityCondition | None = None,
    ) -> Tensor:
        """Attend from (B, N, C) to itself or to `encoder_hidden_states` (B, M, D); returns (B, N, C)."""
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = attn.to_q(hidden_states)
        attended = _attend(query, attn.to_k(context), attn.to_v(context), attn.heads, attn.scale)
        if identity is not None and encoder_hidden_states is not None:
            attended = attended + self.identity_term(query, attn.heads, attn.scale, identity)
        output: Tensor = attn.to_out[1](attn.to_out[0](attended))
        return output

    def identity_term(self, query: Tensor, heads: int, scale: float, identity: IdentityCondition) -> Tensor:
        """What the identities add to a cross-attention layer, (B, N, C); nothing here."""
        return torch.zeros_like(query)


class MultiIdAttentionProcessor(AttentionProcessor):
    """Cross-attention with the masked identity term; holds the layer's projections, owns none of the UNet."""

    def __init__(self, projections: IdKeyValue) -> None:
        self.projections = projections

    def identity_term(self, query: Tensor, heads: int, scale: float, identity: IdentityCondition) -> Tensor:
        """sum_k weight_k * softmax(q K_k^T / sqrt(d)) V_k for query (B, N, C); returns (B, N, C)."""
        tokens = identity.tokens.flatten(1, 2)  # (B, K*n, D)
        key = _split_heads(self.projections.to_k_ip(tokens), heads)  # (B, h, K*n, d)
        value = _split_heads(self.projections.to_v_ip(tokens), heads)
        scores = (_split_heads(query, heads) @ key.transpose(-1, -2)) * scale  # (B, h, N, K*n)
        per_person = rearrange(scores, "b h m (k n) -> b h m k n", n=identity.tokens.shape[2]).softmax(-1)
        weights = identity.weights(query.shape[1]).to(per_person.dtype)  # (B, N, K)
        weighted = (per_person * weights[:, None, :, :, None]).flatten(-2)
        return _merge_heads(weighted @ value)


def inject(unet: UNet2DConditionModel, adapter: IdAdapter) -> Mapping[str, Any]:
    """Put MGMICA processors on every attention layer of `unet`; returns the previous ones, for `eject`."""
    previous = dict(unet.attn_processors)
    layers = dict(zip(cross_attention_sizes(unet), adapter.layers(), strict=True))
    unet.set_attn_processor(
        {name: MultiIdAttentionProcessor(layers[name]) if name in layers else AttentionProcessor() for name in previous}
    )
    return previous


def eject(unet: UNet2DConditionModel, previous: Mapping[str, Any]) -> None:
    """Undo `inject` exactly."""
    unet.set_attn_processor(dict(previous))


def _split_heads(states: Tensor, heads: int) -> Tensor:
    return rearrange(states, "b n (h d) -> b h n d", h=heads)


def _merge_heads(states: Tensor) -> Tensor:
    return rearrange(states, "b h n d -> b n (h d)")


def _attend(query: Tensor, key: Tensor, value: Tensor, heads: int, scale: float) -> Tensor:
    q, k, v = (_split_heads(states, heads) for states in (query, key, value))
    if q.device.type == "cpu" and q.shape[2] * k.shape[2] <= EXPLICIT_SCORES:
        probabilities = (q @ k.transpose(-1, -2) * scale).softmax(-1)  # (B, h, N, M)
        return _merge_heads(probabilities @ v)
    return _merge_heads(F.scaled_dot_product_attention(q, k, v, scale=scale))
