"""The hint adapter: control image (and who stands where) to one feature, added once after the UNet's conv_in.

`h_0 = conv_in(z_t) + Adapter(C)`, the last convolution zero at the start [paper: RepControlNet's entry point]. Two flag
channels tell the modality, so that one adapter serves skeleton and landmark [ours]. Identity channels
(sum_k share_k * perceptron(e_k) on the latent grid) are ours, switched by `identity_channels`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from fpga_models.core.weights import read_safetensors
from fpga_models.errors import WeightsError


@dataclass(frozen=True, kw_only=True)
class HintConfig:
    """Sizes of the adapter; `identity_channels` 0 leaves the identities to the attention alone."""

    out_channels: int
    width: int = 96
    latent_factor: int = 8
    identity_channels: int = 96
    embedding_dim: int = 512


class HintAdapter(nn.Module):
    """Control image, modality flags and identity shares -> (B, out_channels, h, w)."""

    def __init__(self, config: HintConfig) -> None:
        super().__init__()
        self.config = config
        inputs = 3 * config.latent_factor**2 + 2 + config.identity_channels
        if config.identity_channels:
            self.identity = nn.Sequential(
                nn.Linear(config.embedding_dim, 256), nn.SiLU(), nn.Linear(256, config.identity_channels)
            )
        self.body = nn.Sequential(
            nn.Conv2d(inputs, config.width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(config.width, config.width, 3, padding=1),
            nn.SiLU(),
        )
        self.out = nn.Conv2d(config.width, config.out_channels, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]  # this convolution has a bias

    def forward(self, control: Tensor, flags: Tensor, embeddings: Tensor, shares: Tensor) -> Tensor:
        """The feature to add after conv_in.

        Args:
            control: (B, 3, H, W) in [0, 1].
            flags: (B, 2) skeleton shown, landmarks shown; 0 or 1.
            embeddings: (B, K, E), unit length, zero for the unconditional branch.
            shares: (B, K, h, w) weight of each person on the latent grid, id_scale included.
        """
        folded = F.pixel_unshuffle(control, self.config.latent_factor)  # (B, 3*f*f, h, w)
        planes = [folded, flags[:, :, None, None].expand(-1, -1, *folded.shape[-2:])]
        if self.config.identity_channels:
            codes = self.identity(embeddings * self.config.embedding_dim**0.5)  # (B, K, C), entries of order one
            planes.append(torch.einsum("bkc,bkhw->bchw", codes, shares.to(codes.dtype)))
        feature: Tensor = self.out(self.body(torch.cat([plane.to(folded.dtype) for plane in planes], dim=1)))
        return feature

    def save(self, path: Path, *, dtype: torch.dtype, metadata: Mapping[str, str]) -> None:
        """Write one safetensors file with the sizes in its header."""
        header = dict(metadata) | {"format": "pt", "config": json.dumps(asdict(self.config), sort_keys=True)}
        save_file({k: v.detach().to(dtype).contiguous() for k, v in self.state_dict().items()}, path, metadata=header)

    @classmethod
    def load(cls, path: Path) -> HintAdapter:
        """Read what `save` wrote.

        Raises:
            WeightsError: not safetensors, no sizes of ours in the header, or other tensors than those sizes ask for.
        """
        state, metadata = read_safetensors(path)
        try:
            adapter = cls(HintConfig(**json.loads(metadata["config"])))
            adapter.load_state_dict(state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise WeightsError(f"{path.name} is no hint adapter of this project: {error!r}.") from error
        return adapter
