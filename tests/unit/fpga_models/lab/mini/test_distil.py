from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fpga_models.core import ddim
from fpga_models.core.presets import preset_directory
from fpga_models.core.weights import verify
from fpga_models.lab.mini.autoencoder.cache_latents import cache_latents
from fpga_models.lab.mini.averages import KEPT, keep, kept, mean_of
from fpga_models.lab.mini.distil import LEARNING, Distiller, Recipe, distil, jump_target
from fpga_models.lab.mini.networks import MINI256, build_denoiser, build_scheduler
from fpga_models.mmf.loop import Trainee
from fpga_models.mmf.plan import StagePlan
from fpga_models.mmf.samples.data import open_training_data, token_ids
from fpga_models.mmf.start import open_start
from fpga_models.mmf.validation import validation_batch
from tests.unit.fpga_models.training_folder import write_training_folder

MINI = preset_directory("mini")
QUICK = Recipe(batch=4, accumulate=1, substeps=2, stage=StagePlan(steps=2, rate=1e-4, warmup=1), save_every=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_training_folder(tmp_path_factory.mktemp("training"))
    pipeline = open_start(MINI, "cpu")
    cache_latents(folder / "scenes", pipeline.vae, folder / "latents" / "scenes.npy")  # type: ignore[arg-type]  # ours
    return folder


@pytest.mark.parametrize(("start", "end"), [(999, 749), (499, 249), (249, -1)])
def test_the_target_of_a_jump_lands_where_the_teacher_arrived(start: int, end: int) -> None:
    schedule = ddim.Schedule.of(build_scheduler())
    generator = torch.Generator().manual_seed(0)
    latents, arrived = (torch.randn(2, 4, 3, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    output = jump_target(schedule, latents, arrived, start=start, end=end)
    landed = ddim.step(schedule, latents, output, start=start, end=end)
    assert torch.allclose(landed, arrived, atol=1e-9)


def test_a_student_learns_behind_its_teacher_and_the_preset_draws_in_four_steps(data: Path, tmp_path: Path) -> None:
    records = list(distil(data, MINI, tmp_path, QUICK))

    assert [record["step"] for record in records] == [1, 2]
    verify(tmp_path / "preset")
    facts = json.loads((tmp_path / "preset" / "preset.json").read_text())
    assert (facts["defaults"]["steps"], facts["defaults"]["guidance"]) == (4, 1.0)
    one, other = (open_start(folder, "cpu").denoiser.state_dict() for folder in (MINI, tmp_path / "preset"))
    assert any(not torch.equal(one[name], other[name]) for name in one)
    assert list(distil(data, MINI, tmp_path, QUICK)) == [], "a finished run is not repeated"


def test_the_teacher_stays_what_the_student_was(data: Path) -> None:
    pipeline = open_start(MINI, "cpu")
    student = Trainee(pipeline.denoiser, pipeline.text_encoder)
    student.learn(LEARNING)
    training = open_training_data(data, pipeline.tokenizer)
    batch = validation_batch(training, 4)
    trainer = Distiller(student, pipeline.schedule, QUICK, torch.from_numpy(token_ids(pipeline.tokenizer, [""])[0]))
    at, noise = torch.full((4,), 500), torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = student.eval()(noise, at, batch)
        assert torch.equal(trainer.teacher(noise, at, batch), before)
    trainer.train_step(batch, trainer.rng(), 1e-2)
    with torch.no_grad():
        assert torch.equal(trainer.teacher(noise, at, batch), before)
        assert not torch.equal(student.eval()(noise, at, batch), before)


def test_the_kept_averages_are_the_newest_and_their_mean_is_their_mean(tmp_path: Path) -> None:
    for step in range(KEPT + 2):
        keep(tmp_path, step, {"weight": torch.full((3,), float(step))})
    assert [int(path.stem) for path in kept(tmp_path)] == list(range(2, KEPT + 2))
    assert torch.equal(mean_of(kept(tmp_path)[-2:])["weight"], torch.full((3,), KEPT + 0.5))


def test_the_networks_of_mini256_fit_each_other_at_sixteen_cells() -> None:
    vae, denoiser = MINI256.build_vae(), build_denoiser(MINI256)
    assert (vae.factor, MINI256.latent_factor) == (16, 16)
    with torch.no_grad():
        latents = vae.encode(torch.zeros(1, 3, 256, 256)).latent_dist.mode()
        assert latents.shape == (1, 32, 16, 16)
        assert vae.decode(latents).sample.shape == (1, 3, 256, 256)
    assert denoiser.unet.config.in_channels == 32
    assert denoiser.hint is not None
    assert denoiser.hint.config.latent_factor == 16
