"""The autoencoder of a preset, ours or diffusers' own, and latents as its denoiser sees them."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from fpga_models.core.vae import MiniVAE

Autoencoder: TypeAlias = MiniVAE | AutoencoderKL


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
    mode = vae.encode(pixels).latent_dist.mode().float()
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    latents: Tensor = (mode - shift) * vae.config.scaling_factor
    return latents
