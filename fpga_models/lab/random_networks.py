"""Complete pipelines of published bases at their published sizes, with random weights: for shapes, memory and speed.

    python -m fpga_models.lab.random_networks sd15 --size 256 --steps 2

draws a picture of two people and restores both faces, and prints what it took. Speed does not depend on weight values;
pictures of random networks show nothing.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from fpga_models.core import ddim
from fpga_models.core.adapters.id_adapter import IdAdapter, IdAdapterConfig
from fpga_models.core.adapters.resampler import ResamplerConfig
from fpga_models.core.denoiser import Denoiser
from fpga_models.core.pipeline import PersonSlot, PortraitPipeline, PortraitRequest
from fpga_models.core.presets import Preset, preset_directory, read_preset
from fpga_models.core.rep_controlnet import RepControlNet, merge_states
from fpga_models.core.text import SecondEncoder
from fpga_models.diir.edit import CropEdit, edit_crops
from fpga_models.diir.settings import RESTORE

BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Base:
    """Sizes of a base as its published configuration files have them, and of the adapter that goes with it."""

    unet: dict[str, Any]
    vae: dict[str, object]
    text: dict[str, Any]
    second_text: dict[str, object] | None
    adapter: IdAdapterConfig
    preset: dict[str, Any]


CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
CLIP_BIG_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}
VAE: dict[str, object] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
SD15 = Base(
    unet={"block_out_channels": (320, 640, 1280, 1280), "attention_head_dim": 8, "cross_attention_dim": 768},
    vae=VAE | {"scaling_factor": 0.18215},
    text=CLIP_L,
    second_text=None,
    adapter=IdAdapterConfig(tokens=4, hidden_multiple=2, rank=128),
    preset={"sizes": ((512, 512),), "controls": ("skeleton", "none")},
)
SDXL = Base(
    unet={
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    vae=VAE | {"scaling_factor": 0.13025},
    text=CLIP_L,
    second_text=CLIP_BIG_G,
    adapter=IdAdapterConfig(tokens=16, resampler=ResamplerConfig()),
    preset={"sizes": ((1024, 1024),), "controls": ("landmark", "none"), "control_states": "identity"},
)
BASES = {"sd15": SD15, "sdxl": SDXL}


def narrow(base: Base) -> Base:
    """The same blocks a few channels wide, for tests that must be quick."""
    unet = base.unet | {"block_out_channels": tuple(c // 10 for c in base.unet["block_out_channels"])}
    unet |= {"norm_num_groups": 8, "attention_head_dim": 2, "cross_attention_dim": 96 if base.second_text else 32}
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    second = base.second_text and base.second_text | small | {"hidden_size": 64, "projection_dim": 64}
    if second:
        unet |= {"projection_class_embeddings_input_dim": 64 + 6 * 8, "addition_time_embed_dim": 8}
        unet |= {"transformer_layers_per_block": (1, 1, 2), "attention_head_dim": (2, 2, 2)}
    resampler = base.adapter.resampler and ResamplerConfig(output_dim=96, tokens=4, width=64, depth=1, heads=1)
    return replace(
        base,
        unet=unet,
        vae=base.vae | {"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4, "layers_per_block": 1},
        text=base.text | small,
        second_text=second,
        adapter=replace(base.adapter, rank=min(4, base.adapter.rank), resampler=resampler),
        preset=base.preset | {"sizes": ((128, 128),)},
    )


def random_pipeline(base: Base, *, dtype: torch.dtype, device: str = "cpu") -> PortraitPipeline:
    """Every network of a base, as `PortraitPipeline.from_pretrained` would load them from a preset folder."""
    options = {"sample_size": 64, "in_channels": 4, "out_channels": 4}
    unet = _build(lambda: UNet2DConditionModel(**options, **base.unet), dtype, device)
    mini = preset_directory("mini")
    tokenizer = CLIPTokenizer.from_pretrained(mini / "tokenizer", local_files_only=True, model_max_length=77)
    second = None
    if sizes := base.second_text:
        encoder = _build(lambda: CLIPTextModelWithProjection(CLIPTextConfig(**sizes)), dtype, device)
        second = SecondEncoder(encoder, tokenizer)
    schedule = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, set_alpha_to_one=False
    )
    preset: Preset = replace(read_preset(mini), name="random", **base.preset)
    adapter = _build(lambda: IdAdapter.for_unet(unet, base.adapter), dtype, device)
    controlnet = _build(lambda: _controlnet(base), dtype, device)
    return PortraitPipeline(
        preset=preset,
        denoiser=Denoiser(unet, adapter, None, controlnet, preset.control_states),
        vae=_build(lambda: AutoencoderKL(**base.vae), dtype, device),
        text_encoder=_build(lambda: CLIPTextModel(CLIPTextConfig(**base.text)), dtype, device),
        tokenizer=tokenizer,
        second_encoder=second,
        schedule=ddim.Schedule.of(schedule),
        scheduler_config=schedule.config,
    )


def _controlnet(base: Base) -> ControlNetModel:
    known = {key: value for key, value in base.unet.items() if key != "up_block_types"}
    return ControlNetModel(in_channels=4, **known)


def _build(make: Callable[[], Any], dtype: torch.dtype, device: str) -> Any:
    """Lay a network out without computing its usual start values, then fill it from one block of noise."""
    with torch.device("meta"):
        module = nn.Module.to(make(), dtype)  # diffusers' own `to` warns about layers that these do not have
    module.to_empty(device=device)
    noise = torch.rand(BLOCK, generator=torch.Generator().manual_seed(0)).to(device, dtype) * 2 - 1
    for name, values in [*module.named_parameters(), *module.named_buffers()]:
        if name.endswith("position_ids"):
            values.data.copy_(torch.arange(values.shape[-1]).expand_as(values))
        elif values.ndim < 2:
            values.data.fill_(1.0 if name.endswith("weight") else 0.0)
        else:
            _repeat(values.data, noise * (3.0 / max(1, values[0].numel())) ** 0.5)
    return module.eval()


def _repeat(values: torch.Tensor, block: torch.Tensor) -> None:
    flat = values.view(-1)
    for start in range(0, len(flat), len(block)):
        part = flat[start : start + len(block)]
        part.copy_(block[: len(part)])


@torch.no_grad()
def modal_shapes_agree(base: Base) -> int:
    """Lay out a UNet with its RepControlNet, without any memory, and merge; returns how many layers were copied.

    Raises:
        AssertionError: a merged key or shape is not the UNet's own.
    """
    with torch.device("meta"):
        unet: nn.Module = UNet2DConditionModel(sample_size=64, in_channels=4, out_channels=4, **base.unet)
        network = RepControlNet(unet)
        wanted = unet.state_dict()
        merged = merge_states(wanted, network.modal_state(), network.ratio)
    got = {key: value.shape for key, value in merged.items()}
    assert got == {key: value.shape for key, value in wanted.items()}, "merged weights are not the UNet's"
    return len(network.modal)


def generate_and_restore(pipeline: PortraitPipeline, *, size: int, steps: int) -> dict[str, Any]:
    """A picture of two people, then both faces restored as one batch of crops; times in seconds."""
    width = pipeline.denoiser.id_adapter.config.embedding_dim
    slots = pipeline.preset.layouts["group_2"]["slots"]
    rng = np.random.default_rng(0)
    people = tuple(
        PersonSlot(
            embedding=rng.standard_normal(width),
            kps5=np.array(slot["kps5"]) * size,
            skeleton=np.array(slot["skeleton"]) * [size, size, 1],
        )
        for slot in slots
    )
    pipeline.preset = replace(pipeline.preset, sizes=((size, size),))
    began = time.perf_counter()
    (picture,) = pipeline.generate(
        [
            PortraitRequest(
                prompt="two people", people=people, width=size, height=size, seed=1, steps=steps,
                control=pipeline.preset.controls[0],
            )
        ]
    )  # fmt: skip
    drawn = time.perf_counter()
    assert picture is not None, "nothing was dropped"
    crops = [
        CropEdit(
            pixels=picture,
            kps5=np.asarray(person.kps5),
            mask=np.ones((size, size), np.float32),
            embedding=person.embedding,
            current=person.embedding,
            seed=2,
        )
        for person in people
    ]
    settings = replace(RESTORE, steps=steps)
    edited = edit_crops(pipeline, crops, settings, t_star=settings.t_star, on_step=lambda: None)
    return {
        "picture": list(picture.shape),
        "restored": [list(crop.shape) for crop in edited],
        "generate_seconds": round(drawn - began, 1),
        "restore_seconds": round(time.perf_counter() - drawn, 1),
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m fpga_models.lab.random_networks")
    parser.add_argument("base", choices=sorted(BASES))
    parser.add_argument("--size", type=int, default=256, help="side of the picture in px")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--narrow", action="store_true", help="a few channels wide instead")
    options = parser.parse_args()
    base = narrow(BASES[options.base]) if options.narrow else BASES[options.base]
    facts: dict[str, Any] = {"base": options.base, "size": options.size, "steps": options.steps, "dtype": "bfloat16"}
    facts |= {"threads": torch.get_num_threads(), "rep_controlnet_layers": modal_shapes_agree(base)}
    began = time.perf_counter()
    pipeline = random_pipeline(base, dtype=torch.bfloat16, device=options.device)
    facts["build_seconds"] = round(time.perf_counter() - began, 1)
    facts["parameters"] = {
        name: sum(p.numel() for p in part.parameters())
        for name, part in (
            ("unet", pipeline.denoiser.unet),
            ("id_adapter", pipeline.denoiser.id_adapter),
            ("controlnet", pipeline.denoiser.controlnet),
            ("vae", pipeline.vae),
            ("text_encoder", pipeline.text_encoder),
            ("text_encoder_2", pipeline.second_encoder),
        )
        if part is not None
    }
    facts |= generate_and_restore(pipeline, size=options.size, steps=options.steps)
    facts["peak_gib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    sys.stdout.write(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main()
