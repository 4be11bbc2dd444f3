import numpy as np

from fpga_models.lab.mini.faces.targets import IGNORED, NEGATIVE, anchors, assign

POINTS = np.array([[[40, 40], [60, 40], [50, 52], [42, 62], [58, 62]]], np.float32)


def test_every_anchor_is_listed_in_the_order_of_insightface() -> None:
    corners, strides, sides = anchors(64)

    assert len(corners) == 2 * (64 + 16 + 4)
    assert corners[:4].tolist() == [[0, 0], [0, 0], [8, 0], [8, 0]]
    assert strides[-1] == 32
    assert sides[:2].tolist() == [14, 28]


def test_a_face_is_answered_for_at_its_centre_by_the_anchor_of_its_size() -> None:
    boxes = np.array([[25, 25, 75, 75]], np.float32)

    targets = assign(boxes, POINTS, 96)

    corners, _, sides = anchors(96)
    answering = targets.face == 0
    assert answering.any()
    assert set(sides[answering]) == {52}
    assert np.abs(corners[answering] - 50).max() <= 13


def test_box_and_keypoints_are_recovered_from_the_targets() -> None:
    boxes = np.array([[25, 25, 75, 75]], np.float32)

    targets = assign(boxes, POINTS, 96)

    corners, strides, _ = anchors(96)
    for index in np.flatnonzero(targets.face == 0):
        left, top, right, bottom = targets.boxes[index] * strides[index]
        x, y = corners[index]
        assert np.allclose([x - left, y - top, x + right, y + bottom], boxes[0])
        assert np.allclose(corners[index] + targets.points[index].reshape(5, 2) * strides[index], POINTS[0])


def test_the_smallest_face_still_has_a_cell() -> None:
    targets = assign(np.array([[50, 50, 62, 62]], np.float32), POINTS, 96)

    assert (targets.face == 0).sum() >= 1


def test_a_face_too_small_to_tell_from_a_shoe_is_neither_asked_for_nor_punished() -> None:
    targets = assign(np.array([[50, 50, 59, 59]], np.float32), POINTS, 96)

    assert not (targets.face == 0).any()
    assert (targets.face == IGNORED).any()


def test_a_face_that_is_mostly_cut_away_is_neither_asked_for_nor_punished() -> None:
    targets = assign(np.array([[-60, 20, 10, 90]], np.float32), POINTS, 96)

    assert not (targets.face == 0).any()
    assert (targets.face == IGNORED).any()


def test_without_faces_everything_is_negative() -> None:
    targets = assign(np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32), 96)

    assert (targets.face == NEGATIVE).all()
