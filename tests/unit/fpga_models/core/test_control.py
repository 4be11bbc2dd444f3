from __future__ import annotations

import numpy as np
import pytest

from fpga_models.core.control import Marks, control_flags, control_image, face_ellipse, region_mask
from fpga_models.errors import PlacementError

KPS = np.array([[52.0, 60], [76, 60], [64, 73], [55, 86], [73, 86]])
SKELETON = np.zeros((18, 3))
SKELETON[[0, 14, 15]] = [[64, 73, 1], [52, 60, 1], [76, 60, 1]]


def rotated(points: np.ndarray, degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (points - 64) @ turn.T + 64


def test_the_mask_is_one_on_every_landmark_and_zero_far_away() -> None:
    mask = region_mask(KPS, width=128, height=128)
    assert all(mask[int(y), int(x)] == 1 for x, y in KPS)
    assert mask[0, 0] == mask[127, 127] == 0
    assert 0 < np.count_nonzero((mask > 0) & (mask < 1)) < np.count_nonzero(mask == 1)  # feathered


def test_the_ellipse_turns_with_the_face() -> None:
    assert face_ellipse(KPS).roll == pytest.approx(0, abs=1e-6)
    assert np.degrees(face_ellipse(rotated(KPS, 25)).roll) == pytest.approx(25, abs=0.5)


def test_a_turned_head_keeps_most_of_its_size() -> None:
    turned = KPS.copy()
    turned[:, 0] = 64 + (turned[:, 0] - 64) * 0.6  # eyes come closer when the head turns
    assert face_ellipse(turned).along > 0.9 * face_ellipse(KPS).along


def test_a_skeleton_alone_places_nearly_the_same_mask() -> None:
    from_skeleton = region_mask(Marks(skeleton=SKELETON).face_points(), width=128, height=128)
    from_points = region_mask(KPS, width=128, height=128)
    union = np.maximum(from_skeleton, from_points).sum()
    assert np.minimum(from_skeleton, from_points).sum() / union > 0.95


@pytest.mark.parametrize(
    ("mode", "flags"), [("skeleton", (1, 0)), ("landmark", (0, 1)), ("both", (1, 1)), ("none", (0, 0))]
)
def test_each_mode_shows_its_modalities(mode: str, flags: tuple[int, int]) -> None:
    image = control_image([Marks(kps5=KPS, skeleton=SKELETON)], width=128, height=96, mode=mode)
    assert image.shape == (3, 96, 128)
    assert 0 <= image.min() <= image.max() <= 1
    assert control_flags(mode) == flags
    assert (image.max() > 0) == any(flags)


def test_landmarks_have_their_own_colours() -> None:
    image = control_image([Marks(kps5=KPS)], width=128, height=128, mode="landmark", outline=False)
    assert image[:, 60, 52] == pytest.approx([1, 0, 0], abs=0.02)
    assert image[:, 60, 76] == pytest.approx([0, 1, 0], abs=0.02)


def test_a_person_without_any_mark_is_refused() -> None:
    with pytest.raises(PlacementError, match="needs kps5, a skeleton or a mask"):
        Marks().face_points()


def test_landmarks_of_another_shape_are_refused_with_it() -> None:
    with pytest.raises(PlacementError, match=r"shape \(5, 2\), got shape \(4, 2\)"):
        Marks(kps5=KPS[:4]).face_points()


def test_a_skeleton_without_eyes_cannot_place_a_face() -> None:
    with pytest.raises(PlacementError, match="nose and both eyes"):
        Marks(skeleton=np.zeros((18, 3))).face_points()
