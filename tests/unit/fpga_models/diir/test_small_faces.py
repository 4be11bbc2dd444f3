from __future__ import annotations

import numpy as np

from fpga_models.core.pipeline import PersonSlot
from fpga_models.diir import Restorer, restore_small_faces
from fpga_models.diir.small_faces import small_people
from tests.unit.fpga_models.diir.conftest import OPEN, scene


def people_of(kind: str) -> tuple[np.ndarray, list[PersonSlot]]:
    rendered = scene(kind, 3)
    embedding = np.eye(512, dtype=np.float32)
    return rendered.image, [PersonSlot(embedding=embedding[k], kps5=p.kps5) for k, p in enumerate(rendered.people)]


def test_a_close_portrait_is_left_alone(restorer: Restorer) -> None:
    picture, people = people_of("portrait")
    assert restore_small_faces(restorer, picture, people, seed=1) is None


def test_every_small_face_of_a_group_is_drawn_again_at_its_place_and_nothing_else(restorer: Restorer) -> None:
    picture, people = people_of("group_3")
    result = restore_small_faces(restorer, picture, people, seed=1, settings=OPEN)
    assert result is not None
    assert [face.outcome for face in result.faces] == ["changed"] * 3
    assert sorted(face.reference for face in result.faces if face.reference is not None) == [0, 1, 2]
    assert np.array_equal(result.image[result.mask == 0], picture[result.mask == 0])


def test_large_faces_beside_small_ones_and_people_without_a_place_are_not_asked_for() -> None:
    _, near = people_of("portrait")
    _, far = people_of("full_body")
    nowhere = PersonSlot(embedding=np.ones(512, np.float32))
    assert small_people([*near, nowhere, *far], 128) == [2]


def test_reports_count_the_people_of_the_request_not_only_the_small_ones(restorer: Restorer) -> None:
    picture, people = people_of("full_body")
    nowhere = PersonSlot(embedding=np.ones(512, np.float32))
    result = restore_small_faces(restorer, picture, [nowhere, *people], seed=1, settings=OPEN)
    assert result is not None
    assert [face.reference for face in result.faces if face.reference is not None] == [1]
