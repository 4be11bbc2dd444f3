"""A picture sheet: each row one trial, references first, then the same scene in several versions."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
CELL = 160
GAP = 4
PAPER = 255
QUALITY = 85  # of JPEG


def sheet(rows: Sequence[Sequence[Image]]) -> Image:
    """Lay RGB pictures out in rows of square cells; rows may differ in length."""
    columns = max(len(row) for row in rows)
    step = CELL + GAP
    paper = np.full((len(rows) * step + GAP, columns * step + GAP, 3), PAPER, np.uint8)
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            top, left = GAP + row * step, GAP + column * step
            paper[top : top + CELL, left : left + CELL] = _fit(picture)
    return paper


def _fit(picture: Image) -> Image:
    smaller = picture.shape[0] > CELL
    fitted: Image = cv2.resize(picture, (CELL, CELL), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_NEAREST)
    return fitted


def write_picture(path: Path, picture: Image) -> None:
    """Write an RGB picture in the format of its suffix; raises OSError where the folder cannot be written."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, QUALITY] if path.suffix in (".jpg", ".jpeg") else []
    if not cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), quality):
        raise OSError(f"Cannot write a picture to {path}.")
