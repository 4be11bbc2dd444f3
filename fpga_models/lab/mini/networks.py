"""Sizes of the mini preset and its networks at random initialisation."""

from __future__ import annotations

from diffusers import DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from fpga_models.core.adapters.hint import HintAdapter, HintConfig
from fpga_models.core.adapters.id_adapter import IdAdapter, IdAdapterConfig
from fpga_models.core.denoiser import Denoiser

IMAGE_SIDE = 128
LATENT_SIDE = 16
LATENT_CHANNELS = 16
MAX_PEOPLE = 4
TEXT_WIDTH = 128
TEXT_LENGTH = 48
EMBEDDING_DIM = 512


def build_unet(widths: tuple[int, int] = (64, 128)) -> UNet2DConditionModel:
    """A stock UNet on 16x16 latents, attention at 8x8 and in the middle only."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=widths,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,  # diffusers reads this as the number of heads: head width 32 at 128 channels
        norm_num_groups=16,
    )


def build_text_encoder(vocabulary: int, end_token: int) -> CLIPTextModel:
    """A two-layer CLIP text model, trained together with the UNet."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TEXT_LENGTH,
            bos_token_id=end_token - 1,
            eos_token_id=end_token,
            pad_token_id=end_token,
            initializer_factor=1.0,
        )
    )


def build_denoiser(*, identity_channels: int = 96) -> Denoiser:
    """UNet and adapters, untrained."""
    unet = build_unet()
    config = IdAdapterConfig(embedding_dim=EMBEDDING_DIM, tokens=4, input_scale=EMBEDDING_DIM**0.5)
    hint = HintConfig(
        out_channels=unet.config.block_out_channels[0],
        identity_channels=identity_channels,
        embedding_dim=EMBEDDING_DIM,
    )
    return Denoiser(unet, IdAdapter.for_unet(unet, config), HintAdapter(hint))


def build_scheduler() -> DDIMScheduler:
    """Cosine schedule, v-prediction; sampling starts at the last training step (trailing spacing)."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )
