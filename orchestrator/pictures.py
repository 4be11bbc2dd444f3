"""What a picture file says of itself, read without decoding a pixel: for uploads before they are stored, and records.

Everything read here comes from strangers. Pillow parses; the limits are ours.
"""

from __future__ import annotations

import html
import io
import json
import re
import warnings
from dataclasses import dataclass
from typing import Any

from PIL import Image, UnidentifiedImageError

from orchestrator.errors import InputError

MAX_BYTES = 64 * 2**20
MAX_PIXELS = 64_000_000
RECORD_KEY = "fpga"
"""Key of the iTXt chunk that holds our JSON."""
MAX_RECORD_CHARS = 262_144
RECORD_IN_XMP = re.compile(rb"\sfpga:record=(?:\"([^\"]*)\"|'([^']*)')")
XMP_TAG = 700

MEDIA_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
OTHER_PICTURES = (
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"8BPS", "PSD"),
    (b"\0\0\x01\0", "ICO"),
    (b"\xff\x0a", "JPEG XL"),
    (b"SIMPLE  =", "FITS"),
    (b"%!PS", "EPS"),
)
PHOTO_MEDIA_TYPES = {
    **MEDIA_TYPES,
    "TIFF": "image/tiff",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "AVIF": "image/avif",
    "HEIF": "image/heif",
}
"""What the photos of an archive may be; references are only of MEDIA_TYPES."""
RAW_MARKS = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb", b"\0MRM", b"HEAPCCDR")
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)
BROKEN = (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, OverflowError)
"""What Pillow raises on files that are not what they claim."""


@dataclass(frozen=True, kw_only=True)
class PictureFacts:
    """What the header says; `width` and `height` as stored, before any orientation tag is applied."""

    format: str
    media_type: str
    width: int
    height: int


def check_picture(data: bytes, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES) -> PictureFacts:
    """Return what the header of a JPEG, PNG or WebP says, decoding nothing.

    Raises:
        InputError: `image_empty`, `not_an_image`, `format_unsupported`, `image_too_large`, `image_animated` or
            `image_corrupt`.
    """
    if not data:
        raise InputError("the file is empty", code="image_empty")
    if len(data) > max_bytes:
        megabytes = f"{len(data) / 2**20:.0f} MiB"
        raise InputError(f"a picture holds at most {max_bytes // 2**20} MiB, got {megabytes}", code="image_too_large")
    _check_signature(data)
    with open_picture(data) as image:
        width, height, form = image.width, image.height, image.format or ""
        frames = getattr(image, "n_frames", 1)
    if width * height > max_pixels:
        message = f"a picture has at most {max_pixels / 1e6:g} megapixels, got {width}x{height}"
        raise InputError(message, code="image_too_large", width=width, height=height)
    if form == "MPO":  # a JPEG with a second picture behind it, as phones write them; the first one counts
        form, frames = "JPEG", 1
    if frames > 1:
        raise InputError(f"a still picture is wanted, got {frames} frames", code="image_animated")
    return PictureFacts(format=form, media_type=MEDIA_TYPES[form], width=width, height=height)


def open_picture(data: bytes, formats: tuple[str, ...] = tuple(MEDIA_TYPES)) -> Image.Image:
    """Open a picture of one of these formats without decoding it.

    Raises:
        InputError: `image_corrupt`, or `image_too_large` where Pillow's own alarm goes off first.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit follows
            return Image.open(io.BytesIO(data), formats=formats)
    except Image.DecompressionBombError as error:
        raise InputError("the picture has far too many pixels", code="image_too_large") from error
    except (*BROKEN, MemoryError) as error:
        raise InputError("the header of the picture is damaged", code="image_corrupt") from error


def photo_format(head: bytes) -> str | None:
    """Return the format that a file's first 64 bytes promise, one of PHOTO_MEDIA_TYPES, or None."""
    if head.startswith(SIGNATURES[0]):
        return "JPEG"
    if head.startswith(SIGNATURES[1]):
        return "PNG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")) and head[8:10] != b"CR":
        return "TIFF"
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in BMP_HEADERS:
        return "BMP"
    brands = _brands(head)
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    return "HEIF" if brands & HEIF_BRANDS else None


def unsupported_format(head: bytes) -> str | None:
    """Return the name of a picture format that is known and not read, or None."""
    if head.startswith(RAW_MARKS) or head[8:10] == b"CR" or b"crx " in _brands(head):
        return "camera raw"
    if head.startswith(b"\0\0\0\x0cJXL ") or head.startswith(b"\xff\x0a"):
        return "JPEG XL"
    if head.startswith((b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")):
        return "JPEG 2000"
    known = (item for item in OTHER_PICTURES if item[1] in ("PSD", "ICO", "FITS", "EPS"))
    return next((name for mark, name in known if head.startswith(mark)), None)


def _brands(head: bytes) -> set[bytes]:
    """Return the brands of an ISO media file, which tell HEIC and AVIF from films."""
    if head[4:8] != b"ftyp":
        return set()
    names = head[8 : min(int.from_bytes(head[:4], "big"), 64)]
    return {names[i : i + 4] for i in range(0, len(names), 4) if i != 4}


def read_record(data: bytes) -> dict[str, Any] | None:
    """Return the JSON object that one of our pictures carries, or None for anything else.

    PNG has it in a chunk of its own, JPEG, WebP, TIFF and AVIF in their XMP. What comes back is what the file claims:
    trust nothing of it.
    """
    form = photo_format(data[:64])
    if form not in ("PNG", "JPEG", "WEBP", "TIFF", "AVIF"):
        return None
    try:
        with open_picture(data, formats=(form,)) as image:
            text = image.info.get(RECORD_KEY) if form == "PNG" else _in_xmp(image)
    except InputError:
        return None
    if not isinstance(text, str) or len(text) > MAX_RECORD_CHARS:
        return None
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _in_xmp(image: Image.Image) -> str | None:
    """Return the record in a picture's XMP, found as text: packets of strangers are not parsed."""
    packet: Any = image.info.get("xmp")
    if packet is None and image.format == "TIFF":
        packet = getattr(image, "tag_v2", {}).get(XMP_TAG)
    found = RECORD_IN_XMP.search(packet) if isinstance(packet, bytes) else None
    return html.unescape((found[1] or found[2]).decode("utf-8", "replace")) if found else None


def _check_signature(data: bytes) -> None:
    if data.startswith(SIGNATURES) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP"):
        return
    name = next((name for mark, name in OTHER_PICTURES if data.startswith(mark)), None)
    if data[4:8] == b"ftyp":
        name = "HEIC, AVIF or a film"
    if name:
        raise InputError(f"JPEG, PNG or WebP is wanted, got {name}", code="format_unsupported")
    raise InputError("the file is not a picture: it starts like no JPEG, PNG or WebP", code="not_an_image")
