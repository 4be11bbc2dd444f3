"""Heads that stand upside down are told from upright ones, with and without knowing whom they show."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from fpga_models.core.presets import preset_directory
from fpga_models.diir.detection import find_faces, upside_down
from fpga_models.faces import FacePack
from fpga_models.lab.synthetic import random_scene, render

ADA = 200_100
Picture = NDArray[np.uint8]


def portrait(seed: int, wear: float) -> Picture:
    rng = np.random.default_rng([seed, ADA])
    picture = np.asarray(render(random_scene(rng, [ADA], "portrait", 256)).image)
    small = cv2.resize(picture, (round(256 / wear), round(256 / wear)), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (256, 256), interpolation=cv2.INTER_CUBIC), np.uint8)


@pytest.mark.parametrize("wear", [1.0, 8.0])
def test_upside_down_heads_are_found_out_and_upright_ones_are_not(wear: float) -> None:
    pack = FacePack.load(preset_directory("mini") / "faces")
    ada = find_faces(pack, portrait(900, 1.0))[0].embedding
    missed = wrong = 0
    for seed in range(4):
        upright = portrait(seed, wear)
        turned = np.ascontiguousarray(upright[::-1, ::-1])
        for picture, is_turned in ((upright, False), (turned, True)):
            faces = find_faces(pack, picture)
            found = upside_down(pack, picture, faces, dict.fromkeys(range(len(faces)), ada))
            missed += is_turned * (len(faces) - len(found))
            wrong += (not is_turned) * len(found)

    assert (missed, wrong) == (0, 0)
