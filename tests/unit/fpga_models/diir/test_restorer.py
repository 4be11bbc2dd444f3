from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from fpga_models.diir import SWAP, DiirResult, DiirSettings, Reference, Restorer
from fpga_models.diir.picture import Picture, rgb8
from fpga_models.errors import EmbeddingError, RequestError
from fpga_models.faces import PictureError
from tests.unit.fpga_models.diir.conftest import OPEN, as_transformer, scene

"""A gate that lets everything through: random networks improve nothing, and pasting is what is looked at here."""


def own(restorer: Restorer, picture: Picture) -> list[Reference]:
    """Every face's own embedding as its reference."""
    return [Reference(embedding=face.embedding) for face in restorer.faces(picture)]


def restore(restorer: Restorer, picture: Picture, settings: DiirSettings = OPEN) -> DiirResult:
    references = own(restorer, picture)
    return restorer.restore(picture, references, settings=settings, mapping={i: i for i in range(len(references))})


def assert_only_masks_changed(picture: Picture, result: DiirResult) -> None:
    assert result.image.dtype == picture.dtype
    assert result.image.shape == picture.shape
    assert np.array_equal(result.image[result.mask == 0], picture[result.mask == 0])
    assert not np.array_equal(result.image, picture)


@pytest.mark.parametrize("base", ["unet", "transformer"])
def test_pixels_outside_the_masks_are_bit_identical(restorer: Restorer, base: str) -> None:
    if base == "transformer":
        restorer = Restorer(as_transformer(restorer.pipeline), restorer.pack)
    picture = scene("group_3", 3).image
    before = picture.copy()

    result = restore(restorer, picture)

    assert [face.outcome for face in result.faces] == ["changed"] * 3
    assert_only_masks_changed(picture, result)
    assert (result.mask == 0).mean() > 0.5
    assert np.array_equal(picture, before)


@pytest.mark.parametrize("kind", ["grey", "grey+alpha", "rgba", "sixteen"])
def test_other_formats_come_back_in_their_own(restorer: Restorer, kind: str) -> None:
    colour = scene("half_body", 3).image
    grey = cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY)
    alpha = np.arange(128 * 128, dtype=np.uint8).reshape(128, 128)
    picture: Picture = {
        "grey": grey,
        "grey+alpha": np.dstack([grey, alpha]),
        "rgba": np.dstack([colour, alpha]),
        "sixteen": (colour.astype(np.uint16) * 257) ^ 5,
    }[kind]

    result = restore(restorer, picture)

    assert [face.changed for face in result.faces] == [True]
    assert_only_masks_changed(picture, result)
    if "a" in kind.removeprefix("gr"):
        assert np.array_equal(result.image[..., -1], picture[..., -1])


def test_a_picture_without_faces_comes_back_unchanged_with_the_reason(restorer: Restorer) -> None:
    picture = np.full((90, 140, 3), 120, np.uint8)
    reference = Reference(embedding=np.ones(512))

    result = restorer.restore(picture, [reference], settings=SWAP, mapping={0: 0})

    assert np.array_equal(result.image, picture)
    assert result.faces == ()
    assert result.reason is not None
    assert "No face" in result.reason
    assert result.mask.max() == 0


def test_a_face_of_nobody_we_know_is_left_alone_and_said_so(restorer: Restorer) -> None:
    picture = scene("half_body", 3).image
    stranger = -own(restorer, picture)[0].embedding

    result = restorer.restore(picture, [Reference(embedding=stranger)])

    assert np.array_equal(result.image, picture)
    assert [face.outcome for face in result.faces] == ["no_reference"]
    assert "reference" in result.faces[0].reason
    assert result.reason is not None


def test_an_edit_that_is_no_better_is_retried_gentler_and_then_dropped(restorer: Restorer) -> None:
    picture = scene("half_body", 3).image  # its own embedding as reference: nothing can be more like it

    result = restore(restorer, picture, replace(OPEN, min_gain=0.0, retries=2, gamma=0.5))

    (face,) = result.faces
    assert face.outcome == "similarity_did_not_rise"
    assert face.attempts == 3
    assert face.t_star == pytest.approx(OPEN.t_star - 0.2)
    assert np.array_equal(result.image, picture)
    assert result.mask.max() == 0
    assert face.before is not None
    assert face.after is not None
    assert face.after <= face.before


def test_an_edit_that_moves_the_face_is_dropped(restorer: Restorer) -> None:
    picture = scene("half_body", 3).image
    result = restore(restorer, picture, replace(OPEN, max_landmark_shift=0.0, gamma=0.3))
    assert [face.outcome for face in result.faces] == ["landmarks_moved"]
    assert np.array_equal(result.image, picture)


def test_a_face_at_the_border_is_edited_up_to_it(restorer: Restorer) -> None:
    shown = scene("half_body", 3)
    left = int(shown.people[0].box[0]) + 2  # the face now sticks out of the picture
    picture = np.ascontiguousarray(shown.image[:, left:])

    result = restore(restorer, picture)

    (face,) = result.faces
    assert face.changed
    assert face.crop is not None
    assert face.crop.left == 0
    assert result.mask[:, 0].max() > 0.5
    assert_only_masks_changed(picture, result)


def test_a_face_of_nine_pixels_is_edited(restorer: Restorer) -> None:
    picture = cv2.resize(scene("full_body", 3).image, (50, 50), interpolation=cv2.INTER_AREA)

    result = restore(restorer, picture)

    (face,) = result.faces
    assert 7 < face.box[3] - face.box[1] < 10.5
    assert face.changed
    assert_only_masks_changed(picture, result)


def test_overlapping_faces_are_both_edited_one_after_the_other(restorer: Restorer) -> None:
    shown = scene("half_body", 3)
    x0, y0, x1, y1 = (int(value) for value in shown.people[0].box)
    width = x1 - x0
    picture = np.concatenate([shown.image, shown.image], axis=1)
    shift = 128 - round(1.0 * width)  # the copy's face begins where the first one ends
    picture[y0 - 6 : y1 + 6, x1 - 2 : x1 + width - 2] = shown.image[y0 - 6 : y1 + 6, x0:x1]
    picture = np.ascontiguousarray(picture[:, : 128 + shift])
    faces = restorer.faces(picture)
    assert len(faces) >= 2

    result = restore(restorer, picture)

    crops = [face.crop for face in result.faces if face.crop is not None]
    assert crops[0].overlaps(crops[1])
    assert all(face.changed for face in result.faces)
    assert_only_masks_changed(picture, result)


def test_a_large_picture_is_handled_and_changed_only_at_the_face(restorer: Restorer) -> None:
    shown = scene("half_body", 3).image
    picture = np.full((1400, 6000, 3), 90, np.uint8)
    picture[900:1200, 4000:4300] = cv2.resize(shown, (300, 300), interpolation=cv2.INTER_CUBIC)

    result = restorer.restore(picture, own(restorer, shown), settings=OPEN)

    (face,) = result.faces
    assert face.changed
    assert 0 < (result.mask > 0).mean() < 0.01
    assert_only_masks_changed(picture, result)


def test_a_known_place_is_edited_where_the_detector_sees_nothing(restorer: Restorer) -> None:
    shown = scene("half_body", 3)
    person = shown.people[0]
    picture = shown.image.copy()
    x0, y0, x1, y1 = (int(value) for value in person.box)
    picture[y0:y1, x0:x1] = 128
    reference = Reference(embedding=own(restorer, shown.image)[0].embedding, kps5=person.kps5)
    assert restorer.faces(picture) == []

    result = restorer.restore(picture, [reference], settings=OPEN)

    (face,) = result.faces
    assert face.reference == 0
    assert face.outcome == "face_lost"  # random networks draw no face; it was tried
    assert np.array_equal(result.image, picture)


def test_same_seed_same_picture(restorer: Restorer) -> None:
    picture = scene("group_2", 3).image
    settings = replace(OPEN, gamma=0.2)
    first, second = (restore(restorer, picture, settings).image for _ in range(2))
    assert np.array_equal(first, second)


def test_every_step_is_reported_and_the_plan_covers_them(restorer: Restorer) -> None:
    picture = scene("group_3", 3).image  # crops overlap: two waves
    references = own(restorer, picture)
    steps: list[tuple[int, int]] = []

    restorer.restore(
        picture, references, settings=OPEN, mapping={0: 0, 1: 1, 2: 2}, on_step=lambda *step: steps.append(step)
    )

    assert [done for done, _ in steps] == list(range(1, len(steps) + 1))
    assert all(done <= planned for done, planned in steps)
    assert steps[-1][0] == steps[-1][1]


def test_a_callback_that_raises_ends_the_work_within_one_step(restorer: Restorer) -> None:
    class StopError(Exception):
        pass

    def stop(done: int, _planned: int) -> None:
        if done == 2:
            raise StopError

    picture = scene("half_body", 3).image
    before = picture.copy()
    with pytest.raises(StopError):
        restorer.restore(picture, own(restorer, picture), settings=OPEN, on_step=stop)
    assert np.array_equal(picture, before)


@pytest.mark.parametrize(
    ("embedding", "got"),
    [(np.ones(128), r"\(128,\)"), (np.full(512, np.nan), "length nan"), (np.zeros(512), "length 0")],
)
def test_an_embedding_that_says_nothing_is_refused_before_anything_runs(
    restorer: Restorer, embedding: NDArray[np.float64], got: str
) -> None:
    with pytest.raises(EmbeddingError, match=got):
        restorer.restore(scene("half_body", 3).image, [Reference(embedding=embedding)])


def test_a_float_picture_is_refused(restorer: Restorer) -> None:
    with pytest.raises(PictureError, match="float32"):
        restorer.restore(np.zeros((64, 64, 3), np.float32), [])  # type: ignore[arg-type]  # the wrong type is what is tested


def test_faces_far_apart_go_through_the_networks_as_one_batch(restorer: Restorer) -> None:
    shown = scene("full_body", 3).image
    picture = np.concatenate([shown, shown], axis=1)
    steps: list[int] = []
    references = own(restorer, picture)

    restorer.restore(
        picture,
        references,
        settings=OPEN,
        mapping=dict(enumerate(range(len(references)))),
        on_step=lambda done, _planned: steps.append(done),
    )

    assert len(references) == 2
    assert len(steps) == 2 * OPEN.steps


def test_settings_out_of_range_are_refused_with_name_and_bounds() -> None:
    with pytest.raises(RequestError, match=r"gamma 1.5: 0 to 1"):
        DiirSettings(gamma=1.5)


def test_retries_never_fall_below_a_tenth() -> None:
    assert DiirSettings(t_star=0.25, retries=4).attempts() == pytest.approx([0.25, 0.15])
    assert len(rgb8(np.zeros((2, 2), np.uint8)).shape) == 3
