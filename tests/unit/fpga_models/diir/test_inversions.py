from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fpga_models.core.pipeline import PortraitPipeline
from fpga_models.diir.edit import CropEdit, edit_crops
from fpga_models.diir.inversions import Inversions
from fpga_models.diir.settings import DiirSettings
from fpga_models.errors import WeightsError
from tests.unit.fpga_models.diir.test_edit import QUIET, crop

LADDER = replace(QUIET, t_star=0.8, steps=12)


def edit(
    pipeline: PortraitPipeline, settings: DiirSettings, crops: list[CropEdit], inversions: Inversions
) -> tuple[list[np.ndarray], int]:
    """The edited crops, and how many network steps they took."""
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    return edit_crops(pipeline, crops, settings, t_star=settings.t_star, on_step=count, inversions=inversions), steps


def test_a_kept_inversion_gives_the_same_picture_in_half_the_steps(pipeline: PortraitPipeline) -> None:
    kept = Inversions()

    first, steps = edit(pipeline, LADDER, [crop()], kept)
    again, fewer = edit(pipeline, LADDER, [crop()], Inversions.from_bytes(kept.to_bytes()))

    assert (steps, fewer) == (24, 12)
    assert np.array_equal(first[0], again[0])


def test_a_gentler_try_starts_inside_the_path_of_a_stronger_one(pipeline: PortraitPipeline) -> None:
    kept = Inversions()
    edit(pipeline, LADDER, [crop()], kept)
    gentler = replace(LADDER, t_star=0.6, steps=9)

    reused, steps = edit(pipeline, gentler, [crop()], kept)
    alone, _ = edit(pipeline, gentler, [crop()], Inversions())

    assert (steps, kept.found, kept.made) == (9, 1, 1)
    assert np.array_equal(reused[0], alone[0])


def test_only_the_crops_that_are_new_are_inverted(pipeline: PortraitPipeline) -> None:
    kept = Inversions()
    edit(pipeline, LADDER, [crop(3)], kept)

    edit(pipeline, LADDER, [crop(3), crop(4)], kept)

    assert (kept.found, kept.made, len(kept.paths)) == (1, 2, 2)


@pytest.mark.parametrize("change", [{"prompt": "a person"}, {"landmarks": False}, {"own_identity": True}])
def test_a_path_is_used_only_under_the_settings_that_it_was_climbed_with(
    pipeline: PortraitPipeline, change: dict[str, object]
) -> None:
    kept = Inversions()
    edit(pipeline, LADDER, [crop()], kept)

    edit(pipeline, replace(LADDER, **change), [crop()], kept)

    assert (kept.found, kept.made) == (0, 2)


def test_bytes_that_are_no_paths_are_refused() -> None:
    with pytest.raises(WeightsError, match="cannot be read"):
        Inversions.from_bytes(b"\x80\x04pickle")
