"""The autoencoder of a preset, ours or diffusers' own, and latents as its denoiser sees them."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from fpga_models.core.vae import MiniVAE

Autoencoder: TypeAlias = MiniVAE | AutoencoderKL
PIXELS_AT_ONCE = 1 << 20


def open_autoencoder(folder: Path, *, dtype: torch.dtype = torch.float32) -> Autoencoder:
    """Load the `vae` folder of a preset as the class that its config names.

    Raises:
        OSError: a file is missing or cannot be read.
    """
    kind = MiniVAE if MiniVAE.load_config(folder)["_class_name"] == "MiniVAE" else AutoencoderKL
    options = {"use_safetensors": True, "local_files_only": True, "torch_dtype": dtype}
    opened: Autoencoder = kind.from_pretrained(folder, low_cpu_mem_usage=False, **options)
    return opened


def encode(vae: Autoencoder, pixels: Tensor) -> Tensor:
    """Latents (B, C, h, w), float32, of pixels (B, 3, H, W) in [-1, 1]: the mode, scaled as the denoiser sees it."""
    modes = [vae.encode(part.to(_dtype(vae, pixels))).latent_dist.mode().float() for part in _slices(pixels, pixels)]
    latents: Tensor = (torch.cat(modes) - _shift(vae)) * vae.config.scaling_factor
    return latents


def decode(vae: Autoencoder, latents: Tensor, *, factor: int) -> Tensor:
    """Pixels (B, 3, H, W), float32, about in [-1, 1], of latents as the denoiser sees them, `factor` px a cell."""
    scaled = latents / vae.config.scaling_factor + _shift(vae)
    pixels = latents.new_empty(len(latents), 3, *(factor * side for side in latents.shape[-2:]), device="meta")
    return torch.cat([vae.decode(part.to(_dtype(vae, latents))).sample.float() for part in _slices(scaled, pixels)])


def _dtype(vae: Autoencoder, values: Tensor) -> torch.dtype:
    """Of the weights, or of the values where there are none."""
    return next((weight.dtype for weight in vae.parameters()), values.dtype)


def _shift(vae: Autoencoder) -> float:
    return getattr(vae.config, "shift_factor", None) or 0.0


def _slices(values: Tensor, pixels: Tensor) -> tuple[Tensor, ...]:
    """The batch in parts of at most a megapixel: a picture of 1024 px needs 1.5 GiB of workspace in 16 bit."""
    at_once = max(1, PIXELS_AT_ONCE // (pixels.shape[-1] * pixels.shape[-2]))
    return torch.split(values, at_once)
