from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fpga_models.core.pipeline import PortraitPipeline
from fpga_models.core.presets import preset_directory
from fpga_models.mmf.samples.data import TrainingData, open_training_data
from fpga_models.mmf.start import open_start
from tests.unit.fpga_models.training_folder import write_training_folder


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_training_folder(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="session")
def mini() -> PortraitPipeline:
    return open_start(preset_directory("mini"), "cpu")


@pytest.fixture(scope="session")
def data(folder: Path, mini: PortraitPipeline) -> TrainingData:
    return open_training_data(folder, mini.tokenizer)
