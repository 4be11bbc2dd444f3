from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from fpga_models.idzoom.scenes import open_scenes
from fpga_models.lab.mini.autoencoder.cache_latents import cache_latents
from fpga_models.lab.mini.autoencoder.pixels import reconstruction_loss
from fpga_models.lab.mini.autoencoder.vae import Recipe, evaluate, sample_crops, train
from fpga_models.lab.synthetic.dataset import render_scenes


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mini")
    render_scenes(folder / "scenes", 24, seed=0, identities=range(50), workers=1)
    return folder


def test_crops_are_a_function_of_seed_and_step(data: Path) -> None:
    scenes, recipe = open_scenes(data / "scenes"), Recipe(batch=4)
    first, again, later = (sample_crops(scenes, recipe, step) for step in (5, 5, 6))
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], later[0])
    assert first[0].shape == (4, 3, 64, 64)
    assert set(first[1].unique().tolist()) == {1.0, recipe.pixels.face_weight}


def test_loss_is_zero_for_equal_pictures_and_counts_faces_double() -> None:
    wanted = torch.zeros(1, 3, 8, 8)
    made = wanted.clone()
    assert reconstruction_loss(made, wanted, torch.ones(1, 1, 8, 8), 0.5) == 0
    made[..., 4, 4] = 0.5
    plain = reconstruction_loss(made, wanted, torch.ones(1, 1, 8, 8), 0.5)
    assert torch.isclose(reconstruction_loss(made, wanted, torch.full((1, 1, 8, 8), 2.0), 0.5), 2 * plain)


def test_a_short_training_learns_and_gives_usable_latents(data: Path, tmp_path: Path) -> None:
    console = Console(quiet=True)
    scenes = open_scenes(data / "scenes")
    start = evaluate(train(data, tmp_path / "start", Recipe(steps=1, batch=4), console), scenes)
    vae = train(data, tmp_path / "end", Recipe(steps=60, batch=4), console)
    end = evaluate(vae, scenes)
    assert all(end[size]["psnr"] > start[size]["psnr"] + 2 for size in start)
    cache_latents(data / "scenes", vae, tmp_path / "latents.npy")
    latents = np.load(tmp_path / "latents.npy")
    assert latents.shape == (24, 16, 16, 16)
    assert 0.3 < latents.astype(np.float32).std() < 3


def test_a_finished_training_started_again_returns_the_same_weights(data: Path, tmp_path: Path) -> None:
    console = Console(quiet=True)
    straight = train(data, tmp_path / "straight", Recipe(steps=2, batch=2), console)
    train(data, tmp_path / "twice", Recipe(steps=2, batch=2), console)
    again = train(data, tmp_path / "twice", Recipe(steps=2, batch=2), console)
    for name, value in straight.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
