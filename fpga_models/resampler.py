"""A perceiver resampler: n learned queries read features of any number, in the key layout of IP-Adapter and InstantID.

`latents`, `proj_in`, `layers.i.0` (attention), `layers.i.1` (feed-forward), `proj_out`, `norm_out`, as in their public
code [field]. Used for InstantID's projector (one feature, the face embedding) and for local tokens (patches).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class ResamplerConfig:
    """Sizes: features (embedding_dim) in, `tokens` tokens of `output_dim` out, `width` between.

    The defaults are InstantID's for SDXL.
    """

    embedding_dim: int = 512
    output_dim: int = 2048
    tokens: int = 16
    width: int = 1280
    depth: int = 4
    head_width: int = 64
    heads: int = 20
    ff_multiple: int = 4


class PerceiverAttention(nn.Module):
    """Queries attend to the features and to themselves."""

    def __init__(self, config: ResamplerConfig) -> None:
        super().__init__()
        inner = config.head_width * config.heads
        self.heads = config.heads
        self.norm1 = nn.LayerNorm(config.width)
        self.norm2 = nn.LayerNorm(config.width)
        self.to_q = nn.Linear(config.width, inner, bias=False)
        self.to_kv = nn.Linear(config.width, inner * 2, bias=False)
        self.to_out = nn.Linear(inner, config.width, bias=False)

    def forward(self, features: Tensor, queries: Tensor) -> Tensor:
        """What to add to queries (B, n, W) after reading features (B, m, W)."""
        x, q = self.norm1(features), self.norm2(queries)
        key, value = self.to_kv(torch.cat([x, q], dim=1)).chunk(2, dim=-1)
        split = [rearrange(states, "b n (h d) -> b h n d", h=self.heads) for states in (self.to_q(q), key, value)]
        attended = F.scaled_dot_product_attention(*split)
        output: Tensor = self.to_out(rearrange(attended, "b h n d -> b n (h d)"))
        return output


class Resampler(nn.Module):
    """Features (B, m, E) -> tokens (B, n, D)."""

    def __init__(self, config: ResamplerConfig) -> None:
        super().__init__()
        self.config = config
        inner = config.width * config.ff_multiple
        self.latents = nn.Parameter(torch.randn(1, config.tokens, config.width) / config.width**0.5)
        self.proj_in = nn.Linear(config.embedding_dim, config.width)
        self.proj_out = nn.Linear(config.width, config.output_dim)
        self.norm_out = nn.LayerNorm(config.output_dim)
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    PerceiverAttention(config),
                    nn.Sequential(
                        nn.LayerNorm(config.width),
                        nn.Linear(config.width, inner, bias=False),
                        nn.GELU(),
                        nn.Linear(inner, config.width, bias=False),
                    ),
                ]
            )
            for _ in range(config.depth)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Tokens (B, n, D) of features (B, m, E)."""
        queries = self.latents.expand(len(features), -1, -1)
        projected = self.proj_in(features)
        for layer in self.layers:
            attention, feed_forward = layer.children()
            queries = attention(projected, queries) + queries
            queries = feed_forward(queries) + queries
        tokens: Tensor = self.norm_out(self.proj_out(queries))
        return tokens
