"""Drawn or photographed? Told by the outlines of a face and by what the drawn world's recogniser makes of it.

One linear score of two descriptions of the aligned face: histograms of oriented gradients (Dalal and Triggs 2005), as
drawings have other outlines than photographs, and the raw embedding by the recogniser of the drawn world, which strays
where that has never been. Two bounds leave a border between them in which nobody can tell. The weights are fitted by
`fpga_models.lab.domain_guard`, which prints the miss rates. The same guard serves every preset: those made for drawn
people must not touch photographs, and those made for photographs must not touch drawings [ours].
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from safetensors import safe_open
from skimage.feature import hog

from fpga_models.core.presets import SHIPPED, Domain, preset_directory
from fpga_models.errors import WeightsError

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]
Kind = Literal["drawn", "photographs", "border"]
WORLD = "mini"
"""The preset whose recogniser is asked; the weights were fitted to this very one."""
FILE = SHIPPED / "domain_guard.safetensors"


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Scores below `drawn` are those of drawn faces, above `photographs` of real ones; the border lies between."""

    drawn: float
    photographs: float

    def kind(self, score: float) -> Kind:
        """The domain of one face, or of several by their mean score."""
        if score < self.drawn:
            return "drawn"
        return "photographs" if score > self.photographs else "border"


class DomainGuard:
    """The recogniser of the drawn world and the linear score, warm in this process.

    Attributes:
        one: bounds of a single face.
        several: bounds of the mean over three faces or more of one person or one picture.
    """

    def __init__(self, session: onnxruntime.InferenceSession, weights: Floats, one: Bounds, several: Bounds) -> None:
        self._session = session
        self._weights = weights
        self.one, self.several = one, several

    @classmethod
    def load(cls, file: Path = FILE) -> DomainGuard:
        """Load what is shipped.

        Raises:
            PresetError, WeightsError: the drawn world is not installed, or the file is not whole.
        """
        try:
            with safe_open(str(file), framework="numpy") as opened:
                weights, facts = opened.get_tensor("weights"), opened.metadata() or {}
            one, several = (Bounds(**json.loads(facts[name])) for name in ("one", "several"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WeightsError(f"{file.name} is no domain guard: {error!r}.") from error
        return cls(recogniser(), weights.astype(np.float32), one, several)

    def scores(self, crops: Sequence[Image]) -> list[float]:
        """One number for each aligned crop (112, 112, 3) uint8 RGB: below 0 drawn, above 0 photographed."""
        if not crops:
            return []
        found: list[float] = (describe(self._session, crops) @ self._weights[:-1] + self._weights[-1]).tolist()
        return found

    def kinds(self, scores: Sequence[float]) -> list[Kind]:
        """The kind of each face of one picture; a face that the others of the picture contradict is at the border."""
        together = self.together(scores)
        own = [self.one.kind(score) for score in scores]
        return [kind if together in (kind, "border") else "border" for kind in own]

    def together(self, scores: Sequence[float]) -> Kind:
        """The kind of several faces of one person or one picture by their mean score; `border` for none."""
        if not scores:
            return "border"
        bounds = self.several if len(scores) >= 3 else self.one
        return bounds.kind(float(np.mean(scores)))


def recogniser() -> onnxruntime.InferenceSession:
    """The recogniser of the drawn world.

    Raises:
        PresetError: it is not installed.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    path = preset_directory(WORLD) / "faces" / "recogniser.onnx"
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def describe(session: onnxruntime.InferenceSession, crops: Sequence[Image]) -> Floats:
    """Describe aligned crops, each (112, 112, 3) uint8 RGB; returns (N, 1296 + E) float32."""
    outlines = [hog(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), 9, (16, 16), (2, 2)) for crop in crops]
    pixels = np.stack(crops).astype(np.float32).transpose(0, 3, 1, 2) / 127.5 - 1
    (raw,) = session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(pixels)})
    return np.concatenate([np.stack(outlines).astype(np.float32), raw.astype(np.float32)], axis=1)


def is_inside(kind: Kind, domain: Domain) -> bool:
    """Whether a preset of this domain may touch a face of this kind; at the border nobody may."""
    return kind == domain
