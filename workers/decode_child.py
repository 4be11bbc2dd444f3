"""Decodes one picture from standard input to raw RGB on standard output, in a process that may die of it.

Run by workers.decode as `python -m workers.decode_child MAX_PIXELS`: it bounds its own memory and time first. The
first line of output is JSON, either {"width", "height"} or {"code", "message"}; the pixels follow.
"""

from __future__ import annotations

import io
import json
import sys
from typing import BinaryIO

from PIL import Image, ImageCms, ImageOps

from orchestrator.errors import InputError
from orchestrator.pictures import BROKEN, check_picture, open_picture
from workers.runtime.guard import bound_this_process

BASE_MEMORY = 512 * 2**20
BYTES_PER_PIXEL = 20
"""Source, transposed copy, flattened copy, converted copy and output of one pixel, at most four bytes each."""
CPU_SECONDS = 30


def main() -> None:
    """Serve one picture."""
    max_pixels = int(sys.argv[1])
    memory = BASE_MEMORY + BYTES_PER_PIXEL * max_pixels
    bound_this_process(memory=memory, cpu_seconds=CPU_SECONDS)
    out = sys.stdout.buffer
    try:
        image = decode(sys.stdin.buffer.read(), max_pixels)
    except InputError as error:
        _head(out, error.as_json())
    else:
        _head(out, {"width": image.width, "height": image.height})
        out.write(image.tobytes())


def decode(data: bytes, max_pixels: int) -> Image.Image:
    """Return the picture upright, in sRGB, mode RGB; transparency becomes white.

    Raises:
        InputError: the codes of `check_picture`, `image_truncated` or `image_corrupt`.
    """
    check_picture(data, max_pixels=max_pixels)
    with open_picture(data) as image:
        try:
            image.load()
        except BROKEN as error:
            if "truncated" in str(error).lower():
                raise InputError("the picture ends too early", code="image_truncated") from error
            raise InputError("the picture is damaged inside", code="image_corrupt") from error
        profile = image.info.get("icc_profile")
        upright = _upright(image)
    return _srgb(_flat(upright), profile)


def _head(out: BinaryIO, facts: dict[str, object]) -> None:
    out.write(json.dumps(facts).encode() + b"\n")


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except BROKEN:
        return image  # a damaged EXIF block says nothing of the orientation


def _flat(image: Image.Image) -> Image.Image:
    """Return mode RGB, L or CMYK: eight bits, no palette, no transparency."""
    if image.mode.startswith("I;16"):
        return image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        ground = Image.new("RGB", layer.size, "white")
        ground.paste(layer, mask=layer.getchannel("A"))
        return ground
    return image if image.mode in ("RGB", "L", "CMYK") else image.convert("RGB")


def _srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert from the embedded profile; without a usable one, sRGB is assumed."""
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, *BROKEN):
            converted = None
        if converted is not None:
            return converted
    return image.convert("RGB")


if __name__ == "__main__":
    main()
