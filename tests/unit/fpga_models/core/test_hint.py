from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fpga_models.core.adapters.hint import HintAdapter, HintConfig
from fpga_models.core.bases.network import People
from fpga_models.core.denoiser import Condition, Denoiser
from fpga_models.errors import WeightsError
from tests.unit.fpga_models.networks import tiny_adapter, tiny_denoiser, tiny_unet


def condition(denoiser: Denoiser, *, scale: float = 1.0, control: float = 1.0) -> Condition:
    generator = torch.Generator().manual_seed(0)
    people = People(
        embeddings=torch.nn.functional.normalize(torch.randn(1, 1, 32, generator=generator), dim=-1),
        masks=torch.ones(1, 1, 8, 8),
        scales=torch.full((1, 1), scale),
    )
    return denoiser.prepare(
        text=torch.randn(1, 5, 16, generator=generator),
        people=people,
        control=torch.full((1, 3, 64, 64), control),
        flags=torch.tensor([[0.0, 1.0]]),
    )


def run(denoiser: Denoiser, **kwargs: float) -> torch.Tensor:
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return denoiser(latents, torch.tensor([500]), condition(denoiser, **kwargs))


def test_a_fresh_hint_adds_nothing() -> None:
    adapter = HintAdapter(HintConfig(out_channels=8, width=8, identity_channels=0))
    feature = adapter(torch.rand(1, 3, 64, 64), torch.ones(1, 2), torch.zeros(1, 1, 512), torch.ones(1, 1, 8, 8))
    assert feature.shape == (1, 8, 8, 8)
    assert feature.abs().max() == 0


def test_the_control_image_reaches_the_prediction() -> None:
    denoiser = tiny_denoiser()
    assert not torch.allclose(run(denoiser, control=0.0), run(denoiser, control=1.0), atol=1e-4)


def test_without_identity_channels_the_identity_acts_by_attention_only() -> None:
    denoiser = tiny_denoiser(identity_channels=0)
    with torch.no_grad():
        weak, strong = condition(denoiser, scale=0.0), condition(denoiser, scale=1.0)
    assert torch.equal(weak.hint, strong.hint)
    assert not torch.allclose(run(denoiser, scale=0.0), run(denoiser, scale=1.0), atol=1e-5)


def test_identity_channels_follow_the_identity_scale() -> None:
    denoiser = tiny_denoiser()
    with torch.no_grad():
        assert not torch.allclose(condition(denoiser, scale=0.0).hint, condition(denoiser, scale=1.0).hint)


def test_release_gives_the_stock_unet_back_bit_for_bit() -> None:
    latents, text = torch.randn(1, 4, 8, 8), torch.randn(1, 5, 16)
    with torch.no_grad():
        before = tiny_unet()(latents, 500, encoder_hidden_states=text).sample
        unet = tiny_denoiser().release()
        assert torch.equal(unet(latents, 500, encoder_hidden_states=text).sample, before)


def test_what_was_saved_gives_the_same_feature(tmp_path: Path) -> None:
    adapter = tiny_denoiser().hint
    inputs = torch.rand(1, 3, 64, 64), torch.ones(1, 2), torch.rand(1, 2, 32), torch.rand(1, 2, 8, 8)
    adapter.save(tmp_path / "hint.safetensors", dtype=torch.float32, metadata={"modelspec.title": "t"})
    assert torch.equal(HintAdapter.load(tmp_path / "hint.safetensors")(*inputs), adapter(*inputs))


def test_a_file_without_sizes_is_refused(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "hint.safetensors")
    with pytest.raises(WeightsError, match="no hint adapter of this project"):
        HintAdapter.load(tmp_path / "hint.safetensors")


def test_selecting_rows_of_a_joined_condition_gives_the_parts_back() -> None:
    denoiser = tiny_denoiser()
    first, second = condition(denoiser, control=0.0), condition(denoiser, control=1.0)
    back = first.join(second).select(torch.tensor([1]))
    assert torch.equal(back.hint, second.hint)
    assert torch.equal(back.identity.tokens, second.identity.tokens)
    assert tiny_adapter(denoiser.unet).config == denoiser.id_adapter.config
