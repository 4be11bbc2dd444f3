from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path

import pytest

from fpga_models.core import weights
from fpga_models.lab.mini.__main__ import PLANS, recipe
from fpga_models.lab.mini.ship import ship, story
from fpga_models.lab.mini.steps import Step, run_step
from fpga_models.mmf.plan import TrainPlan


def test_every_step_of_the_recipe_is_a_module_and_leaves_a_product_of_its_own() -> None:
    steps = recipe(Path("data"), Path("out"), workers=2, seed=0)
    assert all(importlib.util.find_spec(step.module) for step in steps)
    assert len({step.product for step in steps}) == len(steps)


def test_the_shipped_folder_is_always_written_again() -> None:
    last = recipe(Path("data"), Path("out"), workers=2, seed=0)[-1]
    assert last.product is None
    assert "out" in last.arguments


@pytest.mark.parametrize("file", PLANS)
def test_the_plans_of_the_recipe_are_such_that_training_reads(file: Path) -> None:
    plan = TrainPlan.from_json(json.loads(file.read_text()))
    assert 0.04 <= plan.clone.steps / plan.steps <= 0.2, "a short last stage"
    assert 0.3 <= plan.ordinary_share <= 0.5


def test_what_ships_has_its_own_thresholds_and_figures_and_the_story_of_its_making(tmp_path: Path) -> None:
    preset, out = tmp_path / "preset", tmp_path / "out"
    preset.mkdir()
    (preset / "preset.json").write_text(json.dumps({"name": "mini", "verdict": {"accept": 0.5}}))
    made = {"steps": 3, "figures": {"old": 1}, "start": {"model_sha256": "a", "made": {"steps": 2, "figures": {}}}}
    weights.write_manifest(preset, made)
    (out / "gone").mkdir(parents=True)

    ship(preset, out, verdict={"accept": 0.4}, figures={"new": 2})

    assert json.loads((out / "preset.json").read_text()) == {"name": "mini", "verdict": {"accept": 0.4}}
    told = weights.verify(out)["made"]
    assert told == {"steps": 3, "figures": {"new": 2}, "start": {"model_sha256": "a", "made": {"steps": 2}}}
    assert not (out / "gone").exists()


def test_the_story_goes_back_only_so_far() -> None:
    made: dict[str, object] = {"steps": 0}
    for steps in range(1, 6):
        made = {"steps": steps, "start": {"made": made}}
    told = story(made, 2)
    assert told["start"]["made"]["start"]["made"] == {"steps": 3}


def test_what_a_step_prints_is_kept_when_it_succeeds(tmp_path: Path) -> None:
    kept = tmp_path / "version.txt"
    run_step(Step(module="platform", arguments=(), product=kept, output=kept))
    assert "Linux" in kept.read_text()


def test_a_failing_step_leaves_no_output(tmp_path: Path) -> None:
    kept = tmp_path / "out.json"
    with pytest.raises(subprocess.CalledProcessError):
        run_step(Step(module="json.tool", arguments=("/no/such/file",), product=kept, output=kept))
    assert not kept.exists()
