from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from fpga_models.core.pipeline import PortraitPipeline
from fpga_models.lab.mini.networks import MINI256
from fpga_models.lab.mini.recipe256 import NAME, PLAN, SIDE, Amount, recipe256
from fpga_models.lab.mini.steps import Step, run_stages
from fpga_models.mmf.plan import TrainPlan

MEASURED = 3


def steps(amount: Amount) -> list[Step]:
    stages = recipe256(Path("data"), Path("out"), amount, workers=2, seed=0)
    return [step for stage in stages for lane in stage for step in lane]


def test_every_step_is_a_module_and_leaves_a_product_of_its_own() -> None:
    every = steps(Amount())
    assert all(importlib.util.find_spec(step.module) for step in every)
    assert len({step.product for step in every}) == len(every)
    assert every[-1].product is None, "the shipped folder is always written again"


def test_the_recipe_is_of_the_preset_it_names() -> None:
    assert (MINI256.name, MINI256.image_side) == (NAME, SIDE)


def test_the_plan_is_such_that_training_reads() -> None:
    plan = TrainPlan.from_json(json.loads(PLAN.read_text()))
    assert 0.04 <= plan.clone.steps / plan.steps <= 0.2, "a short last stage"


@pytest.mark.slow
@pytest.mark.timeout(1200)  # fourteen processes, each of which imports torch
def test_a_short_schedule_leads_from_nothing_to_a_preset_that_draws_in_four_steps(tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    stage = {"steps": 1, "rate": 1e-4, "warmup": 1}
    facts = json.loads(PLAN.read_text()) | {"mmf": stage, "clone": stage, "batch_size": 4, "clones": 2}
    plan.write_text(json.dumps(facts))
    amount = Amount(
        scenes=40,
        test_scenes=8,
        trained_people=12,
        test_people=4,
        crops=4,
        minutes=(0.01,) * 6,
        autoencoder=2,
        decoded=8,
        generator=2,
        batch=4,
        plan=plan,
        distilled=2,
        decoder=2,
    )
    data = tmp_path / "data"
    stages = recipe256(data, tmp_path / "out", amount, workers=1, seed=0)[:-MEASURED]

    run_stages(stages)

    pipeline = PortraitPipeline.from_pretrained(data / "finished" / "preset")
    assert pipeline.preset.name == "mini256"
    assert pipeline.preset.sizes == ((256, 256),)
    assert (pipeline.preset.defaults["steps"], pipeline.preset.defaults["guidance"]) == (4, 1.0)
    with torch.no_grad():
        assert pipeline.decode(torch.zeros(1, 32, 16, 16))[0].shape == (256, 256, 3)
    before = (data / "finished" / "preset" / "weights.json").stat().st_mtime_ns
    run_stages(stages)
    assert (data / "finished" / "preset" / "weights.json").stat().st_mtime_ns == before
