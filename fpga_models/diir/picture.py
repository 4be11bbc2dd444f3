"""The border for pictures: 8 or 16 bits, grey or colour, with or without alpha, seen as 8-bit RGB.

Only pixels with a positive weight are ever written, in the picture's own format; its alpha channel never is.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fpga_models.faces import PictureError

Picture = NDArray[np.uint8] | NDArray[np.uint16]
Image = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]
SIXTEEN_TO_EIGHT = 257  # 65535 / 255


def check_picture(picture: Picture) -> None:
    """Refuse what is no picture.

    Raises:
        PictureError: not uint8 or uint16, not (H, W) or (H, W, 1..4), or empty.
    """
    shape_ok = picture.ndim == 2 or (picture.ndim == 3 and 1 <= picture.shape[2] <= 4)
    if picture.dtype not in (np.uint8, np.uint16) or not shape_ok or 0 in picture.shape:
        raise PictureError(
            f"A picture is uint8 or uint16, (H, W) grey or (H, W, C) with grey, grey+alpha, RGB or RGBA; "
            f"got {picture.dtype} {picture.shape}."
        )


def rgb8(picture: Picture) -> Image:
    """The picture as the networks see it: (H, W, 3) RGB uint8, alpha left out."""
    planes = picture[..., None] if picture.ndim == 2 else picture
    colours = planes[..., :1] if planes.shape[2] <= 2 else planes[..., :3]
    if colours.dtype == np.uint16:
        colours = np.round(colours / SIXTEEN_TO_EIGHT).astype(np.uint8)
    result: Image = np.ascontiguousarray(np.broadcast_to(colours, (*colours.shape[:2], 3)).astype(np.uint8))
    return result


def blend(picture: Picture, patch: Image, weight: Floats) -> Picture:
    """A copy of `picture` (h, w) or (h, w, C) with `patch` (h, w, 3) laid over it with `weight` (h, w) in [0, 1].

    Where the weight is 0 the pixels are bit-identical.
    """
    result = picture.copy()
    planes = result[..., None] if result.ndim == 2 else result
    colours = 1 if planes.shape[2] <= 2 else 3
    region = planes[..., :colours]  # a view
    new = patch if colours == 3 else cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY)[..., None]
    scaled = new.astype(np.float64) * (SIXTEEN_TO_EIGHT if picture.dtype == np.uint16 else 1)
    mixed = region + np.clip(weight, 0, 1)[..., None] * (scaled - region)
    touched = weight > 0
    region[touched] = np.round(mixed[touched]).astype(picture.dtype)
    return result
