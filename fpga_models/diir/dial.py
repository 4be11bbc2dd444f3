"""One dial for people who restore: how much of the face that is there should stay [ours]."""

from __future__ import annotations

from dataclasses import replace

from fpga_models.diir.settings import DiirSettings
from fpga_models.errors import RequestError

MIDDLE = 0.5
LEVELS = ((0.5, 1.0), (0.8, 0.75), (1.0, 0.5))
"""Up to this fidelity, so far is inverted, as a share of the base's t*."""


def at_fidelity(base: DiirSettings, fidelity: float) -> DiirSettings:
    """Settings for a position of the dial: 0 trusts the references, 1 the photo, 0.5 is `base`.

        t*        of base up to 0.5, three quarters of it up to 0.8, then half; on one grid, so one path serves all
        guidance  of base x (1.5 - fidelity), never below 1
        id_scale  of base x (1.2 - 0.4 fidelity)
        gamma     of base + 0.8 (0.5 - fidelity), in [0, 1]

    Raises:
        RequestError: fidelity outside 0 to 1.
    """
    if not 0 <= fidelity <= 1:
        raise RequestError(f"fidelity {fidelity}: 0 to 1 wanted.")
    off = fidelity - MIDDLE
    t_star = round(base.t_star * next(share for most, share in LEVELS if fidelity <= most), 6)
    return replace(
        base,
        t_star=t_star,
        steps=base.steps_at(t_star),
        guidance=max(1.0, base.guidance * (1 - off)),
        id_scale=base.id_scale * (1 - 0.4 * off),
        gamma=min(1.0, max(0.0, base.gamma - 0.8 * off)),
        retry_drop=base.t_star / 4,
    )
