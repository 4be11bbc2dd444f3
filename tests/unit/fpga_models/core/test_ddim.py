from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from fpga_models.core import ddim
from fpga_models.errors import RequestError
from tests.unit.fpga_models.networks import flow_scheduler
from tests.unit.fpga_models.networks import scheduler as diffusion

ALL = ["epsilon", "v_prediction", "flow"]


def scheduler(
    prediction: str = "v_prediction", spacing: str = "trailing"
) -> DDIMScheduler | FlowMatchEulerDiscreteScheduler:
    return flow_scheduler() if prediction == "flow" else diffusion(prediction, spacing)


def predict(latents: torch.Tensor, timestep: int) -> torch.Tensor:
    """A smooth stand-in for a network: any function of latents and time will do."""
    return torch.tanh(latents * (0.5 + timestep / 2000)) * 0.7


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("steps", [1, 7, 20])
def test_sampling_equals_the_scheduler_of_diffusers(prediction: str, spacing: str, steps: int) -> None:
    reference = scheduler(prediction, spacing)
    schedule = ddim.Schedule.of(reference)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    reference.set_timesteps(steps)
    theirs = noise
    for timestep in reference.timesteps:
        theirs = reference.step(predict(theirs, int(timestep)), timestep, theirs).prev_sample

    ours = ddim.sample(schedule, noise, predict, ddim.trajectory(schedule, steps))

    assert ddim.timesteps(schedule, steps) == reference.timesteps.tolist()
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)  # diffusers keeps its table in float32


@pytest.mark.parametrize("steps", [1, 5, 20])
def test_sampling_a_flow_equals_the_scheduler_of_diffusers(steps: int) -> None:
    reference = flow_scheduler()
    schedule = ddim.Schedule.of(reference)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    reference.set_timesteps(sigmas=[1 - i / steps for i in range(steps)])  # as FluxPipeline asks
    theirs = noise
    for timestep, at in zip(reference.timesteps, ddim.timesteps(schedule, steps), strict=True):
        theirs = reference.step(predict(theirs, at), timestep, theirs, return_dict=False)[0]

    ours = ddim.sample(schedule, noise, predict, ddim.trajectory(schedule, steps))

    levels = [1000 * schedule.scales(at)[1] for at in ddim.timesteps(schedule, steps)]
    assert torch.allclose(torch.tensor(levels), reference.timesteps, atol=1e-3)
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_a_flow_whose_shift_depends_on_the_size_is_refused() -> None:
    with pytest.raises(RequestError, match="use_dynamic_shifting"):
        ddim.Schedule.of(FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True))


@pytest.mark.parametrize("prediction", ALL)
def test_inversion_then_sampling_nearly_returns_the_latents(prediction: str) -> None:
    schedule = ddim.Schedule.of(scheduler(prediction))
    pairs = [pair for pair in ddim.trajectory(schedule, 100) if pair[0] <= 600]
    clean = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    path = ddim.invert(schedule, clean, predict, pairs)
    back = ddim.sample(schedule, path[-1], predict, pairs)

    assert len(path) == len(pairs) + 1
    assert (back - clean).abs().mean() < 0.03
    assert (path[-1] - clean).abs().mean() > 0.05


@pytest.mark.parametrize("prediction", ALL)
def test_a_step_up_undoes_a_step_down_when_the_network_says_the_same(prediction: str) -> None:
    schedule = ddim.Schedule.of(scheduler(prediction))
    latents, output = torch.randn(1, 4, 8, 8).double(), torch.randn(1, 4, 8, 8).double()
    down = ddim.step(schedule, latents, output, start=500, end=400)
    assert torch.allclose(ddim.unstep(schedule, down, output, start=500, end=400), latents, atol=1e-10)


@pytest.mark.parametrize("prediction", ALL)
def test_few_steps_up_and_down_return_the_latents_when_the_output_does_not_depend_on_them(prediction: str) -> None:
    schedule = ddim.Schedule.of(scheduler(prediction))
    pairs = [pair for pair in ddim.trajectory(schedule, 8) if pair[0] <= 800]
    clean, output = torch.randn(1, 4, 8, 8).double(), torch.randn(1, 4, 8, 8).double()
    path = ddim.invert(schedule, clean, lambda _, t: output * (1 + t / 1000), pairs)
    back = ddim.sample(schedule, path[-1], lambda _, t: output * (1 + t / 1000), pairs)
    assert torch.allclose(back, clean, atol=1e-9)


@pytest.mark.parametrize("prediction", ALL)
def test_a_perfect_prediction_splits_into_the_clean_latents_and_the_noise(prediction: str) -> None:
    schedule = ddim.Schedule.of(scheduler(prediction))
    clean, noise, at = torch.randn(2, 4, 8, 8).double(), torch.randn(2, 4, 8, 8).double(), torch.tensor([300, 300])
    noised = ddim.add_noise(schedule, clean, noise, at)
    x0, eps = ddim.split(schedule, noised, schedule.scales(300), ddim.target(schedule, clean, noise, at))
    assert torch.allclose(x0, clean, atol=1e-6)
    assert torch.allclose(eps, noise, atol=1e-6)


def test_steps_outside_the_schedule_are_refused_with_the_range() -> None:
    with pytest.raises(RequestError, match="0 steps: 1 to 1000 wanted"):
        ddim.timesteps(ddim.Schedule.of(scheduler()), 0)
