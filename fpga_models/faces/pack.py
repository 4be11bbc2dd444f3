"""A folder of ONNX face networks as the product uses it: detect, align, embed.

Any folder that `insightface.app.FaceAnalysis` reads works, with a `pack.json` beside the files. Knows nothing of
identities, portraits or thresholds of similarity.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
from insightface.app import FaceAnalysis
from numpy.typing import NDArray

from fpga_models.core.alignment import align
from fpga_models.faces.errors import FacePackError, PictureError
from fpga_models.faces.settings import PackSettings, read_settings

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]
MODULES = ("detection", "recognition")
CLOSE_SIDE = 128
"""Besides `det_size` px, pictures are looked at this small: a detector misses faces that fill what it sees
(insightface's own default) [field]."""

ACCELERATORS = ("cuda", "mps", "xpu")

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Face:
    """One face: `box` (4,) left, top, right, bottom in px, `kps5` (5, 2) px, `score` in [0, 1], `embedding` (E,).

    The keypoints are the eyes, nose tip and mouth corners, image-left first. Coordinates count from the picture's edge,
    so that they scale with it: the middle of the first pixel is 0.5. The embedding is L2-normalised.
    """

    box: Floats
    kps5: Floats
    score: float
    embedding: Floats


class FacePack:
    """Detector and recogniser of one folder, warm in this process."""

    def __init__(self, analysis: FaceAnalysis, settings: PackSettings) -> None:
        self._detector = analysis.models["detection"]
        self._recogniser = analysis.models["recognition"]
        self.settings = settings
        self.encoder_sha256 = settings.sha256[Path(self._recogniser.model_file).name]
        """Names the recogniser: embeddings of two recognisers must never be compared."""
        self.provider: str = self._recogniser.session.get_providers()[0]
        """What onnxruntime runs it on."""
        self.width = int(self._recogniser.output_shape[1])
        """Numbers of an embedding."""

    @classmethod
    def load(cls, directory: str | Path, *, device: str = "cpu", threads: int = 1) -> "FacePack":
        """Load a pack.

        Args:
            directory: folder with `pack.json`, one detector and one recogniser.
            device: "cpu", "cuda" or "cuda:N".
            threads: what onnxruntime may use inside one operator; one process per device shares the machine.

        Raises:
            FacePackError: the folder is not a whole, unchanged pack, or the device has an unknown name.
        """
        directory = Path(directory).resolve()
        settings = read_settings(directory)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        try:
            analysis = FaceAnalysis(
                name=str(directory),
                root=str(directory.parent),
                allowed_modules=list(MODULES),
                providers=providers(device),
                sess_options=options,
            )
        except AssertionError as error:  # insightface's way to say that no file is a detector
            raise FacePackError(f"{directory} holds no face detector.") from error
        if "recognition" not in analysis.models:
            raise FacePackError(f"{directory} holds no face recogniser.")
        side = settings.det_size
        sides = sorted({CLOSE_SIDE, side}) if settings.close_ups else [side]
        analysis.prepare(ctx_id=0, det_thresh=settings.det_thresh, det_size=[(each, each) for each in sides])
        return cls(analysis, settings)

    def detect(self, image: Image) -> list[Face]:
        """Find and embed every face of an RGB picture (H, W, 3) uint8, sorted from left to right.

        Raises:
            PictureError: any other shape or type.
        """
        return self.embedded(image, self.find(image))

    def find(self, image: Image) -> list[Face]:
        """Find every face of an RGB picture (H, W, 3) uint8, from left to right; their embeddings are empty.

        Raises:
            PictureError: any other shape or type.
        """
        _check_picture(image)
        boxes, points = self._detector.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        order: list[int] = np.argsort(boxes[:, 0] + boxes[:, 2]).tolist() if len(boxes) else []
        nothing = np.zeros(0, np.float32)
        return [
            Face(
                box=boxes[index, :4].astype(np.float32),
                kps5=points[index].astype(np.float32),
                score=float(boxes[index, 4]),
                embedding=nothing,
            )
            for index in order
        ]

    def embedded(self, image: Image, faces: Sequence[Face]) -> list[Face]:
        """Return faces of a picture with their embeddings, all in one pass."""
        vectors = self.embed_crops([align(image, face.kps5) for face in faces])
        return [replace(face, embedding=vector) for face, vector in zip(faces, vectors, strict=True)]

    def embed(self, image: Image, kps5: Floats) -> Floats:
        """Embed the face at known landmarks (5, 2) px of an RGB picture; returns (E,), L2-normalised.

        Raises:
            PictureError, LandmarksError: another shape or type.
        """
        _check_picture(image)
        embedding: Floats = self.embed_crops([align(image, kps5)])[0]
        return embedding

    def embed_crops(self, crops: Sequence[Image]) -> Floats:
        """Embed aligned RGB crops, each (112, 112, 3) uint8; returns (N, E), rows L2-normalised."""
        if not crops:
            return np.zeros((0, self.width), np.float32)
        found = self._recogniser.get_feat([cv2.cvtColor(crop, cv2.COLOR_RGB2BGR) for crop in crops])
        norms = np.linalg.norm(found, axis=1, keepdims=True)
        embeddings: Floats = (found / np.maximum(norms, 1e-12)).astype(np.float32)
        return embeddings


def _check_picture(image: Image) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        got = f"{image.dtype} {image.shape}"
        raise PictureError(f"An RGB picture, uint8 (H, W, 3), is wanted, got {got}.")


def providers(device: str) -> list[str | tuple[str, dict[str, str]]]:
    """Return what onnxruntime calls a device: "cpu", "cuda" or "cuda:N".

    Where the installed onnxruntime has no provider for it, the processor does the work and the log says so once: face
    networks take milliseconds there.

    Raises:
        FacePackError: no device has such a name.
    """
    kind, _, index = device.partition(":")
    if kind == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        return [("CUDAExecutionProvider", {"device_id": index or "0"}), "CPUExecutionProvider"]
    if kind not in ("cpu", *ACCELERATORS):
        raise FacePackError(f"There is no device {device!r}; cpu, cuda and cuda:N are known.")
    if kind != "cpu":
        _say_once(kind)
    return ["CPUExecutionProvider"]


@lru_cache
def _say_once(kind: str) -> None:
    log.warning(
        "face networks run on the processor: the installed onnxruntime has no %s provider (docs/presets.md, extra gpu)",
        kind,
    )
