"""Uploads become upright sRGB pixels, or a typed refusal; the process that decodes may die, ours may not."""

from __future__ import annotations

import io
import os

import numpy as np
import pytest
from PIL import Image, ImageCms

from orchestrator.errors import InputError
from workers.decode import decode


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def half_red_half_blue(mode: str = "RGB") -> Image.Image:
    image = Image.new("RGB", (32, 16), "blue")
    image.paste((255, 0, 0), (0, 0, 16, 16))
    return image.convert(mode)


def code_of(data: bytes, **options: float) -> str:
    with pytest.raises(InputError) as caught:
        decode(data, **options)  # type: ignore[arg-type]  # fields by name
    return caught.value.code


def test_a_png_comes_back_as_it_is() -> None:
    image = Image.effect_noise((33, 21), 80).convert("RGB")

    pixels = decode(encoded(image, "PNG"))

    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, np.asarray(image))


def test_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright

    pixels = decode(encoded(half_red_half_blue(), "PNG", exif=exif))

    assert pixels.shape == (32, 16, 3)
    assert tuple(pixels[2, 8]) == (255, 0, 0)
    assert tuple(pixels[29, 8]) == (0, 0, 255)


@pytest.mark.parametrize(
    ("mode", "form"), [("L", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("1", "PNG"), ("I;16", "PNG"), ("CMYK", "JPEG")]
)
def test_other_colour_modes_become_rgb(mode: str, form: str) -> None:
    image = Image.fromarray(np.full((8, 8), 32_896, np.uint16)) if mode == "I;16" else Image.new(mode, (8, 8), 128)

    pixels = decode(encoded(image, form))

    assert pixels.shape == (8, 8, 3)
    if mode in ("L", "I;16"):
        assert set(pixels.ravel()) == {128}


def test_transparency_becomes_white() -> None:
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    image.putpixel((1, 1), (10, 20, 30, 255))

    pixels = decode(encoded(image, "PNG"))

    assert tuple(pixels[0, 0]) == (255, 255, 255)
    assert tuple(pixels[1, 1]) == (10, 20, 30)


def test_an_embedded_profile_is_converted_and_a_broken_one_ignored() -> None:
    image = Image.new("RGB", (4, 4), (200, 100, 50))
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

    same = decode(encoded(image, "PNG", icc_profile=lab))
    broken = decode(encoded(image, "PNG", icc_profile=b"no profile at all"))

    assert np.abs(same.astype(int) - (200, 100, 50)).max() <= 1
    assert tuple(broken[0, 0]) == (200, 100, 50)


def test_refusals_of_the_child_reach_the_caller() -> None:
    noise = encoded(Image.effect_noise((64, 64), 90).convert("RGB"), "JPEG")

    assert code_of(b"") == "image_empty"
    assert code_of(b"MZ this is a program") == "not_an_image"
    assert code_of(noise[: len(noise) // 2]) == "image_truncated"
    assert code_of(noise, max_pixels=4095) == "image_too_large"


def test_a_decode_that_takes_too_long_or_dies_is_an_answer() -> None:
    data = encoded(half_red_half_blue(), "PNG")

    assert code_of(data, wall_seconds=0.001) == "image_undecodable"
    # a memory limit that the kernel cannot take ends the child before it reads
    assert code_of(data, max_pixels=2**63) == "image_undecodable"


def test_the_child_sees_nothing_of_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "error::nonsense")
    monkeypatch.setenv("PYTHONSTARTUP", os.devnull)
    monkeypatch.setenv("PYTHONHOME", "/nonexistent")  # a child that inherited this could not start

    assert decode(encoded(half_red_half_blue(), "PNG")).shape == (16, 32, 3)
