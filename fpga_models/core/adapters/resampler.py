"""A perceiver resampler: n learned queries read features of any number, in the key layout of IP-Adapter and InstantID.

`latents`, `proj_in`, `layers.i.0` (attention), `layers.i.1` (feed-forward), `proj_out`, `norm_out`, as in their public
code [field]. Used for InstantID's projector (one feature, the face embedding) and for local tokens (patches).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

HEAD_WIDTH = 64
"""Of the published resamplers: their files do not tell it."""


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
    head_width: int = HEAD_WIDTH
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


def resampler_config_of(state: Mapping[str, Tensor], prefix: str, head_width: int) -> ResamplerConfig | None:
    """Sizes of the resampler under `prefix`, read off its tensors; None if there is none."""
    names = ("latents", "proj_in.weight", "proj_out.weight", "layers.0.0.to_q.weight", "layers.0.1.1.weight")
    found = [state.get(prefix + name) for name in names]
    shapes = [tensor.shape for tensor in found if tensor is not None and tensor.ndim >= 2]
    if len(shapes) < len(names) or len(shapes[0]) != 3:
        return None
    latents, into, out, query, hidden = shapes
    return ResamplerConfig(
        embedding_dim=into[1],
        output_dim=out[0],
        tokens=latents[1],
        width=latents[2],
        depth=sum(key.startswith(f"{prefix}layers.") and key.endswith(".0.to_q.weight") for key in state),
        head_width=head_width,
        heads=max(1, query[0] // head_width),
        ff_multiple=max(1, hidden[0] // latents[2]),
    )
