"""A transformer base behind the same pipeline: packed as diffusers packs, people masked on packed tokens, a flow."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, FluxPipeline

from fpga_models.core import ddim
from fpga_models.core.bases.flux import FluxDenoiser, pack, unpack
from fpga_models.core.bases.network import People
from fpga_models.core.pipeline import PersonSlot, PortraitPipeline, PortraitRequest
from fpga_models.core.presets import read_preset
from fpga_models.errors import RequestError
from fpga_models.lab.mini.networks import build_text_encoder
from fpga_models.lab.mini.preset import preset_facts
from fpga_models.lab.mini.tokenizer import build_tokenizer
from tests.unit.fpga_models.networks import flow_scheduler, tiny_flux

SIDE, CHANNELS = 128, 16


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> PortraitPipeline:
    torch.set_num_threads(1)
    folder: Path = tmp_path_factory.mktemp("preset")
    (folder / "preset.json").write_text(json.dumps(preset_facts({"accept": 0.5, "review": 0.3}, [])))
    tokenizer = build_tokenizer(["portrait", "of", "a", "person"])
    torch.manual_seed(1)
    vae = AutoencoderKL(
        block_out_channels=(8,) * 4, norm_num_groups=4, latent_channels=CHANNELS, shift_factor=0.1,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    return PortraitPipeline(
        preset=replace(read_preset(folder), controls=("none",)),
        denoiser=tiny_flux(CHANNELS, 128, 512),
        vae=vae,
        text_encoder=build_text_encoder(len(tokenizer), tokenizer.eos_token_id),
        tokenizer=tokenizer,
        schedule=ddim.Schedule.of(flow_scheduler()),
    )


def person(x: float, seed: int, id_scale: float = 1.0) -> PersonSlot:
    points = np.array([[x - 9, 40], [x + 9, 40], [x, 49], [x - 7, 58], [x + 7, 58]], float)
    return PersonSlot(embedding=np.random.default_rng(seed).standard_normal(512), kps5=points, id_scale=id_scale)


def request(*people: PersonSlot, seed: int = 1) -> PortraitRequest:
    return PortraitRequest(
        prompt="portrait of a person", people=people, width=SIDE, height=SIDE, seed=seed, steps=3, control="none"
    )


ADA, BRUNO, CARLA = person(32, 1), person(96, 2), person(96, 3)


def draw(pipeline: PortraitPipeline, *asked: PortraitRequest) -> list[np.ndarray]:
    pictures = pipeline.generate(asked)
    assert all(picture is not None for picture in pictures)
    return [picture.astype(int) for picture in pictures if picture is not None]


def test_packing_is_that_of_diffusers() -> None:
    latents = torch.randn(2, CHANNELS, 6, 10)
    assert torch.equal(pack(latents), FluxPipeline._pack_latents(latents, 2, CHANNELS, 6, 10))
    assert torch.equal(unpack(pack(latents), 6, 10), latents)
    ids = FluxPipeline._prepare_latent_image_ids(2, 3, 5, "cpu", torch.float32)
    network = tiny_flux(CHANNELS, 128, 512)
    seen: dict[str, torch.Tensor] = {}
    network.transformer.register_forward_pre_hook(lambda _m, _a, kw: seen.update(kw), with_kwargs=True)
    ask(network, latents, torch.zeros(2, 1, 512))
    assert torch.equal(seen["img_ids"], ids)
    assert seen["timestep"].tolist() == pytest.approx([ddim.Schedule.of(flow_scheduler()).scales(500)[1]] * 2)


def people(embeddings: torch.Tensor, masks: torch.Tensor) -> People:
    return People(embeddings=embeddings, masks=masks, scales=torch.ones(embeddings.shape[:2]))


@torch.no_grad()
def ask(network: FluxDenoiser, latents: torch.Tensor, embeddings: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    masks = torch.zeros(*embeddings.shape[:2], *latents.shape[-2:])
    masks[..., : latents.shape[-1] // 2] = 1
    who = replace(people(embeddings, masks), scales=torch.full(embeddings.shape[:2], scale))
    text = torch.randn(len(latents), 7, 128, generator=torch.Generator().manual_seed(0))
    condition = network.prepare(text=text, people=who, control=torch.empty(0), flags=torch.empty(0))
    output: torch.Tensor = network(latents, torch.tensor([500] * len(latents)), condition)
    return output


def test_without_identities_the_stock_transformer_is_left() -> None:
    network, latents = tiny_flux(CHANNELS, 128, 512), torch.randn(1, CHANNELS, 8, 8)
    silent = ask(network, latents, torch.randn(1, 2, 512), scale=0.0)
    text = torch.randn(1, 7, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        (stock,) = network.transformer(
            hidden_states=FluxPipeline._pack_latents(latents, 1, CHANNELS, 8, 8), encoder_hidden_states=text,
            pooled_projections=torch.zeros(1, 8), timestep=network.get_buffer("levels")[[500]],
            img_ids=FluxPipeline._prepare_latent_image_ids(1, 4, 4, "cpu", torch.float32), txt_ids=torch.zeros(7, 3),
            return_dict=False,
        )  # fmt: skip
    assert torch.equal(silent, FluxPipeline._unpack_latents(stock, 64, 64, 8))
    assert not torch.equal(silent, ask(network, latents, torch.randn(1, 2, 512)))


@torch.no_grad()
def test_each_person_acts_in_their_own_tokens_and_nowhere_else() -> None:
    network = tiny_flux(CHANNELS, 128, 512)
    layer, states = network.ip_adapter[0], torch.randn(1, 16, 32)
    masks = torch.zeros(1, 2, 8, 8)
    masks[0, 0, :, :3], masks[0, 1, :, 5:] = 1, 1

    def term(embeddings: torch.Tensor) -> torch.Tensor:
        who = people(embeddings, masks)
        condition = network.prepare(text=torch.zeros(1, 1, 128), people=who, control=masks, flags=masks)
        found: torch.Tensor = layer(states, condition.identity).view(4, 4, -1)
        return found

    both = torch.randn(1, 2, 512)
    other = torch.cat([both[:, :1], torch.randn(1, 1, 512)], dim=1)
    first, second = term(both), term(other)
    assert torch.equal(first[:, :2], second[:, :2]), "another second person changes nothing at the first"
    assert not torch.equal(first[:, 2:], second[:, 2:])
    masks[0, 1] = 0
    assert not term(both)[:, 2:].any(), "exactly nothing outside all masks"


def test_a_picture_does_not_depend_on_its_neighbours_nor_on_the_order_of_people(pipeline: PortraitPipeline) -> None:
    asked = [request(ADA), request(ADA, BRUNO, seed=2), request(seed=3)]
    together = draw(pipeline, *asked)
    for one, beside in zip(asked, together, strict=True):
        assert np.abs(draw(pipeline, one)[0] - beside).max() <= 1
    assert np.abs(draw(pipeline, request(BRUNO, ADA, seed=2))[0] - together[1]).max() <= 1


def test_strength_0_is_nobody_and_identities_matter(pipeline: PortraitPipeline) -> None:
    silent = [draw(pipeline, request(ADA, person(96, seed, id_scale=0.0)))[0] for seed in (2, 3)]
    assert np.array_equal(*silent)
    assert not np.array_equal(draw(pipeline, request(ADA, BRUNO))[0], draw(pipeline, request(ADA, CARLA))[0])


def test_dropped_pictures_leave_the_others_as_they_are(pipeline: PortraitPipeline) -> None:
    asked = [request(ADA), request(BRUNO, seed=2)]
    alone = draw(pipeline, asked[1])[0]
    gone, left = pipeline.generate(asked, on_step=lambda done, _: {0} if done == 1 else None)
    assert gone is None
    assert left is not None
    assert np.abs(left.astype(int) - alone).max() <= 1


def test_latents_that_cannot_be_packed_and_a_request_for_the_unet_are_refused(pipeline: PortraitPipeline) -> None:
    with pytest.raises(RequestError, match="7 x 8 cells: even numbers"):
        ask(tiny_flux(CHANNELS, 128, 512), torch.randn(1, CHANNELS, 7, 8), torch.zeros(1, 1, 512))
    with pytest.raises(RequestError, match="draws with FluxDenoiser, not with a UNet"):
        _ = pipeline.denoiser
