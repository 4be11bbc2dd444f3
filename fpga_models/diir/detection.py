"""Faces of a picture of any size: the detector sees `det_size` pixels, so large ones are also read in tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fpga_models.core.control import face_ellipse
from fpga_models.diir.picture import Floats, Image
from fpga_models.faces import Face, FacePack

FINEST_TILE = 4  # tiles are halved until they are at most this many detector sides wide [ours]
OVERLAP = 0.25
CLOSE_UP = 4.0  # side of the square in which a found face is looked at again, over its box
SAME_HEAD = 0.05  # the same for a head seen from both sides, whose boxes differ [ours]
SURER, LIKELIER = 0.03, 0.15  # by how much score or likeness is higher the right way round [ours, on drawn heads]
SAME_FACE = 0.4  # intersection over union above which finds of two tiles are one face, as within one tile


def find_faces(pack: FacePack, picture: Image) -> list[Face]:
    """Find and embed the faces of an RGB picture (H, W, 3) uint8, sorted from left to right.

    In pictures up to 4 detector sides the detector is asked once; in larger ones also in overlapping tiles, down to
    that size, so that the smallest face found does not grow with the picture. Embedded is what is kept, at the end.
    """
    kept: list[Face] = []
    height, width = picture.shape[:2]
    for left, top, right, bottom in reversed(tiles(width, height, FINEST_TILE * pack.settings.det_size)):
        shift = np.array([left, top], np.float32)
        for face in pack.find(np.ascontiguousarray(picture[top:bottom, left:right])):
            if _is_cut(face.box, (left, top, right, bottom), width, height):
                continue
            placed = replace(face, box=face.box + np.tile(shift, 2), kps5=face.kps5 + shift)
            # Finest tiles come first: what they saw is the more exact.
            if all(overlap(placed.box, other.box) < SAME_FACE for other in kept):
                kept.append(_looked_at_closely(pack, picture, placed))
    return pack.embedded(picture, sorted(kept, key=lambda f: float(f.box[0] + f.box[2])))


def upside_down(
    pack: FacePack, picture: Image, faces: Sequence[Face], people: Mapping[int, NDArray[np.float32]]
) -> set[int]:
    """Indices of those faces whose heads stand upside down: found once more, and better, in the picture turned round.

    A detector takes the mouth of such a head for its eyes; what is painted over it is another, upright face [ours].

    Args:
        faces: as `find_faces` gave them.
        people: unit vectors (512,) of the persons that faces, by index, are known to show; none need be known.
    """
    height, width = picture.shape[:2]
    turned = find_faces(pack, np.ascontiguousarray(picture[::-1, ::-1])) if faces else []
    found = set()
    for index, face in enumerate(faces):
        for other in turned:
            box = np.array([width, height, width, height]) - other.box[[2, 3, 0, 1]]
            if overlap(box, face.box) < SAME_HEAD:
                continue
            person = people.get(index)
            likelier = person is not None and float((other.embedding - face.embedding) @ person) > LIKELIER
            if likelier or other.score > face.score + SURER:
                found.add(index)
    return found


def tiles(width: int, height: int, finest: int) -> list[tuple[int, int, int, int]]:
    """The whole picture, then overlapping square tiles of half the side, and so on; (left, top, right, bottom)."""
    boxes = [(0, 0, width, height)]
    side = max(width, height)
    while side > finest:
        side = -(-side // 2)
        boxes += [
            (left, top, min(left + side, width), min(top + side, height))
            for top in _starts(height, side)
            for left in _starts(width, side)
        ]
    return boxes


def face_at(pack: FacePack, picture: Image, kps5: Floats) -> Face:
    """The face that is known to be at these points (5, 2), though the detector missed it; its score is 0."""
    ellipse = face_ellipse(kps5)
    box = np.array(
        [ellipse.x - ellipse.across, ellipse.y - ellipse.along, ellipse.x + ellipse.across, ellipse.y + ellipse.along]
    )
    points = np.asarray(kps5, np.float32)
    return Face(box=box.astype(np.float32), kps5=points, score=0.0, embedding=pack.embed(picture, points))


def overlap(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Intersection over union of two boxes (4,)."""
    sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    union = sum(float(np.prod(box[2:] - box[:2])) for box in (first, second)) - shared
    return shared / max(union, 1e-6)


def _starts(length: int, side: int) -> list[int]:
    if length <= side:
        return [0]
    count = 1 + int(np.ceil((length - side) / (side * (1 - OVERLAP))))
    return [round(start) for start in np.linspace(0, length - side, count)]


def _looked_at_closely(pack: FacePack, picture: Image, face: Face) -> Face:
    """The same face as detected in a square of its own, where its landmarks are more exact; else as it was."""
    height, width = picture.shape[:2]
    half = CLOSE_UP / 2 * float(max(face.box[2:] - face.box[:2]))
    if 2 * half >= max(width, height):
        return face
    middle = (face.box[:2] + face.box[2:]) / 2
    left, top = np.maximum(middle - half, 0).astype(int).tolist()
    right, bottom = np.minimum(middle + half, [width, height]).astype(int).tolist()
    shift = np.array([left, top], np.float32)
    for close in pack.find(np.ascontiguousarray(picture[top:bottom, left:right])):
        placed = replace(close, box=close.box + np.tile(shift, 2), kps5=close.kps5 + shift)
        if overlap(placed.box, face.box) > SAME_FACE:
            return placed
    return face


def _is_cut(box: NDArray[np.floating], tile: tuple[int, int, int, int], width: int, height: int) -> bool:
    """Whether a box touches a tile border that is not the picture's: a neighbouring tile sees it whole."""
    left, top, right, bottom = tile
    inner = (left > 0, top > 0, right < width, bottom < height)
    touches = (box[0] <= 1, box[1] <= 1, box[2] >= right - left - 1, box[3] >= bottom - top - 1)
    return any(is_inner and touch for is_inner, touch in zip(inner, touches, strict=True))
