"""Draws what is behind people: plain colours with soft shapes, and a few places."""

import cv2
import numpy as np

from fpga_models.lab.synthetic.canvas import Image, disc, lighter, mix, polygon
from fpga_models.lab.synthetic.identity import Colour

PLAIN: dict[str, Colour] = {
    "blue": (112, 158, 218),
    "green": (136, 190, 130),
    "red": (206, 106, 100),
    "yellow": (240, 214, 122),
    "purple": (166, 138, 206),
    "orange": (240, 172, 104),
    "gray": (156, 160, 168),
    "white": (238, 237, 232),
}


def draw_background(name: str, seed: int, side: int) -> Image:
    """A background picture (side, side, 3), slightly out of focus; `name` is one of PLAIN or scene.PLACES."""
    rng = np.random.default_rng(seed)
    image = _plain(rng, PLAIN[name], side) if name in PLAIN else _PLACES[name](rng, side)
    blurred: Image = cv2.blur(image, (3, 3))
    return blurred


def gradient(top: Colour, bottom: Colour, side: int, middle: Colour | None = None) -> Image:
    """A square (side, side, 3) that goes from one colour to the other."""
    column = [top, middle, bottom] if middle else [top, bottom]
    strip = np.array(column, np.uint8)[:, None]
    result: Image = cv2.resize(strip, (side, side), interpolation=cv2.INTER_LINEAR)
    return result


def vary(rng: np.random.Generator, colour: Colour, amount: float = 8.0) -> Colour:
    """The colour with some noise, in grey levels."""
    red, green, blue = np.clip(np.array(colour) + rng.normal(0, amount, 3), 0, 255).astype(int).tolist()
    return red, green, blue


def _plain(rng: np.random.Generator, colour: Colour, side: int) -> Image:
    base = vary(rng, colour)
    image = gradient(lighter(base, 0.2), mix(base, (60, 50, 80), 0.12), side)
    style = rng.integers(4)
    if style == 0:
        for _ in range(rng.integers(3, 7)):
            disc(image, rng.uniform(0, side, 2), rng.uniform(0.06, 0.22) * side, lighter(base, rng.uniform(0.1, 0.3)))
    elif style == 1:
        width, start = rng.uniform(0.1, 0.22) * side, rng.uniform(-0.3, 0) * side
        stripe = np.array([(0, 0), (width, 0), (width - 0.3 * side, side), (-0.3 * side, side)])
        for x in np.arange(start, side * 1.3, 2 * width):
            polygon(image, stripe + np.array([x, 0.0]), lighter(base, 0.14))
    elif style == 2:
        disc(image, (rng.uniform(0.35, 0.65) * side, 0.5 * side), rng.uniform(0.4, 0.55) * side, lighter(base, 0.26))
    return image


def _studio(rng: np.random.Generator, side: int) -> Image:
    base = vary(rng, (96, 98, 108), 5)
    small = gradient(mix(base, (20, 20, 30), 0.35), mix(base, (20, 20, 30), 0.55), side)
    for radius, share in ((0.62, 0.12), (0.5, 0.24), (0.38, 0.36), (0.26, 0.46)):
        disc(small, (rng.uniform(0.45, 0.55) * side, 0.42 * side), radius * side, lighter(base, share))
    result: Image = cv2.blur(small, (side // 8 | 1, side // 8 | 1))
    return result


def _park(rng: np.random.Generator, side: int) -> Image:
    horizon = rng.uniform(0.5, 0.66)
    image = gradient((150, 206, 246), (226, 242, 250), side)
    polygon(image, hills(rng, side, horizon, 0.05), vary(rng, (124, 190, 96)))
    for _ in range(rng.integers(2, 5)):
        x, y, r = rng.uniform(0, side), (horizon - rng.uniform(0.06, 0.2)) * side, rng.uniform(0.09, 0.17) * side
        box(image, x / side - 0.02, y / side, 0.04, 0.3, (116, 82, 54))
        leaf = vary(rng, (64, 146, 70), 10)
        disc(image, (x, y), r, leaf)
        disc(image, (x - 0.3 * r, y - 0.3 * r), 0.62 * r, lighter(leaf, 0.14))
    return image


def box(image: Image, x: float, y: float, width: float, height: float, colour: Colour) -> None:
    """Fill a rectangle given in fractions of the picture's side."""
    corners = np.array([(x, y), (x + width, y), (x + width, y + height), (x, y + height)])
    polygon(image, corners * image.shape[0], colour)


def hills(rng: np.random.Generator, side: int, level: float, swing: float) -> list[tuple[float, float]]:
    """Outline in pixels of everything below a wavy line at this share of the height."""
    x = np.linspace(0, 1, 13)
    y = level + swing * np.sin(x * rng.uniform(3, 7) + rng.uniform(0, 6))
    return [(0.0, float(side)), *zip((x * side).tolist(), (y * side).tolist(), strict=True), (float(side), float(side))]


def _beach(rng: np.random.Generator, side: int) -> Image:
    horizon, shore = rng.uniform(0.4, 0.5) * side, rng.uniform(0.62, 0.72) * side
    image = gradient((120, 196, 244), (214, 240, 250), side)
    box(image, 0, horizon / side, 1, 1, vary(rng, (44, 150, 190)))
    slope = rng.uniform(-0.06, 0.06) * side
    polygon(image, [(0, shore), (side, shore + slope), (side, side), (0, side)], vary(rng, (240, 218, 164)))
    disc(image, (rng.uniform(0.1, 0.9) * side, rng.uniform(0.08, 0.2) * side), 0.07 * side, (255, 246, 190))
    return image


def _city(rng: np.random.Generator, side: int) -> Image:
    image = gradient((166, 196, 226), (232, 232, 226), side)
    x = -0.05
    while x < 1:
        width, top = rng.uniform(0.12, 0.24), rng.uniform(0.08, 0.5)
        box(image, x, top, width, 1, vary(rng, (132, 138, 158), 14))
        for wx in np.arange(x + 0.03, x + width - 0.04, 0.06):
            for wy in np.arange(top + 0.05, 0.95, 0.1):
                box(image, wx, wy, 0.03, 0.05, (248, 232, 170))
        x += width + rng.uniform(0.0, 0.03)
    return image


def _mountain(rng: np.random.Generator, side: int) -> Image:
    image = gradient((140, 190, 236), (224, 236, 246), side)
    for base, colour in ((0.3, (138, 152, 186)), (0.48, (92, 122, 132))):
        for _ in range(2):
            x, y, half = rng.uniform(0.05, 0.95), base + rng.uniform(-0.1, 0.05), rng.uniform(0.35, 0.5)
            peak = np.array([(x, y), (x + half, y + 0.62), (x - half, y + 0.62)]) * side
            polygon(image, peak, vary(rng, colour))
            if base < 0.4:
                polygon(image, peak[:1] + 0.22 * (peak - peak[:1]), (250, 250, 252))
    polygon(image, hills(rng, side, 0.76, 0.03), vary(rng, (88, 140, 92)))
    return image


def _room(rng: np.random.Generator, side: int) -> Image:
    wall = vary(rng, (226, 206, 180), 12)
    image = gradient(wall, mix(wall, (90, 70, 70), 0.14), side)
    box(image, 0, rng.uniform(0.72, 0.82), 1, 1, vary(rng, (150, 104, 72)))
    x, y, w, h = rng.uniform(0.02, 0.6), rng.uniform(0.08, 0.2), rng.uniform(0.24, 0.36), rng.uniform(0.26, 0.4)
    box(image, x, y, w, h, (250, 246, 238))
    box(image, x + 0.025, y + 0.025, w - 0.05, h - 0.05, (158, 208, 238))
    box(image, x + w / 2 - 0.01, y, 0.02, h, (250, 246, 238))
    px = (x + 0.55) % 0.9
    disc(image, np.array([px, 0.6]) * side, 0.09 * side, vary(rng, (84, 150, 92)))
    return image


def _sunset(rng: np.random.Generator, side: int) -> Image:
    image = gradient((104, 82, 152), (252, 196, 110), side, middle=(242, 128, 112))
    sun = rng.uniform(0.15, 0.85) * side, rng.uniform(0.5, 0.66) * side
    disc(image, sun, rng.uniform(0.09, 0.14) * side, (255, 236, 160))
    polygon(image, hills(rng, side, 0.76, 0.04), vary(rng, (84, 58, 98)))
    return image


_PLACES = {
    "studio": _studio,
    "park": _park,
    "beach": _beach,
    "city": _city,
    "mountain": _mountain,
    "room": _room,
    "sunset": _sunset,
}
