from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.utils import BaseOutput
from PIL import Image as PilImage

from fpga_models.core.pipeline import PortraitPipeline
from fpga_models.diir import Reference, Restorer
from fpga_models.diir.wrap import pixels_of
from fpga_models.errors import ModelError, RequestError
from fpga_models.lab.mini.networks import build_scheduler
from fpga_models.lab.random_networks import BASES, narrow, random_pipeline
from tests.unit.fpga_models.diir.conftest import OPEN, scene
from tests.unit.fpga_models.networks import flow_scheduler

BLOCKS: dict[str, Any] = {
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "cross_attention_dim": 128,
    "attention_head_dim": 2,
    "norm_num_groups": 8,
}
PICTURE = PilImage.fromarray(scene("half_body", 3).image)


def stock(kind: str, pipeline: PortraitPipeline) -> tuple[Any, dict[str, Any]]:
    """A stock pipeline with random networks, and the arguments of its kind."""
    torch.manual_seed(0)
    up = ("CrossAttnUpBlock2D", "UpBlock2D")
    parts: dict[str, Any] = {
        "vae": AutoencoderKL(block_out_channels=(8,) * 4, norm_num_groups=4, latent_channels=4,
                             down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4),
        "text_encoder": pipeline.text_encoder,
        "tokenizer": pipeline.tokenizer,
        "unet": UNet2DConditionModel(sample_size=16, in_channels=4, out_channels=4, up_block_types=up, **BLOCKS),
        "scheduler": DDIMScheduler.from_config(build_scheduler().config, steps_offset=1),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }  # fmt: skip
    if kind == "text":
        return StableDiffusionPipeline(**parts), {"height": 128, "width": 128}
    if kind == "image":
        return StableDiffusionImg2ImgPipeline(**parts), {"image": PICTURE, "strength": 0.9}
    control = ControlNetModel(conditioning_embedding_out_channels=(8, 8, 8, 8), **BLOCKS)
    return StableDiffusionControlNetPipeline(controlnet=control, **parts), {"image": PICTURE}


@pytest.mark.parametrize("kind", ["text", "image", "control"])
def test_any_stock_pipeline_can_be_followed_by_diir(kind: str, pipeline: PortraitPipeline, restorer: Restorer) -> None:
    generator, arguments = stock(kind, pipeline)
    generator.set_progress_bar_config(disable=True)
    reference = Reference(embedding=np.ones(512), kps5=scene("half_body", 3).people[0].kps5)

    output = restorer.wrap(generator, settings=OPEN)(
        "portrait of a person", references=[reference], num_inference_steps=2, **arguments
    )

    (picture,), (result,) = output.images, output.results
    assert picture.size == output.generated.images[0].size == (128, 128)
    (face,) = [face for face in result.faces if face.reference == 0]
    assert face.attempts == 1  # the crop at the known place went through the networks
    assert np.array_equal(
        np.asarray(picture)[result.mask == 0], np.asarray(output.generated.images[0])[result.mask == 0]
    )


def test_the_faces_of_a_generators_picture_are_changed_and_reported(restorer: Restorer) -> None:
    faces = restorer.faces(np.asarray(PICTURE))

    output = restorer.wrap(lambda: BaseOutput(images=[PICTURE, PICTURE]), settings=OPEN)(
        references=[Reference(embedding=faces[0].embedding)]
    )

    assert [result.faces[0].changed for result in output.results] == [True, True]
    assert not np.array_equal(np.asarray(output.images[0]), np.asarray(PICTURE))
    assert output.generated.images[0] is PICTURE


def test_a_generator_that_returns_no_pictures_is_refused(restorer: Restorer) -> None:
    with pytest.raises(RequestError, match=r"PIL pictures.*ndarray"):
        restorer.wrap(lambda: BaseOutput(images=np.zeros((1, 8, 8, 3))))(references=[])


@pytest.mark.parametrize(("kind", "shape"), [("np", (2, 128, 128, 3)), ("pt", (2, 3, 128, 128))])
def test_arrays_and_tensors_come_as_diffusers_gives_them(restorer: Restorer, kind: str, shape: tuple[int, ...]) -> None:
    def generator(*, output_type: str, return_dict: bool) -> BaseOutput:
        assert (output_type, return_dict) == ("pil", True)
        return BaseOutput(images=[PICTURE, PICTURE])

    images, results = restorer.wrap(generator, settings=OPEN)(references=[], output_type=kind, return_dict=False)

    assert tuple(images.shape) == shape
    assert len(results) == 2
    first = images[0] if kind == "np" else images[0].permute(1, 2, 0).numpy()
    assert np.array_equal(np.round(first * 255).astype(np.uint8), np.asarray(PICTURE))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"output_type": "latent", "references": []}, "latents show no face"),
        ({"references": [Reference(embedding=np.zeros(512))]}, "length 0.0"),
        ({"references": [Reference(embedding=np.ones(512), kps5=np.zeros((4, 2)))]}, "shape"),
    ],
)
def test_what_cannot_work_is_refused_before_the_generator_runs(
    restorer: Restorer, arguments: dict[str, Any], said: str
) -> None:
    def never(**_: Any) -> None:
        raise AssertionError("the generator ran")

    with pytest.raises(ModelError, match=said):
        restorer.wrap(never)(**arguments)


def test_palettes_and_cmyk_are_the_colours_that_they_mean() -> None:
    for mode in ("P", "CMYK"):
        found = pixels_of(PICTURE.convert(mode))
        assert found.shape == (128, 128, 3)
        assert np.abs(found.astype(int) - np.asarray(PICTURE.convert(mode).convert("RGB")).astype(int)).max() == 0
    assert pixels_of(PICTURE.convert("1")).shape == (128, 128)
    assert pixels_of(PICTURE.convert("LA")).shape == (128, 128, 4)


WORDS = {"prompt_embeds": torch.ones(1, 5, 32)}
POOLED = {"pooled_prompt_embeds": torch.ones(1, 64)}
AGAINST = {"negative_prompt_embeds": torch.zeros(1, 5, 32)}


def autoencoder(**options: Any) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8,) * 4, norm_num_groups=4, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, **options,
    )  # fmt: skip


def sdxl() -> tuple[Any, dict[str, Any]]:
    made = random_pipeline(narrow(BASES["sdxl"]), dtype=torch.float32)
    assert made.second_encoder is not None
    generator = StableDiffusionXLPipeline(
        vae=made.vae, unet=made.denoiser.release(), scheduler=DDIMScheduler(), add_watermarker=False,
        text_encoder=made.text_encoder, tokenizer=made.tokenizer,
        text_encoder_2=made.second_encoder.encoder, tokenizer_2=made.second_encoder.tokenizer,
    )  # fmt: skip
    return generator, {"prompt": "a person"}


def sd3() -> tuple[Any, dict[str, Any]]:
    transformer = SD3Transformer2DModel(
        sample_size=16, patch_size=1, in_channels=4, out_channels=4, num_layers=1, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=32, caption_projection_dim=16, pooled_projection_dim=64,
    )  # fmt: skip
    nothing = dict.fromkeys(
        ("text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer", "tokenizer_2", "tokenizer_3")
    )
    generator = StableDiffusion3Pipeline(
        transformer=transformer, vae=autoencoder(shift_factor=0.1), scheduler=flow_scheduler(), **nothing
    )
    return generator, WORDS | POOLED | AGAINST | {"negative_pooled_prompt_embeds": torch.zeros(1, 64)}


def flux() -> tuple[Any, dict[str, Any]]:
    transformer = FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=64, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    nothing = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
    generator = FluxPipeline(
        transformer=transformer, vae=autoencoder(shift_factor=0.1), scheduler=flow_scheduler(), **nothing
    )
    return generator, WORDS | POOLED


def pixart() -> tuple[Any, dict[str, Any]]:
    transformer = PixArtTransformer2DModel(
        sample_size=16, num_layers=1, patch_size=2, attention_head_dim=8, num_attention_heads=2, in_channels=4,
        out_channels=8, cross_attention_dim=16, caption_channels=32,
    )  # fmt: skip
    generator = PixArtSigmaPipeline(
        transformer=transformer, vae=autoencoder(), scheduler=DDIMScheduler(), text_encoder=None, tokenizer=None
    )
    masks = {f"{name}prompt_attention_mask": torch.ones(1, 5, dtype=torch.long) for name in ("", "negative_")}
    return generator, WORDS | AGAINST | masks | {"use_resolution_binning": False, "negative_prompt": None}


@pytest.mark.parametrize("kind", ["pil", "np", "pt"])
@pytest.mark.parametrize("make", [sdxl, sd3, flux, pixart])
def test_stock_pipelines_of_every_class_are_followed_by_diir(
    make: Callable[[], tuple[Any, dict[str, Any]]], kind: str, restorer: Restorer
) -> None:
    torch.manual_seed(0)
    generator, arguments = make()
    generator.set_progress_bar_config(disable=True)
    where = Reference(embedding=np.ones(512), kps5=scene("half_body", 3).people[0].kps5)

    images, (result,) = restorer.wrap(generator, settings=OPEN)(
        references=[where], height=128, width=128, num_inference_steps=1, output_type=kind, return_dict=False,
        **arguments,
    )  # fmt: skip

    assert [face.attempts for face in result.faces if face.reference == 0] == [1]
    shape = (128, 128) if kind == "pil" else (1, 128, 128, 3) if kind == "np" else (1, 3, 128, 128)
    assert (images[0].size if kind == "pil" else tuple(images.shape)) == shape
