"""What is behind people with depth: layers that fade with distance, clouds, lit rooms, all a little out of focus."""

from collections.abc import Callable

import cv2
import numpy as np

from fpga_models.lab.synthetic.background import PLAIN, box, gradient, hills, vary
from fpga_models.lab.synthetic.canvas import Image, darker, disc, ellipse, lighter, mix, path, polygon
from fpga_models.lab.synthetic.identity import Colour
from fpga_models.lab.synthetic.soft import soft

HAZE: Colour = (206, 222, 236)
FOCUS = 80  # of the side: half width of the blur


def draw_fine_background(name: str, seed: int, side: int) -> Image:
    """A background picture (side, side, 3), out of focus; `name` is one of PLAIN or scene.PLACES."""
    rng = np.random.default_rng(seed)
    image = _plain(rng, PLAIN[name], side) if name in PLAIN else _PLACES[name](rng, side)
    width = max(side // FOCUS, 1) | 1
    blurred: Image = cv2.blur(image, (width, width))
    _vignette(blurred)
    return blurred


def _vignette(image: Image) -> None:
    """Darken the corners by up to an eighth."""
    side = image.shape[0]
    square = np.linspace(-1, 1, side, dtype=np.float32) ** 2
    fall = 1 - 0.0625 * (square[None, :] + square[:, None])
    image[:] = (image * fall[..., None]).astype(np.uint8)


def _glow(image: Image, x: float, y: float, radius: float, colour: Colour, strength: float) -> None:
    """A soft light at a place given in fractions of the side."""
    side = image.shape[0]
    soft(
        image,
        ellipse((x * side, y * side), radius * side, radius * side),
        colour,
        strength=strength,
        blur=0.9 * radius * side,
    )


def _clouds(rng: np.random.Generator, image: Image, below: float, colour: Colour) -> None:
    side = image.shape[0]
    for _ in range(rng.integers(2, 5)):
        x, y, size = rng.uniform(0, 1), rng.uniform(0.03, below), rng.uniform(0.06, 0.13)
        for dx, dy, share in ((-0.9, 0.15, 0.6), (0.0, -0.1, 0.8), (0.9, 0.12, 0.65), (0.2, 0.2, 0.9)):
            puff = ellipse(
                ((x + dx * size) * side, (y + dy * size) * side), share * size * side, 0.5 * share * size * side
            )
            soft(image, puff, colour, strength=0.75, blur=0.035 * side)


def _plain(rng: np.random.Generator, colour: Colour, side: int) -> Image:
    base = vary(rng, colour)
    image = gradient(lighter(base, 0.12), mix(base, (40, 30, 70), 0.3), side)
    style = rng.integers(4)
    _glow(image, rng.uniform(0.3, 0.7), rng.uniform(0.25, 0.45), rng.uniform(0.28, 0.42), lighter(base, 0.55), 0.6)
    if style == 0:
        for _ in range(rng.integers(5, 10)):
            x, y, r = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.03, 0.1)
            spot = ellipse((x * side, y * side), r * side, r * side)
            soft(image, spot, lighter(base, 0.5), strength=rng.uniform(0.2, 0.5), blur=0.012 * side)
    elif style == 1:
        start = rng.uniform(-0.3, 0)
        for number, x in enumerate(np.arange(start, 1.3, rng.uniform(0.1, 0.2))):
            slat = np.array([(x, 0), (x + 0.06, 0), (x - 0.2, 1), (x - 0.26, 1)]) * side
            soft(image, slat, lighter(base, 0.4) if number % 2 else darker(base, 0.3), strength=0.35, blur=0.02 * side)
    elif style == 2:
        for radius in (0.62, 0.48, 0.34):
            ring = ellipse((0.5 * side, 0.5 * side), radius * side, radius * side)
            soft(image, ring, lighter(base, 0.4), strength=0.22, blur=0.01 * side)
    return image


def _studio(rng: np.random.Generator, side: int) -> Image:
    base = vary(rng, (96, 98, 108), 5)
    image = gradient(mix(base, (16, 16, 26), 0.45), mix(base, (16, 16, 26), 0.7), side)
    _glow(image, rng.uniform(0.35, 0.65), 0.4, 0.42, lighter(base, 0.45), 0.8)
    _glow(image, rng.uniform(0.0, 1.0), 0.05, 0.2, (255, 240, 220), 0.35)
    floor = ellipse((0.5 * side, 1.02 * side), 0.8 * side, 0.16 * side)
    soft(image, floor, lighter(base, 0.1), strength=0.7, blur=0.06 * side)
    return image


def _tree(rng: np.random.Generator, image: Image, x: float, y: float, r: float, leaf: Colour) -> None:
    side = image.shape[0]
    box(image, x - 0.14 * r, y, 0.28 * r, 2.6 * r, darker((126, 88, 58), 0.1))
    box(image, x - 0.14 * r, y, 0.1 * r, 2.6 * r, (150, 108, 74))
    disc(image, (x * side, y * side), r * side, darker(leaf, 0.3))
    for _ in range(7):
        angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.75)
        at = x + far * r * np.cos(angle), y + far * r * np.sin(angle)
        lit = 0.28 * (0.5 - 0.5 * np.sin(angle))
        disc(image, (at[0] * side, at[1] * side), rng.uniform(0.35, 0.5) * r * side, lighter(leaf, lit))


def _park(rng: np.random.Generator, side: int) -> Image:
    horizon = rng.uniform(0.5, 0.66)
    image = gradient((122, 186, 240), (232, 244, 250), side)
    _clouds(rng, image, 0.3, (252, 253, 255))
    green = vary(rng, (112, 178, 88))
    polygon(image, hills(rng, side, horizon - 0.12, 0.05), mix(green, HAZE, 0.6))
    polygon(image, hills(rng, side, horizon - 0.05, 0.04), mix(green, HAZE, 0.32))
    for _ in range(rng.integers(3, 6)):
        leaf = mix(vary(rng, (64, 146, 70), 10), HAZE, 0.3)
        _tree(rng, image, rng.uniform(0, 1), horizon - rng.uniform(0.08, 0.12), rng.uniform(0.04, 0.07), leaf)
    polygon(image, hills(rng, side, horizon, 0.03), green)
    bend = rng.uniform(0.2, 0.8)
    way = np.array([(bend - 0.02, horizon + 0.03), (bend + 0.02, horizon + 0.03), (0.75, 1.0), (0.25, 1.0)]) * side
    soft(image, way, (226, 206, 168), strength=0.9, blur=0.012 * side)
    for _ in range(rng.integers(1, 3)):
        leaf = vary(rng, (58, 138, 64), 10)
        _tree(
            rng,
            image,
            rng.choice((0.1, 0.9)) + rng.uniform(-0.08, 0.08),
            horizon - rng.uniform(0.16, 0.24),
            rng.uniform(0.12, 0.17),
            leaf,
        )
    for _ in range(18):
        x, y = rng.uniform(0, 1), rng.uniform(horizon + 0.08, 1)
        tuft = np.array([(x, y), (x + 0.006, y - 0.02), (x + 0.012, y)]) * side
        path(image, tuft, darker(green, 0.25), 0.006 * side)
    return image


def _beach(rng: np.random.Generator, side: int) -> Image:
    horizon, shore = rng.uniform(0.4, 0.5), rng.uniform(0.62, 0.72)
    image = gradient((92, 176, 238), (226, 244, 250), side)
    _glow(image, rng.uniform(0.1, 0.9), rng.uniform(0.08, 0.2), 0.09, (255, 248, 200), 1.0)
    _clouds(rng, image, 0.3, (255, 255, 255))
    sea = vary(rng, (36, 138, 184))
    box(image, 0, horizon, 1, 1, lighter(sea, 0.2))
    depth = np.array([(0, horizon + 0.02), (1, horizon + 0.02), (1, shore), (0, shore)]) * side
    soft(image, depth, sea, strength=1.0, blur=0.05 * side)
    for _ in range(12):
        x, y = rng.uniform(-0.1, 1), rng.uniform(horizon + 0.02, shore - 0.02)
        path(image, np.array([(x, y), (x + rng.uniform(0.05, 0.16), y)]) * side, lighter(sea, 0.4), 0.005 * side)
    slope, sand = rng.uniform(-0.06, 0.06), vary(rng, (240, 218, 164))
    edge = np.array([(0, shore), (1, shore + slope), (1, 1), (0, 1)]) * side
    soft(image, edge - np.array((0, 0.025 * side)), (252, 254, 255), strength=0.9, blur=0.012 * side)
    polygon(image, edge, sand)
    soft(image, edge + np.array((0, 0.14 * side)), lighter(sand, 0.4), strength=0.6, blur=0.1 * side)
    x = float(rng.choice((0.08, 0.92)))
    shade = np.array([(x - 0.17, shore - 0.16), (x, shore - 0.27), (x + 0.17, shore - 0.16)]) * side
    path(image, np.array([(x, shore - 0.27), (x, shore + 0.06)]) * side, (236, 232, 226), 0.012 * side)
    polygon(image, shade, vary(rng, (226, 84, 76), 20))
    polygon(
        image, np.array([(x - 0.05, shore - 0.16), (x, shore - 0.27), (x + 0.05, shore - 0.16)]) * side, (250, 246, 238)
    )
    return image


def _houses(rng: np.random.Generator, image: Image, tops: tuple[float, float], haze: float, windows: bool) -> None:
    x = -0.05
    while x < 1:
        width, top = rng.uniform(0.12, 0.22), rng.uniform(*tops)
        wall = mix(vary(rng, (120, 126, 150), 16), HAZE, haze)
        box(image, x, top, width, 1, wall)
        box(image, x + 0.72 * width, top, 0.28 * width, 1, darker(wall, 0.22))
        box(image, x - 0.004, top - 0.012, width + 0.008, 0.014, darker(wall, 0.3))
        if windows:
            for column, wx in enumerate(np.arange(x + 0.022, x + width - 0.036, 0.052)):
                for row, wy in enumerate(np.arange(top + 0.04, 0.97, 0.085)):
                    lit = (row * 5 + column * 3 + int(100 * top)) % 4
                    box(
                        image,
                        wx,
                        wy,
                        0.028,
                        0.048,
                        (252, 230, 150) if lit == 0 else (84, 104, 138) if lit == 1 else (164, 190, 214),
                    )
        x += width + rng.uniform(0.0, 0.025)


def _city(rng: np.random.Generator, side: int) -> Image:
    image = gradient((138, 180, 224), (240, 234, 224), side)
    _clouds(rng, image, 0.25, (250, 250, 252))
    _houses(rng, image, (0.1, 0.4), 0.6, windows=False)
    haze = np.array([(0, 0.5), (1, 0.5), (1, 1), (0, 1)]) * side
    soft(image, haze, HAZE, strength=0.5, blur=0.3 * side)
    _houses(rng, image, (0.22, 0.55), 0.1, windows=True)
    box(image, 0, 0.93, 1, 0.08, (110, 112, 120))
    return image


def _mountain(rng: np.random.Generator, side: int) -> Image:
    image = gradient((116, 176, 234), (232, 240, 246), side)
    _clouds(rng, image, 0.22, (252, 253, 255))
    for base, colour, haze in ((0.26, (132, 148, 186), 0.35), (0.42, (92, 118, 140), 0.1)):
        for _ in range(2):
            x, y, half = rng.uniform(0.05, 0.95), base + rng.uniform(-0.1, 0.05), rng.uniform(0.32, 0.46)
            rock = mix(vary(rng, colour), HAZE, haze)
            peak = np.array([(x, y), (x + half, y + 0.62), (x - half, y + 0.62)]) * side
            polygon(image, peak, rock)
            polygon(
                image,
                np.array([(x, y), (x + half, y + 0.62), (x + 0.1 * half, y + 0.62), (x + 0.06, y + 0.2)]) * side,
                darker(rock, 0.24),
            )
            if base < 0.4:
                snow = (
                    np.array(
                        [
                            (x, y),
                            (x + 0.24 * half, y + 0.15),
                            (x + 0.1 * half, y + 0.11),
                            (x, y + 0.17),
                            (x - 0.1 * half, y + 0.1),
                            (x - 0.24 * half, y + 0.15),
                        ]
                    )
                    * side
                )
                polygon(image, snow, (250, 250, 253))
                polygon(image, np.array([snow[0], snow[1], snow[2], snow[3]]), (206, 218, 236))
    green = vary(rng, (76, 128, 86))
    polygon(image, hills(rng, side, 0.74, 0.03), green)
    for _ in range(rng.integers(5, 9)):
        x, y, size = rng.uniform(0, 1), rng.uniform(0.7, 0.8), rng.uniform(0.05, 0.09)
        for level in range(3):
            low, half = y - 0.55 * level * size, (0.5 - 0.12 * level) * size
            fir = np.array([(x, low - size), (x + half, low), (x - half, low)]) * side
            polygon(image, fir, darker(green, 0.35 - 0.08 * level))
    return image


def _room(rng: np.random.Generator, side: int) -> Image:
    wall = vary(rng, (226, 206, 180), 12)
    image = gradient(lighter(wall, 0.1), mix(wall, (90, 70, 70), 0.24), side)
    floor, wood = rng.uniform(0.72, 0.82), vary(rng, (150, 104, 72))
    box(image, 0, floor, 1, 1, wood)
    for x in np.arange(-1.0, 2.01, 0.16):
        board = np.array([(0.5 + 0.55 * (x - 0.5), floor), (0.5 + 1.5 * (x - 0.5), 1.0)]) * side
        path(image, board, darker(wood, 0.25), 0.006 * side)
    box(image, 0, floor - 0.03, 1, 0.03, lighter(wall, 0.45))
    x, y, w, h = rng.uniform(0.02, 0.6), rng.uniform(0.08, 0.2), rng.uniform(0.24, 0.36), rng.uniform(0.26, 0.4)
    box(image, x, y, w, h, (250, 246, 238))
    box(image, x + 0.02, y + 0.02, w - 0.04, h - 0.04, (150, 206, 242))
    box(image, x + 0.02, y + 0.6 * h, w - 0.04, 0.4 * h - 0.02, (140, 186, 126))
    box(image, x + w / 2 - 0.008, y, 0.016, h, (250, 246, 238))
    cloth = vary(rng, (206, 120, 104), 24)
    for edge in (x - 0.06, x + w - 0.01):
        box(image, edge, y - 0.03, 0.07, h + 0.1, cloth)
        for fold in (0.015, 0.04):
            box(image, edge + fold, y - 0.03, 0.01, h + 0.1, darker(cloth, 0.25))
    beam = np.array([(x, y + h), (x + w, y + h), (x + w + 0.2, 1.0), (x + 0.1, 1.0)]) * side
    soft(image, beam, (255, 246, 214), strength=0.28, blur=0.05 * side)
    px = (x + 0.55) % 0.9
    frame = np.array([px, 0.22])
    box(image, frame[0] - 0.07, frame[1] - 0.08, 0.15, 0.18, darker(wood, 0.2))
    box(image, frame[0] - 0.055, frame[1] - 0.065, 0.12, 0.15, vary(rng, (186, 206, 214), 24))
    box(image, px - 0.05, floor - 0.1, 0.1, 0.12, vary(rng, (196, 108, 76), 14))
    leaf = vary(rng, (78, 148, 86))
    for angle in np.linspace(-2.6, -0.5, 7):
        tip = np.array([px + 0.14 * np.cos(angle), floor - 0.1 + 0.2 * np.sin(angle)])
        middle = np.array([px + 0.06 * np.cos(angle), floor - 0.1 + 0.13 * np.sin(angle)])
        path(
            image,
            np.array([(px, floor - 0.1), middle, tip]) * side,
            leaf if angle > -1.6 else darker(leaf, 0.25),
            0.028 * side,
        )
    return image


def _sunset(rng: np.random.Generator, side: int) -> Image:
    image = gradient((84, 66, 146), (254, 200, 116), side, middle=(244, 126, 112))
    x, y = rng.uniform(0.15, 0.85), rng.uniform(0.5, 0.62)
    _glow(image, x, y, 0.3, (255, 214, 140), 0.6)
    disc(image, (x * side, y * side), rng.uniform(0.08, 0.11) * side, (255, 240, 176))
    for _ in range(rng.integers(3, 6)):
        cx, cy = rng.uniform(0, 1), rng.uniform(0.1, 0.5)
        streak = ellipse((cx * side, cy * side), rng.uniform(0.14, 0.3) * side, rng.uniform(0.008, 0.022) * side)
        soft(image, streak, (255, 176, 140), strength=0.6, blur=0.015 * side)
    dusk = vary(rng, (92, 62, 104))
    polygon(image, hills(rng, side, 0.68, 0.03), mix(dusk, (226, 130, 120), 0.45))
    polygon(image, hills(rng, side, 0.76, 0.04), dusk)
    for _ in range(4):
        tx = rng.uniform(0, 1)
        polygon(image, np.array([(tx, 0.64), (tx + 0.035, 0.8), (tx - 0.035, 0.8)]) * side, darker(dusk, 0.4))
    return image


_PLACES: dict[str, Callable[[np.random.Generator, int], Image]] = {
    "studio": _studio,
    "park": _park,
    "beach": _beach,
    "city": _city,
    "mountain": _mountain,
    "room": _room,
    "sunset": _sunset,
}
