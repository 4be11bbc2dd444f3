import shutil
from pathlib import Path

import pytest
import torch

from fpga_models.lab.mini.faces.export import export_detector, export_encoder, write_pack_settings
from fpga_models.lab.mini.faces.networks import Detector, EncoderA


@pytest.fixture(scope="session")
def networks() -> tuple[Detector, EncoderA]:
    torch.manual_seed(0)
    return Detector().eval(), EncoderA((16, 24, 32)).eval()


@pytest.fixture(scope="session")
def untrained_pack(networks: tuple[Detector, EncoderA], tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("faces")
    export_detector(networks[0], directory / "detector.onnx")
    export_encoder(networks[1], directory / "recogniser.onnx")
    write_pack_settings(directory, det_size=128, det_thresh=0.5)
    return directory


@pytest.fixture
def pack_copy(untrained_pack: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(untrained_pack, tmp_path / "pack"))
