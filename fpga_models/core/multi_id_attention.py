"""MGMICA, Mask Guided Multi-ID Cross Attention: each person acts only where their mask is.

    out = Attn(text) + sum_k M_k / max(sum_j M_j, 1) * (id_scale_k * A_k + local_scale_k * L_k) [ours]

The idea is the paper's, this form is ours. A_k attends to the global tokens of person k, L_k to the local ones if the
adapter has that branch, each with a softmax of its own. All people go through one batched attention: the weight of a
person is multiplied into the probabilities of that person's tokens, so the sum over k is the ordinary product with the
values. Keys and values of the tokens are computed once per condition. `inject` and `eject` are exact inverses.
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

from fpga_models.core.adapters.id_adapter import IdAdapter
from fpga_models.core.adapters.id_layers import IdKeyValue, cross_attention_sizes
from fpga_models.errors import PlacementError

EXPLICIT_SCORES = 256 * 1024
"""Up to this many scores per head, two matrix products beat the fused kernel on a CPU (head width 32, measured)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class IdentityCondition:
    """Who acts where, for one batch.

    Attributes:
        tokens: (B, K, n, D) identity tokens; padding people may hold anything, their mask is zero.
        masks: (B, K, H, W) in [0, 1] on the latent grid.
        scales: (B, K) id_scale of each person.
        local: (B, K, m, D) local tokens, zero for a person without; None leaves the local branch out.
        local_scales: (B, K) strength of the local tokens; None means `scales`.
    """

    tokens: Tensor
    masks: Tensor
    scales: Tensor
    local: Tensor | None = None
    local_scales: Tensor | None = None
    _shares: dict[int, Tensor] = field(default_factory=dict, repr=False)
    _projected: dict[IdKeyValue, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.masks.shape[:2] != self.tokens.shape[:2] or self.scales.shape != self.tokens.shape[:2]:
            raise PlacementError(
                f"Tokens {tuple(self.tokens.shape[:2])}, masks {tuple(self.masks.shape[:2])} and scales "
                f"{tuple(self.scales.shape)} must agree in (batch, people)."
            )

    def weights(self, cells: int) -> Tensor:
        """Weight of every person in every cell of the layer that has `cells` cells: (B, cells, K)."""
        return self._share(cells) * self.scales[:, None]

    def local_weights(self, cells: int) -> Tensor:
        """The same for the local tokens, which have a strength of their own."""
        return self._share(cells) * (self.scales if self.local_scales is None else self.local_scales)[:, None]

    def key_value(self, layer: IdKeyValue, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, K*n, C) of this condition in one layer.

        Computed once, as no timestep enters them; but with gradients always anew, since those kept have none.
        """
        if torch.is_grad_enabled():
            return _project(layer, tokens)
        if layer not in self._projected:
            self._projected[layer] = _project(layer, tokens)
        return self._projected[layer]

    def select(self, rows: Tensor) -> IdentityCondition:
        """The condition of some rows of the batch."""
        return IdentityCondition(
            tokens=self.tokens[rows],
            masks=self.masks[rows],
            scales=self.scales[rows],
            local=None if self.local is None else self.local[rows],
            local_scales=None if self.local_scales is None else self.local_scales[rows],
        )

    def join(self, other: IdentityCondition) -> IdentityCondition:
        """Both batches as one, this one first; where only one of them has local tokens, the other's are zero."""
        with_local = self if self.local is not None else other
        joined = None
        if with_local.local is not None:
            empty = torch.zeros_like(with_local.local[:1])
            parts = [empty.expand(len(c.tokens), -1, -1, -1) if c.local is None else c.local for c in (self, other)]
            joined = torch.cat(parts)
        strengths = [c.scales if c.local_scales is None else c.local_scales for c in (self, other)]
        return IdentityCondition(
            tokens=torch.cat([self.tokens, other.tokens]),
            masks=torch.cat([self.masks, other.masks]),
            scales=torch.cat([self.scales, other.scales]),
            local=joined,
            local_scales=torch.cat(strengths),
        )

    def _share(self, cells: int) -> Tensor:
        if cells not in self._shares:
            height, width = _grid(self.masks.shape[-2], self.masks.shape[-1], cells)
            self._shares[cells] = rearrange(mask_shares(self.masks, height, width), "b k h w -> b (h w) k")
        return self._shares[cells]


def _project(layer: IdKeyValue, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values of the tokens (B, K, n, D) of all people."""
    flat = tokens.flatten(1, 2)
    return layer.to_k_ip(flat), layer.to_v_ip(flat)


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

    def __init__(self, projections: IdKeyValue, local: IdKeyValue | None = None) -> None:
        self.projections = projections
        self.local = local

    def identity_term(self, query: Tensor, heads: int, scale: float, identity: IdentityCondition) -> Tensor:
        """sum_k weight_k * softmax(q K_k^T / sqrt(d)) V_k for query (B, N, C), global and local; returns (B, N, C)."""
        q, cells = split_heads(query, heads), query.shape[1]
        pair = identity.key_value(self.projections, identity.tokens)
        term = per_person(q, *pair, identity.weights(cells), scale)
        if self.local is not None and identity.local is not None:
            pair = identity.key_value(self.local, identity.local)
            term = term + per_person(q, *pair, identity.local_weights(cells), scale)
        return merge_heads(term)


def per_person(query: Tensor, key: Tensor, value: Tensor, weights: Tensor, scale: float) -> Tensor:
    """All people in one attention, a softmax for each.

    query (B, h, N, d), key and value (B, K*n, C), weights (B, N, K); returns (B, h, N, d).
    """
    k, v = split_heads(key, query.shape[1]), split_heads(value, query.shape[1])
    scores = (query @ k.transpose(-1, -2)) * scale  # (B, h, N, K*n)
    per_person = rearrange(scores, "b h m (k n) -> b h m k n", k=weights.shape[-1]).softmax(-1)
    weighted = (per_person * weights.to(per_person.dtype)[:, None, :, :, None]).flatten(-2)
    return weighted.to(v.dtype) @ v


@dataclass(frozen=True, kw_only=True, eq=False)
class Replaced:
    """What `inject` put aside: attention processors, and weights that the adapter's LoRA changed, on the CPU."""

    processors: Mapping[str, Any]
    weights: Mapping[str, Tensor]


@torch.no_grad()
def inject(unet: UNet2DConditionModel, adapter: IdAdapter) -> Replaced:
    """Put MGMICA processors on every attention layer of `unet`, and the adapter's LoRA into its weights if it has one.

    Returns what was there before, for `eject`.
    """
    previous, state, weights = dict(unet.attn_processors), unet.state_dict(), {}
    for name, change in adapter.ip_adapter.changes(unet).items():
        weights[name] = state[name].detach().cpu().clone()
        state[name].copy_(state[name].float() + change.to(state[name].device).float())
    local = adapter.local.layers.in_order() if adapter.local else [None] * len(adapter.layers())
    pairs = zip(adapter.layers(), local, strict=True)
    layers = dict(zip(cross_attention_sizes(unet), pairs, strict=True))
    unet.set_attn_processor(
        {
            name: MultiIdAttentionProcessor(*layers[name]) if name in layers else AttentionProcessor()
            for name in previous
        }
    )
    return Replaced(processors=previous, weights=weights)


@torch.no_grad()
def eject(unet: UNet2DConditionModel, replaced: Replaced) -> None:
    """Undo `inject` bit for bit."""
    unet.set_attn_processor(dict(replaced.processors))
    state = unet.state_dict()
    for name, value in replaced.weights.items():
        state[name].copy_(value)


def split_heads(states: Tensor, heads: int) -> Tensor:
    """(B, N, h*d) as (B, h, N, d)."""
    return rearrange(states, "b n (h d) -> b h n d", h=heads)


def merge_heads(states: Tensor) -> Tensor:
    """(B, h, N, d) as (B, N, h*d)."""
    return rearrange(states, "b h n d -> b n (h d)")


def _attend(query: Tensor, key: Tensor, value: Tensor, heads: int, scale: float) -> Tensor:
    q, k, v = (split_heads(states, heads) for states in (query, key, value))
    if q.device.type == "cpu" and q.shape[2] * k.shape[2] <= EXPLICIT_SCORES:
        probabilities = (q @ k.transpose(-1, -2) * scale).softmax(-1)  # (B, h, N, M)
        return merge_heads(probabilities @ v)
    return merge_heads(F.scaled_dot_product_attention(q, k, v, scale=scale))
