from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fpga_models.core.pipeline import PortraitPipeline
from fpga_models.core.presets import preset_directory
from fpga_models.core.rep_controlnet import RepControlNet
from fpga_models.core.weights import tensor_sha256, verify, write_manifest
from fpga_models.errors import DataError, DivergedError, PlanError
from fpga_models.mmf import checkpoint
from fpga_models.mmf.loop import Losses
from fpga_models.mmf.plan import StagePlan, TrainPlan
from fpga_models.mmf.train import Progress, train
from tests.unit.fpga_models.training_folder import write_training_folder

PLAN = TrainPlan(
    start=str(preset_directory("mini")),
    seed=5,
    batch_size=4,
    mmf=StagePlan(steps=4, rate=1e-3, warmup=1),
    clone=StagePlan(steps=3, rate=4e-4, warmup=1),
    losses=Losses(localisation=0.01),
    save_every=2,
    validate_every=100,
    report_every=1,
)

QUICK = replace(PLAN, mmf=StagePlan(steps=2, rate=1e-3, warmup=1), clone=StagePlan(steps=0, rate=1))


class Killed(BaseException):
    """What a run does not expect."""


def kill_after(step: int) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        if progress.kind == "step" and progress.step == step:
            raise Killed

    return report


UNET, ADAPTER = "unet/diffusion_pytorch_model.safetensors", "id_adapter.safetensors"


def networks(preset: Path) -> dict[str, str]:
    """Hashes of the tensors alone: safetensors writes its header in any order."""
    return {name: tensor_sha256(preset / name) for name in (UNET, ADAPTER, "hint.safetensors")}


@pytest.fixture(scope="module")
def without_local(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The mini preset as if it had no local branch."""
    start = tmp_path_factory.mktemp("bare") / "preset"
    shutil.copytree(PLAN.start, start)
    state = {k: v for k, v in load_file(start / ADAPTER).items() if not k.startswith("local.")}
    save_file(state, start / ADAPTER)
    write_manifest(start, {})
    return str(start)


@pytest.fixture(scope="module")
def straight(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Progress]]:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("straight")
    seen: list[Progress] = []
    result = train(PLAN, folder, out, report=seen.append)
    assert result.finished
    return out, seen


@pytest.mark.parametrize("seed", [0, 1])
def test_a_run_stopped_and_killed_at_random_steps_ends_in_the_same_weights(
    seed: int, folder: Path, straight: tuple[Path, list[Progress]], tmp_path: Path
) -> None:
    rng = np.random.default_rng(seed)
    stop_at, kill_at = int(rng.integers(1, 4)), int(rng.integers(4, 7))
    now: list[int] = []
    first = train(
        PLAN, folder, tmp_path, report=lambda p: now.append(p.step), stop=lambda: bool(now) and now[-1] >= stop_at
    )
    assert (first.finished, first.step, first.preset) == (False, stop_at, None)
    with pytest.raises(Killed):
        train(PLAN, folder, tmp_path, report=kill_after(kill_at))
    last = train(PLAN, folder, tmp_path)
    assert last.preset is not None
    assert networks(last.preset) == networks(straight[0] / "preset")
    assert tensor_sha256(tmp_path / "modal.safetensors") == tensor_sha256(straight[0] / "modal.safetensors")


def test_progress_says_what_happened_in_plain_numbers(straight: tuple[Path, list[Progress]]) -> None:
    _, seen = straight
    assert [p.step for p in seen if p.kind == "step"] == list(range(1, 8))
    assert [p.stage for p in seen if p.kind == "preset"] == ["mmf", "clone"]
    assert [p.step for p in seen if p.kind == "checkpoint"] == [2, 4, 6, 7]
    numbers = next(p for p in seen if p.kind == "step").metrics
    assert {"loss", "localisation", "grad_norm", "rate", "samples_per_s"} == set(numbers)
    assert {"own_id", "no_id", "wrong_id"} == set(next(p for p in seen if p.kind == "validation").metrics)
    assert all(Path(p.path).exists() for p in seen if p.kind in ("sample", "preset") and p.path)
    json.dumps([p.as_json() for p in seen])


def test_the_finished_preset_is_whole_and_differs_from_its_start(straight: tuple[Path, list[Progress]]) -> None:
    preset = straight[0] / "preset"
    made = verify(preset)["made"]
    assert made["plan"]["mmf"]["steps"] == 4
    assert made["start"]["model_sha256"] == made["plan"]["start"]
    assert made["data"] == {"source": "render:0:28", "pictures": 28, "people": 12}
    assert 0 < made["merged_difference"] < 1e-3
    pipeline = PortraitPipeline.from_pretrained(preset)
    before = load_file(preset_directory("mini") / "unet" / "diffusion_pytorch_model.safetensors")
    after = pipeline.denoiser.unet.state_dict()
    assert not torch.equal(before["conv_in.weight"].float(), after["conv_in.weight"])
    assert torch.equal(before["conv_norm_out.weight"].float(), after["conv_norm_out.weight"]), "norms are frozen"


def test_the_modal_file_merges_into_the_base_to_the_shipped_unet(straight: tuple[Path, list[Progress]]) -> None:
    base = PortraitPipeline.from_pretrained(preset_directory("mini")).denoiser.unet
    merged = RepControlNet.load(straight[0] / "modal.safetensors", base).merged_state()
    shipped = load_file(straight[0] / "preset" / "unet" / "diffusion_pytorch_model.safetensors")
    for key, value in shipped.items():
        # the modal file and what ships are rounded to half precision, eleven bits of each value
        torch.testing.assert_close(value.float(), merged[key].float(), rtol=2**-10, atol=1e-5)


def test_the_clone_stage_leaves_the_unet_alone(straight: tuple[Path, list[Progress]]) -> None:
    mmf, clone = (networks(straight[0] / "stages" / name) for name in ("mmf", "clone"))
    assert mmf[UNET] == clone[UNET]
    assert mmf[ADAPTER] != clone[ADAPTER]


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(folder: Path, tmp_path: Path) -> None:
    spoiled, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(folder, spoiled)
    now: list[int] = []
    train(PLAN, spoiled, out, report=lambda p: now.append(p.step), stop=lambda: now[-1] >= 2)
    latents = np.load(spoiled / "latents" / "scenes.npy")
    np.save(spoiled / "latents" / "scenes.npy", np.full_like(latents, np.nan))
    with pytest.raises(DivergedError, match="Step 3"):
        train(PLAN, spoiled, out)
    assert checkpoint.latest(out) == out / "checkpoint-2"


def test_another_plan_in_the_same_folder_is_refused_but_not_another_place_or_device(
    folder: Path, tmp_path: Path
) -> None:
    train(PLAN, folder, tmp_path, stop=lambda: True)
    with pytest.raises(PlanError, match="seed was 5"):
        train(replace(PLAN, seed=6), folder, tmp_path)
    moved = tmp_path / "preset"
    shutil.copytree(PLAN.start, moved)
    (tmp_path / "plan.json").write_text((tmp_path / "plan.json").read_text().replace('"cpu"', '"cuda"'))
    assert train(replace(PLAN, start=str(moved)), folder, tmp_path, stop=lambda: True).step == 2


def test_data_of_another_width_is_refused(tmp_path: Path) -> None:
    other = write_training_folder(tmp_path / "data", embedding_dim=64)
    with pytest.raises(DataError, match=r"64 numbers.*wants.*512"):
        train(PLAN, other, tmp_path / "out")


def test_local_tokens_grow_are_trained_and_shipped(folder: Path, without_local: str, tmp_path: Path) -> None:
    result = train(replace(QUICK, start=without_local, local_tokens=4), folder, tmp_path)
    assert result.preset is not None
    local = PortraitPipeline.from_pretrained(result.preset).denoiser.id_adapter.local
    assert local is not None
    assert local.config.tokens == 4
    assert max(float(layer.to_v_ip.weight.detach().abs().max()) for layer in local.layers.in_order()) > 0, (
        "zero at the start"
    )


def test_local_tokens_without_crops_are_refused_but_a_branch_that_is_there_rests(
    folder: Path, without_local: str, tmp_path: Path
) -> None:
    bare = tmp_path / "data"
    shutil.copytree(folder, bare, ignore=shutil.ignore_patterns("crops"))
    with pytest.raises(DataError, match=r"crops\.npy was wanted"):
        train(replace(QUICK, start=without_local, local_tokens=4), bare, tmp_path / "out")
    rested = train(QUICK, bare, tmp_path / "rested").preset
    assert rested is not None
    before, after = load_file(Path(PLAN.start) / ADAPTER), load_file(rested / ADAPTER)
    name = "local.layers.1.to_v_ip.weight"
    assert torch.equal(before[name], after[name])
    assert not torch.equal(before["ip_adapter.1.to_v_ip.weight"], after["ip_adapter.1.to_v_ip.weight"])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read as training data"):
        train(PLAN, tmp_path / "nowhere", tmp_path / "out")


def test_a_plan_goes_through_json_and_back() -> None:
    assert TrainPlan.from_json(json.loads(json.dumps(PLAN.as_json()))) == PLAN


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        ({"learning_rate": 1}, "learning_rate"),
        ({"mmf": {"steps": 4}}, "mmf.rate"),
        ({"recipe": "C5"}, "recipe"),
        ({"batch_size": 0}, "batch_size"),
        ({"kind_shares": [1.0]}, "kind_shares"),
    ],
)
def test_a_bad_plan_names_the_field(facts: dict[str, object], named: str) -> None:
    with pytest.raises(PlanError, match=named):
        TrainPlan.from_json({"start": "x"} | facts)


def test_the_rate_is_a_function_of_the_step() -> None:
    plan = StagePlan(steps=100, rate=1.0, warmup=10, anneal=0.4)
    assert plan.learning_rate_at(0) == pytest.approx(0.1)
    assert plan.learning_rate_at(59) == 1
    assert plan.learning_rate_at(80) == pytest.approx(0.5)
    assert plan.learning_rate_at(99) == pytest.approx(1 / 40)
