from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fpga_models.core.control import CONTROL_MODES
from fpga_models.core.pipeline import PortraitPipeline
from fpga_models.errors import DataError
from fpga_models.mmf.loop import Trainee
from fpga_models.mmf.samples.batch import TrainingBatch
from fpga_models.mmf.samples.clone import RECIPES, CloneSource, appearances, draw_canvas
from fpga_models.mmf.samples.clone_making import CloneMaker, load_clones, save_clones
from fpga_models.mmf.samples.data import TrainingData

MODES = CONTROL_MODES * 3


@pytest.fixture
def source(data: TrainingData) -> CloneSource:
    scenes = np.arange(len(data.latents))
    return CloneSource(
        data=data,
        groups=scenes[data.scenes.count[scenes] > 1],
        appearances=appearances(data, scenes),
        empty_text=torch.zeros(48, dtype=torch.long),
        encode=lambda images: torch.zeros(len(images), 16, 16, 16),
    )


def draw(recipe: str, source: CloneSource) -> TrainingBatch:
    return RECIPES[recipe](source, MODES, np.random.default_rng(0))


def test_appearances_are_where_the_person_is(data: TrainingData) -> None:
    shown = appearances(data, np.arange(len(data.latents)))
    assert shown
    for row, places in shown.items():
        assert len(places) > 1
        assert all(data.rows[scene, place] == row for scene, place in places)


def test_a_canvas_shows_the_face_where_its_points_say(data: TrainingData) -> None:
    shown = appearances(data, np.arange(len(data.latents)))
    rng = np.random.default_rng(0)
    for row in list(shown)[:6]:
        canvas, marks = draw_canvas(data, shown[row], rng)
        assert canvas.shape == data.scenes.images.shape[1:]
        assert 2 <= len(marks) <= 4
        skins = []
        for mark in marks:
            points = mark.face_points()
            assert (points > 0).all()
            assert (points < 128).all()
            x, y = points[2].astype(int)
            skins.append(canvas[y, x].astype(int))
        assert np.abs(skins[0] - np.mean(skins, axis=0)).max() < 60, "one person has one skin, up to the light"


def test_c1_asks_for_one_person_at_every_face_and_counts_nothing_else(source: CloneSource) -> None:
    batch = draw("C1", source)
    present = batch.regions.amax(dim=(-1, -2)) > 0
    assert (present.sum(dim=1) >= 2).all()
    for row in range(len(MODES)):
        faces = batch.embeddings[row][present[row]]
        assert torch.allclose(faces, faces[:1].expand_as(faces))
    assert batch.embeddings[~present].abs().max() == 0
    assert (batch.counted.mean(dim=(-1, -2)) < 0.9).all()
    assert batch.control[MODES.index("none")].max() == 0
    assert batch.control[MODES.index("landmark")].max() > 0


def test_c3_asks_for_one_person_of_a_group_and_counts_that_face(source: CloneSource) -> None:
    batch = draw("C3", source)
    asked = batch.embeddings.abs().amax(dim=-1) > 0
    assert (asked.sum(dim=1) == 1).all()
    assert torch.equal(asked, batch.masks.amax(dim=(-1, -2)) > 0)
    outside = batch.regions.amax(dim=1, keepdim=True) < 0.05
    assert batch.counted[outside].max() == 0


def test_c4_asks_for_everybody_and_counts_the_faces(source: CloneSource) -> None:
    batch = draw("C4", source)
    asked = batch.embeddings.abs().amax(dim=-1) > 0
    assert (asked.sum(dim=1) >= 2).all()
    assert torch.equal(asked, batch.regions.amax(dim=(-1, -2)) > 0)
    assert 0 < batch.counted.mean() < 0.9


@pytest.fixture(scope="module")
def trainee(mini: PortraitPipeline) -> Trainee:
    return Trainee(mini.denoiser, mini.text_encoder)


def test_c2_keeps_pictures_that_show_the_person_at_every_place(
    source: CloneSource, trainee: Trainee, mini: PortraitPipeline
) -> None:
    looked_at: list[int] = []

    def nobody(faces: Tensor) -> Tensor:
        looked_at.append(len(faces))
        return torch.randn(len(faces), 512, generator=torch.Generator().manual_seed(0))

    maker = CloneMaker(trainee=trainee, schedule=mini.schedule, vae=mini.vae, encoder=nobody, patience=1)
    with pytest.raises(DataError, match="None of 16"):
        maker.make(source, 4, 0, lambda _: None)
    assert looked_at[0] >= 32, "every face of the group is looked at"


def test_kept_clones_come_back_as_batches_of_one_person(
    source: CloneSource, trainee: Trainee, mini: PortraitPipeline, tmp_path: Path
) -> None:
    maker = CloneMaker(
        trainee=trainee, schedule=mini.schedule, vae=mini.vae, encoder=lambda f: torch.ones(len(f), 512), similarity=-1
    )
    kept: list[int] = []
    clones = maker.make(source, 5, 0, kept.append)
    assert kept == [5]
    folder = tmp_path / "clones"
    save_clones(clones, folder)
    batch = draw("C2", replace(source, clones=load_clones(folder)))
    present = batch.regions.amax(dim=(-1, -2)) > 0
    for row in range(len(MODES)):
        faces = batch.embeddings[row][present[row]]
        assert len(faces) >= 2
        assert torch.equal(faces, faces[:1].expand_as(faces))
    assert batch.latents.abs().max() > 0
