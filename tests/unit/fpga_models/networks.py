"""Two-block networks that build in milliseconds, shared by the tests of this folder."""

from __future__ import annotations

import torch
from diffusers import (
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
    UNet2DConditionModel,
)

from fpga_models.core.adapters.hint import HintAdapter, HintConfig
from fpga_models.core.adapters.id_adapter import IdAdapter, IdAdapterConfig
from fpga_models.core.bases.flux import FluxDenoiser
from fpga_models.core.ddim import Schedule
from fpga_models.core.denoiser import Denoiser


def tiny_unet(seed: int = 0) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    ).eval()


def tiny_adapter(unet: UNet2DConditionModel, seed: int = 1) -> IdAdapter:
    torch.manual_seed(seed)
    return IdAdapter.for_unet(unet, IdAdapterConfig(embedding_dim=32, tokens=4)).eval()


def tiny_denoiser(identity_channels: int = 6) -> Denoiser:
    unet = tiny_unet()
    torch.manual_seed(2)
    hint = HintAdapter(HintConfig(out_channels=8, width=8, identity_channels=identity_channels, embedding_dim=32))
    torch.nn.init.normal_(hint.out.weight, std=0.1)
    return Denoiser(unet, tiny_adapter(unet), hint).eval()


def flow_scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(shift=3.0)


def tiny_flux(channels: int, text: int, embedding_dim: int, seed: int = 0) -> FluxDenoiser:
    """One block of two streams and one of one, over latents of so many channels."""
    torch.manual_seed(seed)
    transformer = FluxTransformer2DModel(
        in_channels=4 * channels, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=text, pooled_projection_dim=8, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    torch.nn.init.normal_(transformer.proj_out.weight, std=0.01)
    config = IdAdapterConfig(embedding_dim=embedding_dim, tokens=4)
    return FluxDenoiser(transformer, config, Schedule.of(flow_scheduler())).eval()


def scheduler(prediction: str = "v_prediction", spacing: str = "trailing") -> DDIMScheduler:
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type=prediction,
        timestep_spacing=spacing,
        clip_sample=False,
        set_alpha_to_one=True,
    )
