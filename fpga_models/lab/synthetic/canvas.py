"""Anti-aliased flat drawing on an RGB array with sub-pixel coordinates (OpenCV)."""

import cv2
import numpy as np
import numpy.typing as npt

from fpga_models.lab.synthetic.identity import Colour

Points = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]

SHIFT = 4  # sub-pixel bits of OpenCV's fixed-point coordinates
_ONE = 1 << SHIFT
_CIRCLE = np.stack([np.cos(np.linspace(0, 2 * np.pi, 25)[:-1]), np.sin(np.linspace(0, 2 * np.pi, 25)[:-1])], 1)


def fixed(points: npt.ArrayLike) -> npt.NDArray[np.int32]:
    """Pixel coordinates (N, 2) as OpenCV's fixed-point integers, pixel centres at .5 as everywhere here."""
    result: npt.NDArray[np.int32] = np.rint((np.asarray(points) - 0.5) * _ONE).astype(np.int32)
    return result


def polygon(image: Image, points: npt.ArrayLike, colour: Colour | int) -> None:
    """Fill a polygon, (N, 2) in pixels."""
    cv2.fillPoly(image, [fixed(points)], colour, cv2.LINE_AA, SHIFT)


def path(image: Image, points: npt.ArrayLike, colour: Colour | int, width: float, closed: bool = False) -> None:
    """Stroke a polyline of this width in pixels; at least one pixel wide."""
    cv2.polylines(image, [fixed(points)], closed, colour, max(round(width), 1), cv2.LINE_AA, SHIFT)


def disc(image: Image, centre: npt.ArrayLike, radius: float, colour: Colour | int) -> None:
    """Fill a circle."""
    x, y = fixed(np.asarray(centre)).tolist()
    cv2.circle(image, (x, y), max(round(radius * _ONE), 1), colour, -1, cv2.LINE_AA, SHIFT)


def ellipse(centre: tuple[float, float], radius_x: float, radius_y: float, angle: float = 0.0) -> Points:
    """Outline of an ellipse, (24, 2), in the units of its arguments."""
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = _CIRCLE[:, 0] * radius_x, _CIRCLE[:, 1] * radius_y
    result: Points = np.stack([centre[0] + cos * x - sin * y, centre[1] + sin * x + cos * y], 1).astype(np.float32)
    return result


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """`share` of the second colour in the first."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def darker(colour: Colour, share: float) -> Colour:
    """The colour mixed with a warm black."""
    return mix(colour, (40, 18, 30), share)


def lighter(colour: Colour, share: float) -> Colour:
    """The colour mixed with white."""
    return mix(colour, (255, 252, 244), share)
