"""A generated picture carries its record, the same bytes each time, and no more than its level allows."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orchestrator.pictures import read_record
from workers.photo.picture import SOURCE_TYPE, XMP_KEY, Level, encode_png, parameters_text

IMAGE = np.random.default_rng(0).integers(0, 256, (24, 16, 3), np.uint8)
RECORD: dict[str, Any] = {
    "schema": "fpga/output/1",
    "software": "fpga 0.1.0",
    "preset": "mini",
    "custom_id": "secret-client",
    "model_version": "mod_3",
    "model_sha256": "abcdef0123456789",
    "seed": 8,
    "params": {
        "prompt": "portrait of a person\nin a red coat",
        "negative_prompt": "blurry",
        "steps": 20,
        "guidance": 2.0,
        "width": 16,
        "height": 24,
        "people": [{"identity": "idn_1"}],
    },
}


def texts(data: bytes) -> dict[str, Any]:
    image = Image.open(io.BytesIO(data))
    return dict(image.info)


def test_pixels_and_record_come_back() -> None:
    data = encode_png(IMAGE, RECORD)

    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), IMAGE)
    assert read_record(data) == RECORD
    assert data.count(b"iTXtfpga\0") == 1


def test_the_same_input_gives_the_same_bytes_whatever_the_order_of_keys() -> None:
    turned = dict(reversed(RECORD.items()))

    assert encode_png(IMAGE, RECORD) == encode_png(IMAGE.copy(), turned)


def test_common_viewers_find_the_parameters() -> None:
    assert texts(encode_png(IMAGE, RECORD))["parameters"] == (
        "portrait of a person\nin a red coat\n"
        "Negative prompt: blurry\n"
        "Steps: 20, Sampler: DDIM, CFG scale: 2.0, Seed: 8, Size: 16x24, Model hash: abcdef0123, Model: mini, "
        "Version: fpga 0.1.0"
    )


def test_a_value_that_would_break_the_line_of_settings_is_quoted() -> None:
    assert parameters_text({"preset": "a, Seed: 1"}).endswith('Model: "a, Seed: 1"')


def test_a_generated_picture_says_that_a_model_made_it() -> None:
    assert f'DigitalSourceType="{SOURCE_TYPE}"' in texts(encode_png(IMAGE, RECORD))[XMP_KEY]


def test_minimal_leaks_no_prompt_person_seed_or_client_name() -> None:
    data = encode_png(IMAGE, RECORD, level="minimal")

    assert read_record(data) == {
        key: RECORD[key] for key in ("schema", "software", "preset", "model_version", "model_sha256")
    }
    for secret in (b"red coat", b"idn_1", b"secret-client", b"seed", b"parameters"):
        assert secret not in data
    assert XMP_KEY in texts(data)


def test_none_carries_nothing_but_pixels() -> None:
    data = encode_png(IMAGE, RECORD, level="none")

    assert texts(data) == {}
    assert read_record(data) is None
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), IMAGE)


@pytest.mark.parametrize("level", ["none", "minimal", "full"])
def test_an_empty_record_is_written_too(level: Level) -> None:
    assert encode_png(IMAGE, {}, level=level).startswith(b"\x89PNG")


@pytest.mark.parametrize("image", [IMAGE.astype(np.float32), IMAGE[..., 0], IMAGE[..., :2]])
def test_an_image_of_another_shape_is_refused(image: np.ndarray[Any, Any]) -> None:
    with pytest.raises(ValueError, match="uint8"):
        encode_png(image, RECORD)
