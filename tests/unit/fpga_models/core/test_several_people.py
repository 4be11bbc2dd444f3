"""Several people through InstantID's ControlNet: nobody's identity or place reaches another's face, empty places do not
enter, and a picture is the same whoever it is drawn with. Narrow networks with random weights, in the true layout."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fpga_models.core.denoiser import Condition
from fpga_models.core.pipeline import PersonSlot, PortraitPipeline, PortraitRequest
from fpga_models.errors import RequestError
from fpga_models.lab.random_networks import BASES, narrow, random_pipeline

SIDE = 128
GREY_LEVEL = 1  # a batch of another size may round a matrix product differently


@pytest.fixture(scope="module")
def pipeline() -> PortraitPipeline:
    torch.set_num_threads(1)
    made = random_pipeline(narrow(BASES["sdxl"]), dtype=torch.float32)
    limits = dict(made.preset.limits) | {"control_scale": (0.0, 2.0)}
    made.preset = replace(made.preset, sizes=((SIDE, SIDE),), embedding_length=20.0, limits=limits)
    return made


def person(x: float, y: float, seed: int) -> PersonSlot:
    points = np.array([[x - 9, y], [x + 9, y], [x, y + 9], [x - 7, y + 18], [x + 7, y + 18]], float)
    return PersonSlot(embedding=np.random.default_rng(seed).standard_normal(512), kps5=points)


def request(*people: PersonSlot, seed: int = 1) -> PortraitRequest:
    return PortraitRequest(
        prompt="two people", people=people, width=SIDE, height=SIDE, seed=seed, steps=2, guidance=5.0, id_scale=0.8
    )


ADA, BRUNO, CARLA = person(32, 40, 1), person(96, 40, 2), person(96, 40, 3)


@torch.no_grad()
def residuals(pipeline: PortraitPipeline, asked: PortraitRequest) -> tuple[list[torch.Tensor], Condition]:
    running = pipeline._start([asked])
    at = torch.full((1,), 801)
    found = pipeline.denoiser._residuals(running.latents, at, running.guided)
    return [*found["down_block_additional_residuals"], found["mid_block_additional_residual"]], running.guided


@pytest.mark.parametrize("other", [CARLA, person(96, 70, 2)], ids=["another identity", "another place"])
def test_who_the_second_person_is_changes_nothing_inside_the_first_ones_mask(
    pipeline: PortraitPipeline, other: PersonSlot
) -> None:
    first, guided = residuals(pipeline, request(ADA, BRUNO))
    second, _ = residuals(pipeline, request(ADA, other))
    mine, theirs = guided.identity.masks[0]
    for one, two in zip(first, second, strict=True):
        inside, outside = (F.adaptive_max_pool2d(m[None, None], one.shape[-2:])[0, 0] > 0 for m in (mine, theirs))
        assert torch.equal(one[..., inside & ~outside], two[..., inside & ~outside])
    assert any(not torch.equal(one, two) for one, two in zip(first, second, strict=True))


def test_nothing_is_added_outside_all_masks(pipeline: PortraitPipeline) -> None:
    found, guided = residuals(pipeline, request(ADA, BRUNO))
    masks = guided.identity.masks[0].amax(dim=0)
    for feature in found:
        nobody = F.adaptive_max_pool2d(masks[None, None], feature.shape[-2:])[0, 0] == 0
        assert not feature[..., nobody].any()


def same(first: np.ndarray | None, second: np.ndarray | None) -> int:
    assert first is not None
    assert second is not None
    return int(np.abs(first.astype(int) - second.astype(int)).max())


@pytest.mark.parametrize("control", ["landmark", "none"])
def test_a_picture_does_not_depend_on_its_neighbours(pipeline: PortraitPipeline, control: str) -> None:
    asked = [
        replace(one, control=control)
        for one in (request(ADA), request(ADA, BRUNO, seed=2), request(seed=3), request(BRUNO, seed=4))
    ]
    together = pipeline.generate(asked)
    for one, beside in zip(asked, together, strict=True):
        assert same(beside, pipeline.generate([one])[0]) <= GREY_LEVEL


def test_the_order_of_people_and_dropped_neighbours_change_nothing(pipeline: PortraitPipeline) -> None:
    (one,), (turned,) = (pipeline.generate([request(*people)]) for people in ((ADA, BRUNO), (BRUNO, ADA)))
    assert same(one, turned) <= GREY_LEVEL
    first, _, last = pipeline.generate(
        [request(ADA, BRUNO), request(CARLA), request(BRUNO, seed=5)], on_step=lambda done, _: [1] if done == 1 else []
    )
    assert same(first, one) <= GREY_LEVEL
    assert same(last, pipeline.generate([request(BRUNO, seed=5)])[0]) <= GREY_LEVEL


def test_id_scale_zero_is_nobody_for_the_request_and_for_one_person(pipeline: PortraitPipeline) -> None:
    silent = [replace(request(who), id_scale=0.0) for who in (BRUNO, CARLA)]
    assert same(*pipeline.generate(silent)) == 0
    muted = [request(ADA, replace(who, id_scale=0.0)) for who in (BRUNO, CARLA)]
    assert same(*pipeline.generate(muted)) == 0
    assert same(*pipeline.generate([request(ADA, BRUNO), request(ADA, CARLA)])) > 0


def test_the_strength_of_the_controlnet_scales_what_it_adds(pipeline: PortraitPipeline) -> None:
    whole, _ = residuals(pipeline, request(ADA, BRUNO))
    less, _ = residuals(pipeline, replace(request(ADA, BRUNO), control_scale=0.8))
    for one, two in zip(whole, less, strict=True):
        assert torch.allclose(two, 0.8 * one, atol=1e-6)
    (off,), (none,) = (
        pipeline.generate([replace(request(ADA), **change)]) for change in ({"control_scale": 0.0}, {"control": "none"})
    )
    assert same(off, none) == 0


def test_a_preset_without_a_controlnet_refuses_a_strength(pipeline: PortraitPipeline) -> None:
    before = pipeline.preset
    try:
        pipeline.preset = replace(before, limits={k: v for k, v in before.limits.items() if k != "control_scale"})
        with pytest.raises(RequestError, match=r"control_scale 0.8: 1.0 to 1.0 wanted"):
            pipeline.generate([replace(request(ADA), control_scale=0.8)])
    finally:
        pipeline.preset = before


def test_acting_everywhere_is_what_the_published_pipeline_does(pipeline: PortraitPipeline) -> None:
    """One person, no mask: the ControlNet's own output, and the identity term of plain decoupled attention."""
    asked = replace(request(ADA), masked=False, control_scale=0.8)
    found, guided = residuals(pipeline, asked)
    control = guided.control
    assert control is not None
    with torch.no_grad():
        down, middle = pipeline.denoiser.controlnet(
            pipeline.noise(asked)[None], torch.tensor([801]), encoder_hidden_states=guided.identity.tokens[0],
            controlnet_cond=control.picture, conditioning_scale=0.8, return_dict=False,
            added_cond_kwargs=guided.added.as_arguments(),
        )  # fmt: skip
    for ours, theirs in zip(found, [*down, middle], strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)
    assert guided.identity.weights(16 * 16).min() == pytest.approx(0.8)
