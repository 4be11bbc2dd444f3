"""Reads a photo into its own pixel space, each format by one reader. Runs in the child only.

TIFF        tifffile with imagecodecs, see `tiff`
PNG         Pillow up to 8 bits, imagecodecs for 16; only the chunks of the pixels reach them
JPEG        Pillow (libjpeg-turbo)
WebP, GIF, BMP, AVIF    Pillow
HEIC        pi-heif
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import imagecodecs
import numpy as np
import pi_heif
from PIL import Image

from orchestrator.errors import InputError
from orchestrator.pictures import BROKEN, known_format
from workers.photo.formats import heif, jpeg, png, webp
from workers.photo.formats.tiff import read_tiff
from workers.photo.native import Model, Native, Pixels, Stays

ORIENTATION = 0x0112
BMP_PACKINGS = (3, 4, 5, 6)
"""Of a BMP: masks of colours, JPEG, PNG, masks with alpha; many of them are read."""
DAMAGED = (*BROKEN, RuntimeError, LookupError, TypeError, AttributeError, struct.error, zlib.error)
"""What decoders raise on files that are not what they claim; a bug of ours in here looks the same and is tested for."""

pi_heif.register_heif_opener(thumbnails=False)


def read_native(data: bytes, max_pixels: int) -> Native:
    """Decode a photo.

    Raises:
        InputError: `image_empty`, `not_an_image`, `format_unsupported`, `raw_unsupported`, `image_too_large`,
            `image_truncated`, `image_corrupt`, `image_out_of_memory`.
    """
    form = known_format(data)

    def check(width: int, height: int) -> None:
        if width * height > max_pixels:
            raise InputError(
                f"a photo has at most {max_pixels / 1e6:g} megapixels, got {width}x{height}",
                code="image_too_large",
                width=width,
                height=height,
            )

    try:
        if form == "TIFF":
            return read_tiff(data, check)
        image = _open(data, form)
        check(image.width, image.height)
        return _read(image, data, form)
    except MemoryError as error:
        raise InputError("decoding the photo needs more memory than is allowed", code="image_out_of_memory") from error


def _read(image: Image.Image, data: bytes, form: str) -> Native:
    several = _has_several(image)
    mode, orientation = image.mode, _orientation(image)
    notes = _notes(form, mode)
    pixels, model = _decoded(image, data, form, notes)
    info = image.info
    alpha = pixels.shape[2] in (2, 4) and model != "CMYK"
    profile, exif = _bytes(info.get("icc_profile")), _exif(info.get("exif"))
    packet = _bytes(info.get("xmp", info.get("XML:com.adobe.xmp")))
    if form == "PNG":
        profile, exif, packet = png.profile(data), png.exif(data), png.xmp(data)
        orientation = _orientation_of(exif)
    if form == "JPEG":
        packet = jpeg.xmp(data)
    return Native(
        form=form,
        pixels=pixels,
        model=model,
        alpha=alpha,
        profile=profile,
        exif=exif,
        xmp=packet,
        orientation=orientation,
        mode=mode,
        several=several or (form == "JPEG" and jpeg.pictures(data) > 1),
        stays=_stays(form, data, several, image),
        image=image,
        notes=notes,
    )


def _open(data: bytes, form: str) -> Image.Image:
    if form == "PNG" and data[12:16] == b"CgBI":
        raise InputError("PNGs of Apple's own kind are not read; export the photo anew", code="format_unsupported")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own limits follow
            given = png.pixels_alone(data) if form == "PNG" else data
            return Image.open(io.BytesIO(given), formats=(form,))
    except Image.DecompressionBombError as error:
        raise InputError("the picture has far too many pixels", code="image_too_large") from error
    except DAMAGED as error:
        if form == "JPEG" and (reason := jpeg.stays(data)):
            raise InputError(
                f"the file is of a kind that is not read ({reason[1]}); export the photo as JPEG of 8 bits",
                code="format_unsupported",
            ) from error
        if form == "BMP" and len(data) > 34 and (packing := struct.unpack_from("<L", data, 30)[0]) in BMP_PACKINGS:
            raise InputError(
                f"BMPs of this kind (packing {packing}) are not read; export the photo as PNG",
                code="format_unsupported",
            ) from error
        if form == "WEBP" and webp.ends_at(data) > len(data):
            raise InputError("the picture ends too early", code="image_truncated") from error
        raise InputError(f"the header of the picture cannot be read ({error})", code="image_corrupt") from error


def _decoded(image: Image.Image, data: bytes, form: str, notes: list[str]) -> tuple[Pixels, Model]:
    try:
        return _pixels(image, data, form)
    except DAMAGED as error:
        if "truncated" not in str(error).lower():
            raise InputError("the picture is damaged inside", code="image_corrupt") from error
        if form != "JPEG" or jpeg.end(data) is not None:
            raise InputError("the picture ends too early", code="image_truncated") from error
    try:  # what is missing may be the mark of the end alone: a decoder that meets zeros there is content
        again = Image.open(io.BytesIO(data + bytes(jpeg.PADDING)), formats=(form,))
        found = _pixels(again, data, form)
    except DAMAGED as error:
        raise InputError("the picture ends too early", code="image_truncated") from error
    notes.append("the mark of the end is missing in the file; the picture is whole")
    return found


def _pixels(image: Image.Image, data: bytes, form: str) -> tuple[Pixels, Model]:
    if form == "PNG":
        _check_png(data)
        if png.bits(data) == 16:
            return _deep_png(data)
    image.load()
    mode = image.mode
    # a transparent colour of a PNG stays a colour, its chunk is carried over
    if mode in ("I", "F", "LAB", "HSV"):
        raise InputError(
            f"pictures of mode {mode} are not read; export the photo with 8 or 16 bits", code="format_unsupported"
        )
    wanted = image.mode if form == "PNG" and png.bits(data) == 8 and mode in ("L", "RGB") else _eight_bit_mode(image)
    array = np.array(image if mode == wanted else image.convert(wanted))
    pixels = array[..., None] if array.ndim == 2 else array
    return pixels, "CMYK" if wanted == "CMYK" else "L" if wanted in ("L", "LA") else "RGB"


def _deep_png(data: bytes) -> tuple[Pixels, Model]:
    """Decode 16 bits; a transparent colour stays a colour, its chunk is carried over."""
    array = imagecodecs.png_decode(png.pixels_alone(data, transparency=False))
    pixels = array[..., None] if array.ndim == 2 else array
    if pixels.dtype != np.uint16 or pixels.shape[2] != {0: 1, 2: 3, 4: 2, 6: 4}[png.colour_type(data)]:
        raise ValueError("another depth than the header says")
    return pixels, "L" if pixels.shape[2] < 3 else "RGB"


def _check_png(data: bytes) -> None:
    """Compare the checksums of the pixels' chunks, which decoders pass over."""
    for kind, body, stored in png.checked_chunks(data):
        if kind in (b"IHDR", b"PLTE", b"IDAT") and stored is not None and zlib.crc32(kind + body) != stored:
            raise InputError("the picture is damaged inside: a checksum is wrong", code="image_corrupt")


def _eight_bit_mode(image: Image.Image) -> str:
    grey = image.mode in ("1", "L", "LA", "La")
    if image.mode == "CMYK":
        return "CMYK"
    if image.has_transparency_data:
        return "LA" if grey else "RGBA"
    return "L" if grey else "RGB"


def _stays(form: str, data: bytes, several: bool, image: Image.Image) -> Stays | None:
    found: tuple[str, str] | None = None
    if form in ("AVIF", "HEIF"):
        found = heif.stays(data, form)
    elif several and form not in ("JPEG", "TIFF"):
        found = "stays_frames", "the file is an animation or a series; a change of one picture would lose the others"
    elif form == "PNG":
        found = png.stays(data)
    elif form == "WEBP":
        found = webp.stays(data)
    elif form == "BMP" and struct.unpack_from("<L", data, 14)[0] > 40 and not in_place_bmp(data):
        found = "stays_storage", "the file is a BMP of a kind that is not written"
    elif form == "JPEG":
        found = jpeg.stays(data)
    return Stays(*found) if found else None


def in_place_bmp(data: bytes) -> bool:
    """Whether a BMP holds 24 or 32 plain bits, so that its pixels can be written where they are."""
    header, width, height, _, bits, packing = struct.unpack_from("<LllHHL", data, 14)
    return header >= 40 and bits in (24, 32) and packing == 0 and width > 0 and height != 0


def _has_several(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except DAMAGED:
        return True  # something is there, and it is of no use


def _orientation(image: Image.Image) -> int:
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except DAMAGED:
        return 1  # a damaged EXIF block says nothing of the orientation
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _orientation_of(block: bytes | None) -> int:
    exif = Image.Exif()
    try:
        exif.load(b"Exif\0\0" + (block or b""))
        found = exif.get(ORIENTATION, 1)
    except DAMAGED:
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def raw_exif(native: Native, data: bytes) -> bytes | None:
    """Return the EXIF block as the file has it; readers of HEIC rewrite it where they turn the picture."""
    if native.form != "HEIF":
        return native.exif
    return _exif(pi_heif.open_heif(io.BytesIO(data), thumbnails=False).info.get("exif"))


def _exif(found: object) -> bytes | None:
    if not isinstance(found, bytes):
        return None
    blob = found.removeprefix(b"Exif\0\0")
    return blob if blob[:4] in (b"II*\0", b"MM\0*") else None


def _bytes(found: object) -> bytes | None:
    if isinstance(found, str):
        return found.encode("utf-8", "replace")
    return found if isinstance(found, bytes) and found else None


def _notes(form: str, mode: str) -> list[str]:
    return ["the palette becomes full colour where the photo is changed"] if mode in ("P", "PA") else []
