"""What DIIR says about its work: every face with its outcome as a code, a sentence and the figures behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fpga_models.diir.crops import Crop
from fpga_models.diir.gate import Refusal
from fpga_models.diir.picture import Floats, Picture

Outcome = Literal["changed", "no_reference"] | Refusal
REASONS: dict[Outcome, str] = {
    "changed": "The face was edited: it is more like its person and in its place.",
    "no_reference": "No reference belongs to this face.",
    "similarity_did_not_rise": "Every edit was no more like the person than the original, which stays.",
    "landmarks_moved": "Every edit moved the face's landmarks too far; the original stays.",
    "face_lost": "No face was found where the edit should be; the original stays.",
}
NO_FACE = "No face was found in the picture; it comes back unchanged."
NO_PAIR = "No face of the picture belongs to a reference; it comes back unchanged."


@dataclass(frozen=True, kw_only=True)
class FaceReport:
    """What happened to one face.

    Attributes:
        box: left, top, right, bottom in px.
        reference: index of its reference, None without one.
        outcome, reason: what was decided, as a code and as a sentence.
        before, after: cosine to the reference of the original and of the last try; None where nothing was tried.
        landmark_shift: of the last try, in distances of the eyes.
        t_star: of the last try. attempts: how many there were.
        crop: the square that was edited.
    """

    box: tuple[float, float, float, float]
    reference: int | None
    outcome: Outcome
    before: float | None = None
    after: float | None = None
    landmark_shift: float | None = None
    t_star: float | None = None
    attempts: int = 0
    crop: Crop | None = None

    @property
    def changed(self) -> bool:
        """Whether the picture holds an edited face now."""
        return self.outcome == "changed"

    @property
    def reason(self) -> str:
        """The outcome as a sentence."""
        return REASONS[self.outcome]


@dataclass(frozen=True, kw_only=True, eq=False)
class DiirResult:
    """The picture in its own format, what happened to each face from left to right, and where anything may differ.

    Attributes:
        image: same shape and type as the input.
        faces: one report per face found, those the detector missed at known places last.
        mask: (H, W) largest weight with which an edited face was pasted; 0 means bit-identical.
        reason: why nothing was tried, None otherwise.
    """

    image: Picture
    faces: tuple[FaceReport, ...]
    mask: NDArray[np.float32]
    reason: str | None = None


def as_box(box: Floats) -> tuple[float, float, float, float]:
    """A box (4,) as plain numbers."""
    left, top, right, bottom = (float(value) for value in box)
    return left, top, right, bottom
