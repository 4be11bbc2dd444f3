"""Every kind of photo becomes upright sRGB pixels, or a typed refusal; only the process that decodes may die of it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, TiffImagePlugin

from orchestrator.errors import InputError
from orchestrator.pictures import MEDIA_TYPES, check_picture
from tests.unit.workers.photo.pictures import (
    ASTRONAUT,
    PHONE,
    astronaut,
    decoded,
    deep,
    encoded,
    exif,
    grey16,
    swapped_profile,
    tagged_tiff,
)
from workers.photo import PhotoLimits, decode_photo, guard, photo_reader, service
from workers.photo.guard import Guarded

IMAGE = astronaut()


def apart(rgb: np.ndarray, image: Image.Image) -> float:
    return float(np.abs(rgb.astype(int) - np.asarray(image.convert("RGB"))).max())


def code_of(data: bytes, limits: PhotoLimits | None = None) -> str:
    with pytest.raises(InputError) as caught:
        decode_photo(data, limits)
    return caught.value.code


@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP", "JPEG", "WEBP", "AVIF"])
def test_a_photo_comes_back_as_its_own_decoder_shows_it(form: str) -> None:
    data = encoded(IMAGE, form)

    rgb, head = decoded(data)

    assert apart(rgb, Image.open(io.BytesIO(data))) == 0
    assert (head["facts"]["format"], head["facts"]["bits"], head["facts"]["stored_size"]) == (form, 8, [160, 120])
    assert head["notes"] == []


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_other_colour_modes_become_rgb(mode: str) -> None:
    image = IMAGE.convert(mode)

    rgb, head = decoded(encoded(image, "TIFF" if mode == "CMYK" else "PNG"))

    assert apart(rgb, image) == 0
    assert head["facts"]["mode"] == mode


def test_sixteen_bits_are_rounded_and_not_cut(subtests: pytest.Subtests) -> None:
    for name, data in {
        "png rgb": deep(3, ".png"),
        "png rgba": deep(4, ".png"),
        "tiff rgb": deep(3, ".tif"),
        "png grey": encoded(grey16(), "PNG"),
        "tiff grey": encoded(grey16(), "TIFF"),
    }.items():
        with subtests.test(name):
            rgb, head = decoded(data)
            grey = "grey" in name
            assert head["facts"]["bits"] == 16
            assert (
                np.abs(
                    rgb[30:].astype(int) - np.asarray(IMAGE.convert("L" if grey else "RGB").convert("RGB"))[30:]
                ).max()
                <= 1
            )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation: int) -> None:
    data = encoded(IMAGE, "PNG", exif=exif(orientation=orientation))

    rgb, head = decoded(data)

    assert apart(rgb, ImageOps.exif_transpose(Image.open(io.BytesIO(data)))) == 0
    assert head["facts"]["orientation"] == orientation


def test_an_embedded_profile_is_converted_and_a_broken_one_noted() -> None:
    rgb, _ = decoded(encoded(Image.new("RGB", (8, 8), (250, 10, 10)), "PNG", icc_profile=swapped_profile()))
    assert rgb[0, 0, 1] > 200 > 60 > rgb[0, 0, 0]  # its red is sRGB's green

    rgb, head = decoded(encoded(IMAGE, "PNG", icc_profile=b"no profile at all"))
    assert apart(rgb, IMAGE) == 0
    assert head["notes"] == ["the colour profile cannot be used; sRGB is assumed"]


def test_a_profile_of_another_colour_model_is_not_used() -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()

    _, head = decoded(encoded(IMAGE, "PNG", icc_profile=lab))

    assert head["notes"] == ["the colour profile cannot be used; sRGB is assumed"]


def test_transparency_shows_white() -> None:
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    image.putpixel((1, 1), (10, 20, 30, 255))
    image.putpixel((2, 2), (0, 0, 0, 128))

    rgb, head = decoded(encoded(image, "PNG"))

    assert [tuple(rgb[i, i]) for i in range(3)] == [(255, 255, 255), (10, 20, 30), (127, 127, 127)]
    assert head["facts"]["alpha"]


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_several_frames_the_first_one_counts_and_it_is_said(form: str) -> None:
    data = encoded(IMAGE, form, save_all=True, append_images=[Image.new("RGB", IMAGE.size, "red")])

    rgb, head = decoded(data)

    assert rgb.mean(axis=(0, 1))[1] > 40
    assert head["facts"]["several_frames"]
    assert (head["facts"]["stays"] or {}).get("code") == (None if form == "TIFF" else "stays_frames")


def test_a_phone_picture_with_a_second_one_behind_it_is_a_jpeg() -> None:
    data = encoded(IMAGE, "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])

    rgb, head = decoded(data)

    assert rgb.shape == (120, 160, 3)
    assert (head["facts"]["several_frames"], head["facts"]["stays"], head["notes"]) == (True, None, [])


def test_heic_of_a_phone_is_upright_with_its_position_seen() -> None:
    rgb, head = decoded(PHONE)

    assert rgb.shape in ((96, 128, 3), (128, 96, 3))
    assert head["facts"]["format"] == "HEIF"
    assert head["facts"]["gps"]
    assert rgb.std() > 20


def test_the_same_picture_in_other_containers_has_the_same_pixels_and_looks() -> None:
    png, tiff, jpeg = (decoded(encoded(IMAGE, form))[1] for form in ("PNG", "TIFF", "JPEG"))

    assert png["pixels_sha256"] == tiff["pixels_sha256"] != jpeg["pixels_sha256"]
    assert (int(png["phash"], 16) ^ int(jpeg["phash"], 16)).bit_count() <= 4


@pytest.mark.parametrize("extra", [{50706: b"\1\4\0\0"}, {254: 1, 271: "Camera"}])
def test_camera_raws_that_look_like_tiff_are_refused(extra: dict[int, object]) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in extra.items():
        tags[tag] = value

    with pytest.raises(InputError) as caught:
        decoded(encoded(IMAGE, "TIFF", tiffinfo=tags))

    assert caught.value.code == "raw_unsupported"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "image_empty"),
        (b"hello, this is no picture", "not_an_image"),
        (b"8BPS" + bytes(90), "format_unsupported"),
        (b"FUJIFILMCCD-RAW" + bytes(90), "raw_unsupported"),
        (b"\xff\xd8\xff", "image_corrupt"),
        (ASTRONAUT[:200_000], "image_truncated"),
        (encoded(IMAGE, "JPEG")[:2000], "image_truncated"),
        (encoded(Image.new("F", (8, 8)), "TIFF"), "format_unsupported"),
        (encoded(Image.new("RGB", (4000, 3000)), "PNG"), "image_too_large"),
        (tagged_tiff(IMAGE)[:9000], "image_truncated"),
    ],
)
def test_a_file_that_is_not_usable_gets_a_code(data: bytes, code: str) -> None:
    with pytest.raises(InputError) as caught:
        decoded(data)
    assert caught.value.code == code


def test_the_guarded_process_gives_the_same_as_this_one() -> None:
    photo = decode_photo(ASTRONAUT)

    rgb, head = decoded(ASTRONAUT)
    np.testing.assert_array_equal(photo.rgb, rgb)
    assert (photo.pixels_sha256, photo.phash, photo.facts) == (head["pixels_sha256"], head["phash"], head["facts"])


def test_a_photo_that_takes_too_much_memory_or_time_or_dies_is_an_answer() -> None:
    large = encoded(Image.new("RGB", (9000, 6000)), "JPEG")

    assert code_of(large, PhotoLimits(memory=700 << 20)) == "image_out_of_memory"
    assert code_of(ASTRONAUT, PhotoLimits(wall_seconds=0.001)) == "image_undecodable"
    assert code_of(ASTRONAUT, PhotoLimits(memory=30 << 20)) == "image_undecodable"  # it cannot even start
    assert code_of(ASTRONAUT, PhotoLimits(file_bytes=1000)) == "image_too_large"
    assert code_of(large, PhotoLimits(pixels=50_000_000)) == "image_too_large"


@pytest.mark.parametrize(
    "answer",
    [
        b"no line at all",
        b"{}\n",
        b'{"lengths": [4]}\n',
        b'{"error": {"message": "x"}, "kind": "InputError", "lengths": []}\n',
        b'{"error": {"message": "x", "code": "y"}, "kind": "SystemExit", "lengths": []}\n',
        b'{"width": 9, "height": 9, "facts": {}, "notes": [], "pixels_sha256": "", "phash": "", "lengths": [3]}\nabc',
    ],
)
def test_a_child_that_was_taken_over_is_not_believed(
    answer: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "taken_over.py").write_text(
        f"import sys; sys.stdin.buffer.readline(); sys.stdout.buffer.write({answer!r})"
    )
    monkeypatch.setattr(service, "CHILD", "taken_over")
    monkeypatch.setattr(guard, "ROOT", tmp_path)

    assert code_of(ASTRONAUT) == "image_undecodable"


def test_one_child_reads_many_photos_with_bad_ones_in_between() -> None:
    with photo_reader(PhotoLimits(pixels=300_000)) as decode:
        for _ in range(2):
            np.testing.assert_array_equal(decode(ASTRONAUT).rgb, decoded(ASTRONAUT)[0])
            for bad, code in (
                (ASTRONAUT[:9000], "image_truncated"),
                (b"x", "not_an_image"),
                (encoded(Image.new("RGB", (600, 600)), "PNG"), "image_too_large"),
            ):
                with pytest.raises(InputError) as refused:
                    decode(bad)
                assert refused.value.code == code


def test_no_photo_pays_for_another_one_that_ended_the_child() -> None:
    with Guarded(service.CHILD, memory=PhotoLimits().child_memory(10**6)) as child:

        def width_of(data: bytes, wall_seconds: float = 60) -> int:
            job = {"job": "decode", "max_pixels": 10**6}
            return int(child.ask(job, [data], lambda head, _: head["width"], wall_seconds=wall_seconds))

        assert width_of(ASTRONAUT) == 512
        first = child._child
        assert first is not None
        first.kill()
        first.wait()

        assert width_of(ASTRONAUT) == 512  # by another one
        with pytest.raises(InputError) as hung:
            width_of(ASTRONAUT, wall_seconds=0.0001)
        assert hung.value.code == "image_undecodable"
        assert width_of(ASTRONAUT) == 512


def test_a_photo_that_needs_too_much_memory_is_told_so_in_a_fresh_child_and_those_after_it_are_read() -> None:
    large = encoded(Image.new("RGB", (9000, 6000)), "JPEG")

    with photo_reader(PhotoLimits(memory=700 << 20)) as decode:
        assert decode(ASTRONAUT).rgb.shape == (512, 512, 3)
        with pytest.raises(InputError) as refused:
            decode(large)
        assert refused.value.code == "image_out_of_memory"
        assert decode(ASTRONAUT).rgb.shape == (512, 512, 3)


def test_the_child_sees_nothing_of_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nonexistent")  # a child that inherited this could not start

    assert decode_photo(ASTRONAUT).rgb.shape == (512, 512, 3)


@pytest.mark.parametrize("form", MEDIA_TYPES)
def test_what_is_decoded_is_taken_at_the_door(form: str) -> None:
    data = PHONE if form == "HEIF" else encoded(IMAGE, form)

    assert check_picture(data).format == decoded(data)[1]["facts"]["format"] == form


@pytest.mark.parametrize("data", [deep(3, ".tif"), deep(4, ".tif"), encoded(IMAGE.convert("CMYK"), "TIFF"), PHONE])
def test_what_pillow_does_not_know_is_taken_at_the_door_too(data: bytes) -> None:
    assert check_picture(data).format == decoded(data)[1]["facts"]["format"]


@pytest.mark.slow
def test_a_photo_of_108_megapixels_is_decoded_within_the_limits() -> None:
    photo = decode_photo(encoded(Image.effect_noise((12_000, 9_000), 50).convert("RGB"), "JPEG", quality=80))

    assert photo.rgb.shape == (9_000, 12_000, 3)
