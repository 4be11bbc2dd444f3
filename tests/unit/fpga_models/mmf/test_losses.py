from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from fpga_models.core import ddim
from fpga_models.core.alignment import align
from fpga_models.core.pipeline import PortraitPipeline
from fpga_models.core.presets import preset_directory
from fpga_models.core.rep_controlnet import RepControlNet
from fpga_models.errors import WeightsError
from fpga_models.faces.recogniser import OnnxRecogniser
from fpga_models.lab.mini.faces.export import export_encoder
from fpga_models.mmf.face_encoding import DecodedEyes, DecodedIdentity, aligned_faces
from fpga_models.mmf.localisation import AttentionProbe, attention_shares
from fpga_models.mmf.loop import Trainee
from fpga_models.mmf.losses import clean_estimate, cosine_loss, localisation_loss
from fpga_models.mmf.samples.data import TrainingData, draw_embeddings, gather
from fpga_models.mmf.samples.text_cache import cache_text_states
from fpga_models.mmf.workbench import ADAPTERS
from tests.unit.fpga_models.networks import scheduler

RECOGNISER = preset_directory("mini") / "faces" / "recogniser.onnx"


def halves() -> torch.Tensor:
    regions = torch.zeros(1, 2, 4, 4)
    regions[:, 0, :2], regions[:, 1, 2:] = 1, 1
    return regions


def test_attention_in_its_place_is_best_and_elsewhere_worst() -> None:
    regions, known = halves(), torch.ones(1, 2)
    right = regions.flatten(2).transpose(1, 2)
    assert localisation_loss(right, regions, known) == -1
    assert localisation_loss(1 - right, regions, known) == 1
    assert localisation_loss(torch.full((1, 16, 2), 0.3), regions, known) == pytest.approx(0)


def test_people_who_are_not_known_do_not_count() -> None:
    regions = halves()
    shares = regions.flatten(2).transpose(1, 2).clone()
    shares[..., 1] = 1 - shares[..., 1]
    assert localisation_loss(shares, regions, torch.tensor([[1.0, 0.0]])) == -1
    assert localisation_loss(shares, regions, torch.zeros(1, 2)) == 0


def test_attention_shares_are_those_of_one_softmax_over_text_and_people() -> None:
    generator = torch.Generator().manual_seed(0)
    query, text, people = (torch.randn(2, n, 8, generator=generator) for n in (9, 5, 6))
    shares = attention_shares(query, text, people, count=3, heads=1)
    scores = query @ torch.cat([text, people], dim=1).transpose(-1, -2) / 8**0.5
    wanted = scores.softmax(-1)[..., 5:].reshape(2, 9, 3, 2).sum(-1)
    assert torch.allclose(shares, wanted, atol=1e-6)


def test_watching_changes_nothing_and_teaches_the_projections(mini: PortraitPipeline, data: TrainingData) -> None:
    chosen = np.flatnonzero(data.scenes.count > 1)[:4]
    batch = gather(data, chosen, ["landmark"] * 4, draw_embeddings(data, chosen, np.random.default_rng(0)))
    trainee, at = Trainee(mini.denoiser, mini.text_encoder), torch.full((4,), 500)
    trainee.learn(ADAPTERS)
    plain = trainee(batch.latents, at, batch)
    probe = AttentionProbe(mini.denoiser.unet, mini.denoiser.id_adapter)
    with probe:
        watched = trainee(batch.latents, at, batch)
    assert torch.equal(plain, watched)
    loss = probe.loss(batch.regions, batch.regions.amax(dim=(-1, -2)) > 0)
    torch.autograd.backward(loss)
    first = mini.denoiser.id_adapter.layers()[0]
    assert first.to_k_ip.weight.grad is not None
    assert first.to_k_ip.weight.grad.abs().max() > 0
    trainee.zero_grad()


def test_learning_through_merged_weights_is_learning_in_the_branch_form(
    mini: PortraitPipeline, data: TrainingData
) -> None:
    chosen = np.arange(2)
    batch = gather(data, chosen, ["both"] * 2, draw_embeddings(data, chosen, np.random.default_rng(0)))
    rep, at = RepControlNet(mini.denoiser.unet), torch.tensor([300, 700])
    for parameter in rep.modal.parameters():
        parameter.data.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    trainee = Trainee(mini.denoiser, mini.text_encoder, rep)
    trainee.learn(("modal.",))
    live = trainee(batch.latents, at, batch)
    torch.autograd.backward(live.square().mean())
    gradients = {name: p.grad.clone() for name, p in rep.modal.named_parameters() if p.grad is not None}
    trainee.zero_grad()
    rep.inject()
    branch = mini.denoiser(batch.latents, at, trainee.prepare(batch))
    torch.autograd.backward(branch.square().mean())
    rep.eject()
    assert torch.allclose(live, branch, atol=1e-4)
    assert len(gradients) > 50
    for name, parameter in rep.modal.named_parameters():
        if parameter.grad is not None:
            scale = float(parameter.grad.abs().max())
            assert torch.allclose(gradients[name], parameter.grad, atol=2e-3 * scale + 1e-9), name


def test_the_clean_estimate_of_a_perfect_prediction_is_the_clean_latent() -> None:
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(3, 4, 8, 8, generator=generator) for _ in range(2))
    at = torch.tensor([10, 400, 800])
    for prediction in ("v_prediction", "epsilon"):
        schedule = ddim.Schedule.of(scheduler(prediction))
        noised, wanted = ddim.add_noise(schedule, clean, noise, at), ddim.target(schedule, clean, noise, at)
        assert torch.allclose(clean_estimate(schedule, noised, wanted, at), clean, atol=1e-4)


def test_faces_are_cut_as_the_face_pack_cuts_them(data: TrainingData) -> None:
    images, kps5 = data.scenes.images[:4], data.scenes.kps5[:4, 0]
    pictures = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    got = aligned_faces(pictures, torch.from_numpy(np.array(kps5))).permute(0, 2, 3, 1) * 127.5 + 127.5
    for row in range(4):
        difference = np.abs(got[row].numpy() - align(images[row], kps5[row]))
        assert difference.mean() < 1.5
        assert np.quantile(difference, 0.99) < 12


def test_the_recogniser_in_torch_says_what_onnxruntime_says() -> None:
    crops = torch.rand(5, 3, 112, 112, generator=torch.Generator().manual_seed(0)) * 2 - 1
    (wanted,) = onnxruntime.InferenceSession(str(RECOGNISER)).run(None, {"input": crops.numpy()})
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    assert np.abs(OnnxRecogniser(RECOGNISER)(crops).numpy() - wanted).max() < 1e-5


def test_an_unknown_operator_is_named(tmp_path: Path) -> None:
    odd = nn.Sequential(nn.Conv2d(3, 4, 112), nn.Flatten(), nn.Softsign())
    export_encoder(odd, tmp_path / "odd.onnx")
    with pytest.raises(WeightsError, match="uses Abs, Div"):
        OnnxRecogniser(tmp_path / "odd.onnx")


def test_the_identity_loss_is_lower_for_the_right_person_and_reaches_the_latents(
    mini: PortraitPipeline, data: TrainingData
) -> None:
    large = np.argsort(data.scenes.kps5[:, 0, 0, 0] - data.scenes.kps5[:, 0, 1, 0])[:4]
    encoder = OnnxRecogniser(RECOGNISER)
    pixels = torch.from_numpy(data.scenes.images[large].astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)
    latents = mini.vae.encode(pixels).latent_dist.mode().detach().requires_grad_(True)
    faces = aligned_faces(pixels, torch.from_numpy(data.scenes.kps5[large, 0]))
    own = torch.zeros(4, 4, 512)
    own[:, 0] = encoder(faces)
    batch = replace(gather(data, large, ["none"] * 4, own), regions=torch.ones(4, 4, 16, 16))
    loss = DecodedIdentity(vae=mini.vae, encoder=encoder)
    right, wrong = loss(latents, batch), loss(latents, replace(batch, embeddings=own.roll(1, dims=0)))
    torch.autograd.backward(right)
    assert right < 0.25 < 0.5 < wrong
    assert latents.grad is not None
    assert (latents.grad.abs().amax(dim=(1, 2, 3)) > 0).all()
    assert loss(latents, replace(batch, embeddings=torch.zeros_like(own))) == 0


def test_the_loss_of_the_eyes_sees_eyes_and_nothing_else(mini: PortraitPipeline, data: TrainingData) -> None:
    large = np.argsort(data.scenes.kps5[:, 0, 0, 0] - data.scenes.kps5[:, 0, 1, 0])[:3]
    embeddings = torch.zeros(3, 4, 512)
    embeddings[:, 0, 0] = 1
    batch = gather(data, large, ["none"] * 3, embeddings)
    pixels = torch.from_numpy(data.scenes.images[large].astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)
    batch = replace(
        batch, latents=mini.vae.encode(pixels).latent_dist.mode().detach(), regions=torch.ones(3, 4, 16, 16)
    )
    loss, clean = DecodedEyes(vae=mini.vae), batch.latents.clone().requires_grad_(True)
    assert loss(clean, batch) < 1e-8

    other = (
        clean.detach() + 0.3 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    ).requires_grad_()
    disturbed = loss(other, batch)
    torch.autograd.backward(disturbed)
    assert disturbed > 1e-3
    assert other.grad is not None
    for row, points in enumerate(batch.kps5[:, 0]):
        strength = other.grad[row].abs().amax(0)
        cells = strength > 0.2 * strength.max()
        rows, columns = torch.nonzero(cells, as_tuple=True)
        eyes = points[:2].mean(dim=0) / 8
        reach = float((points[1] - points[0]).norm()) / 8 + 1.5
        assert (rows + 0.5 - eyes[1]).abs().max() < reach
        assert (columns + 0.5 - eyes[0]).abs().max() < reach
    assert loss(other, replace(batch, embeddings=torch.zeros_like(embeddings))) == 0


def test_no_face_costs_nothing() -> None:
    assert cosine_loss(torch.zeros(0, 8), torch.zeros(0, 8)) == 0


def test_cached_text_states_are_what_the_encoder_says(
    mini: PortraitPipeline, data: TrainingData, tmp_path: Path
) -> None:
    empty = torch.from_numpy(mini.tokenizer([""], padding="max_length", return_tensors="np").input_ids[0])
    cached, empty_state = cache_text_states(data, empty, mini.text_encoder, tmp_path / "text.npy")
    again, _ = cache_text_states(data, empty, mini.text_encoder, tmp_path / "text.npy")
    chosen = np.array([3, 1])
    batch = gather(cached, chosen, ["none"] * 2, draw_embeddings(data, chosen, np.random.default_rng(0)))
    wanted = mini.text_encoder(torch.from_numpy(data.text[chosen])).last_hidden_state
    assert torch.allclose(batch.text, wanted, atol=5e-3)
    assert np.array_equal(np.asarray(again.text), np.asarray(cached.text))
    assert empty_state.shape == wanted.shape[1:]
