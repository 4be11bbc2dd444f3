"""Which part of the picture goes through the networks for a face, at which size, and which go together. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from fpga_models.diir.picture import Floats, Image

LATENT_REFERENCE = 64 * 64
QUADRATIC = 0.0213
"""Extra cost of attention at 64x64 latent cells, from SDXL's 1.59 TFLOP at 512 and 6.76 at 1024 pixels."""
DETAIL_PRICE = 1.0
"""What halving the resolution of a crop costs, in forward passes at the largest size on offer [ours]."""


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A square of the picture in px, and the side at which the networks see it."""

    left: int
    top: int
    side: int
    native: int

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the picture."""
        return slice(self.top, self.top + self.side), slice(self.left, self.left + self.side)

    def to_native(self, points: Floats) -> Floats:
        """Picture coordinates (..., 2) as coordinates of the resized crop."""
        return self.to_side(points) * (self.native / self.side)

    def to_side(self, points: Floats) -> Floats:
        """Picture coordinates (..., 2) as coordinates of the crop at its own size."""
        placed: Floats = points - np.array([self.left, self.top])
        return placed

    def overlaps(self, other: Crop) -> bool:
        """Whether the two squares share a pixel."""
        return (
            abs(2 * (self.left - other.left) + self.side - other.side) < self.side + other.side
            and abs(2 * (self.top - other.top) + self.side - other.side) < self.side + other.side
        )

    def inner_edges(self, width: int, height: int) -> tuple[bool, bool, bool, bool]:
        """Whether left, top, right and bottom edge lie inside the picture, not on its border."""
        return self.left > 0, self.top > 0, self.left + self.side < width, self.top + self.side < height


def plan_crop(box: Floats, *, width: int, height: int, factor: float, offered: Sequence[int]) -> Crop:
    """A square around a face box, `factor` times its longer side, shifted into the picture and shrunk to fit it.

    Args:
        box: (4,) left, top, right, bottom in px; may reach over the picture's border.
        width, height: of the picture.
        factor: about 2.
        offered: native sides that the networks take.
    """
    longer = float(max(box[2] - box[0], box[3] - box[1], 1.0))
    side = min(math.ceil(factor * longer), width, height)
    left = round(float(box[0] + box[2]) / 2 - side / 2)
    top = round(float(box[1] + box[3]) / 2 - side / 2)
    return Crop(
        left=min(max(left, 0), width - side),
        top=min(max(top, 0), height - side),
        side=side,
        native=native_side(side, offered),
    )


def native_side(side: int, offered: Sequence[int]) -> int:
    """The side on offer with the least cost: time of a pass, plus the price of the resolution that would be lost."""
    dearest = forward_cost(max(offered))
    return min(
        sorted(offered),
        key=lambda n: forward_cost(n) / dearest + DETAIL_PRICE * max(0.0, math.log2(side / n)),
    )


def forward_cost(side: int, *, latent_factor: int = 8) -> float:
    """Time of one UNet pass over a square picture, in units of one at 512 px: linear in cells plus attention."""
    cells = (side / latent_factor) ** 2 / LATENT_REFERENCE
    return cells * (1 + QUADRATIC * cells) / (1 + QUADRATIC)


def waves(crops: Sequence[Crop]) -> list[list[int]]:
    """Group crops so that those of one group do not overlap; later groups see what earlier ones left."""
    groups: list[list[int]] = []
    for index, crop in enumerate(crops):
        home = next((group for group in groups if not any(crop.overlaps(crops[other]) for other in group)), None)
        if home is None:
            groups.append([index])
        else:
            home.append(index)
    return groups


def resize(picture: Image, side: int) -> Image:
    """Resize to (side, side, 3): area average down, cubic up."""
    if picture.shape[0] == side:
        return np.ascontiguousarray(picture)
    how = cv2.INTER_AREA if picture.shape[0] > side else cv2.INTER_CUBIC
    resized: Image = cv2.resize(picture, (side, side), interpolation=how)
    return resized
