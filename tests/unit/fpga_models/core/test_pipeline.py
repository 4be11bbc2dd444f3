from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fpga_models.core import weights
from fpga_models.core.pipeline import PersonSlot, PortraitPipeline, PortraitRequest
from fpga_models.core.presets import read_preset
from fpga_models.core.vae import MiniVAE
from fpga_models.errors import EmbeddingError, ModelError, PlacementError, PresetError, RequestError, WeightsError
from fpga_models.lab.mini.export import export
from fpga_models.lab.mini.generator import build_trainer
from fpga_models.lab.mini.networks import build_denoiser
from fpga_models.mmf.loop import LoopConfig

BATCH_TOLERANCE = 1  # grey levels; a batch of another size may round a matrix product differently


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A preset folder as it ships, with random weights and without real face networks."""
    out = tmp_path_factory.mktemp("preset")
    torch.set_num_threads(1)
    trainer, _ = build_trainer(LoopConfig(seed=0))
    torch.nn.init.normal_(trainer.trainee.denoiser.hint.out.weight, std=0.05)
    (out / "faces").mkdir()
    for name in ("detector", "recogniser"):
        (out / "faces" / f"{name}.onnx").write_bytes(name.encode())
    export(trainer.trainee, MiniVAE(), out, made={"note": "random"})
    return out


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> PortraitPipeline:
    return PortraitPipeline.from_pretrained(folder)


def slots(pipeline: PortraitPipeline, layout: str, seed: int = 0) -> tuple[PersonSlot, ...]:
    rng = np.random.default_rng(seed)
    return tuple(
        PersonSlot(
            embedding=rng.standard_normal(512),
            kps5=np.array(slot["kps5"]) * 128,
            skeleton=np.array(slot["skeleton"]) * [128, 128, 1],
        )
        for slot in pipeline.preset.layouts[layout]["slots"]
    )


def request(pipeline: PortraitPipeline, layout: str = "portrait", seed: int = 1) -> PortraitRequest:
    return PortraitRequest(
        prompt="portrait of a person", people=slots(pipeline, layout), width=128, height=128, seed=seed, steps=3
    )


def difference(first: np.ndarray | None, second: np.ndarray | None) -> int:
    assert first is not None
    assert second is not None
    return int(np.abs(first.astype(int) - second.astype(int)).max())


def test_every_request_gives_an_rgb_picture_of_its_size(pipeline: PortraitPipeline) -> None:
    (picture,) = pipeline.generate([request(pipeline)])
    assert picture is not None
    assert picture.shape == (128, 128, 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 1


def test_a_batch_of_different_numbers_of_people_gives_the_pictures_of_single_requests(
    pipeline: PortraitPipeline,
) -> None:
    requests = [request(pipeline, layout, seed) for seed, layout in enumerate(("portrait", "group_4", "group_2"))]
    together = pipeline.generate(requests)
    apart = [pipeline.generate([one])[0] for one in requests]
    assert max(difference(a, b) for a, b in zip(together, apart, strict=True)) <= BATCH_TOLERANCE


def test_another_seed_gives_another_picture(pipeline: PortraitPipeline) -> None:
    first, second = pipeline.generate([request(pipeline, seed=1), request(pipeline, seed=2)])
    assert difference(first, second) > 20


def test_an_identity_without_scale_leaves_the_embedding_without_effect(pipeline: PortraitPipeline) -> None:
    none = replace(request(pipeline), id_scale=0.0)
    other = replace(none, people=slots(pipeline, "portrait", seed=9))
    first, second = pipeline.generate([none, other])
    assert difference(first, second) == 0
    first, second = pipeline.generate([replace(none, id_scale=1.0), replace(other, id_scale=1.0)])
    assert difference(first, second) > 0


def test_guidance_one_is_the_same_alone_and_beside_a_guided_request(pipeline: PortraitPipeline) -> None:
    plain = replace(request(pipeline), guidance=1.0)
    beside, _ = pipeline.generate([plain, request(pipeline, seed=5)])
    assert difference(beside, pipeline.generate([plain])[0]) <= BATCH_TOLERANCE


def test_a_portrait_of_nobody_is_possible(pipeline: PortraitPipeline) -> None:
    (picture,) = pipeline.generate([replace(request(pipeline), people=(), control="none")])
    assert picture is not None


def test_dropped_requests_give_none_and_the_others_are_unchanged(pipeline: PortraitPipeline) -> None:
    requests = [request(pipeline, seed=seed) for seed in range(3)]
    seen: list[tuple[int, int]] = []

    def on_step(done: int, total: int) -> list[int]:
        seen.append((done, total))
        return [1] if done == 2 else []

    pictures = pipeline.generate(requests, on_step=on_step)

    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert pictures[1] is None
    full = pipeline.generate(requests)
    assert max(difference(pictures[i], full[i]) for i in (0, 2)) <= BATCH_TOLERANCE


def test_a_batch_of_which_all_are_dropped_stops_at_once(pipeline: PortraitPipeline) -> None:
    seen: list[int] = []
    pictures = pipeline.generate([request(pipeline)], on_step=lambda done, _: seen.append(done) or [0])
    assert pictures == [None]
    assert seen == [1]


def test_what_on_step_raises_ends_the_batch_and_the_pipeline_stays_usable(pipeline: PortraitPipeline) -> None:
    def on_step(done: int, total: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        pipeline.generate([request(pipeline)], on_step=on_step)
    assert pipeline.generate([request(pipeline)])[0] is not None


def test_unmasked_people_act_everywhere(pipeline: PortraitPipeline) -> None:
    requests = [request(pipeline, "group_2")]
    everywhere = [replace(requests[0], masked=False)]
    assert pipeline.people(everywhere).masks.min() == 1
    assert difference(pipeline.generate(requests)[0], pipeline.generate(everywhere)[0]) > 0


BAD_PEOPLE = {
    r"shape \(511,\): \(512,\) wanted": {"embedding": np.ones(511)},
    "length nan": {"embedding": np.full(512, np.nan)},
    "length 0.0": {"embedding": np.zeros(512)},
    r"shape \(64, 64\): \(128, 128\) wanted": {"mask": np.ones((64, 64))},
    "Mask values": {"mask": np.full((128, 128), 2.0)},
    "needs kps5, a skeleton or a mask": {"kps5": None, "skeleton": None},
}


@pytest.mark.parametrize("sentence", BAD_PEOPLE)
def test_a_bad_person_is_refused_before_any_work(pipeline: PortraitPipeline, sentence: str) -> None:
    (person,) = slots(pipeline, "portrait")
    bad = replace(request(pipeline), people=(replace(person, **BAD_PEOPLE[sentence]),))
    with pytest.raises((EmbeddingError, PlacementError), match=sentence):
        pipeline.generate([bad], on_step=lambda *_: pytest.fail("a step was run"))


BAD_REQUESTS = {
    "Size 256x128: preset mini offers 128x128": {"width": 256},
    "steps 0: 1 to 100 wanted": {"steps": 0},
    "guidance 99.0: 1.0 to 8.0 wanted": {"guidance": 99.0},
    "Control 'depth': one of skeleton": {"control": "depth"},
}


@pytest.mark.parametrize("sentence", BAD_REQUESTS)
def test_a_bad_request_is_refused_with_what_was_wanted(pipeline: PortraitPipeline, sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        pipeline.generate([replace(request(pipeline), **BAD_REQUESTS[sentence])])


def test_more_people_than_the_preset_places_are_refused(pipeline: PortraitPipeline) -> None:
    crowd = slots(pipeline, "group_4") + slots(pipeline, "portrait")
    with pytest.raises(RequestError, match="5 people: preset mini places at most 4"):
        pipeline.generate([replace(request(pipeline), people=crowd)])


def test_requests_of_different_steps_are_not_one_batch(pipeline: PortraitPipeline) -> None:
    with pytest.raises(RequestError, match="one number of steps"):
        pipeline.generate([request(pipeline), replace(request(pipeline), steps=4)])


def test_an_altered_file_is_refused_with_both_hashes(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("weights.json", "preset.json"):
        (copy / name).write_bytes((folder / name).read_bytes())
    (copy / "preset.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"preset\.json was altered"):
        weights.verify(copy, below=("preset.json",))
    with pytest.raises(WeightsError, match="is missing"):
        PortraitPipeline.from_pretrained(copy)
    with pytest.raises(PresetError, match="is not a preset"):
        read_preset(copy)


def test_metadata_does_not_change_the_model_hash(folder: Path, tmp_path: Path) -> None:
    adapter = build_denoiser().id_adapter
    adapter.save(tmp_path / "a.safetensors", dtype=torch.float16, metadata={"modelspec.title": "one"})
    adapter.save(tmp_path / "b.safetensors", dtype=torch.float16, metadata={"modelspec.title": "another"})
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    assert weights.file_sha256(first) != weights.file_sha256(second)
    assert weights.tensor_sha256(first) == weights.tensor_sha256(second)
    assert weights.read_manifest(folder)["model_sha256"] == weights.model_sha256(weights.read_manifest(folder)["files"])


def test_the_preset_names_each_network_with_its_hash(folder: Path) -> None:
    files = weights.read_manifest(folder)["files"]
    components = read_preset(folder).components
    assert len(components) == 7
    assert all(files[component["file"]]["sha256"] == component["sha256"] for component in components)


def test_every_error_has_a_code_of_its_own() -> None:
    kinds = [ModelError, *ModelError.__subclasses__()]
    assert len({kind.code for kind in kinds}) == len(kinds)
