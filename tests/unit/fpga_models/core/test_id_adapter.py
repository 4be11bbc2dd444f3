from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from fpga_models.core.adapters.id_adapter import IdAdapter, IdAdapterConfig
from fpga_models.errors import WeightsError
from tests.unit.fpga_models.networks import tiny_adapter, tiny_unet


def test_the_file_has_the_ip_adapter_key_layout(tmp_path: Path) -> None:
    tiny_adapter(tiny_unet()).save(tmp_path / "a.safetensors", dtype=torch.float32, metadata={})
    keys = set(load_file(tmp_path / "a.safetensors"))
    assert {"image_proj.proj.0.weight", "image_proj.proj.2.bias", "image_proj.norm.weight"} <= keys
    layers = {int(key.split(".")[1]) for key in keys if key.startswith("ip_adapter.")}
    assert layers == {1, 3, 5, 7}  # one down, two up, one middle


def test_what_was_saved_projects_the_same_tokens(tmp_path: Path) -> None:
    unet = tiny_unet()
    adapter = IdAdapter.for_unet(unet, IdAdapterConfig(embedding_dim=32, tokens=4, input_scale=5.0))
    adapter.save(tmp_path / "a.safetensors", dtype=torch.float32, metadata={})
    embeddings = torch.nn.functional.normalize(torch.randn(2, 3, 32), dim=-1)

    loaded = IdAdapter.load(tmp_path / "a.safetensors", unet)

    assert loaded.config == replace(adapter.config, input_scale=1.0)
    assert torch.allclose(loaded.image_proj(embeddings), adapter.image_proj(embeddings), atol=1e-5)


def test_a_zero_embedding_goes_through_the_projector() -> None:
    tokens = tiny_adapter(tiny_unet()).image_proj(torch.zeros(1, 1, 32))
    assert tokens.shape == (1, 1, 4, 16)
    assert tokens.abs().sum() > 0


def test_a_file_for_another_base_is_refused_with_both_shapes(tmp_path: Path) -> None:
    tiny_adapter(tiny_unet()).save(tmp_path / "a.safetensors", dtype=torch.float32, metadata={})
    config = dict(tiny_unet().config) | {"block_out_channels": (8, 32)}
    other = UNet2DConditionModel.from_config(config)
    with pytest.raises(WeightsError, match=r"made for another base.*\(16, 16\).*\(32, 16\)"):
        IdAdapter.load(tmp_path / "a.safetensors", other)


def test_a_file_of_unknown_layout_is_refused(tmp_path: Path) -> None:
    save_file({"lora.up": torch.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"no image_proj.*lora\.up"):
        IdAdapter.load(tmp_path / "a.safetensors", tiny_unet())
