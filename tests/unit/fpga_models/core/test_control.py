from __future__ import annotations

import numpy as np
import pytest

from fpga_models.core.control import (
    LANDMARK_COLOURS,
    LIMBS,
    RED_TO_PINK,
    Marks,
    control_flags,
    control_image,
    face_ellipse,
    region_mask,
)
from fpga_models.core.presets import preset_directory, read_preset
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
    for drawing in ("ours", "published"):
        image = control_image([Marks(kps5=KPS)], width=128, height=128, mode="landmark", drawing=drawing)
        assert image[:, 60, 52] == pytest.approx([1, 0, 0], abs=0.02)
        assert image[:, 60, 76] == pytest.approx([0, 1, 0], abs=0.02)


def tapered(
    side: int, points: np.ndarray, bars: list[tuple[int, int, int]], colours: np.ndarray, radius: int
) -> np.ndarray:
    """What the published ControlNets saw, pixel by pixel from its description: ellipses of half width 4, then dots."""
    ys, xs = np.mgrid[0:side, 0:side].astype(float)
    canvas = np.zeros((3, side, side))
    for start, end, colour in bars:
        (x0, y0), (x1, y1) = np.trunc(points[start]), np.trunc(points[end])
        length, turn = np.hypot(x1 - x0, y1 - y0), np.arctan2(y1 - y0, x1 - x0)
        dx, dy = xs - (x0 + x1) / 2, ys - (y0 + y1) / 2
        along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
        canvas[:, np.hypot(along / (length / 2 + 0.5), across / 4.5) <= 1] = colours[colour][:, None] * 0.6 / 255
    for (x, y), colour in zip(np.trunc(points), colours, strict=True):
        canvas[:, np.hypot(xs - x, ys - y) <= radius] = colour[:, None] / 255
    return canvas


def overlap(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Lit in both over lit in either; share of the common pixels that have the same colour."""
    lit = [image.max(axis=0) > 0.1 for image in (first, second)]
    common = lit[0] & lit[1]
    same = np.abs(first - second).max(axis=0)[common] < 0.05
    return common.sum() / (lit[0] | lit[1]).sum(), same.mean()


@pytest.mark.parametrize("side", [1024, 512])
def test_landmarks_are_drawn_as_instantid_saw_them_and_scale_with_the_picture(side: int) -> None:
    points = KPS * 8
    wanted = tapered(1024, points, [(p, 2, p) for p in (0, 1, 3, 4)], np.array(LANDMARK_COLOURS), 10)
    if side == 512:
        wanted = wanted[:, ::2, ::2]
    got = control_image(
        [Marks(kps5=points * side / 1024)], width=side, height=side, mode="landmark", drawing="published"
    )
    union, same = overlap(got, wanted)
    assert union > 0.85  # whole degrees turn a bar by up to one; even bars had .61
    assert same > 0.98


def test_skeletons_are_drawn_as_the_openpose_controlnet_saw_them() -> None:
    joints = np.array(read_preset(preset_directory("mini")).layouts["portrait"]["slots"][0]["skeleton"])
    joints = np.column_stack([joints[:, :2] * 0.5 * 512, np.ones(18)])
    bars = [(start, end, index) for index, (start, end) in enumerate(LIMBS)]
    wanted = tapered(512, joints[:, :2], bars, RED_TO_PINK, 4)
    got = control_image([Marks(skeleton=joints)], width=512, height=512, mode="skeleton", drawing="published")
    union, same = overlap(got, wanted)
    assert union > 0.85
    assert same > 0.95


def test_a_person_without_any_mark_is_refused() -> None:
    with pytest.raises(PlacementError, match="needs kps5, a skeleton or a mask"):
        Marks().face_points()


def test_landmarks_of_another_shape_are_refused_with_it() -> None:
    with pytest.raises(PlacementError, match=r"shape \(5, 2\), got shape \(4, 2\)"):
        Marks(kps5=KPS[:4]).face_points()


def test_a_skeleton_without_eyes_cannot_place_a_face() -> None:
    with pytest.raises(PlacementError, match="nose and both eyes"):
        Marks(skeleton=np.zeros((18, 3))).face_points()
