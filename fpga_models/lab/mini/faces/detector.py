"""Training of the face detector on rendered scenes: crops at many scales, degraded like real and generated pictures.

Some samples hold no face at all and some faces are painted over, so that skin-coloured blobs do not fire. Half of the
scenes come out of the autoencoder (`autoencoder/decoded.py`), whose smears are those of generated pictures.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fpga_models.idzoom.scenes import Scenes
from fpga_models.lab.mini.faces.loop import Schedule, train
from fpga_models.lab.mini.faces.networks import Detector
from fpga_models.lab.mini.faces.targets import NEGATIVE, Floats, Targets, assign

Image = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """Sampling and loss choices; sides in px at the network's input."""

    decoded: float = 0.5
    side: int = 192
    batch: int = 16
    smallest_face: float = 15.0
    largest_face: float = 190.0
    largest_zoom: float = 3.2
    mosaics: float = 0.6
    clutter: float = 0.05
    faceless: float = 0.12
    painted_over: float = 0.12
    box_weight: float = 2.0
    points_weight: float = 20.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """Scenes with their truth, and the first M of them as the autoencoder gives them back, (M, 128, 128, 3) uint8."""

    scenes: Scenes
    decoded: Image

    def picture(self, share: float, generator: np.random.Generator) -> tuple[Image, int]:
        """Copy the picture of a random scene, decoded with this probability, and return its index too."""
        pictures = self.decoded if len(self.decoded) and generator.random() < share else self.scenes.images
        index = int(generator.integers(len(pictures)))
        return np.array(pictures[index]), index


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One network input: uint8 RGB (S, S, 3) and the faces on it, boxes (F, 4) and points (F, 5, 2) in px."""

    picture: Image
    boxes: Floats
    points: Floats


def draw_sample(source: Source, config: DetectorConfig, generator: np.random.Generator) -> Sample:
    """Cut a random square window of a scene or of four scenes, around one of its faces or away from all of them."""
    draw = mosaic if generator.random() < config.mosaics else one_scene
    whole = draw(source, config.decoded, generator)
    picture = whole.picture
    hidden = generator.random(len(whole.boxes)) < (1.0 if generator.random() < config.faceless else config.painted_over)
    for box in whole.boxes[hidden]:
        paint_over(picture, box, generator)
    boxes, points = whole.boxes[~hidden], whole.points[~hidden]
    zoom, corner = _window(boxes, len(picture), config, generator)
    matrix = np.array([[zoom, 0, -corner[0] * zoom], [0, zoom, -corner[1] * zoom]])
    shrink = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
    border = int(generator.integers(0, 2)) * int(generator.integers(0, 256))  # padding is black when served
    window = cv2.warpAffine(
        picture, matrix, (config.side, config.side), flags=shrink, borderValue=(border, border, border)
    )
    shift = np.array(corner, np.float32) + 0.5 - 0.5 / zoom  # truth counts from pixel edges, warpAffine from centres
    corners = (boxes.reshape(-1, 2, 2) - shift) * zoom
    return Sample(
        picture=degrade(window, generator),
        boxes=corners.reshape(-1, 4).astype(np.float32),
        points=((points - shift) * zoom).astype(np.float32),
    )


def one_scene(source: Source, decoded: float, generator: np.random.Generator) -> Sample:
    """Copy a random scene with its faces."""
    picture, index = source.picture(decoded, generator)
    count = int(source.scenes.count[index])
    return Sample(
        picture=picture,
        boxes=np.array(source.scenes.box[index, :count]),
        points=np.array(source.scenes.kps5[index, :count]),
    )


def mosaic(source: Source, decoded: float, generator: np.random.Generator) -> Sample:
    """Lay four random scenes side by side, two by two: windows of small faces are then not mostly empty."""
    parts = [one_scene(source, decoded, generator) for _ in range(4)]
    side = len(parts[0].picture)
    shifts = [np.array((x, y), np.float32) for y in (0, side) for x in (0, side)]
    rows = [np.concatenate([part.picture for part in parts[row : row + 2]], 1) for row in (0, 2)]
    boxes = [part.boxes + np.tile(shift, 2) for part, shift in zip(parts, shifts, strict=True)]
    points = [part.points + shift for part, shift in zip(parts, shifts, strict=True)]
    return Sample(picture=np.concatenate(rows), boxes=np.concatenate(boxes), points=np.concatenate(points))


def _window(
    boxes: Floats, side: int, config: DetectorConfig, generator: np.random.Generator
) -> tuple[float, tuple[float, float]]:
    """Return zoom and top left corner (picture px) of a window that gives one face a log-uniform side."""
    if len(boxes) == 0:
        zoom = math.exp(generator.uniform(math.log(0.7), math.log(config.largest_zoom)))
        x, y = generator.uniform(0, side, 2)
    else:
        box = boxes[generator.integers(len(boxes))]
        x, y = (box[:2] + box[2:]) / 2
        face = float((box[2:] - box[:2]).max())
        wanted = math.exp(generator.uniform(math.log(config.smallest_face), math.log(config.largest_face)))
        zoom = float(np.clip(wanted / face, 0.4, config.largest_zoom))
    span = config.side / zoom
    place = generator.uniform(0.12, 0.88, 2)
    return zoom, (float(x - place[0] * span), float(y - place[1] * span))


def paint_over(picture: Image, box: Floats, generator: np.random.Generator) -> None:
    """Hide a face under an ellipse or box of one colour, often its own skin, in place."""
    left, top, right, bottom = np.round(box).astype(int)
    inside = picture[max(top, 0) : max(bottom, 1), max(left, 0) : max(right, 1)].reshape(-1, 3)
    own = np.median(inside, 0) if len(inside) else np.zeros(3)
    colour = own if generator.random() < 0.7 else generator.integers(0, 256, 3)
    fill = tuple(int(channel) for channel in colour)
    if generator.random() < 0.7:
        centre = ((left + right) // 2, (top + bottom) // 2)
        axes = (int((right - left) * 0.62), int((bottom - top) * 0.62))
        cv2.ellipse(picture, centre, axes, 0, 0, 360, fill, -1, cv2.LINE_AA)
    else:
        cv2.rectangle(picture, (left - 2, top - 2), (right + 2, bottom + 2), fill, -1)


def degrade(picture: Image, generator: np.random.Generator) -> Image:
    """Blur, add noise, change light, compress: each in some of the samples."""
    if generator.random() < 0.4:
        picture = cv2.GaussianBlur(picture, (0, 0), generator.uniform(0.4, 2.2)).astype(np.uint8)
    if generator.random() < 0.3:
        gain, offset = generator.uniform(0.65, 1.3, 3), generator.uniform(-15, 15)
        picture = np.clip(picture * gain + offset, 0, 255).astype(np.uint8)
    if generator.random() < 0.3:
        noise = generator.normal(0, generator.uniform(2, 14), picture.shape)
        picture = np.clip(picture + noise, 0, 255).astype(np.uint8)
    if generator.random() < 0.25:
        quality = int(generator.integers(30, 95))
        encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        picture = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
    return picture


def clutter(side: int, generator: np.random.Generator) -> Sample:
    """A picture of random shapes or noise without any face."""
    picture = np.full((side, side, 3), generator.integers(0, 256, 3), np.uint8)
    if generator.random() < 0.2:
        picture = generator.integers(0, 256, (side, side, 3)).astype(np.uint8)
    for _ in range(int(generator.integers(0, 14))):
        colour = tuple(int(channel) for channel in generator.integers(0, 256, 3))
        centre = tuple(int(v) for v in generator.integers(0, side, 2))
        axes = tuple(int(v) for v in generator.integers(2, side // 2, 2))
        cv2.ellipse(picture, centre, axes, float(generator.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA)
    none = np.zeros((0, 4), np.float32)
    return Sample(picture=degrade(picture, generator), boxes=none, points=np.zeros((0, 5, 2), np.float32))


def network_input(pictures: list[Image]) -> Tensor:
    """Stack uint8 RGB pictures of one size into (B, 3, S, S) as insightface normalises them for SCRFD."""
    stack = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    return (stack.float() - 127.5) / 128.0


def detection_loss(outputs: tuple[Tensor, Tensor, Tensor], targets: list[Targets], config: DetectorConfig) -> Tensor:
    """Focal loss on scores, generalised IoU on boxes, smooth L1 on keypoints in units of the face.

    Args:
        outputs: logits (B, N), boxes (B, N, 4) and points (B, N, 10) of N anchors.
        targets: B of them.
        config: weights of the terms.
    """
    logits, boxes, points = outputs
    face = torch.from_numpy(np.stack([target.face for target in targets]))
    positive = face >= 0
    asked = face >= NEGATIVE
    count = positive.sum().clamp(min=1)
    score_loss = _focal(logits[asked], positive[asked].float()) / count
    wanted_boxes = torch.from_numpy(np.stack([target.boxes for target in targets]))[positive]
    wanted_points = torch.from_numpy(np.stack([target.points for target in targets]))[positive]
    face_side = (wanted_boxes[:, :2] + wanted_boxes[:, 2:]).amax(1, keepdim=True)
    errors = F.smooth_l1_loss(
        points[positive] / face_side * 10, wanted_points / face_side * 10, reduction="sum", beta=0.1
    )
    box_loss = (1 - _giou(boxes[positive], wanted_boxes)).sum() / count
    return score_loss + config.box_weight * box_loss + config.points_weight * errors / (100 * count)


def _focal(logits: Tensor, wanted: Tensor) -> Tensor:
    """Sum of the focal loss with alpha 0.25 and gamma 2 (Lin et al. 2017, eq. 5)."""
    share = torch.sigmoid(logits)
    miss = torch.where(wanted > 0, 1 - share, share)
    alpha = torch.where(wanted > 0, 0.25, 0.75)
    cross = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return (alpha * miss.square() * cross).sum()


def _giou(got: Tensor, wanted: Tensor) -> Tensor:
    """Generalised IoU (Rezatofighi et al. 2019) of boxes given as distances (n, 4) from one shared point."""
    area_got = (got[:, 0] + got[:, 2]) * (got[:, 1] + got[:, 3])
    area_wanted = (wanted[:, 0] + wanted[:, 2]) * (wanted[:, 1] + wanted[:, 3])
    low, high = torch.minimum(got, wanted), torch.maximum(got, wanted)
    overlap = (low[:, 0] + low[:, 2]).clamp(min=0) * (low[:, 1] + low[:, 3]).clamp(min=0)
    union = (area_got + area_wanted - overlap).clamp(min=1e-6)
    hull = ((high[:, 0] + high[:, 2]) * (high[:, 1] + high[:, 3])).clamp(min=1e-6)
    return overlap / union - (hull - union) / hull


def train_detector(source: Source, path: Path, schedule: Schedule, config: DetectorConfig | None = None) -> Detector:
    """Train on scenes and return the detector in evaluation mode."""
    config = config or DetectorConfig()
    torch.manual_seed(schedule.seed)
    detector = Detector()

    def loss_of(generator: np.random.Generator, share: float) -> Tensor:
        samples = [
            clutter(config.side, generator)
            if generator.random() < config.clutter
            else draw_sample(source, config, generator)
            for _ in range(config.batch)
        ]
        targets = [assign(sample.boxes, sample.points, config.side) for sample in samples]
        batch = network_input([sample.picture for sample in samples])
        with torch.autocast("cpu", torch.bfloat16):
            logits, boxes, points = detector.raw(batch)
        return detection_loss((logits.float(), boxes.float(), points.float()), targets, config)

    train({"detector": detector}, loss_of, schedule, path)
    detector.eval()
    return detector
