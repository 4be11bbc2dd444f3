from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fpga_models.core.adapters.id_adapter import IdAdapter
from fpga_models.core.adapters.local_tokens import LocalConfig
from fpga_models.core.bases.network import People
from fpga_models.core.denoiser import Denoiser
from fpga_models.core.pipeline import crop_planes
from fpga_models.errors import EmbeddingError
from fpga_models.lab.mini.networks import build_denoiser
from tests.unit.fpga_models.networks import tiny_denoiser, tiny_unet

SMALL = LocalConfig(tokens=3, width=32, depth=1)


def crops(seed: int = 0) -> torch.Tensor:
    return torch.rand(2, 2, 3, 112, 112, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def people(**changes: object) -> People:
    generator = torch.Generator().manual_seed(5)
    masks = torch.zeros(2, 2, 8, 8)
    masks[:, 0, :, :4] = 1
    masks[:, 1, :, 4:] = 1
    embeddings = torch.nn.functional.normalize(torch.randn(2, 2, 32, generator=generator), dim=-1)
    return replace(People(embeddings=embeddings, masks=masks, scales=torch.ones(2, 2)), **changes)


@torch.no_grad()
def predict(denoiser: Denoiser, who: People) -> torch.Tensor:
    generator = torch.Generator().manual_seed(6)
    text, latents = (torch.randn(2, *shape, generator=generator) for shape in ((5, 16), (4, 8, 8)))
    control = torch.rand(2, 3, 64, 64, generator=generator)
    condition = denoiser.prepare(text=text, people=who, control=control, flags=torch.ones(2, 2))
    return denoiser(latents, torch.tensor([500, 500]), condition)


@pytest.fixture
def trained() -> Denoiser:
    """A local branch whose value projections are not zero any more."""
    denoiser = tiny_denoiser()
    denoiser.add_local(SMALL)
    torch.manual_seed(3)
    for layer in denoiser.id_adapter.local.layers.in_order():
        torch.nn.init.normal_(layer.to_v_ip.weight, std=0.5)
    return denoiser.eval()


def test_adding_the_branch_changes_nothing_before_it_is_trained() -> None:
    denoiser = tiny_denoiser()
    before = predict(denoiser, people())
    denoiser.add_local(SMALL)
    assert torch.equal(predict(denoiser, people()), before)
    assert torch.equal(predict(denoiser, people(crops=crops())), before)


def test_crops_act_once_it_is_trained_and_follow_their_own_scale(trained: Denoiser) -> None:
    without = predict(trained, people())
    acting = predict(trained, people(crops=crops()))
    assert (acting - without).abs().max() > 1e-3
    assert torch.equal(predict(trained, people(crops=crops(), local_scales=torch.zeros(2, 2))), without)
    only_local = predict(trained, people(crops=crops(), scales=torch.zeros(2, 2), local_scales=torch.ones(2, 2)))
    assert (only_local - acting).abs().max() > 1e-4


def test_a_person_without_a_crop_and_dropped_tokens_are_the_branch_switched_off(trained: Denoiser) -> None:
    without = predict(trained, people())
    assert torch.equal(predict(trained, people(crops=torch.zeros(2, 2, 3, 112, 112))), without)
    assert torch.equal(predict(trained, people(crops=crops(), local_keep=torch.zeros(2, 2, 3))), without)
    half = torch.tensor([1.0, 0.0, 1.0]).expand(2, 2, 3)
    assert not torch.equal(predict(trained, people(crops=crops(), local_keep=half)), without)


def test_what_lies_outside_the_face_does_not_count(trained: Denoiser) -> None:
    changed = crops()
    changed[..., :8, :8] = 1  # a corner of the aligned crop is background
    assert torch.equal(trained.id_adapter.local(changed), trained.id_adapter.local(crops()))


def test_another_persons_crop_changes_nothing_inside_my_mask(trained: Denoiser) -> None:
    first, second = crops(), crops()
    second[:, 1] = crops(seed=9)[:, 1]
    processor = next(p for p in trained.unet.attn_processors.values() if getattr(p, "local", None))
    query = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(8))
    terms = []
    for shown in (first, second):
        who = people(crops=shown)
        condition = trained.prepare(
            text=torch.zeros(2, 5, 16), people=who, control=torch.zeros(2, 3, 64, 64), flags=torch.zeros(2, 2)
        )
        terms.append(processor.identity_term(query, 2, 0.35, condition.identity).view(2, 4, 4, 16).detach())
    difference = (terms[0] - terms[1]).abs()
    assert difference[:, :, :2].max() == 0
    assert difference[:, :, 2:].max() > 1e-4


def test_joining_with_nobody_switches_the_branch_off_for_that_half(trained: Denoiser) -> None:
    who = people(crops=crops())
    arguments = {"text": torch.zeros(2, 5, 16), "control": torch.zeros(2, 3, 64, 64), "flags": torch.zeros(2, 2)}
    conditions = [trained.prepare(people=each, **arguments) for each in (who, who.nobody())]
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        at = torch.tensor([500, 500])
        apart = [trained(latents, at, condition) for condition in conditions]
        together = trained(torch.cat([latents, latents]), at.repeat(2), conditions[0].join(conditions[1])).chunk(2)
    for alone, joined in zip(apart, together, strict=True):
        assert torch.allclose(alone, joined, atol=1e-5)


def test_a_file_keeps_the_branch_and_a_file_without_loads_as_before(trained: Denoiser, tmp_path: Path) -> None:
    trained.id_adapter.save(tmp_path / "with.safetensors", dtype=torch.float32, metadata={})
    loaded = IdAdapter.load(tmp_path / "with.safetensors", tiny_unet())
    assert loaded.config.local == SMALL
    assert torch.equal(loaded.local(crops()), trained.id_adapter.local(crops()))
    assert not any("face" in key for key in load_file(tmp_path / "with.safetensors"))
    plain = tiny_denoiser().id_adapter
    plain.save(tmp_path / "without.safetensors", dtype=torch.float32, metadata={})
    assert IdAdapter.load(tmp_path / "without.safetensors", tiny_unet()).local is None


def test_the_mini_branch_is_small_and_learns_from_its_zero_start() -> None:
    denoiser = build_denoiser()
    denoiser.add_local(LocalConfig())
    local = denoiser.id_adapter.local
    assert sum(p.numel() for p in local.parameters()) < 300_000
    assert all(layer.to_v_ip.weight.abs().max() == 0 for layer in local.layers.in_order())


def test_keys_and_values_are_computed_once_per_condition(trained: Denoiser) -> None:
    condition = trained.prepare(
        text=torch.zeros(2, 5, 16),
        people=people(crops=crops()),
        control=torch.zeros(2, 3, 64, 64),
        flags=torch.zeros(2, 2),
    )
    calls = []
    layer = trained.id_adapter.layers()[0].to_k_ip
    layer.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        for timestep in (900, 500, 100):
            trained(torch.zeros(2, 4, 8, 8), torch.full((2,), timestep), condition)
    assert len(calls) == 1


@pytest.mark.parametrize(
    "crop", [np.zeros((64, 64, 3), np.uint8), np.zeros((112, 112, 3), np.float32), np.zeros((112, 112), np.uint8)]
)
def test_a_crop_of_another_shape_or_type_is_refused_with_both(crop: np.ndarray) -> None:
    with pytest.raises(EmbeddingError, match=r"uint8 \(112, 112, 3\) wanted"):
        crop_planes(crop)
