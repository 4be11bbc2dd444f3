"""Between a photo's own pixel space and the 8-bit upright sRGB that networks work in. Runs in the child only."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from orchestrator.pictures import BROKEN
from workers.photo.native import Model, Native, Pixels

Rgb = NDArray[np.uint8]
Convert = Callable[[Image.Image], Image.Image]
SIXTEEN_TO_EIGHT = 257  # 65535 / 255
ROWS = 1024
"""Pixels are converted in bands of so many rows, so that the copies on the way stay small."""


@dataclass(frozen=True, kw_only=True)
class Working:
    """The two ways between the colours of one photo and sRGB.

    Attributes:
        model: of the photo's colours.
        scale: 1 for 8 bits, 257 for 16.
        forth, back: on 8-bit pictures of the model, and of RGB.
        exact: whether both are the identity.
    """

    model: Model
    scale: int
    forth: Convert
    back: Convert
    exact: bool

    def to_rgb(self, pixels: Pixels) -> Rgb:
        """Return pixels (h, w, C) of the photo as sRGB (h, w, 3); what is transparent shows white."""
        colours = {"L": 1, "RGB": 3, "CMYK": 4}[self.model]
        rgb = np.empty((*pixels.shape[:2], 3), np.uint8)
        for top in range(0, len(pixels), ROWS):
            band = pixels[top : top + ROWS]
            eight = self._eight(band[..., :colours])
            rgb[top : top + ROWS] = eight if self.exact else np.asarray(self.forth(_image(eight)))
            if band.shape[2] > colours:
                alpha = self._eight(band[..., colours:]).astype(np.uint16)
                mixed = rgb[top : top + ROWS] * alpha + 255 * (255 - alpha)
                rgb[top : top + ROWS] = (mixed + 127) // 255
        return rgb

    def to_native(self, rgb: Rgb) -> NDArray[np.float32]:
        """Return sRGB pixels (h, w, 3) as colours of the photo (h, w, C), in its range."""
        eight = rgb if self.exact else np.asarray(self.back(_image(rgb)))
        planes = eight[..., None] if eight.ndim == 2 else eight
        return planes.astype(np.float32) * self.scale

    def _eight(self, planes: Pixels) -> Rgb:
        if planes.dtype == np.uint8:
            return planes.astype(np.uint8, copy=False)
        # rounds to the nearest without leaving 32 bits
        return ((planes.astype(np.uint32) + SIXTEEN_TO_EIGHT // 2) // SIXTEEN_TO_EIGHT).astype(np.uint8)


def working(native: Native) -> Working:
    """Return the ways for a photo, by its embedded profile; without a usable one, sRGB is assumed and noted."""
    scale = SIXTEEN_TO_EIGHT if native.bits == 16 else 1
    ways = _by_profile(native)
    exact = ways is None and native.model == "RGB"
    forth, back = ways or (lambda image: image.convert("RGB"), lambda image: image.convert(native.model))
    return Working(model=native.model, scale=scale, forth=forth, back=back, exact=exact)


def _by_profile(native: Native) -> tuple[Convert, Convert] | None:
    if native.profile is None:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(native.profile))
        if native.model == "RGB" and "srgb" in ImageCms.getProfileDescription(profile).lower():
            return None
        srgb = ImageCms.createProfile("sRGB")
        intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
        forth = ImageCms.buildTransform(profile, srgb, native.model, "RGB", intent, flags)
        back = ImageCms.buildTransform(srgb, profile, "RGB", native.model, intent, flags)
    except (ImageCms.PyCMSError, *BROKEN):
        native.notes.append("the colour profile cannot be used; sRGB is assumed")
        return None
    return (lambda image: _applied(image, forth)), (lambda image: _applied(image, back))


def _applied(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    changed = ImageCms.applyTransform(image, transform)
    assert changed is not None, "only an in-place transform returns nothing"
    return changed


def _image(pixels: Rgb) -> Image.Image:
    planes = np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    if planes.ndim == 3 and planes.shape[2] == 4:
        return Image.frombytes("CMYK", (planes.shape[1], planes.shape[0]), planes.tobytes())
    return Image.fromarray(planes)
