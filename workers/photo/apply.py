"""Puts changed pieces into a photo's own pixels, and measures what else differs. Runs in the child only."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import InputError
from workers.photo.colour import Working, working
from workers.photo.native import Native, Pixels, upright
from workers.photo.patch import Patch

Flags = NDArray[np.bool_]
ROWS = 256


def apply_patches(native: Native, patches: Sequence[Patch]) -> tuple[Pixels, Flags]:
    """Return a copy of the photo's pixels with the patches in it, and where (H, W) it was touched, both as stored.

    Raises:
        InputError: `patch_outside`.
    """
    pixels = native.pixels.copy()
    touched = np.zeros(pixels.shape[:2], np.bool_)
    view, flags = upright(pixels, native.orientation), upright(touched, native.orientation)
    ways = working(native)
    for patch in patches:
        height, width = patch.rgba.shape[:2]
        window = np.s_[patch.top : patch.top + height, patch.left : patch.left + width]
        if min(patch.left, patch.top) < 0 or view[window].shape[:2] != (height, width):
            size = f"{view.shape[1]}x{view.shape[0]}"
            raise InputError(f"a changed piece lies outside of the photo of {size}", code="patch_outside")
        flags[window] |= _put(view[window], patch.rgba, ways)
    return pixels, touched


def outside_change(before: Pixels, after: Pixels, reach: Flags) -> dict[str, float]:
    """Return by how much two versions (H, W, C) of a photo differ where nothing was to be changed, in 8-bit levels.

    `max` over all channels, `mean` of the absolute difference, `share` of the channel values that differ at all.
    """
    scale = 257 if before.dtype == np.uint16 else 1
    largest, total, different, count = 0, 0, 0, 0
    for top in range(0, len(before), ROWS):
        band = slice(top, top + ROWS)
        if not reach[band].any() and np.array_equal(before[band], after[band]):
            count += before[band].size
            continue
        apart = cv2.absdiff(before[band], after[band]).reshape(before[band].shape)[~reach[band]]
        if apart.size:
            largest = max(largest, int(apart.max()))
            total += int(apart.sum(dtype=np.int64))
            different += int(np.count_nonzero(apart))
            count += apart.size
    return {
        "max": round(largest / scale, 4),
        "mean": round(total / max(1, count) / scale, 6),
        "share": round(different / max(1, count), 6),
    }


def _put(region: Pixels, rgba: NDArray[np.uint8], ways: Working) -> Flags:
    """Write a piece into a region of the photo, and return where.

    The photo's own value differs from that of its sRGB version by rounding, depth and gamut; that difference stays
    to the degree that the old pixel stays, so that soft edges have no seam [ours].
    """
    before, after = ways.to_rgb(region), rgba[..., :3]
    touched = (rgba[..., 3] > 0) & (before != after).any(axis=-1)
    colours = {"L": 1, "RGB": 3, "CMYK": 4}[ways.model]
    if region.shape[2] > colours:
        touched &= region[..., colours] > 0  # what is fully transparent is not seen
    new = ways.to_native(np.ascontiguousarray(after))
    old = (1 - rgba[..., 3:].astype(np.float32) / 255) * (region[..., :colours] - ways.to_native(before))
    mixed = np.clip(np.rint(new + old), 0, 255 * ways.scale).astype(region.dtype)
    region[..., :colours][touched] = mixed[touched]
    result: Flags = touched
    return result
