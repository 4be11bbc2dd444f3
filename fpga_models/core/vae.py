"""A small autoencoder with AutoencoderKL's calling convention: latents of unit variance, sides 8x or 16x smaller.

It knows pixels and latents, nothing of faces or of its training (fpga_models/lab/mini). All operations
are local (channel norm, no attention), but what lies beyond a border is felt several latent cells inside.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, overload

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

LATENT_NOISE = 0.1  # standard deviation that the decoder was trained to tolerate, and that `sample()` adds


@dataclass(frozen=True, kw_only=True)
class EncoderOutput:
    latent_dist: DiagonalGaussianDistribution


@dataclass(frozen=True, kw_only=True)
class DecoderOutput:
    sample: Tensor


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of each pixel of (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        normed = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, eps=1e-5)
        result: Tensor = normed.permute(0, 3, 1, 2)
        return result


class ResBlock(nn.Module):
    """x + conv(silu(conv(norm(x)))), starting as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        result: Tensor = x + self.conv2(F.silu(self.conv1(self.norm(x))))
        return result


class Encoder(nn.Module):
    """Pixels (B, 3, H, W) to raw latents (B, C, H/f, W/f), f = 2 to the number of widths."""

    def __init__(self, widths: Sequence[int], blocks: Sequence[int], latent_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.PixelUnshuffle(2), nn.Conv2d(12, widths[0], 3, padding=1)]
        for level, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            if level:
                layers += [nn.PixelUnshuffle(2), nn.Conv2d(4 * widths[level - 1], width, 1)]
            layers += [ResBlock(width) for _ in range(count)]
        self.layers = nn.Sequential(
            *layers, ChannelNorm(widths[-1]), nn.Conv2d(widths[-1], latent_channels, 3, padding=1)
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Raw latents, not yet normalised."""
        raw: Tensor = self.layers(pixels)
        return raw


class Decoder(nn.Module):
    """Latents (B, C, h, w) to pixels (B, 3, f h, f w), f = 2 to the number of widths."""

    def __init__(self, widths: Sequence[int], blocks: Sequence[int], latent_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(latent_channels, widths[-1], 3, padding=1)]
        for level in reversed(range(len(widths))):
            layers += [ResBlock(widths[level]) for _ in range(blocks[level])]
            if level:
                layers += [nn.Conv2d(widths[level], 4 * widths[level - 1], 1), nn.PixelShuffle(2)]
        layers += [ChannelNorm(widths[0]), nn.Conv2d(widths[0], 12, 3, padding=1), nn.PixelShuffle(2)]
        self.layers = nn.Sequential(*layers)

    def forward(self, latents: Tensor) -> Tensor:
        """Pixels, about in [-1, 1]."""
        pixels: Tensor = self.layers(latents)
        return pixels


class MiniVAE(ModelMixin, ConfigMixin):  # type: ignore[misc]  # diffusers ships no types
    """The autoencoder of the mini presets; `from_pretrained` and `save_pretrained` as in diffusers.

    Pixels are (B, 3, H, W) in [-1, 1], H and W divisible by f = `factor`; latents (B, C, H/f, W/f) have about unit
    variance per channel, hence `scaling_factor` 1. The first entry of `block_out_channels` is the unshuffled pixels;
    each further one halves the sides once.
    """

    config_name = "config.json"

    @register_to_config  # type: ignore[untyped-decorator]  # likewise
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        latent_channels: int = 16,
        block_out_channels: Sequence[int] = (12, 24, 48, 96),
        encoder_blocks: Sequence[int] = (1, 1, 2),
        decoder_blocks: Sequence[int] = (2, 2, 3),
        sample_size: int = 128,
        scaling_factor: float = 1.0,
        force_upcast: bool = False,
    ) -> None:
        super().__init__()
        widths = block_out_channels[1:]
        self.encoder = Encoder(widths, encoder_blocks, latent_channels)
        self.decoder = Decoder(widths, decoder_blocks, latent_channels)
        self.register_buffer("latent_mean", torch.zeros(latent_channels))
        self.register_buffer("latent_std", torch.ones(latent_channels))

    @property
    def factor(self) -> int:
        """Pixels per latent cell and side."""
        return int(2 ** (len(self.config.block_out_channels) - 1))

    @overload
    def encode(self, x: Tensor, return_dict: Literal[True] = True) -> EncoderOutput: ...

    @overload
    def encode(self, x: Tensor, return_dict: Literal[False]) -> tuple[DiagonalGaussianDistribution]: ...

    def encode(self, x: Tensor, return_dict: bool = True) -> EncoderOutput | tuple[DiagonalGaussianDistribution]:
        """Encode pixels; `.latent_dist.mode()` is exact, `.sample()` adds the small noise of training.

        Raises:
            ValueError: sides not divisible by the factor.
        """
        if x.shape[-1] % self.factor or x.shape[-2] % self.factor:
            size = f"{x.shape[-1]}x{x.shape[-2]}"
            raise ValueError(f"picture of {size} pixels: both sides must be divisible by {self.factor}")
        mean = self.latent_mean.view(1, -1, 1, 1)
        latents = (self.encoder(x) - mean) / self.latent_std.view(1, -1, 1, 1)
        log_variance = torch.full_like(latents, 2 * math.log(LATENT_NOISE))
        distribution = DiagonalGaussianDistribution(torch.cat([latents, log_variance], dim=1))
        return EncoderOutput(latent_dist=distribution) if return_dict else (distribution,)

    @overload
    def decode(
        self, z: Tensor, return_dict: Literal[True] = True, generator: torch.Generator | None = None
    ) -> DecoderOutput: ...

    @overload
    def decode(
        self, z: Tensor, return_dict: Literal[False], generator: torch.Generator | None = None
    ) -> tuple[Tensor]: ...

    def decode(
        self, z: Tensor, return_dict: bool = True, generator: torch.Generator | None = None
    ) -> DecoderOutput | tuple[Tensor]:
        """Decode latents; values may leave [-1, 1] slightly. `generator` is accepted for diffusers and unused."""
        pixels = self.decoder(z)
        return DecoderOutput(sample=pixels) if return_dict else (pixels,)

    def forward(self, sample: Tensor) -> Tensor:
        """Round trip of pixels through the latents."""
        return self.decode(self.encode(sample).latent_dist.mode()).sample
