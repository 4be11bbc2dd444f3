from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fpga_models.core.presets import preset_directory
from fpga_models.core.weights import read_manifest
from fpga_models.lab.mini.export import load_ema
from fpga_models.lab.mini.generator import (
    RunConfig,
    build_trainer,
    configuration,
    learning_rate,
    local_tokens_of,
    preset_weights,
)
from fpga_models.lab.mini.networks import TEXT_LENGTH
from fpga_models.lab.mini.preset import preset_facts
from fpga_models.lab.mini.tokenizer import build_tokenizer
from fpga_models.lab.synthetic import KINDS, VOCABULARY, layouts, words
from fpga_models.mmf.loop import LoopConfig
from fpga_models.mmf.samples.batch import Augmentation
from fpga_models.mmf.samples.data import draw_batch, latent_mask, open_training_data, token_ids
from fpga_models.mmf.samples.modes import ModePlan
from tests.unit.fpga_models.training_folder import write_training_folder


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_training_folder(tmp_path_factory.mktemp("data"))


def test_every_word_of_the_renderer_is_one_token() -> None:
    tokenizer = build_tokenizer(VOCABULARY)
    whole = [word for word in VOCABULARY if "-" not in word]
    assert len(whole) > 50
    assert all(len(tokenizer.tokenize(word)) == 1 for word in whole)


def test_any_prompt_tokenises_to_the_models_length(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(VOCABULARY)
    ids = token_ids(tokenizer, ["Müller, 東京 & a zebra!", "", "red " * 200])
    assert ids.shape == (3, TEXT_LENGTH)
    assert ids.max() < len(tokenizer)
    assert (ids[1, 1:] == tokenizer.eos_token_id).all()
    tokenizer.save_pretrained(tmp_path)
    again = type(tokenizer).from_pretrained(tmp_path)
    assert (token_ids(again, ["a red t-shirt"]) == token_ids(tokenizer, ["a red t-shirt"])).all()


def test_a_batch_takes_each_embedding_from_a_picture_of_that_person(data_folder: Path) -> None:
    data = open_training_data(data_folder, build_tokenizer(VOCABULARY))
    shares = [float(len(indices) > 0) for indices in data.indices_by_kind()]
    batch = draw_batch(
        data, data.indices_by_kind(), shares, plan=ModePlan(), count=16, step=0, rng=np.random.default_rng(0)
    )
    centres = torch.nn.functional.normalize(torch.from_numpy(data.embeddings.mean(axis=1)), dim=-1)
    present = batch.masks.amax(dim=(-1, -2)) > 0
    cosines = (batch.embeddings[present] @ centres.T).amax(dim=-1)
    assert cosines.min() > 0.2  # random unit vectors of 512 numbers stay below this; own pictures do not
    assert batch.embeddings[~present].abs().max() == 0
    assert batch.control.shape == (16, 3, 128, 128)
    assert torch.allclose(batch.embeddings[present].norm(dim=-1), torch.tensor(1.0), atol=1e-4)


def test_the_same_step_draws_the_same_batch(data_folder: Path) -> None:
    data = open_training_data(data_folder, build_tokenizer(VOCABULARY))
    kinds = data.indices_by_kind()
    shares = [float(len(indices) > 0) for indices in kinds]
    first, second = (
        draw_batch(data, kinds, shares, plan=ModePlan(), count=4, step=7, rng=np.random.default_rng([1, 7]))
        for _ in range(2)
    )
    assert torch.equal(first.latents, second.latents)
    assert torch.equal(first.control, second.control)


def test_the_smallest_face_of_a_layout_owns_a_latent_cell() -> None:
    for slots in layouts().values():
        for slot in slots:
            assert latent_mask(slot.kps5 * 128, 128, 16).max() == 255


def test_the_learning_rate_warms_up_stays_flat_and_falls_to_zero() -> None:
    config = RunConfig(minutes=100, anneal=0.4, rate=1.0, warmup_steps=10)
    assert learning_rate(config, 0, 0) == pytest.approx(0.1)
    assert learning_rate(config, 50, 59) == 1
    assert learning_rate(config, 50, 80) == pytest.approx(0.5)
    assert learning_rate(config, 50, 101) == 0


def test_the_preset_offers_every_layout_with_words_the_model_knows() -> None:
    facts = preset_facts({}, [])
    assert set(facts["layouts"]) == set(KINDS)
    assert [len(facts["layouts"][f"group_{n}"]["slots"]) for n in (2, 3, 4)] == [2, 3, 4]
    texts = [layout["caption"] for layout in facts["layouts"].values()] + list(facts["styles"].values())
    assert {word for text in texts for word in words(text)} <= set(VOCABULARY)


WEIGHTS = preset_directory("mini")


def test_the_start_of_a_run_is_noted_by_its_hash_and_not_by_its_place() -> None:
    facts = configuration(LoopConfig(seed=0), RunConfig(minutes=1, start=str(WEIGHTS)))
    assert facts["run"]["start"] == read_manifest(WEIGHTS)["model_sha256"]
    assert configuration(LoopConfig(seed=0), RunConfig(minutes=1))["run"]["start"] is None


def test_a_run_that_begins_from_a_preset_lets_its_local_branch_learn_with_the_rest(
    data_folder: Path, tmp_path: Path
) -> None:
    trainer, tokenizer = build_trainer(LoopConfig(seed=0, batch_size=4, disturbance=Augmentation()), local_tokens=8)
    trainer.begin_from(preset_weights(trainer, WEIGHTS))
    data = open_training_data(data_folder, tokenizer)
    kinds, rng = data.indices_by_kind(), trainer.rng()
    shares = [float(len(indices) > 0) for indices in kinds]
    before = {name: p.detach().clone() for name, p in trainer.trainee.named_parameters()}

    trainer.train_step(draw_batch(data, kinds, shares, plan=ModePlan(), count=4, step=0, rng=rng), rng, 1e-3)
    trainer.save(tmp_path, {"minutes": 1})

    moved = {name for name, p in trainer.trainee.named_parameters() if not torch.equal(p, before[name])}
    assert any(".local.layers." in name for name in moved)
    assert any(name.startswith("denoiser.unet.") for name in moved)
    again, _ = load_ema(tmp_path)
    assert local_tokens_of(dict(again.named_parameters())) == 8
