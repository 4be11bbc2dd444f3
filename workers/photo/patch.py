"""What was changed in a photo: small coloured pieces with their weight, in upright coordinates.

They travel from the stage that restores to the stage that writes, far smaller than the photo.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True, kw_only=True, eq=False)
class Patch:
    """One piece.

    Attributes:
        left, top: of the piece in the upright photo.
        rgba: (h, w, 4) uint8: sRGB as the photo shall look there, and how much of it is new; 0 is never written.
    """

    left: int
    top: int
    rgba: NDArray[np.uint8]

    def to_png(self) -> bytes:
        """Return the piece as PNG; its place is the caller's to keep."""
        out = io.BytesIO()
        Image.fromarray(self.rgba).save(out, "PNG", compress_level=3)
        return out.getvalue()

    @classmethod
    def from_png(cls, data: bytes, *, left: int, top: int) -> Patch:
        """Return a piece that `to_png` wrote."""
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            return cls(left=left, top=top, rgba=np.asarray(image.convert("RGBA")))


def patches_of(edited: NDArray[np.uint8], mask: NDArray[np.floating[Any]]) -> list[Patch]:
    """Return the pieces of an edited photo, one around each connected region of its mask.

    Args:
        edited: (H, W, 3), sRGB, upright.
        mask: (H, W) in [0, 1]; 0 where nothing was changed.
    """
    _, _, boxes, _ = cv2.connectedComponentsWithStats((mask > 0).astype(np.uint8), connectivity=8)
    patches = []
    for left, top, width, height, _ in boxes[1:].tolist():  # the first is the background
        window = np.s_[top : top + height, left : left + width]
        weight = np.ceil(np.clip(mask[window], 0, 1) * 255).astype(np.uint8)
        patches.append(Patch(left=left, top=top, rgba=np.dstack([edited[window], weight])))
    return patches


def is_changed(patches: Sequence[Patch]) -> bool:
    """Whether any piece has any weight."""
    return any(bool(patch.rgba[..., 3].any()) for patch in patches)
