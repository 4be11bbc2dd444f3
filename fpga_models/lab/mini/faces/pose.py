"""The mini pose network: joints of one marked person as soft-argmax of heat maps, trained on rendered scenes.

    python -m fpga_models.lab.mini.faces.pose --data var/mini --out var/mini/faces --minutes 9

Integral regression (Sun et al. 2018): a joint is the mean place of its heat, so small maps give sub-pixel points.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from fpga_models.core.weights import file_sha256
from fpga_models.faces.pose import FILE_NAME, JOINTS, PoseNetwork, cut_window
from fpga_models.idzoom.scenes import Scenes, open_scenes
from fpga_models.lab.mini.faces.detector import Sample, degrade
from fpga_models.lab.mini.faces.export import LICENCE, export_pose
from fpga_models.lab.mini.faces.loop import Schedule, train

Floats = NDArray[np.float32]
SIDE = 96
GRID = 24
BATCH = 32
THRESHOLD = 0.5
SEEN_WEIGHT = 0.1


class Block(nn.Module):
    """x + conv(relu(norm(conv(x))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        result: Tensor = x + self.conv2(F.relu(self.norm(self.conv1(x))))
        return result


class MiniPose(nn.Module):
    """Window (B, 4, 96, 96) to points (B, 18, 2) in window px and how surely each is seen (B, 18) in [0, 1]."""

    def __init__(self, width: int = 36) -> None:
        super().__init__()
        wide = 2 * width
        self.stem = nn.Sequential(
            nn.Conv2d(4, width // 2, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(width // 2, width, 3, 2, 1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            Block(width),
        )
        self.down = nn.Sequential(nn.Conv2d(width, wide, 3, 2, 1), nn.BatchNorm2d(wide), nn.ReLU(), Block(wide))
        self.deep = nn.Sequential(nn.Conv2d(wide, wide, 3, 2, 1), nn.BatchNorm2d(wide), nn.ReLU(), Block(wide))
        self.back = Block(wide)
        self.narrow = nn.Conv2d(wide, width, 1)
        self.heat = nn.Sequential(Block(width), nn.ReLU(), nn.Conv2d(width, JOINTS, 1))
        self.seen = nn.Linear(wide, JOINTS)

    def raw(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Points (B, 18, 2) in window px and visibility logits (B, 18)."""
        fine = self.stem(x)  # (B, C, 24, 24)
        middle = self.down(fine)  # (B, 2C, 12, 12)
        deep = self.deep(middle)  # (B, 2C, 6, 6)
        middle = self.back(middle + F.interpolate(deep, scale_factor=2.0, mode="nearest"))
        fine = fine + F.interpolate(self.narrow(middle), scale_factor=2.0, mode="nearest")
        heat = torch.softmax(self.heat(fine).flatten(2), dim=2).reshape(-1, JOINTS, GRID, GRID)
        places = (torch.arange(GRID, device=x.device, dtype=x.dtype) + 0.5) * (SIDE / GRID)
        points = torch.stack([(heat.sum(2) * places).sum(2), (heat.sum(3) * places).sum(2)], 2)
        return points, self.seen(deep.mean((2, 3)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Points and shares, as exported."""
        points, logits = self.raw(x)
        return points, torch.sigmoid(logits)


@dataclass(frozen=True, kw_only=True)
class PoseSample:
    """A window's planes (4, 96, 96) and its truth: points (18, 2) in window px, seen (18,) 0 or 1."""

    planes: Floats
    points: Floats
    seen: Floats


def draw_sample(scenes: Scenes, people: NDArray[np.int64], generator: np.random.Generator) -> PoseSample:
    """A random person of `people` (N, 2), scene and place, in a picture cut at random and degraded, the box shaken."""
    scene, place = people[generator.integers(len(people))]
    box = np.array(scenes.box[scene, place])
    picture, shift = _cut(np.array(scenes.images[scene]), box, generator)
    span = np.tile(box[2:] - box[:2], 2)
    shaken = (box - np.tile(shift, 2) + span * generator.normal(0, 0.04, 4)).astype(np.float32)
    window = cut_window(degrade(picture, generator), shaken, SIDE)
    truth = np.array(scenes.skeleton[scene, place])
    points = truth[:, :2] - shift
    inside = ((points >= 0) & (points < (picture.shape[1], picture.shape[0]))).all(1)
    return PoseSample(
        planes=window.planes,
        points=((points - window.corner) * window.zoom).astype(np.float32),
        seen=np.asarray(inside, np.float32),
    )


def _cut(picture: NDArray[np.uint8], box: Floats, generator: np.random.Generator) -> tuple[NDArray[np.uint8], Floats]:
    """Cut the borders off in half of the samples, never through the face."""
    height, width = picture.shape[:2]
    if generator.random() < 0.5:
        return picture, np.zeros(2, np.float32)
    x0, y0, x1, y1 = np.clip(np.round(box), 0, (width, height, width, height)).astype(int)
    left, top = (int(generator.integers(0, max(1, edge + 1))) for edge in (x0, y0))
    right, bottom = int(generator.integers(x1, width + 1)), int(generator.integers(y1, height + 1))
    right, bottom = max(right, left + 8), max(bottom, top + 8)
    return np.ascontiguousarray(picture[top:bottom, left:right]), np.array([left, top], np.float32)


def pose_loss(outputs: tuple[Tensor, Tensor], points: Tensor, seen: Tensor) -> Tensor:
    """L1 of the seen points in window px, plus the cross entropy of being seen.

    Args:
        outputs: points (B, 18, 2) and logits of being seen (B, 18).
        points: (B, 18, 2), window px.
        seen: (B, 18), 0 or 1.
    """
    got, logits = outputs
    distance = (got - points).abs().sum(2)  # (B, 18)
    missed = (distance * seen).sum() / seen.sum().clamp(min=1)
    return missed / SIDE * 10 + SEEN_WEIGHT * F.binary_cross_entropy_with_logits(logits, seen)


def train_pose(scenes: Scenes, checkpoint: Path, schedule: Schedule) -> MiniPose:
    """Train on all people of these scenes, resuming from the checkpoint if it is there."""
    torch.manual_seed(schedule.seed)
    network = MiniPose()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack this form
    people = np.argwhere(scenes.identity >= 0)

    def loss(generator: np.random.Generator, _: float) -> Tensor:
        samples = [draw_sample(scenes, people, generator) for _ in range(BATCH)]
        planes = torch.from_numpy(np.stack([s.planes for s in samples])).contiguous(memory_format=torch.channels_last)
        points, seen = (torch.from_numpy(np.stack([getattr(s, n) for s in samples])) for n in ("points", "seen"))
        return pose_loss(network.raw(planes), points, seen)

    train({"pose": network}, loss, schedule, checkpoint)
    return network


def pose_figures(network: PoseNetwork, samples: list[tuple[Sample, Floats]]) -> dict[str, float]:
    """PCK on pictures with known faces: share of the seen body joints found within a tenth and a fifth of the body.

    The body is the longer side of the true skeleton's extent, never less than two face heights; nose and eyes, which
    come from the landmarks, are left out. `seen` is the share of joints rightly called seen or not.
    """
    near, nearer, right, count, joints = 0.0, 0.0, 0.0, 0, 0
    body = np.setdiff1d(np.arange(JOINTS), [0, 14, 15])
    for sample, truth in samples:
        found = network.skeletons(sample.picture, sample.boxes, sample.points)
        for got, wanted, box in zip(found, truth, sample.boxes, strict=True):
            real = wanted[:, 2] > 0
            extent = np.ptp(wanted[real, :2], axis=0).max(initial=0.0)
            scale = max(float(extent), 2 * float(box[3] - box[1]))
            distance = np.linalg.norm(got[body, :2] - wanted[body, :2], axis=1) / scale
            there = real[body]
            hit = there & (got[body, 2] > 0)
            near += float((hit & (distance < 0.2)).sum())
            nearer += float((hit & (distance < 0.1)).sum())
            right += float(((got[body, 2] > 0) == there).sum())
            count, joints = count + int(there.sum()), joints + len(body)
    return {
        "pck@0.1": round(nearer / max(count, 1), 4),
        "pck@0.2": round(near / max(count, 1), 4),
        "seen": round(right / max(joints, 1), 4),
        "joints": count,
    }


def held_out_people(scenes: Scenes, count: int) -> list[tuple[Sample, Floats]]:
    """The first `count` scenes with their faces and true skeletons (K, 18, 3)."""
    found = []
    for index in range(min(count, len(scenes))):
        people = int(scenes.count[index])
        sample = Sample(
            picture=np.array(scenes.images[index]),
            boxes=np.array(scenes.box[index, :people]),
            points=np.array(scenes.kps5[index, :people]),
        )
        found.append((sample, np.array(scenes.skeleton[index, :people])))
    return found


def ship(network: MiniPose, folder: Path) -> None:
    """Write the folder that `PoseNetwork.load` reads."""
    path = folder / "pose.onnx"
    export_pose(network, path, side=SIDE)
    settings = {"side": SIDE, "threshold": THRESHOLD, "licence": LICENCE, "sha256": file_sha256(path)}
    (folder / FILE_NAME).write_text(json.dumps(settings, indent=2) + "\n")


def main() -> None:
    """Train, export and print the figures on people that were never seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("var/mini"), help="folder with scenes/ and scenes_test/")
    parser.add_argument("--out", type=Path, default=Path("var/mini/faces"))
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)
    schedule = Schedule(minutes=options.minutes, seed=options.seed, lr=3e-3, muon=True)
    checkpoint = options.out / "checkpoints" / "pose"
    ship(train_pose(open_scenes(options.data / "scenes"), checkpoint, schedule), options.out / "pose")
    unseen = held_out_people(open_scenes(options.data / "scenes_test"), 400)
    figures = pose_figures(PoseNetwork.load(options.out / "pose"), unseen)
    sys.stdout.write(json.dumps({"part": "pose", "file": str(options.out / "pose" / "pose.onnx"), **figures}) + "\n")


if __name__ == "__main__":
    main()
