import pytest

from fpga_models.core.presets import SHIPPED
from fpga_models.faces import FacePack
from fpga_models.lab.measures.traits import TraitReader
from fpga_models.metrics.evaluator import EvaluationEncoder

WEIGHTS = SHIPPED / "mini"


@pytest.fixture(scope="session")
def pack() -> FacePack:
    return FacePack.load(WEIGHTS / "faces")


@pytest.fixture(scope="session")
def judge() -> EvaluationEncoder:
    return EvaluationEncoder.load(WEIGHTS / "eval")


@pytest.fixture(scope="session")
def reader() -> TraitReader:
    return TraitReader.load(WEIGHTS / "eval")
