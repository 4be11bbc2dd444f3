"""Drawing styles for the stylized evaluation: deterministic picture operations on our own renders [ours]. Pure.

Each maps an RGB picture (H, W, 3) uint8 to one of the same shape; nothing moves, so places and people stay true.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
POSTER_LEVELS = 5
DARK_INK, LIGHT_INK = np.array((38, 24, 74)), np.array((255, 236, 202))


def pencil(picture: Image) -> Image:
    """Grey drawing on white paper: brightness over its own blurred negative (colour dodge)."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    blurred = cv2.GaussianBlur(255 - grey, (0, 0), 4.0)
    dodged = np.minimum(grey * 255 / np.maximum(255 - blurred, 1), 255)
    drawn = 0.65 * dodged + 0.35 * grey  # some shading stays, or hair and skin look the same
    return np.repeat(_as_bytes(drawn)[..., None], 3, axis=2)


def poster(picture: Image) -> Image:
    """Few flat colours with dark outlines."""
    smooth = cv2.bilateralFilter(picture, 5, 40, 3)
    step = 255 / (POSTER_LEVELS - 1)
    flat = np.round(smooth / step) * step
    return _as_bytes(flat * (1 - 0.6 * _edges(smooth)[..., None]))


def watercolour(picture: Image) -> Image:
    """Washed-out areas with soft borders on grained paper."""
    wash = picture
    for _ in range(2):
        wash = cv2.bilateralFilter(wash, 5, 60, 3)
    grain = cv2.GaussianBlur(np.random.default_rng(0).normal(0, 1, picture.shape[:2]).astype(np.float32), (0, 0), 1.0)
    pale = 255 - 0.75 * (255.0 - wash)
    return _as_bytes(pale + 10 * grain[..., None] - 25 * _edges(wash)[..., None])


def duotone(picture: Image) -> Image:
    """Two inks: brightness as a mix of a dark and a light one."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float64)[..., None] / 255
    stretched = np.clip((grey - 0.1) / 0.8, 0, 1)
    return _as_bytes((1 - stretched) * DARK_INK + stretched * LIGHT_INK)


STYLES: dict[str, Callable[[Image], Image]] = {
    "pencil": pencil,
    "poster": poster,
    "watercolour": watercolour,
    "duotone": duotone,
}


def _edges(picture: Image) -> NDArray[np.float32]:
    """Strength of edges (H, W) in [0, 1]."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    across, down = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    strength: NDArray[np.float32] = np.clip(np.hypot(across, down) / 400 - 0.15, 0, 1).astype(np.float32)
    return strength


def _as_bytes(values: NDArray[np.floating]) -> Image:
    rounded: Image = np.round(np.clip(values, 0, 255)).astype(np.uint8)
    return rounded
