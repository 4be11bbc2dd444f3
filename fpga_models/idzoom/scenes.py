"""The folder of pictures with ground truth that training reads: memory-mapped arrays of any side, and captions.

FOLDER/*.npy             the arrays of `scene_arrays`, one row a picture
FOLDER/captions.jsonl    one object with `caption` a line
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

KINDS = ("portrait", "half_body", "full_body", "group_2", "group_3", "group_4")
"""What a picture shows: how much of one person, or how many people."""
MAX_PEOPLE = 4
MASK_SIDE = 64
"""Masks of heads are kept at this side whatever the picture's; the latent grids they are for are no finer."""

ArraySpec = Mapping[str, tuple[tuple[int, ...], type]]
Arrays = dict[str, NDArray[Any]]


def scene_arrays(side: int) -> ArraySpec:
    """Shape of a row and dtype of each array of pictures `side` pixels wide and high."""
    return {
        "images": ((side, side, 3), np.uint8),
        "identity": ((MAX_PEOPLE,), np.int32),
        "box": ((MAX_PEOPLE, 4), np.float32),
        "kps5": ((MAX_PEOPLE, 5, 2), np.float32),
        "skeleton": ((MAX_PEOPLE, 18, 3), np.float32),
        "mask": ((MAX_PEOPLE, MASK_SIDE, MASK_SIDE), np.uint8),
        "count": ((), np.uint8),
        "kind": ((), np.uint8),
    }


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """Pictures on disk, N of them with side S; absent people have identity -1 and zeros.

    Attributes:
        images: (N, S, S, 3) RGB uint8.
        identity: (N, 4) int32; box: (N, 4, 4); kps5: (N, 4, 5, 2); skeleton: (N, 4, 18, 3), pixels, float32.
        mask: (N, 4, 64, 64) uint8 soft head region.
        count, kind: (N,) uint8, people and index into KINDS.
        captions: N strings.
    """

    images: NDArray[np.uint8]
    identity: NDArray[np.int32]
    box: NDArray[np.float32]
    kps5: NDArray[np.float32]
    skeleton: NDArray[np.float32]
    mask: NDArray[np.uint8]
    count: NDArray[np.uint8]
    kind: NDArray[np.uint8]
    captions: list[str]

    def __len__(self) -> int:
        return len(self.images)


def open_scenes(folder: Path) -> Scenes:
    """Open the pictures of this folder without reading them into memory.

    Raises:
        OSError, ValueError, KeyError: a file is missing or not what it should be.
    """
    lines = (folder / "captions.jsonl").read_text().splitlines()
    arrays = open_arrays(folder, scene_arrays(0), "r")
    return Scenes(**arrays, captions=[json.loads(line)["caption"] for line in lines])


def open_arrays(folder: Path, spec: ArraySpec, mode: Literal["r", "r+"]) -> Arrays:
    """Map the arrays that a specification names; their shapes are read off the files."""
    return {name: np.load(folder / f"{name}.npy", mmap_mode=mode) for name in spec}


def create_arrays(folder: Path, spec: ArraySpec, count: int) -> None:
    """Make the empty arrays of a folder for `count` rows."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (shape, dtype) in spec.items():
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, (count, *shape)).flush()
