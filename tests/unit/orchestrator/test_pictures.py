"""A picture is judged by its header, whatever it calls itself."""

from __future__ import annotations

import io
import json
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from orchestrator.errors import InputError
from orchestrator.pictures import MAX_RECORD_CHARS, MEDIA_TYPES, RECORD_KEY, check_picture, read_record


def encoded(form: str, mode: str = "RGB", size: tuple[int, int] = (40, 30), **options: object) -> bytes:
    out = io.BytesIO()
    Image.new(mode, size, 120).save(out, form, **options)
    return out.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header claims any size, with next to no data behind it."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(b"\0" * 64)) + png_chunk(b"IEND", b"")


def code_of(data: bytes, **limits: int) -> str:
    with pytest.raises(InputError) as caught:
        check_picture(data, **limits)
    assert caught.value.message
    return caught.value.code


@pytest.mark.parametrize(("form", "media_type"), [(f, t) for f, t in MEDIA_TYPES.items() if f != "HEIF"])
def test_a_good_picture_tells_its_format_and_size(form: str, media_type: str) -> None:
    facts = check_picture(encoded(form))

    assert (facts.format, facts.media_type, facts.size) == (form, media_type, (40, 30))


def test_a_phone_picture_with_a_second_one_behind_it_is_a_jpeg() -> None:
    second = Image.new("RGB", (8, 8))

    facts = check_picture(encoded("MPO", save_all=True, append_images=[second]))

    assert (facts.format, facts.size) == ("JPEG", (40, 30))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "image_empty"),
        (b"hello, this is no picture", "not_an_image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_an_image"),
        (b"PK\x03\x04" + b"\0" * 60, "not_an_image"),
        (b"8BPS" + b"\0" * 60, "format_unsupported"),
        (b"FUJIFILMCCD-RAW" + b"\0" * 60, "raw_unsupported"),
        (b"GIF89a", "image_corrupt"),
        (b"\x89PNG\r\n\x1a\n" + b"junk" * 20, "image_corrupt"),
        (b"\xff\xd8\xff", "image_corrupt"),
        (b"RIFF\x10\0\0\0WEBPVP8 " + b"\0" * 16, "image_corrupt"),
        (png_of_size(9000, 9000), "image_too_large"),
        (png_of_size(13_000, 13_000), "image_too_large"),
        (png_of_size(60_000, 60_000), "image_too_large"),
    ],
)
def test_a_file_that_is_not_usable_gets_a_code(data: bytes, code: str) -> None:
    assert code_of(data) == code


def test_limits_are_the_callers() -> None:
    data = encoded("PNG")

    assert code_of(data, max_pixels=1199) == "image_too_large"
    assert code_of(data, max_bytes=len(data) - 1) == "image_too_large"
    assert check_picture(data, max_pixels=1200, max_bytes=len(data)).size == (40, 30)


@settings(max_examples=150, deadline=None)
@given(
    base=st.sampled_from([encoded("JPEG"), encoded("PNG"), encoded("WEBP")]),
    cut=st.integers(0, 400),
    noise=st.lists(st.tuples(st.integers(0, 399), st.integers(0, 255)), max_size=6),
)
def test_a_damaged_picture_is_accepted_or_named_never_a_crash(
    base: bytes, cut: int, noise: list[tuple[int, int]]
) -> None:
    data = bytearray(base[: len(base) - cut] if cut < len(base) else base)
    for place, value in noise:
        data[place % len(data)] = value

    try:
        facts = check_picture(bytes(data))
    except InputError:
        return
    assert facts.size is not None
    assert facts.size[0] * facts.size[1] <= 64_000_000


def with_record(text: str, *, compressed: bool = False) -> bytes:
    info = PngInfo()
    info.add_itxt(RECORD_KEY, text, zip=compressed)
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "PNG", pnginfo=info)
    return out.getvalue()


def test_a_record_is_read_back() -> None:
    record = {"schema": 1, "prompt": "Größe"}

    assert read_record(with_record(json.dumps(record))) == record
    assert read_record(with_record(json.dumps(record), compressed=True)) == record


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no picture",
        encoded("PNG"),
        encoded("JPEG"),
        with_record("[1]"),
        with_record("{"),
        with_record("[" * 100_000),
        with_record('{"seed": ' + "9" * 5000 + "}"),
        with_record(json.dumps({"a": "x" * MAX_RECORD_CHARS})),
        with_record(json.dumps({"a": "x" * 50_000_000}), compressed=True),
    ],
    ids=["empty", "text", "plain", "jpeg", "list", "broken", "deep", "huge-number", "long", "bomb"],
)
def test_a_file_without_a_usable_record_has_none(data: bytes) -> None:
    assert read_record(data) is None
