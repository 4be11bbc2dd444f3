from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch.nn import functional as F

from fpga_models.core.pipeline import PortraitPipeline
from fpga_models.core.presets import preset_directory
from fpga_models.core.vae import MiniVAE
from fpga_models.core.weights import read_manifest
from fpga_models.lab.mini.autoencoder.cache_latents import cache_latents
from fpga_models.lab.mini.autoencoder.decoder import (
    Recipe,
    Run,
    enlarged,
    estimate_latents,
    sample_scenes,
    told,
    train,
)
from fpga_models.lab.mini.autoencoder.decoder import with_autoencoder as put
from fpga_models.lab.mini.autoencoder.pixels import PixelLoss, edges, pixel_weights, sharp_loss
from fpga_models.mmf.samples.data import TrainingData, open_training_data
from fpga_models.mmf.start import open_start
from tests.unit.fpga_models.training_folder import write_training_folder

QUICK = Recipe(steps=4, batch=4, estimates=8)
LOSS = PixelLoss()
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def mini() -> PortraitPipeline:
    return open_start(preset_directory("mini"), "cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, mini: PortraitPipeline) -> TrainingData:
    folder = write_training_folder(tmp_path_factory.mktemp("training"))
    cache_latents(folder / "scenes", autoencoder(mini), folder / "latents" / "scenes.npy")
    return open_training_data(folder, mini.tokenizer)


@pytest.fixture(scope="module")
def estimates(tmp_path_factory: pytest.TempPathFactory, data: TrainingData) -> Path:
    path = tmp_path_factory.mktemp("estimates") / "estimates.npy"
    estimate_latents(preset_directory("mini"), data, QUICK, path)
    return path


def autoencoder(mini: PortraitPipeline) -> MiniVAE:
    assert isinstance(mini.vae, MiniVAE)
    return mini.vae


def test_an_enlarged_decoder_begins_as_the_given_one(mini: PortraitPipeline) -> None:
    vae = autoencoder(mini)
    larger = enlarged(vae, tuple(n + 1 for n in vae.config.decoder_blocks))
    latents = torch.randn(2, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        assert torch.equal(larger.decode(latents).sample, vae.decode(latents).sample)
        assert torch.equal(larger.encode(pixels).latent_dist.mode(), vae.encode(pixels).latent_dist.mode())
    assert sum(p.numel() for p in larger.parameters()) > sum(p.numel() for p in vae.parameters())


def test_estimates_are_near_the_latents_that_were_noised(data: TrainingData, estimates: Path) -> None:
    found = np.load(estimates).astype(np.float32)
    true = np.asarray(data.latents[: len(found)], np.float32)
    assert found.shape == (8, 16, 16, 16)
    assert 0.02 < ((found - true) ** 2).mean() < 0.5 * (true**2).mean()


def test_scenes_are_a_function_of_the_step_and_show_what_their_latents_are_of(
    data: TrainingData, estimates: Path, mini: PortraitPipeline
) -> None:
    sources = data.latents, np.load(estimates)
    recipe = replace(QUICK, batch=8)
    first, again, later = (sample_scenes(data.scenes, sources, recipe, step) for step in (5, 5, 6))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], later[0])
    assert first[0].shape == (8, 16, 16, 16)
    assert first[2].shape == (8, 1, 128, 128)
    for estimated, least in ((0.0, 0.02), (1.0, 0.03)):
        latents, pixels, _ = sample_scenes(data.scenes, sources, replace(recipe, estimated=estimated), 1)
        with torch.no_grad():
            decoded = autoencoder(mini).decode(latents).sample
        assert (decoded - pixels).square().mean(dim=(1, 2, 3)).max() < least


def test_small_faces_count_more_and_eyes_most(data: TrainingData) -> None:
    scene = int(np.flatnonzero(data.scenes.count == 1)[0])
    weights = pixel_weights(data.scenes, scene, LOSS)
    x0, y0, x1, y1 = data.scenes.box[scene, 0]
    size = max(x1 - x0, y1 - y0)
    inside = np.clip(LOSS.face_weight * LOSS.plain_face / size, LOSS.face_weight, LOSS.largest_weight)
    x, y = data.scenes.kps5[scene, 0, 0]
    assert weights[int(y), int(x)] == pytest.approx(inside * LOSS.eye_weight, rel=0.1)
    assert weights[int(y1) - 2, int((x0 + x1) / 2)] == pytest.approx(inside, rel=0.1)
    assert weights[-1, 0] == 1 or weights[0, 0] == 1


def test_the_loss_sees_a_blurred_edge_that_is_right_on_the_mean() -> None:
    real = torch.zeros(1, 3, 16, 16)
    real[..., 8:] = 1
    blurred = F.avg_pool2d(F.pad(real, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
    shifted = real.roll(1, dims=-1)
    ones, window = torch.ones(1, 1, 16, 16), LOSS.edge_window
    assert edges(shifted, window).max() == edges(real, window).max()
    assert edges(blurred, window).max() < 0.5 * edges(real, window).max()
    assert sharp_loss(real, real, ones, LOSS) == 0
    assert sharp_loss(blurred, real, ones, LOSS) > sharp_loss(blurred, real, ones, replace(LOSS, edge_weight=0.0))


def test_a_resumed_run_continues_bit_for_bit(
    data: TrainingData, estimates: Path, mini: PortraitPipeline, tmp_path: Path
) -> None:
    sources = data.latents, np.load(estimates)

    def fresh() -> Run:
        torch.manual_seed(0)
        return Run(enlarged(autoencoder(mini), QUICK.blocks).decoder, QUICK)

    def go(run: Run, steps: int) -> list[float]:
        return [run.update(*sample_scenes(data.scenes, sources, QUICK, run.step)) for _ in range(steps)]

    whole = fresh()
    go(whole, 3)
    whole.save(tmp_path)
    after = go(whole, 1)
    resumed = fresh()
    resumed.resume(tmp_path / "checkpoint-3")
    assert go(resumed, 1) == after
    assert all(torch.equal(value, resumed.ema[name]) for name, value in whole.ema.items())


def test_training_makes_decoded_scenes_more_like_the_rendered_ones(
    data: TrainingData, estimates: Path, mini: PortraitPipeline, tmp_path: Path
) -> None:
    recipe = replace(QUICK, steps=20, batch=3, estimated=1.0, rate=3e-3)

    def error(vae: MiniVAE) -> float:
        latents = torch.from_numpy(np.load(estimates).astype(np.float32))
        true = torch.from_numpy(data.scenes.images[: len(latents)].astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)
        with torch.no_grad():
            return float((vae.decode(latents).sample - true).square().mean())

    before = enlarged(autoencoder(mini), tuple(autoencoder(mini).config.decoder_blocks))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in before.decoder.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    after = train(before, data, estimates, tmp_path, recipe, QUIET)
    assert error(after) < 0.9 * error(before)
    assert all(torch.equal(a, b) for a, b in zip(after.encoder.parameters(), before.encoder.parameters(), strict=True))
    again = train(before, data, estimates, tmp_path, recipe, QUIET)
    assert all(torch.equal(a, b) for a, b in zip(after.parameters(), again.parameters(), strict=True))


def test_the_preset_with_the_new_autoencoder_is_sound(
    mini: PortraitPipeline, data: TrainingData, tmp_path: Path
) -> None:
    made = told(QUICK, tmp_path, data)
    put(preset_directory("mini"), enlarged(autoencoder(mini), (3, 3, 5)), tmp_path / "preset", made)
    opened = PortraitPipeline.from_pretrained(tmp_path / "preset")  # checks the manifest
    assert opened.model_sha256 != mini.model_sha256
    assert tuple(opened.vae.config.decoder_blocks) == (3, 3, 5)
    made = read_manifest(tmp_path / "preset")["made"]
    assert (made["config"]["steps"], made["steps"]) == (QUICK.steps, QUICK.steps)
    assert made["data"] == {"pictures": len(data.latents), "people": len(data.embeddings)}
    assert made["start"]["model_sha256"] == mini.model_sha256
    assert "_name_or_path" not in (tmp_path / "preset" / "vae" / "config.json").read_text()
