"""Trains the autoencoder of the mini preset on 64x64 crops of rendered scenes, most of them around a face.

    python -m fpga_models.lab.mini.autoencoder.vae --data var/mini --out var/mini/vae

About 20 minutes on one core (4 steps a second); stopped and started again, it continues from its checkpoint.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from fpga_models.core.vae import LATENT_NOISE, MiniVAE
from fpga_models.idzoom.scenes import Scenes, open_scenes
from fpga_models.lab.mini.autoencoder.pixels import PixelLoss, pixel_weights, sharp_loss
from fpga_models.lab.mini.networks import MINI, MINI256, SIZES, Sizes
from fpga_models.mmf import checkpoint
from fpga_models.mmf.optimizer import MuonAdamW, OptimizerConfig

FACE_SIZES = ((14, 20), (20, 28), (28, 40), (50, 60), (60, 80), (80, 120), (120, 160))  # box height in px


PLAIN = PixelLoss(largest_weight=2.0, eye_weight=1.0, edge_weight=0.0)
SHARP = PixelLoss(largest_weight=5.0, plain_face=128.0, eye_weight=4.0, edge_weight=1.0)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Numeric choices of the training; `crop` is the side of a crop in pixels."""

    steps: int = 4500
    batch: int = 32
    crop: int = 64
    face_share: float = 0.8
    pixels: PixelLoss = PLAIN
    lr: float = 3e-3
    flat_share: float = 0.4
    seed: int = 0


RECIPES = {
    MINI.name: Recipe(),
    MINI256.name: Recipe(steps=8000, batch=16, crop=128, pixels=SHARP),
}


class Trainee(nn.Module):
    """Encoder, latent normalised by its batch, decoder: the normalisation becomes plain statistics at the end."""

    def __init__(self, vae: MiniVAE) -> None:
        super().__init__()
        self.encoder, self.decoder, self.factor = vae.encoder, vae.decoder, vae.factor
        self.normalise = nn.BatchNorm2d(vae.config.latent_channels, affine=False, momentum=0.02)

    def forward(self, pixels: Tensor, noise: Tensor) -> Tensor:
        """Round trip of pixels (B, 3, H, W) with unit noise (B, C, H/f, W/f) added, scaled, to the latents."""
        with torch.autocast("cpu", torch.bfloat16):
            raw = self.encoder(pixels)
        latents = self.normalise(raw.float()) + LATENT_NOISE * noise
        with torch.autocast("cpu", torch.bfloat16):
            decoded: Tensor = self.decoder(latents)
        return decoded.float()


def sample_crops(scenes: Scenes, recipe: Recipe, step: int) -> tuple[Tensor, Tensor]:
    """Random crops (B, 3, c, c) in [-1, 1] and their pixel weights (B, 1, c, c); a function of seed and step."""
    rng = np.random.default_rng([recipe.seed, step])
    side, limit = recipe.crop, scenes.images.shape[1] - recipe.crop
    pixels = np.empty((recipe.batch, side, side, 3), np.uint8)
    weights = np.ones((recipe.batch, 1, side, side), np.float32)
    for row, index in enumerate(np.sort(rng.integers(0, len(scenes), recipe.batch))):
        boxes = scenes.box[index, : scenes.count[index]]
        corner = rng.integers(0, limit + 1, 2)
        if rng.random() < recipe.face_share:
            x0, y0, x1, y1 = boxes[rng.integers(len(boxes))]
            centre = rng.uniform((x0, y0), (x1, y1)) * 0.6 + 0.2 * np.array([x0 + x1, y0 + y1])
            corner = np.clip(centre - side / 2 + rng.uniform(-8, 8, 2), 0, limit).astype(int)
        x, y = corner
        pixels[row] = scenes.images[index, y : y + side, x : x + side]
        weights[row, 0] = pixel_weights(scenes, index, recipe.pixels)[y : y + side, x : x + side]
    tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    return tensor.contiguous(memory_format=torch.channels_last), torch.from_numpy(weights)


def train(data: Path, out: Path, recipe: Recipe, console: Console, sizes: Sizes = MINI) -> MiniVAE:
    """Train for the recipe's steps and return the autoencoder with folded latent statistics."""
    torch.manual_seed(recipe.seed)
    scenes = open_scenes(data / "scenes")
    vae = sizes.build_vae()
    trainee = Trainee(vae)
    trainee.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack this form
    optimizer = MuonAdamW(trainee.named_parameters(), OptimizerConfig())
    step = 0
    if newest := checkpoint.latest(out):
        parts, state = checkpoint.load(newest)
        trainee.load_state_dict(parts["weights"])
        step = int(state["step"])
        optimizer.load(parts["optimiser"], step)
    average, saved = 0.0, time.monotonic()
    columns = (TextColumn("vae loss {task.fields[loss]:.4f}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("vae", total=recipe.steps, completed=step, loss=0.0)
        while step < recipe.steps:
            loss = _step(trainee, optimizer, scenes, recipe, step)
            average = loss if not average else 0.98 * average + 0.02 * loss
            step += 1
            progress.update(task, completed=step, loss=average)
            if time.monotonic() - saved > 60 or step == recipe.steps:
                parts = {"weights": trainee.state_dict(), "optimiser": optimizer.state}
                checkpoint.save(out, step, parts, {})
                checkpoint.prune(out, keep=1)
                saved = time.monotonic()
                console.log(f"step {step} loss {average:.4f}")
    variance, mean = trainee.normalise.running_var, trainee.normalise.running_mean
    assert variance is not None, "batch norm keeps statistics"
    assert mean is not None, "batch norm keeps statistics"
    vae.latent_mean.copy_(mean)
    vae.latent_std.copy_((variance + trainee.normalise.eps).sqrt())
    vae.eval()
    return vae


def _step(trainee: Trainee, optimizer: MuonAdamW, scenes: Scenes, recipe: Recipe, step: int) -> float:
    """One update; the rate is flat at first (after a short warm-up), then falls linearly to 0."""
    rate = recipe.lr * min(1.0, (1 - step / recipe.steps) / (1 - recipe.flat_share), (step + 1) / 100)
    pixels, weights = sample_crops(scenes, recipe, step)
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
    cells = recipe.crop // trainee.factor
    noise = torch.randn(recipe.batch, trainee.normalise.num_features, cells, cells, generator=generator)
    loss = sharp_loss(trainee(pixels, noise), pixels, weights, recipe.pixels)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    optimizer.step(rate)
    return loss.item()


@torch.inference_mode()
def evaluate(vae: MiniVAE, scenes: Scenes, count: int = 400) -> dict[str, dict[str, float]]:
    """Round trip of held-out scenes, by face height in pixels.

    Returns for each size: `psnr` inside the face box (dB) and `gradient` share, the energy of pixel differences
    inside the face (box shrunk by 15 %) after the round trip over the same before; `faces` counted.
    """
    errors: dict[str, list[tuple[float, float]]] = {f"{low}-{high} px": [] for low, high in FACE_SIZES}
    for start in range(0, min(count, len(scenes)), 20):
        images = torch.from_numpy(scenes.images[start : start + 20].astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)
        made = ((vae(images).clamp(-1, 1) + 1) * 127.5).round()
        real = (images + 1) * 127.5
        for row in range(len(images)):
            index = start + row
            for x0, y0, x1, y1 in scenes.box[index, : scenes.count[index]]:
                size = next((s for s in FACE_SIZES if s[0] <= y1 - y0 < s[1]), None)
                if size:
                    box = _clip(x0, y0, x1, y1)
                    pair = made[row][:, box[1], box[0]], real[row][:, box[1], box[0]]
                    mse = float((pair[0] - pair[1]).square().mean())
                    inner = _clip(
                        *(x0 + 0.15 * (x1 - x0), y0 + 0.15 * (y1 - y0)), *(x1 - 0.15 * (x1 - x0), y1 - 0.15 * (y1 - y0))
                    )
                    share = _energy(made[row][:, inner[1], inner[0]]) / _energy(real[row][:, inner[1], inner[0]])
                    errors[f"{size[0]}-{size[1]} px"].append((mse, share))
    return {
        name: {
            "psnr": round(float(np.mean([10 * np.log10(255**2 / max(mse, 0.05)) for mse, _ in values])), 2),
            "gradient": round(float(np.mean([share for _, share in values])), 3),
            "faces": float(len(values)),
        }
        for name, values in errors.items()
        if values
    }


def _clip(x0: float, y0: float, x1: float, y1: float) -> tuple[slice, slice]:
    return slice(max(int(x0), 0), int(x1)), slice(max(int(y0), 0), int(y1))


def _energy(image: Tensor) -> float:
    return float(image.diff(dim=-1).square().mean() + image.diff(dim=-2).square().mean())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("var/mini"))
    parser.add_argument("--out", type=Path, default=Path("var/mini/vae"))
    parser.add_argument("--preset", choices=SIZES, default=MINI.name)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    console = Console(stderr=True)
    given = {"steps": options.steps, "batch": options.batch, "seed": options.seed}
    recipe = replace(RECIPES[options.preset], **{name: value for name, value in given.items() if value is not None})
    vae = train(options.data, options.out, recipe, console, SIZES[options.preset])
    vae.save_pretrained(options.out, safe_serialization=True)
    report = {"recipe": asdict(recipe), "held_out": evaluate(vae, open_scenes(options.data / "scenes_test"))}
    (options.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    console.print_json(data=report)


if __name__ == "__main__":
    main()
