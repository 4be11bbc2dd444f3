from __future__ import annotations

import numpy as np
import pytest

from fpga_models.diir.picture import blend, check_picture, rgb8
from fpga_models.faces import PictureError


def picture(channels: int, dtype: type, seed: int = 0) -> np.ndarray:
    shape = (20, 30) if channels == 0 else (20, 30, channels)
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [0, 1, 2, 3, 4])
def test_every_kind_of_picture_is_seen_as_rgb_and_keeps_its_format(channels: int, dtype: type) -> None:
    original = picture(channels, dtype)
    check_picture(original)
    weight = np.zeros((20, 30))
    weight[5:9, 5:9] = 1
    patch = np.full((20, 30, 3), 200, np.uint8)

    result = blend(original, patch, weight)

    assert rgb8(original).shape == (20, 30, 3)
    assert rgb8(original).dtype == np.uint8
    assert result.dtype == original.dtype
    assert result.shape == original.shape
    assert np.array_equal(result[weight == 0], original[weight == 0])
    assert (rgb8(result)[5:9, 5:9] == 200).all()


@pytest.mark.parametrize("channels", [2, 4])
def test_an_alpha_channel_is_never_written(channels: int) -> None:
    original = picture(channels, np.uint8)
    result = blend(original, np.zeros((20, 30, 3), np.uint8), np.ones((20, 30)))
    assert np.array_equal(result[..., -1], original[..., -1])
    assert not np.array_equal(result, original)


def test_blending_does_not_touch_its_input() -> None:
    original = picture(3, np.uint8)
    before = original.copy()
    blend(original, np.zeros((20, 30, 3), np.uint8), np.ones((20, 30)))
    assert np.array_equal(original, before)


def test_sixteen_bits_keep_values_that_eight_cannot_hold() -> None:
    original = np.full((4, 4, 3), 1001, np.uint16)
    result = blend(original, np.full((4, 4, 3), 255, np.uint8), np.full((4, 4), 0.5))
    assert (result == round((1001 + 65535) / 2)).all()


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), bool),
        np.zeros((4, 4, 5), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros(4, np.uint8),
    ],
)
def test_anything_else_is_refused_with_what_was_got(wrong: np.ndarray) -> None:
    with pytest.raises(PictureError, match=str(wrong.dtype)):
        check_picture(wrong)
