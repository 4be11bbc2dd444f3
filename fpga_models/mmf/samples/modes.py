"""Which modality guides a sample: skeleton and landmark alternate [paper], the shares are ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fpga_models.core.control import CONTROL_MODES, ControlMode


@dataclass(frozen=True, kw_only=True)
class ModePlan:
    """How modes follow each other.

    Attributes:
        order: `random` draws a mode per sample, `strict` alternates skeleton and landmark by step, `stagewise` shows
            skeletons in the first half of every `period` steps and landmarks in the second.
        shares: probabilities of skeleton, landmark, both, none.
        period: steps of one round of `stagewise`.
    """

    order: Literal["random", "strict", "stagewise"] = "random"
    shares: tuple[float, float, float, float] = (0.45, 0.45, 0.05, 0.05)
    period: int = 200


def draw_modes(plan: ModePlan, count: int, step: int, rng: np.random.Generator) -> list[ControlMode]:
    """Modes of `count` samples in training step `step`; the shares of both and none apply in every order."""
    drawn = [CONTROL_MODES[i] for i in rng.choice(len(CONTROL_MODES), size=count, p=plan.shares)]
    if plan.order == "random":
        return drawn
    period = 2 if plan.order == "strict" else plan.period
    turn: ControlMode = "skeleton" if step % period < period // 2 else "landmark"
    return [turn if mode in ("skeleton", "landmark") else mode for mode in drawn]
