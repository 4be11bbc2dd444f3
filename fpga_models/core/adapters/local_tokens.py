"""Local identity tokens: what the face looks like, patch by patch, beside the one embedding that says who it is [ours].

An aligned crop, its background blanked, goes through a small patch encoder and a perceiver resampler; each
cross-attention layer has its own key and value projection for the tokens. The value projections start at zero, so
that adding the branch changes nothing before it is trained, and zero tokens are the branch switched off: an absent
crop, the unconditional branch and a dropped token are all that.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from insightface.utils.face_align import arcface_dst
from torch import Tensor, nn

from fpga_models.core.adapters.id_layers import IdLayers
from fpga_models.core.adapters.resampler import Resampler, ResamplerConfig
from fpga_models.core.alignment import CROP_SIDE
from fpga_models.core.control import region_mask

HEAD_WIDTH = 32
GRID = CROP_SIDE // 8


@dataclass(frozen=True, kw_only=True)
class LocalConfig:
    """Sizes of the branch: tokens per person, channels of a patch, layers of the resampler."""

    tokens: int = 8
    width: int = 64
    depth: int = 2


class LocalTokens(nn.Module):
    """Aligned crops -> tokens of the cross-attention width, with their projections for every layer."""

    def __init__(self, config: LocalConfig, *, cross_attention_dim: int, hidden_sizes: list[int]) -> None:
        super().__init__()
        width = config.width
        self.config = config
        self.patches = nn.Sequential(
            nn.Conv2d(3, width // 4, 4, stride=4),
            nn.SiLU(),
            nn.Conv2d(width // 4, width // 2, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(width // 2, width, 3, padding=1),
        )
        self.positions = nn.Parameter(torch.randn(1, GRID * GRID, width) * 0.02)
        self.resampler = Resampler(
            ResamplerConfig(
                embedding_dim=width,
                output_dim=cross_attention_dim,
                tokens=config.tokens,
                width=width,
                depth=config.depth,
                head_width=HEAD_WIDTH,
                heads=max(1, width // HEAD_WIDTH),
                ff_multiple=2,
            )
        )
        self.layers = IdLayers(cross_attention_dim, hidden_sizes)
        for layer in self.layers.in_order():
            nn.init.zeros_(layer.to_v_ip.weight)
        face = region_mask(arcface_dst, width=CROP_SIDE, height=CROP_SIDE)
        self.register_buffer("face", torch.from_numpy(face), persistent=False)
        self.face: Tensor

    def forward(self, crops: Tensor, keep: Tensor | None = None) -> Tensor:
        """Tokens (B, K, n, D) of crops; zero tokens for a crop that is all zero.

        Args:
            crops: (B, K, 3, 112, 112) in [-1, 1], in ArcFace's frame; the background is blanked here.
            keep: (B, K, n) 1 keeps a token, 0 drops it (training's token dropout); None keeps all.
        """
        people = crops.shape[:2]
        known = (crops.abs().amax(dim=(-1, -2, -3)) > 0).to(crops.dtype)  # (B, K)
        features = self.patches((crops * self.face.to(crops.dtype)).flatten(0, 1))  # (B*K, W, 14, 14)
        tokens = self.resampler(rearrange(features, "b c h w -> b (h w) c") + self.positions)
        kept = known[:, :, None] if keep is None else known[:, :, None] * keep.to(crops.dtype)
        result: Tensor = tokens.unflatten(0, people) * kept[..., None]
        return result
