"""Which detector cells answer for which face, and where its box and keypoints lie from there. Pure numpy."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fpga_models.lab.mini.faces.networks import STRIDES

Floats = NDArray[np.float32]
ANCHOR_SIDES = {8: (14.0, 28.0), 16: (52.0, 84.0), 32: (128.0, 190.0)}  # px of face that each anchor is for
POSITIVE_RADIUS = 0.25  # share of the face's side within which a cell answers for it
NEIGHBOUR_RATIO = 1.5  # anchors whose side differs by less than this may answer too: neither asked nor punished
SMALLEST_SIDE = 12.0  # px; below, a blurred face and a shoe look the same: neither asked nor punished
IGNORED, NEGATIVE = -2, -1


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Per anchor: `face` (N,) index of the face, NEGATIVE or IGNORED; `boxes` (N, 4), `points` (N, 10) in strides."""

    face: NDArray[np.int64]
    boxes: Floats
    points: Floats


@lru_cache(maxsize=8)
def anchors(side: int) -> tuple[Floats, Floats, Floats]:
    """Return corners (N, 2) in px, strides (N,) and face sides (N,) of all anchors of a square input."""
    corners, strides, sides = [], [], []
    for stride in STRIDES:
        cells = side // stride
        ys, xs = np.mgrid[:cells, :cells]
        grid = np.stack([xs, ys], -1).reshape(-1, 1, 2).repeat(2, 1).reshape(-1, 2) * stride
        corners.append(grid)
        strides.append(np.full(len(grid), stride))
        sides.append(np.tile(ANCHOR_SIDES[stride], cells * cells))
    return tuple(np.concatenate(x).astype(np.float32) for x in (corners, strides, sides))  # type: ignore[return-value]  # as many as are unpacked


def assign(boxes: Floats, points: Floats, side: int) -> Targets:
    """Assign faces to anchors of a square input.

    Args:
        boxes: (F, 4) left, top, right, bottom in px, possibly reaching over the border.
        points: (F, 5, 2) px.
        side: the input's side in px, a multiple of 32.
    """
    corners, strides, sides = anchors(side)
    face = np.full(len(corners), NEGATIVE, np.int64)
    spans = boxes[:, 2:] - boxes[:, :2]
    for index in np.argsort(-spans.max(1, initial=0.0)):  # small faces last: they win a contested cell
        centre, span = boxes[index, :2] + spans[index] / 2, float(spans[index].max())
        distance = np.abs(corners - centre).max(1)
        cut_away = not ((centre >= 0) & (centre < side)).all()
        if cut_away or span < SMALLEST_SIDE:
            inside = ((corners >= boxes[index, :2] - 8) & (corners <= boxes[index, 2:] + 8)).all(1)
            face[inside & (face == NEGATIVE)] = IGNORED
            continue
        ratio = np.maximum(sides / span, span / sides)
        best = ratio <= ratio.min() + 1e-6
        reach = np.maximum(POSITIVE_RADIUS * span, distance[best].min() + 1e-3)
        face[(distance <= 1.6 * reach) & (ratio < NEIGHBOUR_RATIO) & (face == NEGATIVE)] = IGNORED
        face[(distance <= 1.6 * reach) & best & (face == NEGATIVE)] = IGNORED
        face[(distance <= reach) & best] = index
    owner = np.maximum(face, 0)
    if len(boxes) == 0:
        return Targets(
            face=face, boxes=np.zeros((len(face), 4), np.float32), points=np.zeros((len(face), 10), np.float32)
        )
    own = boxes[owner]
    distances = np.concatenate([corners - own[:, :2], own[:, 2:] - corners], 1) / strides[:, None]
    offsets = (points[owner] - corners[:, None]).reshape(-1, 10) / strides[:, None]
    return Targets(face=face, boxes=distances.astype(np.float32), points=offsets.astype(np.float32))
