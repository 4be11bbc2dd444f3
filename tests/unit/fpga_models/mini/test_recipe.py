from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

import pytest

from fpga_models.mini.__main__ import Step, recipe, run_step


def test_every_step_of_the_recipe_is_a_module_and_leaves_a_product_of_its_own() -> None:
    steps = recipe(Path("data"), Path("out"), minutes=1, workers=2, seed=0)
    assert all(importlib.util.find_spec(step.module) for step in steps)
    assert len({step.product for step in steps}) == len(steps)


def test_the_shipped_folder_is_always_written_again() -> None:
    last = recipe(Path("data"), Path("out"), minutes=1, workers=2, seed=0)[-1]
    assert last.product is None
    assert "out" in last.arguments


def test_what_a_step_prints_is_kept_when_it_succeeds(tmp_path: Path) -> None:
    kept = tmp_path / "version.txt"
    run_step(Step(module="platform", arguments=(), product=kept, output=kept))
    assert "Linux" in kept.read_text()


def test_a_failing_step_leaves_no_output(tmp_path: Path) -> None:
    kept = tmp_path / "out.json"
    with pytest.raises(subprocess.CalledProcessError):
        run_step(Step(module="json.tool", arguments=("/no/such/file",), product=kept, output=kept))
    assert not kept.exists()
