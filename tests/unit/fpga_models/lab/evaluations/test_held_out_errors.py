"""The shipped preset on a small training folder: figures that do not change from one look to the next."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fpga_models.core.presets import preset_directory
from fpga_models.errors import DataError
from fpga_models.lab.evaluations import held_out_errors as held_out
from tests.unit.fpga_models.training_folder import write_training_folder


def test_two_looks_at_the_held_out_people_give_the_same_errors(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    data = write_training_folder(tmp_path / "data")

    first, second = (held_out.measure(preset_directory("mini"), data, count=2) for _ in range(2))

    assert first == second
    assert first.scenes == 2
    assert min(first.own_id, first.no_id, first.wrong_id) > 0
    assert first.gain == pytest.approx(1 - first.own_id / first.no_id, abs=1e-3)


def test_data_of_another_preset_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        held_out.measure(preset_directory("mini"), write_training_folder(tmp_path / "d", embedding_dim=64), count=2)
