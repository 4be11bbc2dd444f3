from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from fpga_models.core.presets import preset_directory, read_preset
from fpga_models.diir import RESTORE, SWAP, DiirSettings, settings_of
from fpga_models.diir.dial import at_fidelity
from fpga_models.errors import PresetError, RequestError
from orchestrator.models.pull import read_catalog


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


def test_a_preset_has_knobs_of_its_own_and_leaves_out_landmarks_that_it_cannot_show() -> None:
    mini = read_preset(preset_directory("mini"))
    assert settings_of(mini, "restore") == RESTORE
    own = {"restore": {"t_star": 0.5, "gamma": 0.35}}
    other = replace(mini, diir=own, controls=("skeleton", "none"))
    found = settings_of(other, "restore")
    assert (found.t_star, found.gamma, found.landmarks) == (0.5, 0.35, False)
    assert settings_of(other, "swap") == replace(SWAP, landmarks=False)
    assert at_fidelity(found, 1.0).t_star == 0.25
    for wrong in ({"t_sta": 0.5}, {"t_star": 2.0}):
        with pytest.raises(PresetError, match=r"diir\.restore"):
            settings_of(replace(mini, diir={"restore": wrong}), "restore")


@pytest.mark.parametrize(("name", "side"), [("sd15", 512), ("sdxl", 1024)])
def test_published_bases_restore_at_their_own_size_with_the_knobs_of_photographs(name: str, side: int) -> None:
    facts = read_catalog(name).preset
    preset = replace(
        read_preset(preset_directory("mini")), diir=facts["diir"], crop_sides=tuple(facts["crop_sides"]),
        controls=tuple(facts["controls"]),
    )  # fmt: skip
    assert preset.squares() == [side]
    restore, swap = settings_of(preset, "restore"), settings_of(preset, "swap")
    assert 0.4 <= restore.t_star <= 0.6
    assert 0.2 <= restore.gamma <= 0.5
    assert 0.7 <= swap.t_star <= 0.9
    assert restore.landmarks == (name == "sdxl")
