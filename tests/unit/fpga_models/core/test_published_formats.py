"""Random files in exactly the published key layouts, against what stock diffusers computes from the same file."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from fpga_models.core.adapters.id_adapter import IdAdapter
from fpga_models.core.multi_id_attention import IdentityCondition, eject, inject
from fpga_models.errors import WeightsError

SD15: dict[str, Any] = {
    "block_out_channels": (32, 64, 64, 64),
    "layers_per_block": 1,
    "attention_head_dim": 8,
    "cross_attention_dim": 96,
    "norm_num_groups": 8,
}
"""The blocks of SD 1.5 (attention in three of four, convolutional projections), narrow."""
SDXL: dict[str, Any] = {
    "block_out_channels": (32, 64, 128),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 3),
    "attention_head_dim": (1, 2, 4),
    "cross_attention_dim": 128,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 80 + 6 * 8,
    "norm_num_groups": 8,
}
"""The blocks of SDXL (several transformer layers, text and size embedding), narrow."""
BASES = {"sd15": SD15, "sdxl": SDXL}
EMBEDDING = 512


def unet(base: str) -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(sample_size=16, in_channels=4, out_channels=4, **BASES[base]).eval()


def attention_keys(base: str, rank: int) -> dict[str, torch.Tensor]:
    """`ip_adapter.*` as the training code of IP-Adapter writes it."""
    network, width = unet(base), BASES[base]["cross_attention_dim"]
    state = {}
    for number, name in enumerate(network.attn_processors):
        hidden = network.get_submodule(name.removesuffix(".processor")).to_q.out_features
        context = width if name.endswith("attn2.processor") else hidden
        sizes = {"to_q": hidden, "to_k": context, "to_v": context, "to_out": hidden}
        for part, inputs in sizes.items() if rank else ():
            state[f"ip_adapter.{number}.{part}_lora.down.weight"] = torch.randn(rank, inputs) * 0.1
            state[f"ip_adapter.{number}.{part}_lora.up.weight"] = torch.randn(hidden, rank) * 0.1
        if name.endswith("attn2.processor"):
            state[f"ip_adapter.{number}.to_k_ip.weight"] = torch.randn(hidden, width) * 0.2
            state[f"ip_adapter.{number}.to_v_ip.weight"] = torch.randn(hidden, width) * 0.2
    return state


def faceid(base: str, rank: int) -> dict[str, torch.Tensor]:
    """IP-Adapter-FaceID: a perceptron of twice the embedding's width, four tokens."""
    width = BASES[base]["cross_attention_dim"]
    projector = {
        "proj.0.weight": torch.randn(2 * EMBEDDING, EMBEDDING) * 0.1,
        "proj.0.bias": torch.randn(2 * EMBEDDING) * 0.1,
        "proj.2.weight": torch.randn(4 * width, 2 * EMBEDDING) * 0.1,
        "proj.2.bias": torch.randn(4 * width) * 0.1,
        "norm.weight": torch.rand(width) + 0.5,
        "norm.bias": torch.randn(width) * 0.1,
    }
    return {f"image_proj.{key}": value for key, value in projector.items()} | attention_keys(base, rank)


def instantid(base: str) -> dict[str, torch.Tensor]:
    """InstantID: a resampler of width 128 instead of 1280, four layers, sixteen tokens."""
    width, inner, heads = BASES[base]["cross_attention_dim"], 128, 2
    state = {
        "latents": torch.randn(1, 16, inner),
        "proj_in.weight": torch.randn(inner, EMBEDDING) * 0.1,
        "proj_in.bias": torch.randn(inner) * 0.1,
        "proj_out.weight": torch.randn(width, inner) * 0.1,
        "proj_out.bias": torch.randn(width) * 0.1,
        "norm_out.weight": torch.rand(width) + 0.5,
        "norm_out.bias": torch.randn(width) * 0.1,
    }
    for layer in range(4):
        for norm in ("0.norm1", "0.norm2", "1.0"):
            state[f"layers.{layer}.{norm}.weight"] = torch.rand(inner) + 0.5
            state[f"layers.{layer}.{norm}.bias"] = torch.randn(inner) * 0.1
        state[f"layers.{layer}.0.to_q.weight"] = torch.randn(heads * 64, inner) * 0.1
        state[f"layers.{layer}.0.to_kv.weight"] = torch.randn(2 * heads * 64, inner) * 0.1
        state[f"layers.{layer}.0.to_out.weight"] = torch.randn(inner, heads * 64) * 0.1
        state[f"layers.{layer}.1.1.weight"] = torch.randn(4 * inner, inner) * 0.1
        state[f"layers.{layer}.1.3.weight"] = torch.randn(inner, 4 * inner) * 0.1
    return {f"image_proj.{key}": value for key, value in state.items()} | attention_keys(base, 0)


def make(layout: str, base: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {"faceid": lambda: faceid(base, 0), "lora": lambda: faceid(base, 4), "instantid": lambda: instantid(base)}[
        layout
    ]()


def inputs(base: str) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(4)
    added = {"text_embeds": torch.randn(1, 80, generator=generator), "time_ids": torch.ones(1, 6) * 128}
    return {
        "sample": torch.randn(1, 4, 16, 16, generator=generator),
        "timestep": 500,
        "encoder_hidden_states": torch.randn(1, 5, BASES[base]["cross_attention_dim"], generator=generator),
        "added_cond_kwargs": added if base == "sdxl" else {},
    }


@torch.no_grad()
def ours(network: UNet2DConditionModel, adapter: IdAdapter, base: str, embedding: torch.Tensor) -> torch.Tensor:
    identity = IdentityCondition(
        tokens=adapter.image_proj(embedding[:, None]), masks=torch.ones(1, 1, 16, 16), scales=torch.ones(1, 1)
    )
    return network(**inputs(base), cross_attention_kwargs={"identity": identity}).sample


@torch.no_grad()
def stock(state: dict[str, torch.Tensor], base: str, embedding: torch.Tensor) -> torch.Tensor:
    """diffusers with the same file; its LoRA by hand, since diffusers needs another library for that part."""
    network, groups = unet(base), {"image_proj": {}, "ip_adapter": {}}
    for key, value in state.items():
        group, name = key.split(".", 1)
        groups[group][name] = value
    for number, name in enumerate(network.attn_processors):
        attention = network.get_submodule(name.removesuffix(".processor"))
        layers = {"to_q": attention.to_q, "to_k": attention.to_k, "to_v": attention.to_v, "to_out": attention.to_out[0]}
        for part, layer in layers.items():
            if (up := groups["ip_adapter"].get(f"{number}.{part}_lora.up.weight")) is not None:
                layer.weight += up @ groups["ip_adapter"][f"{number}.{part}_lora.down.weight"]
    network._load_ip_adapter_weights([groups], low_cpu_mem_usage=False)
    arguments = inputs(base)
    resampler = "latents" in groups["image_proj"]
    embeds = embedding[:, None, None] if resampler else embedding[:, None]
    arguments["added_cond_kwargs"] = arguments["added_cond_kwargs"] | {"image_embeds": [embeds]}
    return network(**arguments).sample


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
@pytest.mark.parametrize("layout", ["faceid", "lora", "instantid"])
def test_a_published_file_computes_what_stock_diffusers_computes_and_comes_off_bit_for_bit(
    layout: str, base: str, tmp_path: Path
) -> None:
    state, path = make(layout, base), tmp_path / "adapter.safetensors"
    save_file(state, path)
    network = unet(base)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with torch.no_grad():
        plain = network(**inputs(base)).sample
    embedding = torch.nn.functional.normalize(torch.randn(1, EMBEDDING), dim=-1) * (20 if layout == "instantid" else 1)

    adapter = IdAdapter.load(path, network).eval()
    replaced = inject(network, adapter)
    acting = ours(network, adapter, base, embedding)
    eject(network, replaced)

    assert torch.allclose(acting, stock(state, base, embedding), atol=2e-4)
    assert (acting - plain).abs().max() > 1e-2
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    with torch.no_grad():
        assert torch.equal(network(**inputs(base)).sample, plain)


@pytest.mark.parametrize("layout", ["lora", "instantid"])
def test_a_published_file_that_is_saved_again_has_the_same_tensors(layout: str, tmp_path: Path) -> None:
    state = make(layout, "sd15")
    save_file(state, tmp_path / "a.safetensors")
    IdAdapter.load(tmp_path / "a.safetensors", unet("sd15")).save(
        tmp_path / "b.safetensors", dtype=torch.float32, metadata={}
    )
    again = load_file(tmp_path / "b.safetensors")
    assert again.keys() == state.keys()
    assert all(torch.equal(again[key], value) for key, value in state.items())


@pytest.mark.parametrize("layout", ["faceid", "instantid"])
def test_a_file_for_the_other_base_is_refused_with_both_shapes(layout: str, tmp_path: Path) -> None:
    save_file(make(layout, "sdxl"), tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"made for another base.*this UNet wants"):
        IdAdapter.load(tmp_path / "a.safetensors", unet("sd15"))


def test_a_faceid_plus_file_is_refused_by_name(tmp_path: Path) -> None:
    plus = {"image_proj.perceiver_resampler.proj_in.weight": torch.zeros(4, 4)}
    save_file(make("faceid", "sd15") | plus, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"FaceID-Plus.*wanted"):
        IdAdapter.load(tmp_path / "a.safetensors", unet("sd15"))


def test_a_pickle_is_refused_unread(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
            return Path.touch, (tmp_path / "it-ran",)

    (tmp_path / "ip-adapter.bin").write_bytes(pickle.dumps({"image_proj": Bomb()}))
    with pytest.raises(WeightsError, match=r"ip-adapter\.bin is not a whole safetensors file"):
        IdAdapter.load(tmp_path / "ip-adapter.bin", unet("sd15"))
    assert not (tmp_path / "it-ran").exists()
