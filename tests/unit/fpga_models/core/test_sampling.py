"""Few steps and other samplers: what stock diffusers draws with the same scheduler, noise and LoRA."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    StableDiffusionXLPipeline,
)
from safetensors.torch import save_file

from fpga_models.core.adapters.lora import fold
from fpga_models.core.pipeline import PortraitPipeline, PortraitRequest
from fpga_models.core.sampling import NOISE_STRIDE
from fpga_models.errors import PresetError, WeightsError
from fpga_models.lab.random_networks import BASES, narrow, random_pipeline

SIDE = 64
SAMPLERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "euler": (EulerDiscreteScheduler, {"timestep_spacing": "trailing"}),
    "dpm++2m": (DPMSolverMultistepScheduler, {}),
    "lcm": (LCMScheduler, {}),
}


def make(**changes: Any) -> PortraitPipeline:
    made = random_pipeline(narrow(BASES["sdxl"]), dtype=torch.float32)
    made.preset = replace(made.preset, sizes=((SIDE, SIDE),), **changes)
    return made


def asked(seed: int = 1, guidance: float = 3.0) -> PortraitRequest:
    return PortraitRequest(
        prompt="a person", negative_prompt="blurred", people=(), width=SIDE, height=SIDE, seed=seed, steps=4,
        guidance=guidance, control="none",
    )  # fmt: skip


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_sampler_draws_what_stock_diffusers_draws_with_it(name: str, guidance: float) -> None:
    scheduler, options = SAMPLERS[name]
    pipeline = make(sampler={"name": name, **options})
    request = asked(guidance=guidance)
    (ours,) = pipeline.generate([request])
    noise, second = pipeline.noise(request)[None], pipeline.second_encoder
    stock = StableDiffusionXLPipeline(
        vae=pipeline.vae, unet=pipeline.denoiser.release(), text_encoder=pipeline.text_encoder,
        tokenizer=pipeline.tokenizer, text_encoder_2=second.encoder, tokenizer_2=second.tokenizer,
        scheduler=scheduler.from_config(dict(pipeline.scheduler_config), **options), add_watermarker=False,
    )  # fmt: skip
    stock.set_progress_bar_config(disable=True)
    theirs = stock(
        request.prompt, negative_prompt=request.negative_prompt, guidance_scale=guidance, num_inference_steps=4,
        latents=noise, height=SIDE, width=SIDE, output_type="np",
        generator=[torch.Generator().manual_seed(request.seed + NOISE_STRIDE)],
    ).images[0]  # fmt: skip
    assert np.abs(np.asarray(ours, float) - theirs * 255).max() <= 1.0


@pytest.mark.parametrize("name", SAMPLERS)
def test_neighbours_and_dropped_ones_change_nothing(name: str) -> None:
    pipeline = make(sampler={"name": name})
    (alone,) = pipeline.generate([asked(seed=5)])
    one, none, _ = pipeline.generate(
        [asked(seed=5), asked(seed=6), asked(seed=7)], on_step=lambda done, _: [1] if done == 2 else []
    )
    assert none is None
    assert np.abs(one.astype(int) - alone.astype(int)).max() <= 1


def test_an_unknown_sampler_is_refused_by_name() -> None:
    with pytest.raises(PresetError, match=r"sampler 'magic': one of ddim, euler, dpm\+\+2m, lcm wanted"):
        make(sampler={"name": "magic"}).generate([asked()])


def lora(pipeline: PortraitPipeline, path: Path, layout: str) -> dict[str, torch.Tensor]:
    """A LoRA of two linear layers and a convolution in a published layout; returns what it should add."""
    torch.manual_seed(0)
    unet, state, changes = pipeline.denoiser.unet, {}, {}
    for name in ("mid_block.attentions.0.transformer_blocks.0.attn1.to_q", "mid_block.resnets.0.conv1"):
        weight = unet.get_submodule(name).weight
        down, up = torch.randn(3, *weight.shape[1:]) * 0.1, torch.randn(len(weight), 3) * 0.1
        alpha = 6.0 if layout == "kohya" else 3.0
        wide = up[..., None, None] if weight.ndim == 4 else up
        if layout == "kohya":
            key = "lora_unet_" + name.replace(".", "_")
            state |= {
                f"{key}.lora_down.weight": down,
                f"{key}.lora_up.weight": wide,
                f"{key}.alpha": torch.tensor(alpha),
            }
        else:
            state |= {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": wide}
        changes[f"{name}.weight"] = (alpha / 3 * up @ down.flatten(1)).view_as(weight)
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    return changes


@pytest.mark.parametrize("layout", ["peft", "kohya"])
def test_a_lora_is_folded_into_the_layers_that_it_names_and_no_others(layout: str, tmp_path: Path) -> None:
    pipeline = make()
    wanted = lora(pipeline, tmp_path / "a.safetensors", layout)
    unet = pipeline.denoiser.release()
    before = {key: value.clone() for key, value in unet.state_dict().items()}
    assert fold(unet, tmp_path / "a.safetensors", 0.5) == 2
    for key, value in unet.state_dict().items():
        change = 0.5 * wanted[key] if key in wanted else torch.zeros(())
        assert torch.allclose(value, before[key] + change, atol=1e-6), key


def test_a_lora_of_another_base_or_network_is_refused(tmp_path: Path) -> None:
    unet = make().denoiser.release()
    for key, said in (("unet.no.such.layer", "another base"), ("text_encoder.layer", "more than a UNet")):
        state = {f"{key}.lora_A.weight": torch.ones(2, 4), f"{key}.lora_B.weight": torch.ones(4, 2)}
        save_file(state, tmp_path / "b.safetensors")
        with pytest.raises(WeightsError, match=said):
            fold(unet, tmp_path / "b.safetensors")


def test_restoring_keeps_the_exact_pair_whatever_the_sampler() -> None:
    assert make(sampler={"name": "lcm"}).schedule.length == DDIMScheduler().config.num_train_timesteps
