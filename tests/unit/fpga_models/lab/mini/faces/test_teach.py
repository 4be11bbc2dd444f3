from pathlib import Path

import numpy as np
import torch

from fpga_models.core.presets import preset_directory
from fpga_models.faces.recogniser import OnnxRecogniser
from fpga_models.lab.measures.traits import labels
from fpga_models.lab.mini.faces.encoders import CosFaceConfig
from fpga_models.lab.mini.faces.export import export_encoder
from fpga_models.lab.mini.faces.loop import Schedule
from fpga_models.lab.mini.faces.teach import mean_embeddings, open_encoder_a, teach_traits

RECOGNISER = preset_directory("mini") / "faces" / "recogniser.onnx"


def crops(people: int, views: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (people, views, 56, 56, 3), np.uint8)


@torch.inference_mode()
def test_the_opened_encoder_is_the_one_in_the_file_and_is_written_as_such(tmp_path: Path) -> None:
    faces = torch.rand(4, 3, 112, 112, generator=torch.Generator().manual_seed(0)) * 2 - 1
    encoder = open_encoder_a(RECOGNISER)
    got = torch.nn.functional.normalize(encoder(faces))
    export_encoder(encoder, tmp_path / "again.onnx")
    for path in (RECOGNISER, tmp_path / "again.onnx"):
        assert (got - OnnxRecogniser(path)(faces)).abs().max() < 2e-3


def test_the_mean_of_a_person_is_over_their_first_views_in_order() -> None:
    encoder, faces = open_encoder_a(RECOGNISER), crops(130, 3)
    means = mean_embeddings(encoder, faces)
    assert means.shape == (130, 512)
    assert torch.allclose(means[129], mean_embeddings(encoder, faces[129:])[0], atol=1e-5)
    assert torch.allclose(means, mean_embeddings(encoder, faces[:, :2]))


def test_teaching_changes_the_weights_and_not_the_statistics_of_the_norms(tmp_path: Path) -> None:
    encoder, before = open_encoder_a(RECOGNISER), open_encoder_a(RECOGNISER).state_dict()
    people = list(range(6))
    schedule, config = Schedule(minutes=0.02, seed=0), CosFaceConfig(batch=6)
    taught = teach_traits(encoder, crops(6, 2), labels(people), tmp_path, schedule, config)
    after = taught.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert "project.weight" in moved
    assert not any("running" in name for name in moved)
