"""Writes a TIFF of any depth and colour model with another TIFF's tags; Pillow writes the directory, we the strips.

Pillow cannot write 16 bits in several channels, and OpenCV writes no tags.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from workers.photo.native import ORIENTATION, Native, Pixels

STRIP_BYTES = 1 << 20
EXIF, GPS, XMP, ICC = 34665, 34853, 700, 34675
PHOTOMETRIC = {"L": 1, "RGB": 2, "CMYK": 5}
DEFLATE, HORIZONTAL = 8, 2
OF_THE_PIXELS = frozenset({
    255, 256, 257, 258, 259, 262, 263, 266, 273, 277, 278, 279, 280, 281, 284, 288, 289, 290, 291, 292, 293, 317, 320,
    322, 323, 324, 325, 330, 338, 339, 340, 341, 342, 347, *range(512, 522), 529, 530, 531, 532,
})  # fmt: skip
"""Tags that say how the old pixels were stored."""
OF_THE_PHOTO = frozenset({270, 271, 272, 305, 306, 315, 33432})
"""Description, make, model, software, time, artist and copyright."""
OF_THE_OLD_PICTURE = frozenset({37724, 34377})
"""Photoshop's layers and previews, which still show what was changed."""


def write_tiff(native: Native, pixels: Pixels, xmp: bytes, exif_ifds: Mapping[int, Mapping[int, Any]]) -> bytes:
    """Return a TIFF of these pixels: little-endian, packed by deflate if the source was packed at all."""
    tags = ImageFileDirectory_v2()
    source: Any = native.tags
    for tag in source:
        if tag not in OF_THE_PIXELS | OF_THE_OLD_PICTURE | {EXIF, GPS, XMP, 40965}:
            tags.tagtype[tag] = source.tagtype[tag]
            tags[tag] = source[tag]
    packed = native.form != "TIFF" or source.get(259, 1) != 1
    rows = max(1, STRIP_BYTES // max(1, pixels[0].nbytes))
    strips = [_strip(pixels[top : top + rows], packed) for top in range(0, len(pixels), rows)]
    height, width, channels = pixels.shape
    _describe(tags, pixels, native, packed, rows)
    tags[256], tags[257], tags[277] = width, height, channels
    tags[ORIENTATION] = native.orientation  # Pillow takes it away when it turns the picture
    tags[273] = tuple(int(place) for place in np.cumsum([0, *(len(strip) for strip in strips[:-1])]))
    tags[279] = tuple(len(strip) for strip in strips)
    tags.tagtype[XMP] = 1
    tags[XMP] = xmp
    if native.profile and native.form != "TIFF":
        tags.tagtype[ICC] = 7
        tags[ICC] = native.profile
    for tag, values in exif_ifds.items():
        if values:
            tags[tag] = dict(values)
    out = io.BytesIO()
    tags.save(out)
    for strip in strips:
        out.write(strip)
    return out.getvalue()


def exif_ifds(image: Image.Image, *, keep_gps: bool) -> dict[int, dict[int, Any]]:
    """Return the EXIF and GPS directories of a picture as Pillow read them."""
    exif = image.getexif()
    kept = {EXIF: dict(exif.get_ifd(EXIF))}
    kept[EXIF].pop(40965, None)  # points to a directory that is not carried over
    if keep_gps:
        kept[GPS] = dict(exif.get_ifd(GPS))
    return kept


def exif_block(native: Native, *, keep_gps: bool) -> bytes:
    """Return what a TIFF says of the photo as an EXIF block for other formats."""
    source, exif = native.image.getexif(), Image.Exif()
    for tag in OF_THE_PHOTO & source.keys():
        exif[tag] = source[tag]
    exif[ORIENTATION] = native.orientation
    for tag, values in exif_ifds(native.image, keep_gps=keep_gps).items():
        exif.get_ifd(tag).update(values)
    return exif.tobytes().removeprefix(b"Exif\0\0")


def _describe(tags: ImageFileDirectory_v2, pixels: Pixels, native: Native, packed: bool, rows: int) -> None:
    channels = pixels.shape[2]
    tags.tagtype[258] = 3
    tags[258] = (native.bits,) * channels
    tags[259] = DEFLATE if packed else 1
    tags[262] = PHOTOMETRIC[native.model]
    tags[278] = rows
    tags[284] = 1
    if packed:
        tags[317] = HORIZONTAL
    if native.alpha:
        tags[338] = 2  # alpha that the colours are not multiplied by


def _strip(rows: Pixels, packed: bool) -> bytes:
    little = rows.astype(rows.dtype.newbyteorder("<"), copy=False)
    if not packed:
        return little.tobytes()
    steps = little.copy()
    np.subtract(little[:, 1:], little[:, :-1], out=steps[:, 1:])
    return zlib.compress(steps.tobytes(), 6)
