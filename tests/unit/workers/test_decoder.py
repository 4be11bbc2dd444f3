"""Many pictures through one guarded process, which is replaced when a picture ends it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from orchestrator.errors import InputError
from workers.decoder import Decoder


def png(seed: int, side: int = 40) -> tuple[bytes, np.ndarray]:
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3)).astype(np.uint8)
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG")
    return target.getvalue(), pixels


def test_pictures_come_back_in_order_with_bad_ones_in_between() -> None:
    with Decoder(max_pixels=10_000) as decoder:
        for seed in range(3):
            data, pixels = png(seed)
            np.testing.assert_array_equal(decoder.decode(data), pixels)
            for bad, code in (
                (data[:300], "image_truncated"),
                (b"x", "not_an_image"),
                (png(1, 200)[0], "image_too_large"),
            ):
                with pytest.raises(InputError) as refused:
                    decoder.decode(bad)
                assert refused.value.code == code


def test_a_child_that_died_costs_one_picture() -> None:
    data, pixels = png(0)
    with Decoder(max_pixels=10_000) as decoder:
        decoder.decode(data)
        assert decoder._child is not None
        decoder._child.kill()
        decoder._child.wait()

        with pytest.raises(InputError) as died:
            decoder.decode(data)

        assert died.value.code == "image_undecodable"
        np.testing.assert_array_equal(decoder.decode(data), pixels)


def test_a_child_that_hangs_is_ended() -> None:
    with Decoder(max_pixels=10_000, wall_seconds=0.01) as decoder, pytest.raises(InputError) as hung:
        decoder.decode(png(0)[0])

    assert hung.value.code == "image_undecodable"
