"""Soft drawing on an RGB array: blurred shapes, shaded rims, and drawing that only shows inside an outline.

What the fine world adds to the flat colours of canvas.py. Outlines are (N, 2) in pixels, strengths in [0, 1].
"""

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from fpga_models.lab.synthetic.canvas import Image, Points, fixed
from fpga_models.lab.synthetic.identity import Colour

Window = tuple[slice, slice]
Mask = npt.NDArray[np.uint8]


def soft(
    image: Image,
    points: npt.ArrayLike,
    colour: Colour,
    *,
    strength: float,
    blur: float,
    within: npt.ArrayLike | None = None,
) -> None:
    """Lay a polygon with an edge blurred over `blur` px over the image; only inside `within`, if that is given."""
    outline = np.asarray(points, np.float32)
    window = _window(image, outline if within is None else np.asarray(within, np.float32), 2 * blur)
    if window is not None:
        alpha = _blurred(_filled(window, outline, round(255 * strength)), blur)
        _lay(image, window, colour, alpha, within)


def rim(
    image: Image,
    outline: npt.ArrayLike,
    colour: Colour,
    *,
    towards: npt.ArrayLike,
    strength: float,
    blur: float,
) -> None:
    """Shade the inside of an outline along its far edge; `towards` (2,) px is where the light comes from."""
    points = np.asarray(outline, np.float32)
    window = _window(image, points, 1.0)
    if window is not None:
        lit = _blurred(_filled(window, points + np.asarray(towards, np.float32), 255), blur)
        _lay(image, window, colour, cv2.convertScaleAbs(255 - lit, alpha=strength), points)


def clipped(image: Image, outline: npt.ArrayLike, draw: Callable[[Image], None]) -> None:
    """Let `draw` paint on a copy of the image, and take of it what lies inside the outline."""
    points = np.asarray(outline, np.float32)
    window = _window(image, points, 1.0)
    if window is None:
        return
    painted = image.copy()
    draw(painted)
    _blend(image, window, np.ascontiguousarray(painted[window]), _filled(window, points, 255))


def curve(start: npt.ArrayLike, bend: npt.ArrayLike, end: npt.ArrayLike, count: int = 9) -> Points:
    """Quadratic Bezier curve (count, 2) through start and end, drawn towards `bend`."""
    t = np.linspace(0, 1, count)[:, None]
    a, b, c = (np.asarray(point, np.float64) for point in (start, bend, end))
    result: Points = ((1 - t) ** 2 * a + 2 * t * (1 - t) * b + t**2 * c).astype(np.float32)
    return result


def _window(image: Image, points: Points, margin: float) -> Window | None:
    """Rows and columns of the image that the points, grown by a margin, cover; None outside of it."""
    low = np.maximum(np.floor(points.min(0) - margin), 0).astype(int)
    high = np.minimum(np.ceil(points.max(0) + margin) + 1, image.shape[1::-1]).astype(int)
    if np.any(high - low < 1):
        return None
    return slice(low[1], high[1]), slice(low[0], high[0])


def _filled(window: Window, points: Points, value: int) -> Mask:
    rows, columns = window
    mask: Mask = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.uint8)
    cv2.fillPoly(mask, [fixed(points - [columns.start, rows.start])], value, cv2.LINE_AA, 4)
    return mask


def _blurred(mask: Mask, width: float) -> Mask:
    """Two box filters, about a triangle of this half width."""
    size = max(round(width), 1) | 1
    once = cv2.blur(mask, (size, size), borderType=cv2.BORDER_REPLICATE)
    result: Mask = cv2.blur(once, (size, size), borderType=cv2.BORDER_REPLICATE)
    return result


def _lay(image: Image, window: Window, colour: Colour, alpha: Mask, within: npt.ArrayLike | None) -> None:
    if within is not None:
        alpha = cv2.multiply(alpha, _filled(window, np.asarray(within, np.float32), 255), scale=1 / 255)
    _blend(image, window, np.full((*alpha.shape, 3), colour, np.uint8), alpha)


def _blend(image: Image, window: Window, over: Image, alpha: Mask) -> None:
    """Lay a picture over the window, as opaque as alpha (0..255) says."""
    share = alpha * np.float32(1 / 255)
    image[window] = cv2.blendLinear(np.ascontiguousarray(image[window]), over, 1 - share, share)
