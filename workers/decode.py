"""Decodes a picture that a stranger uploaded, in a child process with bounded memory and time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
WALL_SECONDS = 20.0


def decode(data: bytes, *, max_pixels: int = 64_000_000, wall_seconds: float = WALL_SECONDS) -> NDArray[np.uint8]:
    """Return a JPEG, PNG or WebP as sRGB pixels (H, W, 3), upright by its EXIF, transparency on white.

    The child sees no environment and so no credentials; a crash or an endless decode is an answer like any other.

    Raises:
        InputError: `image_empty`, `not_an_image`, `format_unsupported`, `image_too_large`, `image_animated`,
            `image_truncated`, `image_corrupt`, or `image_undecodable` where the child died or ran out of time.
    """
    command = [sys.executable, "-m", "workers.decode_child", str(max_pixels)]
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.defpath, "LC_ALL": "C.UTF-8"}
    try:
        child = subprocess.run(
            command, input=data, capture_output=True, timeout=wall_seconds, env=environment, cwd="/", check=False
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(f"the picture took over {wall_seconds:g} s to decode", code="image_undecodable") from error
    head, _, pixels = child.stdout.partition(b"\n")
    if child.returncode != 0 or not head:
        raise InputError(f"decoding ended with status {child.returncode}", code="image_undecodable")
    facts = json.loads(head)
    if "code" in facts:
        raise InputError(facts["message"], code=facts["code"], **facts.get("details", {}))
    return np.frombuffer(pixels, np.uint8).reshape(facts["height"], facts["width"], 3)
