from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from fpga_models.core.presets import SHIPPED
from fpga_models.core.rep_controlnet import RepControlNet
from fpga_models.errors import RequestError
from fpga_models.lab.evaluations import control
from fpga_models.lab.measures.bench import Bench
from fpga_models.lab.measures.evaluate import EVALUATIONS, main, measure

WEIGHTS = SHIPPED / "mini"
KEYS = {
    "identity": {"face_sim", "top1", "legibility", "sharpness", "assignment", "position"},
    "restore": {"won_back", "before", "after", "ceiling", "background"},
    "swap": {"top1", "landmark_error", "background"},
    "stylized": {"styles"},
    "control": {"modes", "branch", "merged", "strength", "equality"},
    "ablate": {"masks", "tokens", "diir", "against"},
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

    options = {"against": {"itself": WEIGHTS}} if what == "ablate" else {}
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


@pytest.mark.slow  # twenty pictures of the shipped preset
def test_branch_and_merged_form_draw_the_same_and_strength_0_is_the_base(tmp_path: Path) -> None:
    base, modal = WEIGHTS / "unet", tmp_path / "modal.safetensors"
    unet = UNet2DConditionModel.from_pretrained(base, use_safetensors=True, local_files_only=True)
    network = RepControlNet(unet)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.modal.parameters():
            parameter.add_(0.2 * parameter.std().nan_to_num() * torch.randn_like(parameter))
    network.save(modal, dtype=torch.float32, metadata={})
    bench = Bench.load(WEIGHTS, seed=2, count=2)
    before = {name: value.clone() for name, value in bench.pipeline.denoiser.unet.state_dict().items()}

    found = control.run(bench, modal, base)
    figures = control.report(found)

    assert figures.equality is not None
    assert figures.equality.max_difference <= 2
    assert np.array_equal(np.stack(found.forms["0"].pictures), np.stack(found.modes["landmark"].pictures))
    assert control.equality(found.forms["0"].pictures, found.forms["1"].pictures).mean_difference > 0.5
    after = bench.pipeline.denoiser.unet.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_modal_weights_without_their_base_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="together"):
        control.measure(None, modal=tmp_path)  # type: ignore[arg-type]  # refused before the preset is looked at
