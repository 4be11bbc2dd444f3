"""What `fpga doctor` asks of a device: matrices, a face, a step."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fpga_models.core.presets import preset_directory


def ask(device: str, models: Path, preset: str = "mini") -> tuple[int, str]:
    command = [sys.executable, "-m", "workers.runtime.selftest", device, str(models), preset]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout


def test_the_processor_computes_looks_at_a_face_and_draws() -> None:
    code, said = ask("cpu", preset_directory("mini").parent)
    assert code == 0, said
    assert "computes right" in said
    assert "faces on CPUExecutionProvider; a step drew 128x128 in float32" in said


def test_a_device_that_is_not_there_is_one_sentence() -> None:
    code, said = ask("cuda:7", preset_directory("mini").parent)
    assert (code, said.count("\n")) == (1, 1)
    assert said.startswith("device cuda:7 cannot be used: ")


@pytest.mark.gpu
def test_a_gpu_does_the_same_in_half_precision() -> None:
    code, said = ask("cuda", preset_directory("mini").parent)
    assert code == 0, said
    assert "a step drew 128x128 in float16" in said
