from pathlib import Path

import numpy as np
import torch

from fpga_models.lab.measures.traits import TRAITS, TraitReader, decide, labels
from fpga_models.lab.mini.faces.export import export_classifier
from fpga_models.lab.mini.faces.loop import Schedule
from fpga_models.lab.mini.faces.traits import accuracies, large_crops, train_traits
from fpga_models.lab.synthetic.dataset import aligned_crop


def test_a_classifier_trains_on_large_rendered_faces_and_reads_the_same_from_its_file(tmp_path: Path) -> None:
    sizes, people = np.array([20.0, 40.0, 60.0] * 4, np.float32), np.arange(12, dtype=np.int32)
    rendered = [
        aligned_crop(np.random.default_rng(3), int(who), float(px)) for who, px in zip(people, sizes, strict=True)
    ]
    for name, values in (("crops", np.stack(rendered)), ("crop_face_px", sizes), ("crop_identity", people)):
        np.save(tmp_path / f"{name}.npy", values)
    crops, truth = large_crops(tmp_path, 30.0)

    network = train_traits(crops, truth, tmp_path / "traits.safetensors", Schedule(minutes=0.003))
    export_classifier(network, tmp_path / "traits.onnx")
    read = TraitReader.load(tmp_path).read(list(np.load(tmp_path / "crops.npy")[sizes >= 30.0]))

    assert len(crops) == 8
    assert np.array_equal(truth, labels(people[sizes >= 30.0]))
    pictures = torch.from_numpy(np.load(tmp_path / "crops.npy")[sizes >= 30.0]).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        wanted = decide(network((pictures - 127.5) / 127.5).numpy())
    assert (read == wanted).mean() > 0.95, "half precision in the file may turn a close call"
    assert accuracies(network, crops, truth).keys() == TRAITS.keys()
