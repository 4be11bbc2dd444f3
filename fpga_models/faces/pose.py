"""Body skeletons behind the same kind of border as the face pack: a folder with one ONNX network and `pose.json`.

The network is shown one person at a time: a window of the picture around the body that a face belongs to, with the
face marked, so that groups need no grouping of joints [ours]. Knows nothing of who the person is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from fpga_models.core.weights import file_sha256
from fpga_models.faces.errors import FacePackError
from fpga_models.faces.pack import providers

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]
FILE_NAME = "pose.json"
JOINTS = 18
NOSE, RIGHT_EYE, LEFT_EYE = 0, 14, 15
REACH = (1.75, 1.3, 5.25)
"""How far a body reaches from the middle of its face, in face heights: to either side, up, down [ours]."""


@dataclass(frozen=True, kw_only=True)
class PoseSettings:
    """Input side in px, visibility threshold in (0, 1), licence, sha256 of `pose.onnx`."""

    side: int
    threshold: float
    licence: str
    sha256: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Window:
    """Part of a picture as the network sees it: `planes` (4, S, S) RGB in [-1, 1] and the mark; px = xy/zoom + corner.

    The mark is 1 on the face, 0 elsewhere in the picture, -1 outside it.
    """

    planes: Floats
    zoom: float
    corner: Floats


class PoseNetwork:
    """The pose network of one folder, warm in this process."""

    def __init__(self, session: onnxruntime.InferenceSession, settings: PoseSettings) -> None:
        self._session = session
        self.settings = settings
        self.sha256 = settings.sha256

    @classmethod
    def load(cls, directory: str | Path, *, device: str = "cpu", threads: int = 1) -> PoseNetwork:
        """Load `pose.onnx` of a folder on "cpu", "cuda" or "cuda:N".

        Raises:
            FacePackError: the folder is not whole, was altered, or the device has no onnxruntime provider.
        """
        settings = read_settings(Path(directory))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        path = str(Path(directory) / "pose.onnx")
        return cls(onnxruntime.InferenceSession(path, options, providers=providers(device)), settings)

    def skeletons(self, image: Image, boxes: Floats, kps5: Floats) -> Floats:
        """Skeletons (K, 18, 3) of the people with these faces: OpenPose-18, x and y in px, 1 for seen, else zeros.

        Args:
            image: (H, W, 3) uint8 RGB.
            boxes: (K, 4) faces from hairline to chin, left, top, right, bottom in px.
            kps5: (K, 5, 2) px; nose and eyes are taken from here, where they are exact.
        """
        if len(boxes) == 0:
            return np.zeros((0, JOINTS, 3), np.float32)
        windows = [cut_window(image, box, self.settings.side) for box in boxes]
        points, seen = self._session.run(None, {"input": np.stack([window.planes for window in windows])})
        height, width = image.shape[:2]
        found = np.zeros((len(boxes), JOINTS, 3), np.float32)
        for place, window in enumerate(windows):
            found[place, :, :2] = points[place] / window.zoom + window.corner
            found[place, :, 2] = seen[place] > self.settings.threshold
        found[:, [NOSE, RIGHT_EYE, LEFT_EYE], :2] = kps5[:, [2, 0, 1]]
        found[:, [NOSE, RIGHT_EYE, LEFT_EYE], 2] = 1
        inside = ((found[..., :2] >= 0) & (found[..., :2] < (width, height))).all(-1)
        found[~inside | (found[..., 2] == 0)] = 0
        return found


def heads(kps5: Floats) -> Floats:
    """Skeletons (K, 18, 3) of which nothing is known but nose and eyes, given landmarks (K, 5, 2) px."""
    found = np.zeros((len(kps5), JOINTS, 3), np.float32)
    found[:, [NOSE, RIGHT_EYE, LEFT_EYE], :2] = kps5[:, [2, 0, 1]]
    found[:, [NOSE, RIGHT_EYE, LEFT_EYE], 2] = 1
    return found


def cut_window(image: Image, box: Floats, side: int) -> Window:
    """Cut the body of the face `box` out of a picture, as far as it lies inside, fitted into a square of `side` px."""
    height, width = image.shape[:2]
    x, y, face = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, max(float(box[3] - box[1]), 1.0)
    across, up, down = (reach * face for reach in REACH)
    left, top = max(0.0, x - across), max(0.0, y - up)
    right, bottom = min(float(width), x + across), min(float(height), y + down)
    zoom = side / max(right - left, bottom - top, 1.0)
    corner = np.array([left, top], np.float32)
    shift = corner + 0.5 - 0.5 / zoom  # OpenCV counts from pixel centres, we from the picture's edge
    matrix = np.array([[zoom, 0, -shift[0] * zoom], [0, zoom, -shift[1] * zoom]])
    how = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
    cut = cv2.warpAffine(image, matrix, (side, side), flags=how, borderValue=(0.0, 0.0, 0.0))
    mark = np.full((side, side), -1, np.float32)
    mark[: max(1, round((bottom - top) * zoom)), : max(1, round((right - left) * zoom))] = 0
    corners = np.clip(np.round((np.asarray(box).reshape(2, 2) - corner) * zoom), 0, side).astype(int)
    mark[corners[0, 1] : corners[1, 1], corners[0, 0] : corners[1, 0]] = 1
    planes = np.concatenate([cut.transpose(2, 0, 1).astype(np.float32) / 127.5 - 1, mark[None]])
    return Window(planes=planes, zoom=zoom, corner=corner)


def read_settings(directory: Path) -> PoseSettings:
    """Read and check `pose.json`.

    Raises:
        FacePackError: there is none, it lacks a value or has an impossible one, or the network is missing or altered.
    """
    path, network = directory / FILE_NAME, directory / "pose.onnx"
    if not path.is_file() or not network.is_file():
        raise FacePackError(f"No pose network at {directory}: {FILE_NAME} and pose.onnx are wanted there.")
    try:
        settings = PoseSettings(**json.loads(path.read_text()))
    except (TypeError, ValueError) as error:
        raise FacePackError(f"{path} must hold side, threshold, licence and sha256: {error}.") from error
    if settings.side < 32 or not 0 < settings.threshold < 1:
        got = f"side {settings.side} and threshold {settings.threshold}"
        raise FacePackError(f"{path} has {got}; wanted are at least 32 and a number between 0 and 1.")
    if (got := file_sha256(network)) != settings.sha256:
        raise FacePackError(f"{network} has sha256 {got}; {FILE_NAME} wants {settings.sha256}.")
    return settings
