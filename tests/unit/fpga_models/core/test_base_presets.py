"""Presets of the SD 1.5 and SDXL class, narrow and random: the same code paths as the published ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel

from fpga_models.core import autoencoder
from fpga_models.core.adapters.id_adapter import IdAdapter
from fpga_models.core.memory import Need
from fpga_models.core.pipeline import PersonSlot, PortraitPipeline, PortraitRequest
from fpga_models.core.presets import read_preset
from fpga_models.core.text import encode, windows
from fpga_models.errors import RequestError
from fpga_models.lab import memory, random_networks, speed
from fpga_models.lab.random_networks import BASES, generate_and_restore, modal_shapes_agree, narrow, random_pipeline
from orchestrator.models.pull import CATALOG, read_catalog
from orchestrator.planning.presets import Preset as PlannersPreset
from tests.unit.fpga_models.published import SIDE, facts, save

NAMES = ("sd15", "sdxl")


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def pipeline(name: str) -> PortraitPipeline:
    made = random_pipeline(narrow(BASES[name]), dtype=torch.float32)
    made.preset = replace(made.preset, sizes=((SIDE, SIDE),))
    return made


def pair(pipeline: PortraitPipeline, control: str | None = None) -> PortraitRequest:
    rng = np.random.default_rng(0)
    people = tuple(
        PersonSlot(
            embedding=rng.standard_normal(512),
            kps5=np.array(slot["kps5"]) * SIDE,
            skeleton=np.array(slot["skeleton"]) * [SIDE, SIDE, 1],
        )
        for slot in pipeline.preset.layouts["group_2"]["slots"]
    )
    mode = control or pipeline.preset.controls[0]
    return PortraitRequest(
        prompt="two people", people=people, width=SIDE, height=SIDE, seed=3, steps=2, control=mode  # type: ignore[arg-type]  # a mode of the parameters
    )  # fmt: skip


def test_a_folder_in_the_published_layout_draws_what_its_networks_drew(name: str, tmp_path: Path) -> None:
    made = random_pipeline(narrow(BASES[name]), dtype=torch.float32)
    made.preset = replace(made.preset, sizes=((SIDE, SIDE),), embedding_length=float(facts(name)["embedding_length"]))
    (before,) = made.generate([pair(made)])
    save(made, name, tmp_path)

    loaded = PortraitPipeline.from_pretrained(tmp_path)
    (after,) = loaded.generate([pair(loaded)])

    assert (loaded.second_encoder is not None) == (name == "sdxl")
    assert loaded.denoiser.control_states == ("identity" if name == "sdxl" else "text")
    assert np.abs(after.astype(int) - before.astype(int)).max() <= 1


def test_stock_diffusers_opens_the_folder(name: str, tmp_path: Path) -> None:
    save(random_pipeline(narrow(BASES[name]), dtype=torch.float32), name, tmp_path)
    stock = DiffusionPipeline.from_pretrained(tmp_path, local_files_only=True)
    assert type(stock).__name__ == {"sd15": "StableDiffusionPipeline", "sdxl": "StableDiffusionXLPipeline"}[name]
    pictures = stock("a person", num_inference_steps=1, height=SIDE, width=SIDE, output_type="np").images
    assert pictures.shape == (1, SIDE, SIDE, 3)


def test_two_people_are_drawn_and_both_faces_restored(pipeline: PortraitPipeline) -> None:
    found = generate_and_restore(pipeline, size=SIDE, steps=1)
    assert found["picture"] == [SIDE, SIDE, 3]
    assert found["restored"] == [[SIDE, SIDE, 3]] * 2


def test_the_controlnet_acts_where_something_is_shown_and_not_otherwise(pipeline: PortraitPipeline) -> None:
    (shown,), (hidden,) = pipeline.generate([pair(pipeline)]), pipeline.generate([pair(pipeline, "none")])
    controlnet, pipeline.denoiser.controlnet = pipeline.denoiser.controlnet, None
    (without,) = pipeline.generate([pair(pipeline, "none")])
    pipeline.denoiser.controlnet = controlnet
    assert np.array_equal(hidden, without)
    assert not np.array_equal(shown, hidden)


def test_a_control_mode_that_the_preset_does_not_offer_is_refused(pipeline: PortraitPipeline) -> None:
    with pytest.raises(RequestError, match=r"Control 'both': one of (skeleton|landmark), none wanted"):
        pipeline.generate([pair(pipeline, "both")])


def test_sdxl_prompts_become_what_the_stock_pipeline_makes_of_them() -> None:
    made = random_pipeline(narrow(BASES["sdxl"]), dtype=torch.float32)
    second = made.second_encoder
    stock = StableDiffusionXLPipeline(
        vae=made.vae, unet=made.denoiser.release(), scheduler=DDIMScheduler(), force_zeros_for_empty_prompt=True,
        text_encoder=made.text_encoder, tokenizer=made.tokenizer,
        text_encoder_2=second.encoder, tokenizer_2=second.tokenizer, add_watermarker=False,
    )  # fmt: skip
    wanted, empty, wanted_pooled, empty_pooled = stock.encode_prompt(
        "portrait of a person", device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True
    )
    with torch.no_grad():
        got = encode(["portrait of a person", ""], made.text_encoder, made.tokenizer, second)
    assert torch.allclose(got.states, torch.cat([wanted, empty]), atol=1e-6)
    assert torch.allclose(got.pooled, torch.cat([wanted_pooled, empty_pooled]), atol=1e-6)


@pytest.mark.parametrize("base", NAMES)
def test_repcontrolnet_has_the_keys_and_shapes_of_the_full_size_base(base: str) -> None:
    assert modal_shapes_agree(BASES[base]) == {"sd15": 282, "sdxl": 794}[base]


@pytest.mark.parametrize(("base", "bytes_each", "published"), [("sd15", 2, 96_740_574), ("sdxl", 4, 1_691_134_141)])
def test_the_adapter_of_the_full_size_base_is_as_large_as_the_published_file(
    base: str, bytes_each: int, published: int
) -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, in_channels=4, out_channels=4, **BASES[base].unet)
        adapter = IdAdapter.for_unet(unet, BASES[base].adapter)
    tensors = bytes_each * sum(value.numel() for value in adapter.state_dict().values())
    assert 0 < published - tensors < 300_000  # what the pickle adds: names and shapes


@pytest.mark.parametrize("base", NAMES)
def test_what_is_in_the_catalog_is_a_preset_to_both_sides(base: str, tmp_path: Path) -> None:
    (tmp_path / "preset.json").write_text(json.dumps(facts(base)))
    ours, planners = read_preset(tmp_path), PlannersPreset.model_validate(facts(base))
    assert ours.sizes == planners.sizes
    assert planners.defaults.control in ours.controls
    assert (CATALOG / f"{base}.json").exists()


@pytest.mark.slow
def test_sd15_at_full_size_draws_two_people_and_restores_both_faces_in_eight_gib() -> None:
    pipeline = random_pipeline(random_networks.SD15, dtype=torch.bfloat16)
    assert sum(p.numel() for p in pipeline.denoiser.unet.parameters()) == 859_520_964
    found = generate_and_restore(pipeline, size=128, steps=1)
    assert found["picture"] == [128, 128, 3]
    assert found["restored"] == [[128, 128, 3]] * 2


@pytest.mark.slow
@pytest.mark.parametrize("base", NAMES)
def test_the_catalog_says_what_the_full_size_base_needs_of_a_card(base: str) -> None:
    need, _ = memory.measure(BASES[base])
    stated = Need(**read_catalog(base).preset["memory"])
    for name in ("weights", "text", "step", "decode"):
        assert getattr(stated, name) == pytest.approx(getattr(need, name), abs=0.01), name


def test_the_size_of_a_group_follows_the_card() -> None:
    sdxl = Need(**read_catalog("sdxl").preset["memory"])
    assert [sdxl.fits(card, offload=False) for card in (8, 12, 16, 24)] == [False, False, True, True]
    assert [sdxl.fits(card, offload=True) for card in (8, 12, 16, 24)] == [False, True, True, True]
    assert sdxl.offloads(12)
    assert not sdxl.offloads(24)
    assert [sdxl.group(card - sdxl.weights) for card in (16, 24)] == [12, 31]
    assert sdxl.group(0.1) == 1
    assert sdxl.group(14.0, pixels=0.25) // sdxl.group(14.0) == 4


def test_text_encoders_that_stay_off_the_device_say_the_same(pipeline: PortraitPipeline) -> None:
    before = pipeline.generate([pair(pipeline)])[0]
    pipeline.offload = True
    try:
        assert np.array_equal(pipeline.generate([pair(pipeline)])[0], before)
    finally:
        pipeline.offload = False


def test_decoding_in_slices_gives_the_same_pictures(
    pipeline: PortraitPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents = torch.randn(3, 4, SIDE // 8, SIDE // 8)
    with torch.no_grad():
        whole = pipeline.decode(latents)
        monkeypatch.setattr(autoencoder, "PIXELS_AT_ONCE", SIDE * SIDE)
        sliced = pipeline.decode(latents)
    assert all(np.abs(a.astype(int) - b).max() <= 1 for a, b in zip(whole, sliced, strict=True))


def test_every_comparison_of_the_bench_runs_on_this_base(pipeline: PortraitPipeline) -> None:
    for compared in speed.pairs(pipeline):
        compared.above()
        compared.below()


def test_words_behind_the_first_window_are_heard_and_change_no_other_picture(pipeline: PortraitPipeline) -> None:
    short = replace(pair(pipeline), steps=2)
    words = ", ".join(["portrait of a person"] * 60)
    red, green = (replace(short, prompt=f"{words}, {colour} light") for colour in ("warm", "cool"))
    assert windows(short.prompt, pipeline.tokenizer) == 1
    assert windows(red.prompt, pipeline.tokenizer) > 1
    steps: list[tuple[int, int]] = []

    together = pipeline.generate([red, short, green], on_step=lambda done, total: steps.append((done, total)) or ())

    assert np.array_equal(together[1], pipeline.generate([short])[0])
    assert not np.array_equal(together[0], together[2])
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    dropped = pipeline.generate([red, short, green], on_step=lambda done, total: [0] if done > 1 else [])
    assert [picture is None for picture in dropped] == [True, False, False]
