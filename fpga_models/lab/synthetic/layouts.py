"""Canonical places for one to four people, offered by the product by name."""

from dataclasses import dataclass

import numpy as np

from fpga_models.lab.synthetic.canvas import Points
from fpga_models.lab.synthetic.render import truth
from fpga_models.lab.synthetic.scene import Person, Pose

# centre of the head and half its height, as fractions of the side: the middle of what sampling.py draws
_PLACES: dict[str, tuple[tuple[float, float, float], ...]] = {
    "portrait": ((0.5, 0.48, 0.31),),
    "half_body": ((0.5, 0.31, 0.175),),
    "full_body": ((0.5, 0.142, 0.097),),
    "group_2": ((0.28, 0.36, 0.16), (0.72, 0.36, 0.16)),
    "group_3": ((0.19, 0.37, 0.13), (0.5, 0.35, 0.13), (0.81, 0.37, 0.13)),
    "group_4": ((0.14, 0.38, 0.103), (0.38, 0.35, 0.103), (0.62, 0.35, 0.103), (0.86, 0.38, 0.103)),
}
_MEDIAN_SEED = 2217  # a person of middling proportions


@dataclass(frozen=True, kw_only=True)
class Slot:
    """Where one person goes, in fractions of the side: face box, kps5 (5, 2) and skeleton (18, 3; visible last)."""

    box: tuple[float, float, float, float]
    kps5: Points
    skeleton: Points


def layouts() -> dict[str, list[Slot]]:
    """The slots of every layout, from left to right."""
    return {name: [_slot(*place) for place in places] for name, places in _PLACES.items()}


def _slot(x: float, y: float, unit: float) -> Slot:
    side = 1024
    found = truth(Person(identity=_MEDIAN_SEED, pose=Pose(x=x, y=y, unit=unit)), side)
    x0, y0, x1, y1 = (value / side for value in found.box)
    skeleton = found.skeleton.copy()
    skeleton[:, :2] /= side
    return Slot(box=(x0, y0, x1, y1), kps5=(found.kps5 / side).astype(np.float32), skeleton=skeleton)
