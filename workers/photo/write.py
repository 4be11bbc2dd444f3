"""Writes a changed photo in its own format, with its own metadata and what has to be said of the change. Child only.

PNG     same depth and alpha; chunks carried over byte by byte; a palette becomes full colour
TIFF    same depth, model and alpha; tags carried over; deflate if it was packed
JPEG    same quantisation tables, subsampling and scan order; segments carried over byte by byte
WebP    lossless stays lossless, else quality 90
AVIF    quality 90
BMP     as it is; the format holds no metadata
HEIC    becomes JPEG of quality 95, or PNG where it has alpha: there is no free encoder
GIF     becomes PNG: a palette cannot hold new colours
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from PIL import Image, JpegImagePlugin

from orchestrator.pictures import RECORD_KEY
from workers.photo import xmp as xmp_of
from workers.photo.containers import (
    EXIF_SEGMENT,
    MAX_SEGMENT,
    XMP_MORE,
    XMP_SEGMENT,
    Part,
    international_text,
    is_application,
    join_jpeg,
    join_png,
    jpeg_segments,
    png_chunks,
    text_key,
)
from workers.photo.exif import without_gps, without_preview
from workers.photo.native import Native, Pixels
from workers.photo.picture import MINIMAL, XMP_KEY, Level
from workers.photo.tiff import exif_block, exif_ifds, write_tiff

JFIF = b"\xff\xe0"
QUALITY = 90
HEIF_QUALITY = 95
LOSSLESS = ("PNG", "TIFF", "BMP")
CLAIMS = "a content credential of the source no longer holds and is left out"
DROPPED_CHUNKS = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"hIST", b"sPLT", b"acTL", b"fcTL", b"fdAT", b"caBX"}
OF_THE_STORAGE = {b"sBIT", b"bKGD"}
"""Chunks whose form depends on how pixels are stored."""


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """How a photo is written.

    Attributes:
        format: `same` as the source, or `png`.
        gps: whether recorded positions stay.
        level: how much of the record goes into the file.
    """

    format: Literal["same", "png"] = "same"
    gps: Literal["keep", "strip"] = "keep"
    level: Level = "full"


def written_form(native: Native, options: OutputOptions) -> str:
    """Return the format that a changed photo gets."""
    if options.format == "png" or native.form == "GIF" or (native.form == "HEIF" and native.alpha):
        return "PNG"
    return "JPEG" if native.form == "HEIF" else native.form


def is_lossless(native: Native, form: str, data: bytes) -> bool:
    """Whether pixels outside of the changes must come back bit by bit."""
    return form in LOSSLESS or (form == native.form == "WEBP" and b"VP8L" in data[: 1 << 16])


def write(native: Native, data: bytes, pixels: Pixels, record: Mapping[str, Any], options: OutputOptions) -> bytes:
    """Return the photo with these pixels.

    Args:
        native: the source, decoded from `data`.
        pixels: (H, W, C) of the same kind as the source's.
        record: small JSON that says how the picture was made.
        options: what to write.
    """
    form = written_form(native, options)
    meta = _metadata(native, record, options)
    if form == "PNG":
        return _png(native, data, pixels, meta)
    if form == "TIFF":
        ifds = exif_ifds(native.image, keep_gps=options.gps == "keep")
        return write_tiff(native, pixels, meta.xmp, ifds)
    if form == "JPEG":
        return _jpeg(native, data, pixels, meta)
    return _other(native, data, form, pixels, meta)


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What goes into the file beside the pixels; `record` is JSON or nothing."""

    exif: bytes | None
    xmp: bytes
    bare_xmp: bytes
    record: str | None
    keep_gps: bool


def _metadata(native: Native, record: Mapping[str, Any], options: OutputOptions) -> Metadata:
    keep_gps = options.gps == "keep"
    exif, packet = native.exif, native.xmp
    if native.form == "TIFF":
        exif = exif_block(native, keep_gps=keep_gps)
    elif exif is not None:
        exif = without_preview(exif if keep_gps else without_gps(exif))
    if packet is not None and not keep_gps:
        packet = xmp_of.without_gps(packet)
    kept = dict(record) if options.level == "full" else {key: record[key] for key in MINIMAL if key in record}
    text = None
    if options.level != "none":
        text = json.dumps(kept, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return Metadata(
        exif=exif,
        xmp=xmp_of.marked(packet, text),
        bare_xmp=xmp_of.marked(packet, None),
        record=text,
        keep_gps=keep_gps,
    )


def _png(native: Native, data: bytes, pixels: Pixels, meta: Metadata) -> bytes:
    header, *image = [chunk for chunk in png_chunks(_png_pixels(native, pixels)) if chunk[0] in (b"IHDR", b"IDAT")]
    if native.form == "PNG":
        kept = _kept_chunks(native, data, header, meta)
    else:
        kept = [*_profile_chunks(native), *([(b"eXIf", meta.exif)] if meta.exif else [])]
    said = [international_text(XMP_KEY, meta.bare_xmp)]
    if meta.record is not None:
        said.insert(0, international_text(RECORD_KEY, meta.record.encode()))
    return join_png([header, *kept, *said, *image, (b"IEND", b"")])


def _kept_chunks(native: Native, data: bytes, header: Part, meta: Metadata) -> list[Part]:
    source = list(png_chunks(data))
    dropped = DROPPED_CHUNKS if source[0][1][8:10] == header[1][8:10] else DROPPED_CHUNKS | OF_THE_STORAGE
    kept = []
    for chunk in source:
        key = text_key(chunk)
        if chunk[0] in dropped or key in (XMP_KEY.encode(), RECORD_KEY.encode()):
            if chunk[0] == b"caBX":
                native.notes.append(CLAIMS)
            continue
        if chunk[0] == b"eXIf" and meta.exif is not None:
            chunk = (b"eXIf", meta.exif)
        if key.startswith(b"Raw profile type") and not meta.keep_gps:
            continue  # EXIF of old programs, as text
        kept.append(chunk)
    return kept


def _profile_chunks(native: Native) -> list[Part]:
    """Return the chunks of the colour profile, as Pillow writes them."""
    if native.profile is None:
        return []
    out = io.BytesIO()
    Image.new("L" if native.model == "L" else "RGB", (1, 1)).save(out, "PNG", icc_profile=native.profile)
    return [chunk for chunk in png_chunks(out.getvalue()) if chunk[0] == b"iCCP"]


def _png_pixels(native: Native, pixels: Pixels) -> bytes:
    if native.bits == 16 and pixels.shape[2] > 1:
        channels = pixels[..., [0, 0, 0, 1]] if pixels.shape[2] == 2 else pixels
        order = cv2.COLOR_RGBA2BGRA if channels.shape[2] == 4 else cv2.COLOR_RGB2BGR
        done, encoded = cv2.imencode(".png", cv2.cvtColor(channels, order), [cv2.IMWRITE_PNG_COMPRESSION, 6])
        assert done, "a 16-bit picture can be written"
        return encoded.tobytes()
    out = io.BytesIO()
    _image(native, pixels).save(out, "PNG", compress_level=6)
    return out.getvalue()


def _jpeg(native: Native, data: bytes, pixels: Pixels, meta: Metadata) -> bytes:
    out = io.BytesIO()
    if native.form != "JPEG":
        _image(native, pixels).save(
            out, "JPEG", quality=HEIF_QUALITY, subsampling=0, exif=EXIF_SEGMENT + meta.exif if meta.exif else b"",
            icc_profile=native.profile, xmp=_fitting(native, meta),
        )  # fmt: skip
        return out.getvalue()
    _image(native, pixels).save(out, "JPEG", **_jpeg_settings(native))
    ours, rest = jpeg_segments(out.getvalue())
    theirs = [segment for segment in jpeg_segments(data)[0] if is_application(segment)]
    kept = [new for segment in theirs if (new := _kept_segment(native, segment, meta)) is not None]
    jfif = [segment for segment in kept if segment[0] == JFIF]
    said = (b"\xff\xe1", XMP_SEGMENT + _fitting(native, meta))
    rest_of_kept = [segment for segment in kept if segment[0] != JFIF]
    coding = [segment for segment in ours if segment[0] != JFIF]
    return join_jpeg([*jfif, *rest_of_kept, said, *coding], rest)


def _jpeg_settings(native: Native) -> dict[str, Any]:
    image: Any = native.image
    sampling = JpegImagePlugin.get_sampling(image)
    settings: dict[str, Any] = {
        "qtables": image.quantization,
        "progressive": bool(image.info.get("progressive")),
        "keep_rgb": native.model == "RGB" and image.info.get("adobe_transform") == 0,
    }
    if native.model != "L":
        settings["subsampling"] = sampling if sampling >= 0 else 0
    return settings


def _kept_segment(native: Native, segment: Part, meta: Metadata) -> Part | None:
    marker, body = segment
    if marker == b"\xff\xe1" and body.startswith(EXIF_SEGMENT):
        return (marker, EXIF_SEGMENT + meta.exif) if meta.exif is not None else segment
    if marker == b"\xff\xe1" and body.startswith(XMP_SEGMENT):
        return None
    if marker == b"\xff\xe1" and body.startswith(XMP_MORE) and not meta.keep_gps:
        return None
    if marker == b"\xff\xee" or (marker == b"\xff\xe2" and body.startswith(b"MPF\0")):
        return None  # how the old pixels were coded, and where the second picture began
    if marker == b"\xff\xeb":
        native.notes.append(CLAIMS)
        return None
    return segment


def _fitting(native: Native, meta: Metadata) -> bytes:
    """Return the XMP that fits into one segment."""
    most = MAX_SEGMENT - len(XMP_SEGMENT)
    if len(meta.xmp) <= most:
        return meta.xmp
    native.notes.append("the record does not fit into the file beside its own metadata; the sidecar has it")
    return meta.bare_xmp if len(meta.bare_xmp) <= most else xmp_of.marked(None, None)


def _other(native: Native, data: bytes, form: str, pixels: Pixels, meta: Metadata) -> bytes:
    out = io.BytesIO()
    settings: dict[str, Any] = {}
    if form in ("WEBP", "AVIF"):
        settings = {"quality": QUALITY, "exif": meta.exif or b"", "icc_profile": native.profile or b"", "xmp": meta.xmp}
    if form == "WEBP" and is_lossless(native, form, data):
        settings |= {"lossless": True, "exact": True}
    _image(native, pixels).save(out, form, **settings)
    return out.getvalue()


def _image(native: Native, pixels: Pixels) -> Image.Image:
    planes = np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    if native.model == "CMYK":
        return Image.frombytes("CMYK", (planes.shape[1], planes.shape[0]), planes.tobytes())
    return Image.fromarray(planes)
