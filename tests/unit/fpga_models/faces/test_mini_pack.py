"""The shipped pack itself: people that no training saw, and pictures without anybody."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from fpga_models.faces import FacePack
from fpga_models.lab.synthetic import KINDS, random_scene, reference_crop, render
from fpga_models.lab.synthetic.background import draw_background
from fpga_models.lab.synthetic.scene import PLACES, number_of_people

WEIGHTS = Path(__file__).parents[4] / "fpga_models" / "weights" / "mini"


@pytest.fixture(scope="module")
def pack() -> FacePack:
    return FacePack.load(WEIGHTS / "faces")


@pytest.mark.parametrize("kind", KINDS)
def test_everybody_is_found_once_from_left_to_right(pack: FacePack, kind: str) -> None:
    for seed in range(4):
        people = [150_000 + seed * 10 + index for index in range(number_of_people(kind))]
        scene = render(random_scene(np.random.default_rng(seed), people, kind, 128))

        faces = pack.detect(scene.image)

        wanted = np.stack([person.kps5 for person in scene.people])
        wanted = wanted[np.argsort(wanted[:, :, 0].mean(1))]
        assert len(faces) == len(people)
        for face, kps5 in zip(faces, wanted, strict=True):
            assert np.linalg.norm(face.kps5 - kps5, axis=1).mean() < 0.15 * np.linalg.norm(kps5[0] - kps5[1])


def test_two_pictures_of_one_person_are_alike_and_two_people_are_not(pack: FacePack) -> None:
    people = range(160_000, 160_010)
    first, second = (
        np.stack(
            [
                pack.detect(reference_crop(who, np.random.default_rng([view, who]), 256).image)[0].embedding
                for who in people
            ]
        )
        for view in range(2)
    )

    cosines = first @ second.T

    assert np.diagonal(cosines).min() > 0.5
    assert cosines[~np.eye(len(people), dtype=bool)].max() < 0.5


@pytest.mark.parametrize("side", [64, 700])
def test_the_size_of_the_picture_does_not_matter(pack: FacePack, side: int) -> None:
    scene = reference_crop(170_000, np.random.default_rng(0), 256)

    (face,) = pack.detect(cv2.resize(scene.image, (side, side), interpolation=cv2.INTER_AREA))

    wanted = scene.people[0].kps5
    errors = np.linalg.norm(face.kps5 * 256 / side - wanted, axis=1)
    assert errors.mean() < 0.1 * np.linalg.norm(wanted[0] - wanted[1])


def test_places_without_people_have_no_faces(pack: FacePack) -> None:
    for place in PLACES:
        assert pack.detect(draw_background(place, 5, 256)) == []


def test_blank_and_noisy_pictures_have_no_faces(pack: FacePack) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)

    for picture in (noise, np.zeros_like(noise), np.full_like(noise, 190), np.zeros((1, 1, 3), np.uint8)):
        assert pack.detect(picture) == []
