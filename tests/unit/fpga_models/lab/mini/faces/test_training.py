from pathlib import Path

import numpy as np
import pytest
import torch

from fpga_models.idzoom.scenes import Scenes
from fpga_models.lab.mini.faces.augment import augment
from fpga_models.lab.mini.faces.detector import DetectorConfig, Source, clutter, draw_sample, mosaic, paint_over
from fpga_models.lab.mini.faces.encoders import (
    ContrastiveConfig,
    CosFaceConfig,
    halve,
    train_encoder_a,
    train_encoder_b,
)
from fpga_models.lab.mini.faces.loop import Schedule, learning_rate, train
from fpga_models.lab.mini.faces.report import recognition
from fpga_models.lab.synthetic import random_scene, render


def one_scene() -> Scenes:
    rendered = render(random_scene(np.random.default_rng(0), [1, 2], "group_2", 128))
    boxes, points = np.zeros((1, 4, 4), np.float32), np.zeros((1, 4, 5, 2), np.float32)
    for index, person in enumerate(rendered.people):
        boxes[0, index], points[0, index] = person.box, person.kps5
    empty = np.zeros((1,), np.uint8)
    return Scenes(
        images=rendered.image[None],
        identity=np.zeros((1, 4), np.int32),
        box=boxes,
        kps5=points,
        skeleton=np.zeros((1, 4, 18, 3), np.float32),
        mask=np.zeros((1, 4, 64, 64), np.uint8),
        count=empty + 2,
        kind=empty,
        captions=[""],
    )


def rendered_only(scenes: Scenes) -> Source:
    return Source(scenes=scenes, decoded=scenes.images[:0])


def test_the_learning_rate_rises_then_falls_to_zero() -> None:
    schedule = Schedule(minutes=1)

    rates = [learning_rate(schedule, share) for share in (0.0, 0.03, 0.5, 1.0)]

    assert rates[0] < rates[2] < rates[1]
    assert rates[1] == pytest.approx(schedule.lr)
    assert rates[3] == pytest.approx(0)


def test_a_finished_run_is_restored_and_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "linear"
    schedule = Schedule(minutes=0.002)
    first, second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

    def loss_of(layer: torch.nn.Linear) -> torch.Tensor:
        return layer(torch.ones(1, 4)).square().sum()

    steps = train({"layer": first}, lambda generator, share: loss_of(first), schedule, path)
    again = train({"layer": second}, lambda generator, share: loss_of(second), schedule, path)

    assert steps == again
    assert torch.equal(first.weight, second.weight)


@pytest.mark.parametrize("trainer", [train_encoder_a, train_encoder_b])
def test_an_encoder_trains_and_embeds(trainer: type, tmp_path: Path) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (6, 3, 112, 112, 3), dtype=np.uint8)
    config = CosFaceConfig(batch=6) if trainer is train_encoder_a else ContrastiveConfig(people=4, views=2)

    encoder = trainer(halve(crops), tmp_path / "encoder", Schedule(minutes=0.003), config)

    with torch.inference_mode():
        embeddings = encoder(torch.zeros(2, 3, 112, 112))
    assert embeddings.shape == (2, 512)
    assert torch.isfinite(embeddings).all()


def test_halving_averages_four_pixels() -> None:
    crops = np.zeros((1, 1, 112, 112, 3), np.uint8)
    crops[0, 0, :2, :2, 0] = [[10, 20], [30, 41]]

    assert halve(crops)[0, 0, 0, 0].tolist() == [25, 0, 0]


def test_augmentation_keeps_shape_and_range_and_depends_only_on_the_generator() -> None:
    crops = torch.rand(8, 3, 56, 56) * 2 - 1

    first, second = (augment(crops, np.random.default_rng(5)) for _ in range(2))

    assert torch.equal(first, second)
    assert first.shape == crops.shape
    assert float(first.abs().max()) <= 1
    assert not torch.allclose(first, crops, atol=0.05)


def test_a_window_keeps_its_keypoints_on_the_same_pixels() -> None:
    scenes = one_scene()
    marked = scenes.images.copy()
    marked[:] = 0
    nose = scenes.kps5[0, 0, 2]
    yy, xx = np.mgrid[:128, :128] + 0.5
    marked[0, (xx - nose[0]) ** 2 + (yy - nose[1]) ** 2 < 9] = 255
    marked_scenes = Scenes(**{**vars(scenes), "images": marked})
    config = DetectorConfig(mosaics=0.0, faceless=0.0, painted_over=0.0, smallest_face=30, largest_face=60)
    generator = np.random.default_rng(3)
    offsets = []

    for _ in range(12):
        sample = draw_sample(rendered_only(marked_scenes), config, generator)
        bright = np.argwhere(sample.picture.mean(2) > 128)
        near = bright[np.abs(bright[:, ::-1] + 0.5 - sample.points[0, 2]).max(1) < 16]
        if len(near) > 20 and len(near) < 300:
            offsets.append(near.mean(0)[::-1] + 0.5 - sample.points[0, 2])

    assert len(offsets) >= 5
    assert np.abs(np.median(offsets, 0)).max() < 0.6


def test_a_mosaic_keeps_every_face_on_its_own_picture() -> None:
    scenes = one_scene()

    sample = mosaic(rendered_only(scenes), 1.0, np.random.default_rng(0))

    assert sample.picture.shape == (256, 256, 3)
    assert np.array_equal(sample.picture[128:, 128:], scenes.images[0])
    assert np.allclose(sample.points[6:], scenes.kps5[0, :2] + 128)
    assert np.allclose(sample.boxes[2:4], scenes.box[0, :2] + [128, 0, 128, 0])


def test_so_many_scenes_come_out_of_the_autoencoder_with_their_own_truth() -> None:
    scenes = one_scene()
    source = Source(scenes=scenes, decoded=255 - scenes.images)
    generator = np.random.default_rng(0)

    drawn = [source.picture(0.5, generator) for _ in range(200)]

    assert {index for _, index in drawn} == {0}
    assert 70 < sum(np.array_equal(picture, source.decoded[0]) for picture, _ in drawn) < 130
    assert all(np.array_equal(source.picture(0.0, generator)[0], scenes.images[0]) for _ in range(9))


def test_a_painted_over_face_is_gone() -> None:
    scenes = one_scene()
    picture = scenes.images[0].copy()

    paint_over(picture, scenes.box[0, 0], np.random.default_rng(0))

    x, y = scenes.kps5[0, 0].mean(0).astype(int)
    assert picture[y - 3 : y + 3, x - 3 : x + 3].std((0, 1)).max() == 0


def test_clutter_has_no_faces() -> None:
    sample = clutter(64, np.random.default_rng(1))

    assert sample.picture.shape == (64, 64, 3)
    assert len(sample.boxes) == len(sample.points) == 0


def test_recognition_figures_of_a_perfect_and_a_blind_encoder() -> None:
    perfect = recognition(np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32))
    blind = recognition(np.ones((4, 4), np.float32) / 2, np.ones((4, 4), np.float32) / 2)

    assert (perfect.auc, perfect.top1, perfect.same, perfect.different) == (1.0, 1.0, 1.0, 0.0)
    assert blind.auc == 0.5
    assert blind.top1 == 0.25
