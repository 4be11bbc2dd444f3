from __future__ import annotations

import numpy as np

from fpga_models.core.control import region_mask
from fpga_models.diir import TASKS, DiirSettings
from fpga_models.diir.masks import face_mask, match_colour

POINTS = np.array([[52, 54], [76, 54], [64, 66], [55, 80], [73, 80]], np.float32)


def test_a_restoration_ends_at_the_head() -> None:
    """Collar and background of a portrait stay; a swap brings hair and outline along."""
    points = np.array([[45, 55], [82, 55], [64, 74], [49, 90], [79, 90]], np.float32)
    head = region_mask(points, width=160, height=160, dilation=1.0, feather=0.03)

    def mask(settings: DiirSettings) -> np.ndarray:
        return region_mask(
            points, width=160, height=160, dilation=settings.paste_dilation, feather=settings.paste_feather
        )

    assert not mask(TASKS["restore"])[head == 0].any()
    assert (mask(TASKS["restore"])[60:95, 45:82] == 1).all()
    assert mask(TASKS["swap"])[head == 0].any()


def mask(others: tuple[np.ndarray, ...] = (), inner: bool = True, points: np.ndarray = POINTS) -> np.ndarray:
    return face_mask(points, others, side=128, inner_edges=(inner,) * 4, dilation=1.25, feather=0.3)


def test_the_mask_is_whole_on_the_face_and_nothing_at_the_crop_edge() -> None:
    weight = mask()
    assert weight[64, 64] == 1
    assert max(weight[0].max(), weight[-1].max(), weight[:, 0].max(), weight[:, -1].max()) == 0
    assert ((weight > 0) & (weight < 1)).any()


def test_a_face_cut_by_the_crop_ends_softly_inside_the_picture() -> None:
    moved = POINTS - np.float32([50, 0])
    inside, at_border = mask(points=moved), mask(points=moved, inner=False)
    assert inside[:, 0].max() == 0
    assert at_border[64, 0] == 1
    assert np.abs(np.diff(inside[64])).max() < 0.2


def test_another_face_keeps_its_own_pixels() -> None:
    neighbour = POINTS + np.float32([36, 0])
    weight = mask((neighbour,))
    assert weight[66, 112] == 0  # inside the neighbour alone
    assert weight[66, 48] == 1
    assert mask()[66, 100] > 0.9  # which would be ours if nobody stood there
    assert weight[66, 100] < 0.1


def test_a_pixel_of_two_overlapping_faces_is_shared() -> None:
    twin = POINTS + np.float32([4, 0])
    assert mask((twin,))[66, 66] == 0.5


def test_a_face_of_nine_pixels_still_has_a_whole_middle() -> None:
    tiny = (POINTS - 64) * (9 / 80) + 9
    weight = face_mask(tiny, (), side=18, inner_edges=(True,) * 4, dilation=1.25, feather=0.3)
    assert weight[9, 9] == 1
    assert weight.min() == 0


def test_a_tint_is_taken_back_to_the_colours_of_the_ring() -> None:
    rng = np.random.default_rng(0)
    original = rng.integers(80, 160, (128, 128, 3)).astype(np.uint8)
    tinted = np.clip(original * np.array([1.1, 1.0, 0.9]) + np.array([12, -8, 5]), 0, 255).astype(np.uint8)

    matched = match_colour(tinted, original, mask())

    assert np.abs(tinted.astype(int) - original).mean() > 8
    assert np.abs(matched.astype(int) - original).mean() < 1.5


def test_colours_inside_the_face_do_not_count() -> None:
    original = np.random.default_rng(0).integers(80, 160, (128, 128, 3)).astype(np.uint8)
    weight = mask()
    edited = original.copy()
    edited[weight == 1] = 255
    matched = match_colour(edited, original, weight)
    assert np.abs(matched[weight < 0.5].astype(int) - original[weight < 0.5]).max() <= 1


def test_without_a_ring_colours_stay() -> None:
    edited = np.full((16, 16, 3), 9, np.uint8)
    assert np.array_equal(match_colour(edited, edited + 40, np.ones((16, 16), np.float32)), edited)
