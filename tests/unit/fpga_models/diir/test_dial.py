from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from fpga_models.diir import RESTORE, SWAP, DiirSettings
from fpga_models.diir.dial import at_fidelity
from fpga_models.errors import RequestError


@pytest.mark.parametrize("base", [RESTORE, SWAP])
def test_more_fidelity_never_changes_more(base: DiirSettings) -> None:
    positions = [at_fidelity(base, value) for value in np.linspace(0, 1, 21)]

    for gentle, gentler in pairwise(positions):
        assert gentler.t_star <= gentle.t_star
        assert gentler.guidance <= gentle.guidance
        assert gentler.id_scale < gentle.id_scale
        assert gentler.gamma <= gentle.gamma


def test_the_middle_is_what_was_measured() -> None:
    middle = at_fidelity(RESTORE, 0.5)

    assert (middle.t_star, middle.steps) == (RESTORE.t_star, RESTORE.steps)
    assert (middle.guidance, middle.id_scale, middle.gamma) == (RESTORE.guidance, RESTORE.id_scale, RESTORE.gamma)


@pytest.mark.parametrize("base", [RESTORE, SWAP])
def test_every_position_and_every_retry_lies_on_one_grid(base: DiirSettings) -> None:
    for value in np.linspace(0, 1, 11):
        settings = at_fidelity(base, float(value))
        assert {round(settings.steps_at(t) / t) for t in settings.attempts()} == {round(base.steps / base.t_star)}


def test_a_position_outside_is_refused() -> None:
    with pytest.raises(RequestError, match=r"fidelity 1\.5"):
        at_fidelity(RESTORE, 1.5)
