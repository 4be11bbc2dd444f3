"""Sizes of the presets of the mini world and their networks at random initialisation."""

from __future__ import annotations

from dataclasses import dataclass

from diffusers import DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from fpga_models.core.adapters.hint import HintAdapter, HintConfig
from fpga_models.core.adapters.id_adapter import IdAdapter, IdAdapterConfig
from fpga_models.core.denoiser import Denoiser
from fpga_models.core.vae import MiniVAE

MAX_PEOPLE = 4
TEXT_WIDTH = 128
TEXT_LENGTH = 48
EMBEDDING_DIM = 512


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of a preset of the mini world.

    Attributes:
        image_side: of a picture in pixels; the latents are 16x16 in each of them.
        latent_channels: of the autoencoder.
        widths: of the UNet at the latents' full and half resolution; heads are 32 wide.
        vae_widths, encoder_blocks, decoder_blocks: of the autoencoder, from pixels to latents.
    """

    name: str
    image_side: int
    latent_channels: int
    widths: tuple[int, int]
    vae_widths: tuple[int, ...]
    encoder_blocks: tuple[int, ...]
    decoder_blocks: tuple[int, ...]

    @property
    def latent_factor(self) -> int:
        """Pixels per latent cell and side."""
        return int(2 ** len(self.vae_widths))

    def build_vae(self) -> MiniVAE:
        """The autoencoder, untrained."""
        vae: MiniVAE = MiniVAE(
            latent_channels=self.latent_channels,
            block_out_channels=(12, *self.vae_widths),
            encoder_blocks=self.encoder_blocks,
            decoder_blocks=self.decoder_blocks,
            sample_size=self.image_side,
        )
        return vae


MINI = Sizes(
    name="mini",
    image_side=128,
    latent_channels=16,
    widths=(64, 128),
    vae_widths=(24, 48, 96),
    encoder_blocks=(1, 1, 2),
    decoder_blocks=(2, 2, 3),
)
MINI256 = Sizes(
    name="mini256",
    image_side=256,
    latent_channels=32,
    widths=(128, 256),
    vae_widths=(24, 48, 96, 192),
    encoder_blocks=(1, 1, 1, 2),
    decoder_blocks=(2, 2, 3, 4),
)
SIZES = {sizes.name: sizes for sizes in (MINI, MINI256)}


def build_unet(sizes: Sizes = MINI) -> UNet2DConditionModel:
    """A stock UNet on 16x16 latents, attention at 8x8 and in the middle only."""
    return UNet2DConditionModel(
        sample_size=sizes.image_side // sizes.latent_factor,
        in_channels=sizes.latent_channels,
        out_channels=sizes.latent_channels,
        block_out_channels=sizes.widths,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=sizes.widths[1] // 32,  # diffusers reads this as the number of heads
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


def build_denoiser(sizes: Sizes = MINI, *, identity_channels: int = 96) -> Denoiser:
    """UNet and adapters, untrained."""
    unet = build_unet(sizes)
    config = IdAdapterConfig(embedding_dim=EMBEDDING_DIM, tokens=4, input_scale=EMBEDDING_DIM**0.5)
    hint = HintConfig(
        out_channels=sizes.widths[0],
        latent_factor=sizes.latent_factor,
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
