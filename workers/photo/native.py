"""A photo in its own pixel space: bit depth, colour model, alpha and orientation as stored. Runs in the child only.

What the networks see is made from it in `colour`, and what they changed is put back there.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import cv2
import numpy as np
import pi_heif
from numpy.typing import NDArray
from PIL import Image

from orchestrator.errors import InputError
from orchestrator.pictures import BROKEN, PHOTO_MEDIA_TYPES, photo_format, unsupported_format
from workers.photo.containers import PNG_SIGNATURE

Model = Literal["L", "RGB", "CMYK"]
Pixels = NDArray[np.uint8] | NDArray[np.uint16]
ORIENTATION, EXIF_IFD = 0x0112, 0x8769
GPS_IFD = 0x8825
NEW_SUBFILE_TYPE, PHOTOMETRIC, BITS, DNG_VERSION, MAKE = 254, 262, 258, 50706, 271
DAMAGED = (*BROKEN, RuntimeError, LookupError, TypeError, AttributeError, struct.error, cv2.error)
"""What decoders raise on files that are not what they claim; a bug of ours in here looks the same and is tested for."""
RAW_PHOTOMETRICS = (32803, 34892)

pi_heif.register_heif_opener(thumbnails=False)


@dataclass(kw_only=True)
class Native:
    """A decoded photo.

    Attributes:
        form: one of PHOTO_MEDIA_TYPES.
        pixels: (H, W, C) uint8 or uint16 as stored, before any orientation; alpha is the last channel.
        model: of the colour channels; 1, 3 or 4 of them.
        alpha: whether there is one.
        profile, exif, xmp: metadata as the file has it; EXIF begins with its byte order.
        orientation: 1 to 8, as EXIF counts.
        mode: Pillow's name of how pixels are stored, such as `P`.
        several: whether more frames or pages follow.
        image: Pillow's, for what only some formats have.
        notes: sentences for the record.
    """

    form: str
    pixels: Pixels
    model: Model
    alpha: bool
    profile: bytes | None
    exif: bytes | None
    xmp: bytes | None
    orientation: int
    mode: str
    several: bool
    image: Image.Image
    notes: list[str] = field(default_factory=list)

    @property
    def bits(self) -> int:
        """Bits per channel."""
        return self.pixels.dtype.itemsize * 8

    @property
    def tags(self) -> Mapping[int, Any]:
        """The tags of a TIFF, nothing for other formats."""
        found: Mapping[int, Any] = getattr(self.image, "tag_v2", {}) if self.form == "TIFF" else {}
        return found


def read_native(data: bytes, max_pixels: int) -> Native:
    """Decode a photo.

    Raises:
        InputError: `image_empty`, `not_an_image`, `format_unsupported`, `raw_unsupported`, `image_too_large`,
            `image_truncated`, `image_corrupt`, `image_out_of_memory`.
    """
    form = _form(data)
    image = _open(data, form)
    if image.width * image.height > max_pixels:
        raise InputError(
            f"a photo has at most {max_pixels / 1e6:g} megapixels, got {image.width}x{image.height}",
            code="image_too_large",
            width=image.width,
            height=image.height,
        )
    if form == "TIFF":
        _check_tiff(image)
    several = _has_several(image)
    mode, orientation = image.mode, _orientation(image)
    pixels, model = _decoded(image, data, form, orientation)
    info = image.info
    return Native(
        form=form,
        pixels=pixels,
        model=model,
        alpha=pixels.shape[2] in (2, 4) and model != "CMYK",
        profile=_bytes(info.get("icc_profile")),
        exif=_exif(info.get("exif")),
        xmp=_bytes(info.get("xmp", info.get("XML:com.adobe.xmp"))),
        orientation=orientation,
        mode=mode,
        several=several,
        image=image,
        notes=_notes(form, mode, several),
    )


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return a view of (H, W, ...) pixels as they are to be looked at; writing to it writes to the pixels."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _form(data: bytes) -> str:
    if not data:
        raise InputError("the file is empty", code="image_empty")
    form = photo_format(data[:64])
    if form is not None:
        return form
    other = unsupported_format(data[:64])
    if other == "camera raw":
        raise InputError(
            "camera raw files are not developed here; export the photo as JPEG, TIFF or PNG", code="raw_unsupported"
        )
    if other:
        raise InputError(
            f"{other} files are not read; export the photo as JPEG, TIFF or PNG", code="format_unsupported"
        )
    known = ", ".join(PHOTO_MEDIA_TYPES)
    raise InputError(f"the file is not a picture: it starts like none of {known}", code="not_an_image")


def _open(data: bytes, form: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own limits follow
            return Image.open(io.BytesIO(data), formats=(form,))
    except Image.DecompressionBombError as error:
        raise InputError("the picture has far too many pixels", code="image_too_large") from error
    except MemoryError as error:
        raise InputError("opening the photo needs more memory than is allowed", code="image_out_of_memory") from error
    except DAMAGED as error:
        raise InputError("the header of the picture is damaged", code="image_corrupt") from error


def _check_tiff(image: Image.Image) -> None:
    """Refuse camera raws that call themselves TIFF: what lies in front in them is only a preview."""
    tags: Any = getattr(image, "tag_v2", {})
    preview = tags.get(NEW_SUBFILE_TYPE, 0) == 1 and MAKE in tags
    if DNG_VERSION in tags or tags.get(PHOTOMETRIC) in RAW_PHOTOMETRICS or preview:
        raise InputError(
            "camera raw files are not developed here; export the photo as JPEG, TIFF or PNG", code="raw_unsupported"
        )


def _decoded(image: Image.Image, data: bytes, form: str, orientation: int) -> tuple[Pixels, Model]:
    try:
        return _pixels(image, data, form, orientation)
    except MemoryError as error:
        raise InputError("decoding the photo needs more memory than is allowed", code="image_out_of_memory") from error
    except DAMAGED as error:
        if "truncated" in str(error).lower():
            raise InputError("the picture ends too early", code="image_truncated") from error
        raise InputError("the picture is damaged inside", code="image_corrupt") from error


def _pixels(image: Image.Image, data: bytes, form: str, orientation: int) -> tuple[Pixels, Model]:
    if form == "PNG":
        _check_png(data)
    if _is_deep(image, data, form):
        return _deep(data, form)
    image.load()
    mode = image.mode
    turned = _turned_back if form == "TIFF" else (lambda pixels, _: pixels)
    if mode.startswith("I;16"):
        return turned(np.asarray(image).astype(np.uint16)[..., None], orientation), "L"
    if mode in ("I", "F", "LAB", "HSV"):
        raise InputError(
            f"pictures of mode {mode} are not read; export the photo with 8 or 16 bits", code="format_unsupported"
        )
    wanted = _eight_bit_mode(image)
    array = np.array(image if mode == wanted else image.convert(wanted))
    pixels = array[..., None] if array.ndim == 2 else array
    model: Model = "CMYK" if wanted == "CMYK" else "L" if wanted in ("L", "LA") else "RGB"
    return turned(pixels, orientation), model


def _check_png(data: bytes) -> None:
    """Compare the checksums of the pixels' chunks, which decoders pass over."""
    place = len(PNG_SIGNATURE)
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">L4s", data, place)
        end = place + 8 + length
        checked = kind in (b"IHDR", b"PLTE", b"IDAT") and end + 4 <= len(data)
        if checked and zlib.crc32(memoryview(data)[place + 4 : end]) != struct.unpack_from(">L", data, end)[0]:
            raise InputError("the picture is damaged inside: a checksum is wrong", code="image_corrupt")
        place = end + 4


def _turned_back(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Undo the turn that Pillow gives to a TIFF, and to nothing else, while it decodes it."""
    return np.ascontiguousarray(upright(pixels, {6: 8, 8: 6}.get(orientation, orientation)))


def _eight_bit_mode(image: Image.Image) -> str:
    grey = image.mode in ("1", "L", "LA", "La")
    if image.mode == "CMYK":
        return "CMYK"
    if image.has_transparency_data:
        return "LA" if grey else "RGBA"
    return "L" if grey else "RGB"


def _is_deep(image: Image.Image, data: bytes, form: str) -> bool:
    """Tell 16 bits in several channels, which Pillow would cut down to eight."""
    if form == "PNG":
        return data[24] == 16 and data[25] in (2, 4, 6)
    if form != "TIFF":
        return False
    bits = getattr(image, "tag_v2", {}).get(BITS, (8,))
    if len(bits) > 1 and max(bits) > 8:
        if image.mode not in ("RGB", "RGBA", "RGBX") or set(bits) != {16}:
            raise InputError(
                f"pictures with {max(bits)} bits and mode {image.mode} are not read; export the photo as 16-bit RGB",
                code="format_unsupported",
            )
        return True
    return False


def _deep(data: bytes, form: str) -> tuple[Pixels, Model]:
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.dtype != np.uint16 or decoded.ndim != 3:
        raise InputError("the picture is damaged inside", code="image_corrupt")
    if form == "PNG" and data[25] == 4:  # grey and alpha come back as four channels
        return np.ascontiguousarray(decoded[..., [0, 3]]), "L"
    order = cv2.COLOR_BGRA2RGBA if decoded.shape[2] == 4 else cv2.COLOR_BGR2RGB
    return cv2.cvtColor(decoded, order), "RGB"


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


def _notes(form: str, mode: str, several: bool) -> list[str]:
    notes = []
    if several and form == "JPEG":
        notes.append("a second picture behind the first one is left out")
    elif several:
        notes.append("the file has several frames or pages; only the first one is used")
    if mode in ("P", "PA"):
        notes.append("the palette becomes full colour where the photo is changed")
    return notes
