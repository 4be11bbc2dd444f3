"""Is a generated face as sharp as a real one in the same pose? Gradient energy, no filter before or after. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fpga_models.lab.synthetic import PersonTruth
from fpga_models.metrics.statistics import bootstrap_ratio_ci95

Image = NDArray[np.uint8]
Floats = NDArray[np.floating]
INSET = 0.15  # share of the face box that is left out on each side: hair and background are no part of the face
BAND = (0.55, 0.4)  # how far the eye band reaches beyond the eyes sideways, and up and down, in eye distances [ours]


@dataclass(frozen=True, kw_only=True)
class Sharpness:
    """Mean gradient energy over that of real renders at the same places; `ci95` of `face`, redrawing faces."""

    face: float
    eyes: float
    ci95: tuple[float, float]
    eyes_ci95: tuple[float, float]


def energies(picture: Image, person: PersonTruth) -> tuple[float, float]:
    """Return the energy inside the face and in the eye band of an RGB picture, where the person stands."""
    x0, y0, x1, y1 = person.box
    dx, dy = INSET * (x1 - x0), INSET * (y1 - y0)
    left, right = person.kps5[0], person.kps5[1]
    apart = max(float(np.linalg.norm(right - left)), 1.0)
    low, high = np.minimum(left, right), np.maximum(left, right)
    sideways, upright = BAND[0] * apart, BAND[1] * apart
    eyes = (low[0] - sideways, low[1] - upright, high[0] + sideways, high[1] + upright)
    return _energy(picture, (x0 + dx, y0 + dy, x1 - dx, y1 - dy)), _energy(picture, eyes)


def sharpness(pictures: Sequence[Image], real: Sequence[Image], people: Sequence[PersonTruth]) -> Sharpness:
    """Compare pictures with real ones of the same scenes, one person each."""
    made, true = (
        np.array([energies(picture, person) for picture, person in zip(some, people, strict=True)]).reshape(-1, 2)
        for some in (pictures, real)
    )
    face, eyes = made.sum(0) / np.maximum(true.sum(0), 1e-9)
    return Sharpness(
        face=float(face),
        eyes=float(eyes),
        ci95=bootstrap_ratio_ci95(made[:, 0], true[:, 0]),
        eyes_ci95=bootstrap_ratio_ci95(made[:, 1], true[:, 1]),
    )


def _energy(picture: Image, box: tuple[float, float, float, float]) -> float:
    """Mean squared difference of neighbouring pixels in a box of at least 2x2 px, both ways, all channels."""
    height, width = picture.shape[:2]
    x0, y0 = min(max(int(box[0]), 0), width - 2), min(max(int(box[1]), 0), height - 2)
    x1, y1 = min(max(round(box[2]), x0 + 2), width), min(max(round(box[3]), y0 + 2), height)
    inside = picture[y0:y1, x0:x1].astype(np.float64)
    return float((np.diff(inside, axis=0) ** 2).mean() + (np.diff(inside, axis=1) ** 2).mean())
