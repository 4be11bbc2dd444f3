"""A pipeline with a tiny random UNet and an exact autoencoder, and the real face pack on rendered scenes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin

from fpga_models.core import ddim
from fpga_models.core.adapters.hint import HintAdapter, HintConfig
from fpga_models.core.adapters.id_adapter import IdAdapter, IdAdapterConfig
from fpga_models.core.denoiser import Denoiser
from fpga_models.core.pipeline import PortraitPipeline
from fpga_models.core.presets import read_preset
from fpga_models.core.vae import DecoderOutput, DiagonalGaussianDistribution, EncoderOutput
from fpga_models.diir import RESTORE, Restorer
from fpga_models.faces import FacePack
from fpga_models.lab.mini.networks import build_scheduler, build_text_encoder
from fpga_models.lab.mini.preset import preset_facts
from fpga_models.lab.mini.tokenizer import build_tokenizer
from fpga_models.lab.synthetic import Rendered, random_scene, render
from tests.unit.fpga_models.networks import flow_scheduler, tiny_flux

WEIGHTS = Path(__file__).parents[4] / "fpga_models" / "weights" / "mini"
CELL = 8
OPEN = replace(
    RESTORE,
    t_star=0.5,
    id_scale=0.8,
    steps=2,
    guidance=1.0,
    gamma=0.0,
    min_gain=-2.0,
    max_landmark_shift=9.0,
    retries=0,
)
"""Settings under which the gate lets everything through, in two steps."""


class FoldingVAE(ModelMixin, ConfigMixin):
    """8x8 pixels folded into channels: an autoencoder without any loss."""

    config_name = "config.json"

    @register_to_config
    def __init__(self, scaling_factor: float = 2.0) -> None:
        super().__init__()

    def encode(self, x: torch.Tensor) -> EncoderOutput:
        folded = torch.nn.functional.pixel_unshuffle(x, CELL)
        return EncoderOutput(latent_dist=DiagonalGaussianDistribution(torch.cat([folded, torch.zeros_like(folded)], 1)))

    def decode(self, z: torch.Tensor) -> DecoderOutput:
        return DecoderOutput(sample=torch.nn.functional.pixel_shuffle(z, CELL))


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> PortraitPipeline:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("preset")
    (folder / "preset.json").write_text(json.dumps(preset_facts({"accept": 0.5, "review": 0.3}, [])))
    tokenizer = build_tokenizer(["portrait", "of", "a", "person"])
    channels = 3 * CELL**2
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=128,
        attention_head_dim=2,
        norm_num_groups=8,
    )
    torch.nn.init.normal_(unet.conv_out.weight, std=0.01)
    adapter = IdAdapter.for_unet(unet, IdAdapterConfig(embedding_dim=512, tokens=4))
    hint = HintAdapter(HintConfig(out_channels=16, width=16, identity_channels=8, embedding_dim=512))
    torch.nn.init.normal_(hint.out.weight, std=0.05)
    return PortraitPipeline(
        preset=read_preset(folder),
        denoiser=Denoiser(unet, adapter, hint),
        vae=FoldingVAE(),  # type: ignore[arg-type]  # what is used of an autoencoder
        text_encoder=build_text_encoder(len(tokenizer), tokenizer.eos_token_id),
        tokenizer=tokenizer,
        schedule=ddim.Schedule.of(build_scheduler()),
    )


def as_transformer(pipeline: PortraitPipeline) -> PortraitPipeline:
    """The same autoencoder and text encoder with a small transformer that predicts a flow."""
    return PortraitPipeline(
        preset=replace(pipeline.preset, controls=("none",)),
        denoiser=tiny_flux(3 * CELL**2, 128, 512),
        vae=pipeline.vae,
        text_encoder=pipeline.text_encoder,
        tokenizer=pipeline.tokenizer,
        schedule=ddim.Schedule.of(flow_scheduler()),
    )


@pytest.fixture(scope="session")
def pack() -> FacePack:
    return FacePack.load(WEIGHTS / "faces")


@pytest.fixture(scope="session")
def restorer(pipeline: PortraitPipeline, pack: FacePack) -> Restorer:
    return Restorer(pipeline, pack)


def scene(kind: str, seed: int, size: int = 128) -> Rendered:
    people = int(kind[-1]) if kind.startswith("group_") else 1
    identities = [100_000 + 10 * seed + index for index in range(people)]
    return render(random_scene(np.random.default_rng(seed), identities, kind, size))
