"""Decodes cached latents, each disturbed a little: what the face detector will meet, with places that are known.

python -m fpga_models.lab.mini.autoencoder.decoded --data var/mini --vae var/mini/vae --out var/mini/decoded.npy
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from fpga_models.core.vae import MiniVAE

LARGEST_DISTURBANCE = 0.4
"""Noise in units of the latents' own spread; at the largest small faces are smears, as those of bad pictures are."""


@torch.inference_mode()
def decode_latents(
    latents: NDArray[np.float16], vae: MiniVAE, target: Path, *, seed: int, batch: int = 64
) -> NDArray[np.uint8]:
    """Write pictures (N, 128, 128, 3) of latents (N, 16, 16, 16), each with noise of a uniformly drawn strength."""
    first = vae.decode(torch.zeros(1, *latents.shape[1:])).sample
    pictures = np.lib.format.open_memmap(target, "w+", np.uint8, (len(latents), *first.shape[2:], 3))
    spread = torch.from_numpy(np.asarray(latents[:1024], np.float32)).std(dim=(0, 2, 3), keepdim=True)
    generator = torch.Generator().manual_seed(seed)
    for start in track(range(0, len(latents), batch), "decoded scenes", console=Console(stderr=True)):
        clean = torch.from_numpy(np.asarray(latents[start : start + batch], np.float32))
        strength = LARGEST_DISTURBANCE * torch.rand(len(clean), 1, 1, 1, generator=generator)
        noise = torch.randn(clean.shape, generator=generator)
        decoded = vae.decode((clean + strength * spread * noise) / vae.config.scaling_factor).sample
        pixels = (decoded.clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8)
        pictures[start : start + batch] = pixels.permute(0, 2, 3, 1).numpy()
    pictures.flush()
    return pictures


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("var/mini"))
    parser.add_argument("--vae", type=Path, default=Path("var/mini/vae"))
    parser.add_argument("--out", type=Path, default=Path("var/mini/decoded.npy"))
    parser.add_argument("--count", type=int, default=12_000, help="of the scenes, from the first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    vae = MiniVAE.from_pretrained(options.vae, low_cpu_mem_usage=False).float()
    latents = np.load(options.data / "latents" / "scenes.npy", mmap_mode="r")[: options.count]
    decode_latents(latents, vae, options.out, seed=options.seed)


if __name__ == "__main__":
    main()
