"""Whether a device does what a worker asks of it: `python -m workers.runtime.selftest cuda:1 MODELS PRESET`.

Multiplies two matrices and compares with the known answer, embeds a face with the preset's own networks, and draws a
small portrait in one step. Prints one sentence; exit code 1 where the device is not there or computes wrongly.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch

from fpga_models.core.pipeline import PortraitPipeline, PortraitRequest
from fpga_models.errors import ModelError
from fpga_models.faces import FacePack

SIZE = 256


def main() -> int:
    """Test the device that the command line names."""
    device, models, preset = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    began = time.monotonic()
    try:
        left = torch.arange(SIZE, dtype=torch.float32, device=device).repeat(SIZE, 1)  # (SIZE, SIZE), equal rows
        product = left @ torch.eye(SIZE, device=device)
        right = bool(torch.equal(product, left))
        where = _face(models / preset / "faces", device)
        drawn = _step(models / "mini", device)
    except (RuntimeError, AssertionError, ModelError, OSError) as error:
        sys.stdout.write(f"device {device} cannot be used: {str(error).splitlines()[0]}\n")
        return 1
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "the processor"
    state = f"computes right, in {time.monotonic() - began:.2f} s" if right else "computes wrongly"
    sys.stdout.write(f"device {device}, {name}, {state}; faces on {where}; a step drew {drawn}\n")
    return 0 if right else 1


def _face(folder: Path, device: str) -> str:
    """Embed a grey face with the preset's networks and say which processor looked at it; presets may have none."""
    if not folder.is_dir():
        return "nothing, this preset has no face pack"
    pack = FacePack.load(folder, device=device)
    vector = pack.embed_crops([np.full((112, 112, 3), 128, np.uint8)])
    assert np.isfinite(vector).all(), "the face network put out no numbers"
    return pack.provider


def _step(folder: Path, device: str) -> str:
    """Draw one picture in one step with the smallest preset, in the device's own number format."""
    if not (folder / "unet" / "config.json").is_file():
        return "nothing, mini is not installed"
    pipeline = PortraitPipeline.from_pretrained(folder, device=device)
    width, height = pipeline.preset.sizes[0]
    (picture,) = pipeline.generate(
        [PortraitRequest(prompt="", people=(), width=width, height=height, seed=0, steps=1, control="none")]
    )
    assert picture is not None and picture.std() > 0, "the picture is empty"  # noqa: PT018 one fact
    return f"{width}x{height} in {str(pipeline.dtype).removeprefix('torch.')}"


if __name__ == "__main__":
    raise SystemExit(main())
