from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel

from fpga_models.core import ddim
from fpga_models.errors import DivergedError
from fpga_models.mmf import checkpoint
from fpga_models.mmf.loop import LoopConfig, Losses, Trainee, Trainer
from fpga_models.mmf.losses import draw_timesteps, region_mse, weighted_mse
from fpga_models.mmf.optimizer import MuonAdamW, OptimizerConfig, orthogonalise
from fpga_models.mmf.samples.batch import Augmentation, TrainingBatch, augment
from fpga_models.mmf.samples.modes import ModePlan, draw_modes
from tests.unit.fpga_models.networks import scheduler, tiny_denoiser

EMPTY = torch.zeros(6, dtype=torch.long)


def batch(size: int = 4) -> TrainingBatch:
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(size, 3, 8, 8)
    masks[:, 0, :4], masks[:, 1, 4:] = 1, 1  # two people and padding
    return TrainingBatch(
        latents=torch.randn(size, 4, 8, 8, generator=generator),
        text=torch.ones(size, 6, dtype=torch.long),
        embeddings=torch.nn.functional.normalize(torch.randn(size, 3, 32, generator=generator), dim=-1),
        regions=masks,
        masks=masks,
        counted=torch.ones(size, 1, 8, 8),
        control=torch.rand(size, 3, 64, 64, generator=generator),
        flags=torch.ones(size, 2),
        kps5=torch.zeros(size, 3, 5, 2),
    )


def trainer() -> Trainer:
    denoiser = tiny_denoiser()
    torch.manual_seed(0)
    text = CLIPTextConfig(
        vocab_size=8, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=6, eos_token_id=7,
    )  # fmt: skip
    config = LoopConfig(seed=3, batch_size=4, bfloat16=False)
    return Trainer(Trainee(denoiser, CLIPTextModel(text)), ddim.Schedule.of(scheduler()), config, EMPTY)


def steps(trainer: Trainer, count: int, rate: float = 3e-3) -> list[float]:
    return [trainer.train_step(batch(), trainer.rng(), rate)["loss"] for _ in range(count)]


def test_training_lowers_the_loss() -> None:
    torch.set_num_threads(1)
    losses = steps(trainer(), 60)
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])


def test_a_resumed_run_continues_bit_for_bit(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    whole = trainer()
    steps(whole, 3)
    folder = whole.save(tmp_path, {"minutes": 1.5})
    after = steps(whole, 2)

    resumed = trainer()
    facts = resumed.resume(folder)

    assert facts["minutes"] == 1.5
    assert steps(resumed, 2) == after
    assert all(torch.equal(a, b) for a, b in zip(whole.ema.values(), resumed.ema.values(), strict=True))


def test_only_complete_checkpoints_are_found_and_old_ones_go(tmp_path: Path) -> None:
    run = trainer()
    for _ in range(3):
        steps(run, 1)
        run.save(tmp_path, {})
    (tmp_path / "checkpoint-99").mkdir()  # a folder whose state.json was never written
    assert checkpoint.latest(tmp_path) == tmp_path / "checkpoint-3"
    checkpoint.prune(tmp_path, keep=2, protected=tmp_path / "checkpoint-1")
    assert (tmp_path / "checkpoint-1").exists()
    assert not (tmp_path / "checkpoint-2").exists()


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    matrices = torch.randn(2, 12, 40, generator=torch.Generator().manual_seed(0))
    for case in (matrices, matrices.transpose(-1, -2)):
        values = torch.linalg.svdvals(orthogonalise(case, 5))
        assert 0.5 < values.min() <= values.max() < 1.4


def test_the_optimizer_brings_a_matrix_and_a_bias_to_their_target() -> None:
    torch.manual_seed(0)
    layer, wanted = torch.nn.Linear(6, 6), torch.nn.Linear(6, 6)
    optimizer = MuonAdamW(layer.named_parameters(), OptimizerConfig())
    inputs = torch.randn(64, 6)
    for step in range(300):
        torch.autograd.backward(torch.nn.functional.mse_loss(layer(inputs), wanted(inputs).detach()))
        optimizer.step(0.03 * (1 - step / 300))
    assert torch.nn.functional.mse_loss(layer(inputs), wanted(inputs)) < 1e-3


def test_an_update_of_a_convolution_has_the_size_of_an_adam_step() -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(16, 16, 3)
    before = conv.weight.detach().clone()
    optimizer = MuonAdamW(conv.named_parameters(), OptimizerConfig())
    torch.autograd.backward(conv(torch.randn(2, 16, 8, 8)).square().mean())
    optimizer.step(1e-2)
    assert 0.1e-2 < (conv.weight.detach() - before).square().mean().sqrt() < 0.3e-2


def test_without_muon_it_is_torchs_adamw() -> None:
    torch.manual_seed(0)
    ours, theirs = torch.nn.Linear(6, 6), torch.nn.Linear(6, 6)
    theirs.load_state_dict(ours.state_dict())
    config = OptimizerConfig(muon=False, weight_decay=0.02, clip_norm=1e9)
    optimizer = MuonAdamW(ours.named_parameters(), config)
    groups = [{"params": [theirs.weight], "weight_decay": 0.02}, {"params": [theirs.bias], "weight_decay": 0.0}]
    wanted = torch.optim.AdamW(groups, lr=1e-2, betas=config.betas)
    for seed in range(5):
        inputs = torch.randn(8, 6, generator=torch.Generator().manual_seed(seed))
        for layer in (ours, theirs):
            torch.autograd.backward(layer(inputs).square().mean())
        optimizer.step(1e-2)
        wanted.step()
        wanted.zero_grad()
    assert torch.allclose(ours.weight, theirs.weight, atol=1e-6)
    assert torch.allclose(ours.bias, theirs.bias, atol=1e-6)


def test_dropped_identities_are_zero_and_dropped_texts_are_empty() -> None:
    always = Augmentation(text_drop=0, id_drop=0, both_drop=1, full_mask=0)
    dropped = augment(batch(), always, np.random.default_rng(0), EMPTY)
    assert dropped.embeddings.abs().max() == 0
    assert torch.equal(dropped.text, EMPTY.expand(4, -1))


def test_whoever_is_dropped_loses_the_crop_too_and_crops_move_with_their_people() -> None:
    faces = torch.arange(1.0, 4.0).view(1, 3, 1, 1, 1).expand(8, 3, 3, 112, 112)
    shown = replace(batch(8), crops=faces)
    quiet = Augmentation(text_drop=0, id_drop=0, both_drop=0, full_mask=0, embedding_noise=0, local_token_drop=0.5)
    after = augment(shown, quiet, np.random.default_rng(0), EMPTY, local_tokens=4)
    assert after.crops is not None
    assert after.local_keep is not None
    marks = after.crops[:, :, 0, 0, 0].long() - 1
    assert torch.allclose(after.embeddings, batch(8).embeddings.gather(1, marks[..., None].expand(-1, -1, 32)))
    assert after.local_keep.shape == (8, 3, 4)
    assert 0.2 < after.local_keep.float().mean() < 0.8
    dropped = augment(shown, replace(quiet, both_drop=1), np.random.default_rng(0), EMPTY, local_tokens=4)
    assert dropped.crops is not None
    assert dropped.crops.abs().max() == 0


def test_people_change_places_together_with_their_masks() -> None:
    quiet = Augmentation(text_drop=0, id_drop=0, both_drop=0, full_mask=0, embedding_noise=0)
    before = batch(16)
    after = augment(before, quiet, np.random.default_rng(0), EMPTY)
    before_map = torch.einsum("bke,bkhw->behw", before.embeddings, before.masks)
    after_map = torch.einsum("bke,bkhw->behw", after.embeddings, after.masks)
    assert torch.allclose(before_map, after_map, atol=1e-5)
    assert not torch.equal(before.masks, after.masks)


def test_full_masks_never_give_padding_a_place() -> None:
    after = augment(batch(16), Augmentation(full_mask=1), np.random.default_rng(0), EMPTY)
    assert torch.equal(after.masks.amin(dim=(-1, -2)).sum(dim=1), torch.full((16,), 2.0))


@pytest.mark.parametrize("step", [0, 1])
def test_strict_order_alternates_skeleton_and_landmark_by_step(step: int) -> None:
    plan = ModePlan(order="strict", shares=(0.5, 0.5, 0, 0))
    assert set(draw_modes(plan, 20, step, np.random.default_rng(0))) == {("skeleton", "landmark")[step]}


def test_stagewise_order_shows_skeletons_for_half_a_period_and_then_landmarks() -> None:
    plan = ModePlan(order="stagewise", shares=(0.5, 0.5, 0, 0), period=10)
    shown = [draw_modes(plan, 1, step, np.random.default_rng(0))[0] for step in range(20)]
    assert shown == (["skeleton"] * 5 + ["landmark"] * 5) * 2


def test_a_batch_in_parts_gives_the_update_of_the_whole() -> None:
    whole, parts = trainer(), trainer()
    parts.config = replace(parts.config, accumulate=4)
    assert steps(parts, 3) == pytest.approx(steps(whole, 3), rel=1e-4)


def test_what_does_not_learn_stays() -> None:
    run = trainer()
    run.trainee.learn(("denoiser.hint.",))
    frozen = Trainer(run.trainee, run.schedule, run.config, EMPTY)
    before = {name: p.detach().clone() for name, p in run.trainee.named_parameters()}
    steps(frozen, 2)
    changed = {name for name, p in run.trainee.named_parameters() if not torch.equal(p, before[name])}
    assert changed
    assert all(name.startswith("denoiser.hint.") for name in changed)


def test_a_factor_multiplies_the_rate_of_the_parameters_it_names() -> None:
    moved = []
    for factors in ({}, {"weight": 10.0}):
        torch.manual_seed(0)
        layer = torch.nn.Linear(6, 6)
        before = layer.weight.detach().clone()
        optimizer = MuonAdamW(layer.named_parameters(), OptimizerConfig(), factors)
        torch.autograd.backward(layer(torch.ones(4, 6)).square().mean())
        optimizer.step(1e-3)
        moved.append(float((layer.weight.detach() - before).norm()))
    assert moved[1] == pytest.approx(10 * moved[0], rel=1e-3)


def drafting(weight: float, seen: list[tuple[torch.Tensor, TrainingBatch]]) -> Trainer:
    plain = trainer()

    def look(clean: torch.Tensor, batch: TrainingBatch) -> torch.Tensor:
        seen.append((clean, batch))
        return clean.square().mean()

    config = replace(plain.config, losses=Losses(drafted=weight, drafts=2))
    return Trainer(plain.trainee, plain.schedule, config, EMPTY, look)


def test_drafts_begin_at_noise_and_their_loss_reaches_the_network_through_the_last_step_alone() -> None:
    seen: list[tuple[torch.Tensor, TrainingBatch]] = []
    first = drafting(0.5, seen)
    figures = first.train_step(batch(), first.rng(), 1e-3)
    clean, shown = seen[0]
    assert figures["drafted"] == pytest.approx(0.5 * float(clean.detach().square().mean()))
    assert len(clean) == len(shown) <= 2
    assert clean.grad_fn is not None
    assert not any(torch.allclose(one, latents, atol=0.3) for one in clean for latents in batch().latents)

    again = drafting(0.5, seen)
    again.train_step(replace(batch(), latents=-batch().latents), again.rng(), 1e-3)
    assert torch.equal(seen[1][0], clean), "a draft knows the condition and the noise, never the photograph"


def test_the_loss_of_drafts_teaches_every_part_that_brings_the_person_in() -> None:
    plain = trainer()
    adapter = plain.trainee.denoiser.id_adapter
    reached: dict[str, float] = {}

    def look(clean: torch.Tensor, batch: TrainingBatch) -> torch.Tensor:
        loss = clean.square().mean()
        gradients = torch.autograd.grad(loss, list(adapter.parameters()), retain_graph=True)
        reached.update(
            (name, float(g.abs().max())) for (name, _), g in zip(adapter.named_parameters(), gradients, strict=True)
        )
        return loss

    config = replace(plain.config, losses=Losses(drafted=0.5, drafts=2))
    run = Trainer(plain.trainee, plain.schedule, config, EMPTY, look)
    run.train_step(batch(), run.rng(), 1e-3)
    assert any("to_k_ip" in name for name in reached)
    assert min(reached.values()) > 0, reached


def test_nobody_is_drafted_where_nobody_is_asked_for() -> None:
    seen: list[tuple[torch.Tensor, TrainingBatch]] = []
    empty = drafting(0.5, seen)
    alone = replace(batch(), embeddings=torch.zeros(4, 3, 32))
    assert "drafted" not in empty.train_step(alone, empty.rng(), 1e-3)
    assert not seen


def test_a_gradient_that_is_not_finite_updates_nothing() -> None:
    layer = torch.nn.Linear(3, 3)
    before = layer.weight.detach().clone()
    optimizer = MuonAdamW(layer.named_parameters(), OptimizerConfig())
    torch.autograd.backward(layer(torch.ones(1, 3)).sum() * float("nan"))
    with pytest.raises(DivergedError):
        optimizer.step(1.0)
    assert torch.equal(layer.weight, before)


def test_the_moving_average_stands_in_for_the_weights_and_goes_again() -> None:
    run = trainer()
    steps(run, 2)
    name, weight = next(iter(run.trainee.named_parameters()))
    before = weight.detach().clone()
    with run.with_ema() as trainee:
        assert torch.equal(trainee.get_parameter(name), run.ema[name])
    assert torch.equal(weight, before)


def test_random_order_follows_the_shares() -> None:
    drawn = draw_modes(ModePlan(), 4000, 0, np.random.default_rng(0))
    assert drawn.count("skeleton") / 4000 == pytest.approx(0.45, abs=0.03)
    assert drawn.count("none") / 4000 == pytest.approx(0.05, abs=0.02)


def test_timesteps_favour_the_middle_and_reach_both_ends() -> None:
    times = draw_timesteps(20_000, 1000, np.random.default_rng(0)).numpy()
    assert times.min() >= 0
    assert times.max() <= 999
    assert np.mean((times > 250) & (times < 750)) > 0.6
    assert (times < 20).any()
    assert (times > 980).any()


def test_errors_on_faces_weigh_more() -> None:
    target, weight = torch.zeros(1, 1, 4, 4), batch(1).loss_weight(2.0)[:, :, :4, :4]
    weight[..., :2] = 1
    on_face, beside = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    on_face[..., 3], beside[..., 0] = 1, 1
    assert weighted_mse(on_face, target, weight) == pytest.approx(3 * float(weighted_mse(beside, target, weight)))
    assert region_mse(on_face, target, torch.ones(1, 1, 4, 4)) == pytest.approx(0.25)


def test_the_union_of_regions_sets_the_weight() -> None:
    assert torch.equal(batch(1).loss_weight(2.0), torch.full((1, 1, 8, 8), 3.0))
    assert replace(batch(1), regions=torch.zeros(1, 3, 8, 8)).loss_weight(2.0).max() == 1
