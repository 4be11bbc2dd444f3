from pathlib import Path

import cv2
import numpy as np
import pytest

from fpga_models.lab.measures.sheet import CELL, GAP, sheet, write_picture


def test_pictures_of_any_size_stand_in_their_cells() -> None:
    red, blue = np.zeros((64, 64, 3), np.uint8), np.zeros((512, 512, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255

    paper = sheet([[red, blue], [blue]])

    assert paper.shape == (2 * (CELL + GAP) + GAP, 2 * (CELL + GAP) + GAP, 3)
    assert paper[GAP + 5, GAP + 5].tolist() == [255, 0, 0]
    assert paper[GAP + 5, 2 * GAP + CELL + 5].tolist() == [0, 0, 255]
    assert paper[2 * GAP + CELL + 5, 2 * GAP + CELL + 5].tolist() == [255, 255, 255]


@pytest.mark.parametrize("name", ["sheet.png", "sheet.jpg"])
def test_a_sheet_is_written_in_the_format_of_its_name(name: str, tmp_path: Path) -> None:
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 200

    write_picture(tmp_path / name, red)

    assert np.abs(cv2.imread(str(tmp_path / name))[8, 8].astype(int) - [0, 0, 200]).max() < 6


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Cannot write"):
        write_picture(tmp_path / "missing" / "sheet.png", np.zeros((4, 4, 3), np.uint8))
