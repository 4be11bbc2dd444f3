"""Which modality guides a sample: skeleton and landmark alternate [paper], the shares are ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fpga_models.control import CONTROL_MODES, ControlMode


@dataclass(frozen=True, kw_only=True)
class ModePlan:
    """How modes follow each other.

    Attributes:
        order: `random` draws a mode per sample, `strict` alternates skeleton and landmark by step.
        shares: probabilities of skeleton, landmark, both, none.
    """

    order: Literal["random", "strict"] = "random"
    shares: tuple[float, float, float, float] = (0.45, 0.45, 0.05, 0.05)


def draw_modes(plan: ModePlan, count: int, step: int, rng: np.random.Generator) -> list[ControlMode]:
    """Modes of `count` samples in training step `step`; in strict order the last two shares still apply."""
    drawn = [CONTROL_MODES[i] for i in rng.choice(len(CONTROL_MODES), size=count, p=plan.shares)]
    if plan.order == "random":
        return drawn
    turn: ControlMode = "skeleton" if step % 2 == 0 else "landmark"
    return [turn if mode in ("skeleton", "landmark") else mode for mode in drawn]
