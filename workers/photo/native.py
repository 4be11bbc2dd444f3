"""A photo in its own pixel space: bit depth, colour model, alpha and orientation as stored.

What the networks see is made from it in `colour`, and what they changed is put back there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Model = Literal["L", "RGB", "CMYK"]
Pixels = NDArray[np.uint8] | NDArray[np.uint16]


class Stays(NamedTuple):
    """Why a photo cannot be written with a change, and so comes back as it is: a code and a sentence."""

    code: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Page:
    """How the first page of a TIFF is stored.

    Attributes:
        stored: (H, W, S) as decoded, every sample of the file.
        colours: how many of the samples are colours; they come first.
        alpha: the index of the sample that is alpha, or None.
        negative: whether white is zero.
        direct: whether strips can be written anew as they are; else the whole page is.
    """

    stored: Pixels
    colours: int
    alpha: int | None
    negative: bool
    direct: bool


@dataclass(kw_only=True)
class Native:
    """A decoded photo.

    Attributes:
        form: one of MEDIA_TYPES.
        pixels: (H, W, C) uint8 or uint16 as stored, before any orientation; alpha is the last channel.
        model: of the colour channels; 1, 3 or 4 of them.
        alpha: whether there is one.
        profile, exif, xmp: metadata as the file has it; EXIF begins with its byte order.
        orientation: 1 to 8, as EXIF counts.
        mode: Pillow's name of how pixels are stored, such as `P`.
        several: whether more frames, pages or pictures follow.
        stays: why no change can be written, or None.
        page: of a TIFF.
        image: Pillow's, for what only some formats have.
        notes: sentences for the record.
    """

    form: str
    pixels: Pixels
    model: Model
    alpha: bool
    profile: bytes | None
    exif: bytes | None
    xmp: bytes | None
    orientation: int
    mode: str
    several: bool
    stays: Stays | None = None
    page: Page | None = None
    image: Image.Image | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def bits(self) -> int:
        """Bits per channel."""
        return self.pixels.dtype.itemsize * 8

    @property
    def progressive(self) -> bool:
        """Whether a JPEG's scans refine each other."""
        return self.image is not None and bool(self.image.info.get("progressive"))


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return a view of (H, W, ...) pixels as they are to be looked at; writing to it writes to the pixels."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
