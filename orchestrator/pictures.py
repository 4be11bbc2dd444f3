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

MEDIA_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "TIFF": "image/tiff",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "AVIF": "image/avif",
    "HEIF": "image/heif",
}
"""What is read, whether to restore it, as a reference or for a data set; `workers.photo` decodes it."""
SHOWN = ("JPEG", "PNG", "WEBP")
"""What every browser shows, and what thumbnails are made of."""
SHOWN_TYPES = frozenset(MEDIA_TYPES[form] for form in SHOWN)
OTHER_PICTURES = ((b"8BPS", "PSD"), (b"\0\0\x01\0", "ICO"), (b"SIMPLE  =", "FITS"), (b"%!PS", "EPS"))
RAW_SENTENCE = "camera raw files are not developed here; export the photo as JPEG, TIFF or PNG"
RAW_MARKS = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb", b"\0MRM", b"HEAPCCDR")
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)
BROKEN = (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, OverflowError)
"""What Pillow raises on files that are not what they claim."""


@dataclass(frozen=True, kw_only=True)
class PictureFacts:
    """What the header says; (width, height) as stored, before any orientation tag, where it can be read here."""

    format: str
    media_type: str
    size: tuple[int, int] | None


def check_picture(data: bytes, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES) -> PictureFacts:
    """Return what the header of a picture says, decoding nothing.

    The size of a HEIC and of rare TIFFs is left to the guarded process that decodes them.

    Raises:
        InputError: the codes of `known_format`, `image_too_large` or `image_corrupt`.
    """
    form = known_format(data)
    if len(data) > max_bytes:
        megabytes = f"{len(data) / 2**20:.0f} MiB"
        raise InputError(f"a picture holds at most {max_bytes // 2**20} MiB, got {megabytes}", code="image_too_large")
    size = None if form == "HEIF" else _size(data, form)
    if size is not None and size[0] * size[1] > max_pixels:
        width, height = size
        message = f"a picture has at most {max_pixels / 1e6:g} megapixels, got {width}x{height}"
        raise InputError(message, code="image_too_large", width=width, height=height)
    return PictureFacts(format=form, media_type=MEDIA_TYPES[form], size=size)


def _size(data: bytes, form: str) -> tuple[int, int] | None:
    try:
        with open_picture(data, (form,)) as image:
            return image.size
    except InputError as error:
        if form == "TIFF" and error.code == "image_corrupt":
            return None  # of a kind that Pillow does not know
        raise


def open_picture(data: bytes, formats: tuple[str, ...] = SHOWN) -> Image.Image:
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


def known_format(data: bytes) -> str:
    """Return the format of a picture that is read, one of MEDIA_TYPES, by its first bytes.

    Raises:
        InputError: `image_empty`, `not_an_image`, `format_unsupported` or `raw_unsupported`.
    """
    if not data:
        raise InputError("the file is empty", code="image_empty")
    form = photo_format(data[:64])
    if form is not None:
        return form
    other = unsupported_format(data[:64])
    if other == "camera raw":
        raise InputError(RAW_SENTENCE, code="raw_unsupported")
    if other:
        raise InputError(
            f"{other} files are not read; export the photo as JPEG, TIFF or PNG", code="format_unsupported"
        )
    known = ", ".join(MEDIA_TYPES)
    raise InputError(f"the file is not a picture: it starts like none of {known}", code="not_an_image")


def photo_format(head: bytes) -> str | None:
    """Return the format that a file's first 64 bytes promise, one of MEDIA_TYPES, or None."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
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
    return next((name for mark, name in OTHER_PICTURES if head.startswith(mark)), None)


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
