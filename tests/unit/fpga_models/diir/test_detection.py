from __future__ import annotations

import cv2
import numpy as np
import pytest

from fpga_models.diir.detection import face_at, find_faces, tiles
from fpga_models.faces import FacePack
from tests.unit.fpga_models.diir.conftest import scene


def test_a_small_picture_is_read_once() -> None:
    assert tiles(1024, 700, 1024) == [(0, 0, 1024, 700)]


@pytest.mark.parametrize(("width", "height"), [(6000, 4000), (1025, 300), (300, 2500)])
def test_every_pixel_of_a_large_picture_is_in_a_fine_tile(width: int, height: int) -> None:
    covered = np.zeros((height, width), bool)
    for left, top, right, bottom in tiles(width, height, 1024):
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        if max(right - left, bottom - top) <= 1024:
            covered[top:bottom, left:right] = True
    assert covered.all()


def test_a_face_of_one_hundredth_of_a_large_picture_is_found_once_and_in_place(pack: FacePack) -> None:
    shown = scene("full_body", 3)
    canvas = np.full((2600, 3000, 3), 90, np.uint8)
    small = cv2.resize(shown.image, (200, 200), interpolation=cv2.INTER_CUBIC)
    canvas[1400:1600, 1380:1580] = small  # across the middle, where tiles meet

    faces = find_faces(pack, canvas)

    assert len(faces) == 1
    wanted = shown.people[0].kps5 * (200 / 128) + [1380, 1400]
    assert np.abs(faces[0].kps5 - wanted).max() < 3
    assert pack.detect(canvas) == []  # the whole picture alone does not show it


def test_faces_stand_from_left_to_right(pack: FacePack) -> None:
    faces = find_faces(pack, scene("group_4", 3).image)
    middles = [float(face.box[0] + face.box[2]) for face in faces]
    assert len(faces) == 4
    assert middles == sorted(middles)


def test_a_face_at_a_known_place_has_a_box_around_its_points(pack: FacePack) -> None:
    shown = scene("portrait", 3)
    person = shown.people[0]

    face = face_at(pack, shown.image, person.kps5)

    assert face.score == 0
    assert np.linalg.norm(face.embedding) == pytest.approx(1, abs=1e-4)
    side = max(person.box[2] - person.box[0], person.box[3] - person.box[1])
    assert np.abs(face.box - np.array(person.box)).max() < 0.35 * side
