"""The knobs of DIIR, all [ours] within the ranges that suit published relatives, each switchable for ablation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from fpga_models.core.presets import Preset
from fpga_models.errors import PresetError, RequestError

Pairing = Literal["likeness", "map"]
Task = Literal["restore", "swap", "stylized"]


@dataclass(frozen=True, kw_only=True)
class DiirSettings:
    """How faces are edited; the defaults are those of `RESTORE`.

    Attributes:
        t_star: how far the picture is inverted, as a share of the training timesteps, in (0, 1].
        steps: DDIM steps between clean and t_star, the same each way; a gentler retry takes fewer, see `steps_at`.
        guidance: towards the identity while sampling back; inversion always runs without [paper: DDIM inversion].
        id_scale: strength of the global identity tokens; 0 leaves them out.
        local_scale: strength of the local ones, where the references bring crops and the adapter has the branch.
        gamma: share of the noise inside the mask that is drawn afresh, in [0, 1]: a blurred crop inverts to an
            over-smooth code. 1 forgets the inversion there.
        inversion: False noises the crop at random instead of inverting it (ablation).
        own_identity: invert with the identity that the face has now, so that the difference of the two is the whole
            edit; False inverts without any identity.
        lock: after every step, put the stored path back outside the mask; False lets the background drift (ablation).
        landmarks: condition on the landmarks of the face being edited [paper]; False shows no control (ablation).
        prompt: text for the edited crop; empty as in training's text drop.
        crop_factor: side of the crop over the longer side of the face's box.
        dilation, feather: mask ellipse over the face's, where the networks draw, and width of its soft edge in radii.
        paste_dilation, paste_feather: the same of what goes into the picture: a restoration ends at the head, so that
            neither collar nor background change; measured on 24 scenes, it wins back .79 of what was lost, and .80
            where all that was drawn is pasted. A swap needs hair and outline too.
        pairing: who is who without known places: by likeness, or only by the caller's map.
        min_likeness, margin: least cosine of a pair, and its least distance to the runner-up.
        min_gain: similarity must rise by more than this. Above 0, since the networks are conditioned on the very
            encoder that judges here: a small rise may be none to another encoder.
        max_landmark_shift: mean landmark distance over the distance of the eyes; above it the result is refused.
        retries: tries after a refusal, each with t_star lower by `retry_drop`.
        batch: most crops that go through the networks together.
    """

    t_star: float = 0.8
    steps: int = 8
    guidance: float = 2.0
    id_scale: float = 1.0
    local_scale: float = 1.0
    gamma: float = 0.9
    inversion: bool = True
    own_identity: bool = False
    lock: bool = True
    landmarks: bool = True
    prompt: str = ""
    crop_factor: float = 2.0
    dilation: float = 1.25
    feather: float = 0.3
    paste_dilation: float = 0.85
    paste_feather: float = 0.2
    pairing: Pairing = "likeness"
    min_likeness: float = 0.2
    margin: float = 0.05
    min_gain: float = 0.05
    max_landmark_shift: float = 0.25
    retries: int = 1
    retry_drop: float = 0.1
    batch: int = 8

    def __post_init__(self) -> None:
        ranges: dict[str, tuple[float, float]] = {
            "t_star": (0.01, 1), "steps": (1, 1000), "guidance": (1, 20), "id_scale": (0, 5), "gamma": (0, 1),
            "local_scale": (0, 5), "crop_factor": (1.2, 8), "dilation": (0.5, 3), "feather": (0.01, 2),
            "paste_dilation": (0.5, 3), "paste_feather": (0.01, 2),
            "retries": (0, 9), "batch": (1, 256),
        }  # fmt: skip
        for name, (low, high) in ranges.items():
            if not low <= (got := getattr(self, name)) <= high:
                raise RequestError(f"{name} {got}: {low} to {high} wanted.")

    def steps_at(self, t_star: float) -> int:
        """Steps of a try: its grid is as fine as that of the first one, so a lower one may lie on the same path."""
        return max(1, round(self.steps * t_star / self.t_star))

    def attempts(self) -> list[float]:
        """t_star of every try, first one first."""
        tries = [self.t_star - k * self.retry_drop for k in range(self.retries + 1)]
        return [self.t_star, *(t for t in tries[1:] if t >= 0.1 - 1e-9)]


RESTORE = DiirSettings()
"""Measured on the mini preset: t_star 0.6 with gamma 0.6 won back half as much, 12 steps no more than 8, and a min_gain
of 0.1 half as much after the autoencoder alone."""
_WHOLE = replace(RESTORE, paste_dilation=RESTORE.dilation, paste_feather=RESTORE.feather, min_gain=0.0)
SWAP = replace(_WHOLE, t_star=0.8, steps=12, guidance=4.0, id_scale=1.0, gamma=0.45, pairing="map")
STYLIZED = replace(_WHOLE, t_star=0.5, steps=12, guidance=3.0, id_scale=0.6, gamma=0.0)
TASKS: dict[Task, DiirSettings] = {"restore": RESTORE, "swap": SWAP, "stylized": STYLIZED}


def settings_of(preset: Preset, task: Task) -> DiirSettings:
    """The knobs of a task for a preset: what was measured on mini, with what the preset says of its own base.

    A preset that shows no landmarks leaves them out here too, so that records say so.

    Raises:
        PresetError: the preset names a knob that there is not, or a value out of its range.
    """
    own: Mapping[str, Any] = preset.diir.get(task, {})
    landmarks = "landmark" in preset.controls
    try:
        return replace(TASKS[task], **{"landmarks": landmarks, **own})
    except (TypeError, RequestError) as error:
        raise PresetError(f"preset {preset.name}: diir.{task}: {error}") from error
