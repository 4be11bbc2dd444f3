import cv2
import numpy as np
import pytest

from fpga_models.lab.measures.sharpness import energies, sharpness
from fpga_models.lab.synthetic import random_scene, render

PORTRAITS = [render(random_scene(np.random.default_rng(seed), [seed], "portrait", 128)) for seed in range(4)]
REAL = [portrait.image for portrait in PORTRAITS]
PEOPLE = [portrait.people[0] for portrait in PORTRAITS]


def test_real_pictures_are_as_sharp_as_themselves_and_blurred_ones_less() -> None:
    blurred = [cv2.GaussianBlur(picture, (0, 0), 1.5) for picture in REAL]

    assert sharpness(REAL, REAL, PEOPLE).face == sharpness(REAL, REAL, PEOPLE).eyes == 1.0
    found = sharpness(blurred, REAL, PEOPLE)
    assert found.ci95[0] <= found.face <= found.ci95[1] < 0.6
    assert found.eyes < 0.6


def test_only_the_face_counts() -> None:
    x0, y0, x1, y1 = (round(value) for value in PEOPLE[0].box)
    elsewhere = np.random.default_rng(0).integers(0, 256, REAL[0].shape).astype(np.uint8)
    elsewhere[y0:y1, x0:x1] = REAL[0][y0:y1, x0:x1]

    assert energies(elsewhere, PEOPLE[0])[0] == pytest.approx(energies(REAL[0], PEOPLE[0])[0])


def test_blurring_the_eyes_alone_shows_in_the_eye_band() -> None:
    picture, person = REAL[1].copy(), PEOPLE[1]
    y = round(float(person.kps5[:2, 1].mean()))
    picture[y - 12 : y + 12] = cv2.GaussianBlur(picture[y - 12 : y + 12], (0, 0), 3)

    found = sharpness([picture], [REAL[1]], [person])

    assert found.eyes < found.face < 1
