"""Decodes a picture that a stranger uploaded, in a child process with bounded memory and time."""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import InputError
from workers.runtime.guard import run_guarded

WALL_SECONDS = 20.0


def decode(data: bytes, *, max_pixels: int = 64_000_000, wall_seconds: float = WALL_SECONDS) -> NDArray[np.uint8]:
    """Return a JPEG, PNG or WebP as sRGB pixels (H, W, 3), upright by its EXIF, transparency on white.

    Raises:
        InputError: `image_empty`, `not_an_image`, `format_unsupported`, `image_too_large`, `image_animated`,
            `image_truncated`, `image_corrupt`, or `image_undecodable` where the child died or ran out of time.
    """
    answer = run_guarded("workers.decode_child", [str(max_pixels)], data, wall_seconds=wall_seconds)
    head, _, pixels = answer.partition(b"\n")
    facts = json.loads(head)
    if "code" in facts:
        raise InputError(facts["message"], code=facts["code"], **facts.get("details", {}))
    return np.frombuffer(pixels, np.uint8).reshape(facts["height"], facts["width"], 3)
