"""How well the exported detector finds faces: figures on freshly rendered people that no training ever saw.

Measures through insightface's own decoder, as the product will use it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from insightface.model_zoo import get_model
from numpy.typing import NDArray

from fpga_models.lab.mini.faces.detector import paint_over
from fpga_models.lab.synthetic import KINDS, Rendered, random_scene, render

HELD_OUT_IDENTITIES = 100_000
SMALLEST_OVERLAP = 0.4
Image = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Detection:
    """`points_error` is the mean keypoint distance over the distance of the eyes, of the faces found."""

    recall: float
    precision: float
    points_error: float
    false_per_faceless: float
    faces: int


def held_out_scenes(seed: int, count: int, size: int = 128, *, fine: bool = False) -> list[Rendered]:
    """Render scenes of all kinds in turn with people that no training saw."""
    rng = np.random.default_rng([seed, 1])
    scenes = []
    for index in range(count):
        kind = KINDS[index % len(KINDS)]
        people = int(kind[-1]) if kind.startswith("group_") else 1
        identities = HELD_OUT_IDENTITIES + rng.choice(1_000_000, people, replace=False)
        scenes.append(render(random_scene(rng, identities.tolist(), kind, size, fine=fine)))
    return scenes


def overlap(first: Floats, second: Floats) -> Floats:
    """Return the IoU matrix (N, M) of boxes (N, 4) and (M, 4)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (first, second)]
    result: Floats = shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-6)
    return result


def detection_figures(detector: Path, scenes: Iterable[Rendered], *, det_size: int, det_thresh: float) -> Detection:
    """Run the ONNX detector over scenes, and over the same scenes with every face painted over."""
    model = get_model(str(detector), providers=["CPUExecutionProvider"])
    model.prepare(0, input_size=(det_size, det_size), det_thresh=det_thresh)
    rng = np.random.default_rng(3)
    wanted = found = right = false = faceless = 0
    errors: list[float] = []
    for scene in scenes:
        boxes, points = model.detect(cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR))
        truth = np.array([person.box for person in scene.people], np.float32)
        wanted, found = wanted + len(truth), found + len(boxes)
        if len(boxes):
            shares = overlap(truth, boxes[:, :4])
            right += int((shares.max(1) >= SMALLEST_OVERLAP).sum())
            for index in np.flatnonzero(shares.max(1) >= SMALLEST_OVERLAP):
                errors.append(_points_error(points[shares[index].argmax()], scene.people[index].kps5))
        hidden = scene.image.copy()
        for box in truth:
            paint_over(hidden, box, rng)
        false += len(model.detect(cv2.cvtColor(hidden, cv2.COLOR_RGB2BGR))[0])
        faceless += 1
    return Detection(
        recall=right / wanted,
        precision=right / max(found, 1),
        points_error=float(np.mean(errors)) if errors else 1.0,
        false_per_faceless=false / faceless,
        faces=wanted,
    )


def _points_error(got: Floats, wanted: Floats) -> float:
    eyes = float(np.linalg.norm(wanted[0] - wanted[1]))
    return float(np.linalg.norm(got - wanted, axis=1).mean()) / max(eyes, 1e-6)
