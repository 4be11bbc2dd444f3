from __future__ import annotations

import numpy as np

from fpga_models.core.alignment import align
from fpga_models.lab.synthetic import random_scene, render
from fpga_models.metrics.eyes import SMALLEST_EYES, eye_difference, eye_differences

PORTRAITS = [
    render(random_scene(np.random.default_rng(seed), [seed], "portrait", 256, fine=True)) for seed in range(12)
]
CROPS = [align(portrait.image, portrait.people[0].kps5) for portrait in PORTRAITS]


def test_eyes_of_one_face_differ_less_than_those_of_two() -> None:
    def with_the_eye_of(crop: np.ndarray, other: np.ndarray) -> np.ndarray:
        exchanged = crop.copy()
        exchanged[42:62, 26:52] = other[42:62, 26:52]
        return exchanged

    own = [eye_difference(crop) for crop in CROPS]
    foreign = [eye_difference(with_the_eye_of(crop, CROPS[place - 5])) for place, crop in enumerate(CROPS)]
    assert np.median(foreign) > 1.7 * np.median(own)
    assert np.mean(np.array(foreign) > np.array(own)) > 0.9


def test_a_face_that_is_its_own_mirror_image_has_no_difference() -> None:
    crop = CROPS[0].copy()
    whole = np.concatenate([crop[:, :56], crop[:, :56][:, ::-1]], axis=1)
    assert eye_difference(whole) < 1.0


def test_eyes_too_close_to_tell_are_left_out() -> None:
    portrait = PORTRAITS[0]
    near = portrait.people[0].kps5.copy()
    near[1] = near[0] + [SMALLEST_EYES - 1, 0]
    large, small = eye_differences(portrait.image, [portrait.people[0].kps5, near])
    assert large is not None
    assert small is None
