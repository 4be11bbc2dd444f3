"""Writes a changed photo in its own format, with its own metadata and what has to be said of the change. Child only.

TIFF    touched strips anew, all else where it was, see `tiff`
PNG     same depth and alpha; chunks carried over byte by byte; a palette becomes full colour
JPEG    the blocks that were touched, see `jpeg`; segments and what lies behind carried over byte by byte
WebP    lossless stays lossless, else quality 90; chunks carried over byte by byte
AVIF    quality 90, same sampling
BMP     pixels written where they are; with a palette or few bits, anew; the format holds no metadata
HEIC    becomes JPEG of quality 95, or PNG where it has alpha: there is no free encoder
GIF     becomes PNG: a palette cannot hold new colours
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from orchestrator.pictures import RECORD_KEY
from workers.photo.colour import working
from workers.photo.formats import heif, jpeg, png, webp
from workers.photo.formats import xmp as xmp_of
from workers.photo.formats.exif import without_preview
from workers.photo.formats.tiff import write_tiff
from workers.photo.native import Native, Pixels
from workers.photo.picture import MINIMAL, XMP_KEY, Level
from workers.photo.read import in_place_bmp

QUALITY = 90
HEIF_QUALITY = 95
LOSSLESS = ("PNG", "TIFF", "BMP", "JPEG")
CLAIMS = "a content credential of the source no longer holds and is left out"
ASIDE = "the record does not fit into the file beside its own metadata; it lies in a side file"
NO_PLACE = "the format holds no metadata; the record lies in a side file"
DROPPED_CHUNKS = {b"IHDR", b"IDAT", b"IEND", b"caBX", b"iDOT"}
OF_THE_PALETTE = {b"PLTE", b"tRNS", b"hIST", b"sPLT", b"sBIT", b"bKGD"}
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


@dataclass(frozen=True, kw_only=True, eq=False)
class Written:
    """A photo as a file.

    Attributes:
        data: its bytes.
        form: its format.
        reach: (H, W) where pixels may differ: what was touched, or the blocks around it.
        aside: whether the record found no place in the file.
    """

    data: bytes
    form: str
    reach: NDArray[np.bool_]
    aside: bool


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What goes into the file beside the pixels: packets are None where the photo's own cannot take ours."""

    exif: bytes | None
    xmp: bytes | None
    bare_xmp: bytes | None
    record: str | None


def written_form(native: Native, options: OutputOptions) -> str:
    """Return the format that a changed photo gets."""
    if options.format == "png" or native.form == "GIF" or (native.form == "HEIF" and native.alpha):
        return "PNG"
    return "JPEG" if native.form == "HEIF" else native.form


def is_lossless(native: Native, form: str, data: bytes) -> bool:
    """Whether pixels outside of the changes must come back bit by bit."""
    if form == "JPEG":
        return native.form == "JPEG"
    return form in LOSSLESS or (form == native.form == "WEBP" and webp.is_lossless(data))


def write(
    native: Native,
    data: bytes,
    pixels: Pixels,
    touched: NDArray[np.bool_],
    record: Mapping[str, Any],
    options: OutputOptions,
) -> Written:
    """Return the photo with these pixels.

    Args:
        native: the source, decoded from `data`.
        data: its file.
        pixels: (H, W, C) of the same kind as the source's.
        touched: (H, W), where they differ.
        record: small JSON that says how the picture was made.
        options: what to write.

    Raises:
        JpegError: the coefficients of a JPEG cannot be written.
    """
    form = written_form(native, options)
    meta = _metadata(native, record, options)
    reach, aside = touched, meta.record is not None and meta.xmp is None
    if form == "PNG":
        if native.model == "CMYK":  # PNG has no inks
            pixels, native = working(native).to_rgb(pixels), replace(native, model="RGB", profile=None)
        out, aside = _png(native, data, pixels, meta), False
    elif form == "TIFF":
        out = write_tiff(native, data, pixels, touched, meta.xmp or meta.bare_xmp)
    elif form == "JPEG" and native.form == "JPEG":
        out, reach, aside = _jpeg(native, data, pixels, meta)
    elif form == "BMP":
        out, aside = _bmp(native, data, pixels), meta.record is not None
    elif form == "WEBP":
        out = _webp(native, data, pixels, meta)
    else:
        out, aside = _other(native, data, form, pixels, meta)
    if aside:
        native.notes.append(NO_PLACE if form == "BMP" else ASIDE)
    return Written(data=out, form=form, reach=reach, aside=aside)


def _metadata(native: Native, record: Mapping[str, Any], options: OutputOptions) -> Metadata:
    exif = native.exif
    if exif is not None and native.form != "TIFF":
        exif = without_preview(exif)
    kept = dict(record) if options.level == "full" else {key: record[key] for key in MINIMAL if key in record}
    text = None
    if options.level != "none":
        text = json.dumps(kept, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return Metadata(
        exif=exif, xmp=xmp_of.marked(native.xmp, text), bare_xmp=xmp_of.marked(native.xmp, None), record=text
    )


def _png(native: Native, data: bytes, pixels: Pixels, meta: Metadata) -> bytes:
    header, *image = [c for c in png.chunks(_png_pixels(native, pixels)) if c[0] in (b"IHDR", b"IDAT")]
    rest, said = b"", list[png.Part]()
    if native.form == "PNG":
        kept, rest = _kept_chunks(native, data, header, meta), png.rest(data)
    else:
        kept = [*_profile_chunks(native), *([(b"eXIf", meta.exif)] if meta.exif else []), *_told_chunks(native, data)]
    if meta.record is not None:
        said.append(png.international_text(RECORD_KEY, meta.record.encode()))
    if meta.bare_xmp is not None:
        said.append(png.international_text(XMP_KEY, meta.bare_xmp))
    return png.join([header, *kept, *said, *image, (b"IEND", b"")]) + rest


def _kept_chunks(native: Native, data: bytes, header: png.Part, meta: Metadata) -> list[png.Part]:
    source = list(png.chunks(data))
    dropped = DROPPED_CHUNKS if source[0][1][8:10] == header[1][8:10] else DROPPED_CHUNKS | OF_THE_PALETTE
    kept = []
    for chunk in source:
        key = png.text_key(chunk)
        ours = key == RECORD_KEY.encode() or (key == XMP_KEY.encode() and meta.bare_xmp is not None)
        if chunk[0] in dropped or ours:
            if chunk[0] == b"caBX":
                native.notes.append(CLAIMS)
            continue
        kept.append((chunk[0], without_preview(chunk[1])) if chunk[0] == b"eXIf" else chunk)
    return kept


def _profile_chunks(native: Native) -> list[png.Part]:
    """Return the chunk of the colour profile, as Pillow writes it."""
    if native.profile is None:
        return []
    out = io.BytesIO()
    Image.new("L" if native.model == "L" else "RGB", (1, 1)).save(out, "PNG", icc_profile=native.profile)
    return [chunk for chunk in png.chunks(out.getvalue()) if chunk[0] == b"iCCP"]


def _told_chunks(native: Native, data: bytes) -> list[png.Part]:
    """Return what another format says beside EXIF, XMP and profile: comment, resolution, Photoshop's resources."""
    info, found = (native.image.info if native.image else {}), list[png.Part]()
    comment = info.get("comment")
    if isinstance(comment, bytes) and (text := comment.replace(b"\0", b"")):
        found.append((b"tEXt", b"Comment\0" + text))
    if "dpi" in info and native.form != "PNG":
        across, down = (round(float(per_inch) / 0.0254) for per_inch in info["dpi"])
        found.append((b"pHYs", struct.pack(">LLB", across, down, 1)))
    if native.form == "JPEG":
        bodies = [body for marker, body in jpeg.segments(data)[0] if marker == jpeg.APP13]
        resources = b"".join(body[len(jpeg.PHOTOSHOP) :] for body in bodies if body.startswith(jpeg.PHOTOSHOP))
        if resources:
            found.append(png.raw_profile("8bim", resources))
    return found


def _png_pixels(native: Native, pixels: Pixels) -> bytes:
    if native.bits == 16:
        planes = np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        return bytes(imagecodecs.png_encode(planes, level=6))
    out = io.BytesIO()
    _image(native, pixels).save(out, "PNG", compress_level=6)
    return out.getvalue()


def _jpeg(native: Native, data: bytes, pixels: Pixels, meta: Metadata) -> tuple[bytes, NDArray[np.bool_], bool]:
    before = native.pixels.astype(np.uint8, copy=False)
    coding, reach = jpeg.changed(data, before, pixels.astype(np.uint8, copy=False))
    if native.progressive:
        native.notes.append("the progressive JPEG becomes a sequential one; its pixels stay")
    ours, rest = jpeg.segments(coding)
    picture_end = jpeg.end(coding)
    assert picture_end is not None, "the library writes the mark of the end"
    fits = jpeg.MAX_SEGMENT - len(jpeg.XMP_SEGMENT)
    packet = next((p for p in (meta.xmp, meta.bare_xmp) if p is not None and len(p) <= fits), None)
    theirs = _kept_segments(native, data, meta, packet)
    tables = [segment for segment in ours if not jpeg.is_application(segment)]
    scans = coding[len(coding) - len(rest) : picture_end]
    out = jpeg.join([*theirs, *tables], scans) + jpeg.behind(data)
    return jpeg.with_moved_pictures(out, data), reach, meta.record is not None and packet != meta.xmp


def _kept_segments(native: Native, data: bytes, meta: Metadata, packet: bytes | None) -> list[jpeg.Part]:
    """Return the segments of the file in their order, with the EXIF and XMP that a changed photo has."""
    found = [segment for segment in jpeg.segments(data)[0] if jpeg.is_application(segment)]
    exif = _exif_parts(found)
    kept, place, said = list[jpeg.Part](), 0, packet is None
    for number, (marker, body) in enumerate(found):
        if number in exif:
            kept.append((marker, exif[number]))
            place = len(kept)
        elif marker == jpeg.APP1 and body.startswith(jpeg.XMP_SEGMENT):
            if packet is None or said:
                kept.append((marker, body))
            else:
                kept.append((marker, jpeg.XMP_SEGMENT + packet))
                said = True
        elif marker == jpeg.APP11:
            native.notes.append(CLAIMS)
        else:
            kept.append((marker, body))
            place = place or (len(kept) if marker == b"\xff\xe0" and len(kept) == 1 else 0)
    if not said and packet is not None:
        kept.insert(place, (jpeg.APP1, jpeg.XMP_SEGMENT + packet))
    return kept


def _exif_parts(found: list[jpeg.Part]) -> dict[int, bytes]:
    """Return the EXIF segments by number, without the small picture; one block may go through several of them."""
    head, blocks = len(jpeg.EXIF_SEGMENT), list[list[int]]()
    for number, (marker, body) in enumerate(found):
        if marker == jpeg.APP1 and body.startswith(jpeg.EXIF_SEGMENT):
            if blocks and body[head : head + 4] not in (b"II*\0", b"MM\0*"):
                blocks[-1].append(number)
            else:
                blocks.append([number])
    parts = {}
    for numbers in blocks:
        pieces = [found[number][1][head:] for number in numbers]
        block, place = without_preview(b"".join(pieces)), 0
        for number, piece in zip(numbers, pieces, strict=True):
            parts[number] = jpeg.EXIF_SEGMENT + block[place : place + len(piece)]
            place += len(piece)
    return parts


def _bmp(native: Native, data: bytes, pixels: Pixels) -> bytes:
    if not in_place_bmp(data):
        out = io.BytesIO()
        _image(native, pixels).save(out, "BMP")
        anew = out.getvalue()
        return anew[:38] + data[38:46] + anew[46:] if data[14] >= 40 else anew  # the resolution
    start = struct.unpack_from("<L", data, 10)[0]
    width, height, _, bits = struct.unpack_from("<llHH", data, 18)
    row = -(-width * bits // 32) * 4
    lines = np.frombuffer(data, np.uint8, row * abs(height), start).reshape(abs(height), row).copy()
    stored = lines[:, : width * bits // 8].reshape(abs(height), width, bits // 8)
    shown = pixels[::-1] if height > 0 else pixels
    stored[..., :3] = shown[..., 2::-1] if shown.shape[2] >= 3 else shown[..., :1]
    return data[:start] + lines.tobytes() + data[start + lines.nbytes :]


def _webp(native: Native, data: bytes, pixels: Pixels, meta: Metadata) -> bytes:
    lossless: dict[str, Any] = {"lossless": True} if webp.is_lossless(data) else {"quality": QUALITY}
    out = io.BytesIO()
    _image(native, pixels).save(out, "WEBP", exact=True, **lossless)
    height, width = pixels.shape[:2]
    given: dict[bytes, bytes | None] = {b"C2PA": None}
    if any(kind == b"C2PA" for kind, _ in webp.chunks(data)):
        native.notes.append(CLAIMS)
    if meta.bare_xmp is not None:
        given[b"XMP "] = meta.xmp or meta.bare_xmp
    if meta.exif is not None:
        old = next(body for kind, body in webp.chunks(data) if kind == b"EXIF")
        given[b"EXIF"] = old[: len(old) - len(meta.exif)] + meta.exif
    return webp.around(data, out.getvalue(), size=(width, height), alpha=native.alpha, given=given)


def _other(native: Native, data: bytes, form: str, pixels: Pixels, meta: Metadata) -> tuple[bytes, bool]:
    if native.form in ("AVIF", "HEIF") and heif.has_credential(data):
        native.notes.append(CLAIMS)
    out = io.BytesIO()
    fits = jpeg.MAX_SEGMENT - len(jpeg.XMP_SEGMENT) if form == "JPEG" else 1 << 30
    packet = next((p for p in (meta.xmp, meta.bare_xmp, native.xmp) if p is not None and len(p) <= fits), b"")
    settings: dict[str, Any] = {"icc_profile": native.profile or b"", "xmp": packet}
    if form == "JPEG":
        exif = jpeg.EXIF_SEGMENT + meta.exif if meta.exif else b""
        settings |= {"quality": HEIF_QUALITY, "subsampling": 0, "exif": exif}
    else:
        settings |= {"quality": QUALITY, "exif": meta.exif or b"", "subsampling": heif.sampling(data)}
    _image(native, pixels).save(out, form, **settings)
    return out.getvalue(), meta.record is not None and packet != meta.xmp


def _image(native: Native, pixels: Pixels) -> Image.Image:
    planes = np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    if native.model == "CMYK":
        return Image.frombytes("CMYK", (planes.shape[1], planes.shape[0]), planes.tobytes())
    return Image.fromarray(planes)
