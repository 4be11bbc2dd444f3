from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fpga_models.metrics.evaluate import EVALUATIONS, main, measure

WEIGHTS = Path(__file__).parents[4] / "fpga_models" / "weights" / "mini"
KEYS = {
    "identity": {"face_sim", "top1", "legibility", "sharpness", "assignment", "position"},
    "restore": {"won_back", "before", "after", "ceiling", "background"},
    "swap": {"top1", "landmark_error", "background"},
    "stylized": {"styles"},
    "control": {"modes", "branch", "merged", "strength", "equality"},
    "ablate": {"masks", "diir", "against"},
}


@pytest.mark.slow  # every evaluation once through all networks of the shipped preset
@pytest.mark.parametrize("what", EVALUATIONS)
def test_every_evaluation_measures_the_shipped_preset(what: str) -> None:
    parts: dict[str, int] = {}

    def track(title: str, total: int) -> Any:
        parts[title] = total

        def advance(done: int) -> None:
            parts[title] -= done

        return advance

    options = {"against": [WEIGHTS]} if what == "ablate" else {}
    figures, pictures, table = measure(what, WEIGHTS, seed=2, count=2, track=track, **options)

    written = json.loads(json.dumps(figures, allow_nan=False))
    assert written.keys() >= KEYS[what] | {"seed", "count", "preset", "model_sha256", "seconds"}
    assert set(parts.values()) == {0}, "progress reached its end"
    assert pictures.dtype == np.uint8
    assert table.count("\n") >= 3


def test_a_folder_that_is_no_preset_ends_with_one_plain_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["swap", "--preset-dir", str(tmp_path), "--count", "1"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
