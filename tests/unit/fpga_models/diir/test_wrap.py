from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    FluxPipeline,
    PixArtSigmaPipeline,
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
from tests.unit.fpga_models.diir.conftest import OPEN, scene

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


def test_pipelines_of_sdxl_sd3_flux_and_pixart_take_what_is_handed_on() -> None:
    for stock_class in (StableDiffusionXLPipeline, StableDiffusion3Pipeline, FluxPipeline, PixArtSigmaPipeline):
        taken = inspect.signature(stock_class.__call__).parameters
        assert {"output_type", "return_dict"} <= taken.keys()
        assert taken["output_type"].default == "pil"
