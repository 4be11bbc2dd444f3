"""Trains the autoencoder's decoder on: sharper small faces, and used to what the generator makes. The latents stay.

    python -m fpga_models.lab.mini.autoencoder.decoder --data var/mini --preset PRESET --out var/mini/decoder

An enlarged decoder begins as the given one and learns to make rendered scenes of their latents and of the generator's
estimates of them. Scenes are decoded whole: what lies beyond the border of a crop is felt several cells inside.
The encoder is left alone, so cached latents and trained generators fit as before. Stopped and started again, it
continues from its checkpoint. OUT/preset is the given preset with the new autoencoder.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn, track
from torch import Tensor, nn

from fpga_models.core import ddim
from fpga_models.core.vae import LATENT_NOISE, Decoder, MiniVAE, ResBlock
from fpga_models.core.weights import read_manifest
from fpga_models.idzoom.scenes import Scenes, open_scenes
from fpga_models.lab.mini.autoencoder.pixels import PixelLoss, pixel_weights, sharp_loss
from fpga_models.lab.mini.autoencoder.vae import evaluate
from fpga_models.lab.mini.networks import MINI, MINI256
from fpga_models.mmf import checkpoint
from fpga_models.mmf.loop import Trainee
from fpga_models.mmf.losses import clean_estimate
from fpga_models.mmf.optimizer import MuonAdamW, OptimizerConfig
from fpga_models.mmf.samples.data import TrainingData, draw_embeddings, gather, open_training_data
from fpga_models.mmf.start import finish_preset, open_start
from fpga_models.mmf.workbench import read_source

FILE_NAME = "vae/diffusion_pytorch_model.safetensors"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Numeric choices of the training [ours].

    Attributes:
        estimated: share of scenes that are decoded from the generator's estimates, of the first `estimates` scenes.
        latest: of the diffusion time, up to which scenes were noised for these estimates.
    """

    steps: int = 3600
    batch: int = 4
    estimated: float = 0.6
    estimates: int = 6144
    latest: float = 0.5
    pixels: PixelLoss = field(default_factory=PixelLoss)
    rate: float = 1e-3
    flat_share: float = 0.35
    average_decay: float = 0.998
    blocks: tuple[int, ...] = (2, 3, 5)
    seed: int = 0


RECIPES = {
    MINI.name: Recipe(),
    MINI256.name: Recipe(blocks=(2, 3, 4, 6), pixels=PixelLoss(plain_face=128.0)),
}


def enlarged(vae: MiniVAE, blocks: tuple[int, ...]) -> MiniVAE:
    """The same autoencoder with more residual blocks in its decoder, which begin as the identity.

    Args:
        vae: what to begin from.
        blocks: of each level from pixels to latents, at least as many as there are.
    """
    config = {key: value for key, value in vae.config.items() if not key.startswith("_")}
    larger: MiniVAE = MiniVAE(**(config | {"decoder_blocks": blocks}))
    larger.encoder.load_state_dict(vae.encoder.state_dict())
    larger.latent_mean.copy_(vae.latent_mean)
    larger.latent_std.copy_(vae.latent_std)
    old = iter(vae.decoder.layers)
    had = next(old)
    for layer in larger.decoder.layers:
        if isinstance(layer, ResBlock) and not isinstance(had, ResBlock):
            nn.init.zeros_(layer.conv2.bias)  # type: ignore[arg-type]  # a convolution of ours has one
            continue  # a new block at the end of its level
        layer.load_state_dict(had.state_dict())
        had = next(old, had)
    return larger


@torch.no_grad()
def estimate_latents(preset: Path, data: TrainingData, recipe: Recipe, target: Path, batch: int = 64) -> None:
    """Write the generator's clean estimates (C, h, w) of the first scenes, noised to a time up to `recipe.latest`."""
    pipeline = open_start(preset, "cpu")
    trainee, schedule = Trainee(pipeline.denoiser, pipeline.text_encoder).eval(), pipeline.schedule
    generator = torch.Generator().manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    partial = target.with_suffix(".partial.npy")
    count = min(recipe.estimates, len(data.latents))
    estimates = np.lib.format.open_memmap(partial, "w+", np.float16, (count, *data.latents.shape[1:]))
    for start in track(range(0, len(estimates), batch), "estimated scenes", console=Console(stderr=True)):
        chosen = np.arange(start, min(start + batch, len(estimates)))
        part = gather(data, chosen, ["landmark"] * len(chosen), draw_embeddings(data, chosen, rng))
        at = (recipe.latest * schedule.length * torch.rand(len(chosen), generator=generator)).long()
        noised = ddim.add_noise(schedule, part.latents, torch.randn(part.latents.shape, generator=generator), at)
        with torch.autocast("cpu", torch.bfloat16):
            output = trainee(noised, at, part)
        estimates[chosen] = clean_estimate(schedule, noised, output.float(), at).numpy().astype(np.float16)
    estimates.flush()
    partial.replace(target)


def sample_scenes(
    scenes: Scenes, sources: tuple[NDArray[np.float16], NDArray[np.float16]], recipe: Recipe, step: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Latents (B, C, h, w), their pixels (B, 3, H, W) in [-1, 1] and weights; a function of seed and step."""
    rng = np.random.default_rng([recipe.seed, step])
    latents, chosen = [], []
    for _ in range(recipe.batch):
        source = sources[int(rng.random() < recipe.estimated)]
        index = int(rng.integers(len(source)))
        found = np.asarray(source[index], np.float32)
        if source is sources[0]:
            found = found + LATENT_NOISE * np.float32(rng.random()) * rng.standard_normal(found.shape, np.float32)
        latents.append(found)
        chosen.append(index)
    images = torch.from_numpy(np.stack([scenes.images[index] for index in chosen])).permute(0, 3, 1, 2)
    weights = np.stack([pixel_weights(scenes, index, recipe.pixels) for index in chosen])[:, None]
    return torch.from_numpy(np.stack(latents)), images.float() / 127.5 - 1, torch.from_numpy(weights)


class Run:
    """State of a run: decoder, optimizer, the decoder's moving average, the number of the next step."""

    def __init__(self, decoder: Decoder, recipe: Recipe) -> None:
        self.recipe, self.step = recipe, 0
        self.decoder = decoder
        self.decoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack this form
        self.optimizer = MuonAdamW(decoder.named_parameters(), OptimizerConfig())
        self.ema = {name: p.detach().clone() for name, p in decoder.named_parameters()}

    def update(self, latents: Tensor, pixels: Tensor, weights: Tensor) -> float:
        """One step; returns the loss. The rate is flat at first, after a short warm-up, then falls linearly to 0.

        Args:
            latents: (B, C, h, w).
            pixels: (B, 3, H, W), in [-1, 1].
            weights: (B, 1, H, W), how much each pixel counts.
        """
        recipe = self.recipe
        falling = min(1.0, (1 - self.step / recipe.steps) / (1 - recipe.flat_share), (self.step + 1) / 100)
        with torch.autocast("cpu", torch.bfloat16):
            decoded = self.decoder(latents.contiguous(memory_format=torch.channels_last))
        loss = sharp_loss(decoded.float(), pixels, weights, recipe.pixels)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.optimizer.step(recipe.rate * falling)
        self.step += 1
        decay = min(recipe.average_decay, (1 + self.step) / (10 + self.step))
        learning = [p.detach() for p in self.decoder.parameters()]
        torch._foreach_lerp_(list(self.ema.values()), learning, 1 - decay)
        return loss.item()

    def save(self, out: Path) -> None:
        """Write a checkpoint and delete the one before."""
        parts = {"weights": self.decoder.state_dict(), "average": self.ema, "optimiser": self.optimizer.state}
        checkpoint.save(out, self.step, parts, {})
        checkpoint.prune(out, keep=1)

    def resume(self, folder: Path) -> None:
        """Continue from a checkpoint."""
        parts, facts = checkpoint.load(folder)
        self.decoder.load_state_dict(parts["weights"])
        for name, value in parts["average"].items():
            self.ema[name].copy_(value)
        self.step = int(facts["step"])
        self.optimizer.load(parts["optimiser"], self.step)


def train(vae: MiniVAE, data: TrainingData, estimates: Path, out: Path, recipe: Recipe, console: Console) -> MiniVAE:
    """Train for the recipe's steps; returns the autoencoder with the moving average of its decoder."""
    torch.manual_seed(recipe.seed)
    larger = enlarged(vae, recipe.blocks)
    run = Run(larger.decoder, recipe)
    if newest := checkpoint.latest(out):
        run.resume(newest)
    sources = (data.latents, np.load(estimates, mmap_mode="r"))
    ema, saved = 0.0, time.monotonic()
    columns = (TextColumn("decoder loss {task.fields[loss]:.4f}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("decoder", total=recipe.steps, completed=run.step, loss=0.0)
        while run.step < recipe.steps:
            loss = run.update(*sample_scenes(data.scenes, sources, recipe, run.step))
            ema = loss if not ema else 0.98 * ema + 0.02 * loss
            progress.update(task, completed=run.step, loss=ema)
            if time.monotonic() - saved > 60 or run.step == recipe.steps:
                run.save(out)
                saved = time.monotonic()
                console.log(f"step {run.step} loss {ema:.4f}")
    larger.decoder.load_state_dict(run.ema)
    larger.eval()
    return larger


def with_autoencoder(preset: Path, vae: MiniVAE, out: Path, made: Mapping[str, Any]) -> None:
    """Write the preset folder `out`: the given preset with this autoencoder in half precision, and how it was made."""
    partial = out.with_name(f".partial-{out.name}")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(preset, partial)
    copied = enlarged(vae, tuple(vae.config.decoder_blocks))  # its configuration knows no folder
    copied.half().save_pretrained(partial / "vae", safe_serialization=True)
    manifest = read_manifest(preset)
    start = {"model_sha256": manifest["model_sha256"], "made": manifest.get("made", {})}
    finish_preset(partial, out, (FILE_NAME,), dict(made) | {"start": start})


def told(recipe: Recipe, folder: Path, data: TrainingData) -> dict[str, Any]:
    """How a decoder came about, for the manifest of its preset."""
    source = read_source(folder) | {"pictures": len(data.latents), "people": len(data.embeddings)}
    command = "python -m fpga_models.lab.mini.autoencoder.decoder"
    return {"command": command, "config": asdict(recipe), "steps": recipe.steps, "data": source}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("var/mini"))
    parser.add_argument("--preset", type=Path, required=True, help="folder with the autoencoder and the generator")
    parser.add_argument("--out", type=Path, default=Path("var/mini/decoder"))
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)
    console = Console(stderr=True)
    options.out.mkdir(parents=True, exist_ok=True)
    pipeline = open_start(options.preset, "cpu")
    assert isinstance(pipeline.vae, MiniVAE), "presets of the mini world have a MiniVAE"
    recipe = replace(RECIPES[pipeline.preset.name], seed=options.seed)
    if options.steps:
        recipe = replace(recipe, steps=options.steps)
    data = open_training_data(options.data, pipeline.tokenizer)
    estimates = options.out / "estimates.npy"
    if not estimates.exists():
        estimate_latents(options.preset, data, recipe, estimates)
    vae = train(pipeline.vae, data, estimates, options.out, recipe, console)
    report = {"recipe": asdict(recipe), "held_out": evaluate(vae, open_scenes(options.data / "scenes_test"))}
    (options.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    with_autoencoder(options.preset, vae, options.out / "preset", told(recipe, options.data, data))
    console.print_json(data=report)


if __name__ == "__main__":
    main()
