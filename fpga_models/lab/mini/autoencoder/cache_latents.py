"""Encodes rendered scenes once, so that the generator trains on latents and never sees pixels.

python -m fpga_models.lab.mini.autoencoder.cache_latents --data var/mini --vae var/mini/vae --out var/mini/latents
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

from fpga_models.core.vae import MiniVAE
from fpga_models.idzoom.scenes import open_scenes


@torch.inference_mode()
def cache_latents(scenes_folder: Path, vae: MiniVAE, target: Path, batch: int = 64) -> None:
    """Write the latent mode of every scene, (N, C, h, w) float16, row by row as in the scenes."""
    scenes = open_scenes(scenes_folder)
    side = scenes.images.shape[1] // vae.factor
    shape = (len(scenes), vae.config.latent_channels, side, side)
    target.parent.mkdir(parents=True, exist_ok=True)
    latents = np.lib.format.open_memmap(target, "w+", np.float16, shape)
    for start in track(range(0, len(scenes), batch), description=f"{len(scenes)} latents"):
        images = torch.from_numpy(scenes.images[start : start + batch].astype(np.float32) / 127.5 - 1)
        pixels = images.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        latents[start : start + batch] = vae.encode(pixels).latent_dist.mode().numpy().astype(np.float16)
    latents.flush()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("var/mini"))
    parser.add_argument("--vae", type=Path, default=Path("var/mini/vae"))
    parser.add_argument("--out", type=Path, default=Path("var/mini/latents"))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    vae = MiniVAE.from_pretrained(options.vae, low_cpu_mem_usage=False)
    for name in ("scenes_test", "scenes"):
        cache_latents(options.data / name, vae, options.out / f"{name}.npy")


if __name__ == "__main__":
    main()
