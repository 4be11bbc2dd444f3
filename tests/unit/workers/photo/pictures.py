"""Photos of every kind for tests, and the guarded child's work done in this process."""

from __future__ import annotations

import io
import struct
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import skimage
from numpy.typing import NDArray
from PIL import Image, ImageCms, TiffImagePlugin

from workers.photo import OutputOptions, Patch, patches_of
from workers.photo.child import JOBS
from workers.photo.frames import receive

ASTRONAUT = (Path(skimage.__file__).parent / "data" / "astronaut.png").read_bytes()
"""Eileen Collins, NASA, public domain; comes inside scikit-image."""
PHONE = (Path(__file__).parents[3] / "data" / "phone.heic").read_bytes()
"""A rendered person, 96x128, written by pillow-heif 1.8 with an orientation of 6 and a position."""
RECORD: dict[str, Any] = {"schema": "fpga/output/1", "software": "fpga", "preset": "mini", "note": "a \"b\" <c> & 'd'"}
RGB = NDArray[np.uint8]


def astronaut(width: int = 160, height: int = 120) -> Image.Image:
    """A photo with texture; odd sizes try the blocks of JPEG."""
    return Image.open(io.BytesIO(ASTRONAUT)).convert("RGB").crop((120, 0, 400, 210)).resize((width, height))


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def exif(*, orientation: int = 1, gps: bool = True, preview: bytes = b"") -> bytes:
    """An EXIF block with a camera, a maker's note, and what is asked for."""
    block = Image.Exif()
    block[0x010F], block[0x0110], block[0x0112] = "Maker", "Model 1", orientation
    details = block.get_ifd(0x8769)
    details[0x9003], details[0x927C] = "1999:12:31 23:59:59", b"note\0of\0the maker"
    if gps:
        place = block.get_ifd(0x8825)
        place.update({1: "N", 2: (47.0, 22.0, 12.5), 3: "E", 4: (8.0, 32.0, 1.0), 29: "1999:12:31"})
    data = block.tobytes()
    if not preview:
        return data
    body = bytearray(data.removeprefix(b"Exif\0\0"))
    order = "<" if body[:2] == b"II" else ">"
    first = struct.unpack_from(f"{order}L", body, 4)[0]
    count = struct.unpack_from(f"{order}H", body, first)[0]
    struct.pack_into(f"{order}L", body, first + 2 + 12 * count, len(body))
    place_of_it = len(body) + 2 + 24 + 4
    body += struct.pack(f"{order}HHHLLHHLLL", 2, 0x0201, 4, 1, place_of_it, 0x0202, 4, 1, len(preview), 0)
    return b"Exif\0\0" + bytes(body) + preview


@cache
def swapped_profile() -> bytes:
    """An RGB profile whose red is sRGB's green and the other way round: whoever ignores it is found out.

    Made once, since it holds the time when it was made.
    """
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = data.index(b"rXYZ"), data.index(b"gXYZ")
    data[red : red + 4], data[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(data).replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be")).replace(b"sRGB", b"test")


def deep(channels: int, form: str) -> bytes:
    """16 bits in 3 or 4 channels, every low byte in use."""
    rng = np.random.default_rng(channels)
    base = np.asarray(astronaut()).astype(np.uint16) * 257
    pixels = base ^ rng.integers(0, 256, base.shape, np.uint16)
    if channels == 4:
        pixels = np.dstack([pixels, np.full(pixels.shape[:2], 65_535, np.uint16)])
        pixels[:20, :20, 3] = 12_345
    order = cv2.COLOR_RGBA2BGRA if channels == 4 else cv2.COLOR_RGB2BGR
    done, data = cv2.imencode(form, cv2.cvtColor(pixels, order))
    assert done
    return data.tobytes()


def grey16() -> Image.Image:
    return Image.fromarray((np.asarray(astronaut().convert("L")).astype(np.uint16) * 257) ^ np.uint16(0x55))


def tagged_tiff(image: Image.Image, **options: object) -> bytes:
    """A TIFF with description, positions, EXIF and XMP."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[270], tags[271], tags[700] = "holiday", "Maker", b'<x:xmpmeta xmlns:x="adobe:ns:meta/"></x:xmpmeta>'
    tags[34853] = {1: "N", 2: (47.0, 22.0, 12.5)}
    tags[34665] = {0x9003: "1999:12:31 23:59:59"}
    return encoded(image, "TIFF", tiffinfo=tags, dpi=(300, 300), **options)


def decoded(data: bytes, max_pixels: int = 10_000_000) -> tuple[RGB, dict[str, Any]]:
    """What `decode_photo` gives, without its process."""
    head, (pixels,) = _said(JOBS["decode"]({"max_pixels": max_pixels}, [data]))
    return np.frombuffer(pixels, np.uint8).reshape(head["height"], head["width"], 3), head


def _said(answer: list[bytes | memoryview]) -> tuple[dict[str, Any], list[bytes]]:
    return receive(io.BytesIO(b"".join(answer)), most=2**31)


def edit(rgb: RGB) -> tuple[RGB, list[Patch]]:
    """Invert an ellipse in the middle with a soft edge; return how it shall look, and the patches."""
    height, width = rgb.shape[:2]
    y, x = np.mgrid[:height, :width]
    radius = np.hypot((y - height / 2) / (height / 4), (x - width / 2) / (width / 4))
    mask = np.clip((1.2 - radius) / 0.4, 0, 1).astype(np.float32)
    wanted = np.round(rgb + mask[..., None] * (255.0 - 2.0 * rgb)).astype(np.uint8)
    return wanted, patches_of(wanted, mask)


def written(data: bytes, patches: list[Patch], **options: str) -> tuple[bytes, dict[str, Any]]:
    """What `encode_photo` gives for changed photos, without its process: the source itself where it must stay."""
    job = {
        "max_pixels": 10_000_000,
        "record": RECORD,
        "options": asdict(OutputOptions(**options)),  # type: ignore[arg-type]  # fields by name
        "patches": [{"left": p.left, "top": p.top, "shape": p.rgba.shape} for p in patches],
    }
    head, out = _said(JOBS["encode"](job, [data, *(p.rgba.tobytes() for p in patches)]))
    return out[0] if out else data, head
