import numpy as np

from fpga_models.metrics.sheet import CELL, GAP, sheet


def test_pictures_of_any_size_stand_in_their_cells() -> None:
    red, blue = np.zeros((64, 64, 3), np.uint8), np.zeros((512, 512, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255

    paper = sheet([[red, blue], [blue]])

    assert paper.shape == (2 * (CELL + GAP) + GAP, 2 * (CELL + GAP) + GAP, 3)
    assert paper[GAP + 5, GAP + 5].tolist() == [255, 0, 0]
    assert paper[GAP + 5, 2 * GAP + CELL + 5].tolist() == [0, 0, 255]
    assert paper[2 * GAP + CELL + 5, 2 * GAP + CELL + 5].tolist() == [255, 255, 255]
