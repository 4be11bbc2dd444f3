"""Where a face may change: a feathered ellipse that leaves other faces alone and ends inside its crop. Pure [ours]."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fpga_models.core.control import region_mask
from fpga_models.diir.picture import Floats, Image

RAMP = 1 / 16  # of the crop's side
MOST_GAIN = 1.25
FEWEST_PIXELS = 16


def face_mask(
    kps5: Floats,
    others: Sequence[Floats],
    *,
    side: int,
    inner_edges: tuple[bool, bool, bool, bool],
    dilation: float,
    feather: float,
) -> NDArray[np.float32]:
    """Weight of the edited face in each pixel of its crop, (side, side) in [0, 1].

    Args:
        kps5: (5, 2) of the face, in pixels of this crop.
        others: the same of the other faces: their ellipses are theirs, a shared pixel goes half and half.
        side: of the crop.
        inner_edges: left, top, right, bottom: where the mask must reach 0, since the crop ends inside the picture.
        dilation, feather: as in `control.region_mask`.
    """
    mask = region_mask(kps5, width=side, height=side, dilation=dilation, feather=feather)
    own = region_mask(kps5, width=side, height=side, dilation=1.0)
    for other in others:
        mask *= 1 - region_mask(other, width=side, height=side, dilation=1.0) * (1 - own / 2)
    from_start = (np.arange(side) / max(RAMP * side, 1)).clip(0, 1)
    left, top, right, bottom = (from_start if inner else np.ones(side) for inner in inner_edges)
    ramp = np.minimum(top, bottom[::-1])[:, None] * np.minimum(left, right[::-1])[None, :]
    result: NDArray[np.float32] = (mask * ramp).astype(np.float32)
    return result


def match_colour(edited: Image, original: Image, mask: NDArray[np.float32]) -> Image:
    """Give `edited` the colours that `original` has on the ring where 0 < mask < 0.5.

    Mean and spread per channel (Reinhard et al. 2001), the spread by at most a quarter either way. All (n, n, 3) uint8
    and (n, n). Without a ring of 16 pixels the picture stays as it is.
    """
    ring = (mask > 0) & (mask < 0.5)
    if ring.sum() < FEWEST_PIXELS:
        return edited
    got, wanted = edited[ring].astype(np.float64), original[ring].astype(np.float64)  # (N, 3)
    gain = np.clip(wanted.std(0) / np.maximum(got.std(0), 1e-3), 1 / MOST_GAIN, MOST_GAIN)
    matched = (edited - got.mean(0)) * gain + wanted.mean(0)
    result: Image = np.round(np.clip(matched, 0, 255)).astype(np.uint8)
    return result
