"""TIFF by tifffile and imagecodecs: the first page is read, and only its touched strips are written anew.

All else stays where it is: further pages, private tags, texts of any encoding, channels that are no colours, layers of
a scanner. A new directory is written behind the old file, with the places of the new strips and our XMP [ours]. A page
that is stored in a way that cannot take new colours (a palette, few bits, JPEG inside) is written as deflated strips.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from orchestrator.errors import InputError
from orchestrator.pictures import BROKEN as PICTURE_BROKEN
from orchestrator.pictures import RAW_SENTENCE
from workers.photo.formats import ifd
from workers.photo.native import Model, Native, Page, Pixels, Stays

XMP, ICC, ORIENTATION, PHOTOSHOP, LAYERS, CREDENTIALS = 700, 34675, 274, 34377, 37724, 52545
BITS, COMPRESSION, PHOTOMETRIC, OFFSETS, SAMPLES, ROWS, COUNTS = 258, 259, 262, 273, 277, 278, 279
PLANAR, PREDICTOR, COLOUR_MAP, TILE_OFFSETS, TILE_COUNTS = 284, 317, 320, 324, 325
EXTRA_SAMPLES, SAMPLE_FORMAT, FILL_ORDER = 338, 339, 266
DNG_VERSION, MAKE, NEW_SUBFILE_TYPE = 50706, 271, 254
WHITE, BLACK, RGB, PALETTE, SEPARATED, YCBCR = 0, 1, 2, 3, 5, 6
RAW_PHOTOMETRICS = (32803, 34892)
PREMULTIPLIED, UNASSOCIATED = 1, 2
NONE, LZW, JPEG, DEFLATE, PACKBITS, OLD_DEFLATE, ZSTD = 1, 5, 7, 8, 32773, 32946, 50000
HORIZONTAL = 2
STRIP_BYTES = 1 << 20
CLASSIC_BYTES = 2**32
ENCODERS: Mapping[int, Callable[[bytes], bytes | bytearray]] = {
    NONE: bytes,
    LZW: imagecodecs.lzw_encode,
    DEFLATE: partial(imagecodecs.zlib_encode, level=6),
    OLD_DEFLATE: partial(imagecodecs.zlib_encode, level=6),
    PACKBITS: imagecodecs.packbits_encode,
    ZSTD: imagecodecs.zstd_encode,
}
OF_THE_STORAGE = (
    BITS, COMPRESSION, PHOTOMETRIC, OFFSETS, SAMPLES, ROWS, COUNTS, PLANAR, PREDICTOR, COLOUR_MAP, TILE_OFFSETS,
    TILE_COUNTS, EXTRA_SAMPLES, SAMPLE_FORMAT, FILL_ORDER, 288, 289, 290, 291, 292, 293, 322, 323, 347, 529, 530, 531,
    532, *range(512, 522),
)  # fmt: skip
OF_THE_PHOTO = frozenset({270, 271, 272, 274, 305, 306, 315, 33432, ifd.EXIF_POINTER, ifd.GPS_POINTER})
"""Description, make, model, orientation, software, time, artist, copyright, and the details of the exposure."""
BROKEN = (*PICTURE_BROKEN, tifffile.TiffFileError, RuntimeError, LookupError, TypeError, struct.error, AttributeError)
THUMBNAILS = (1033, 1036)
"""Photoshop's small pictures, which show the old face."""


def read_tiff(data: bytes, max_pixels: Callable[[int, int], None]) -> Native:
    """Decode the first page.

    Args:
        data: the file.
        max_pixels: called with width and height before anything is decoded; raises if there are too many.

    Raises:
        InputError: `raw_unsupported`, `format_unsupported`, `image_truncated`, `image_corrupt`.
    """
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages[0]
            assert isinstance(page, tifffile.TiffPage), "the first page is read whole"
            tags = {tag.code: tag.value for tag in page.tags}
            _check(page, tags)
            max_pixels(page.imagewidth, page.imagelength)
            _check_extent(page, len(data))
            layout = _layout(page, page.asarray())
            pages = len(file.pages)
    except MemoryError:
        raise
    except BROKEN as error:
        raise InputError("the picture is damaged inside, or its header is", code="image_corrupt") from error
    pixels, model, alpha = _seen(layout, page)
    orientation = tags.get(ORIENTATION, 1)
    form = ifd.form_of(data)
    block = ifd.alone(data, OF_THE_PHOTO)
    return Native(
        form="TIFF",
        pixels=pixels,
        model=model,
        alpha=alpha,
        profile=_raw(data, form, ICC),
        exif=block,
        xmp=_raw(data, form, XMP),
        orientation=orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1,
        mode=_mode(page),
        several=pages > 1,
        stays=_stays(layout, tags),
        page=layout,
        notes=_notes(layout, page, tags, pages),
    )


def write_tiff(native: Native, data: bytes, pixels: Pixels, touched: NDArray[np.bool_], xmp: bytes | None) -> bytes:
    """Return the file with these pixels where they were touched, and with our XMP.

    Args:
        native: the photo as `read_tiff` gave it.
        data: its file.
        pixels: (H, W, C), of the kind that `native.pixels` is.
        touched: (H, W), where they differ.
        xmp: the packet, or None to keep that of the file.

    Raises:
        InputError: `stays_storage`, where the file would grow beyond what its format can hold.
    """
    layout = native.page
    assert layout is not None, "it was read by this module"
    form = ifd.form_of(data)
    place = ifd.first(data, form)
    out = bytearray(data)
    changed: dict[int, tuple[int, bytes] | None] = {}
    if layout.direct:
        stored = _unseen(layout, pixels)
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            changed |= _strips(out, file, stored, touched, form)
    else:
        changed |= _whole(out, native, pixels, form)
    if xmp is not None:
        changed[XMP] = (ifd.BYTE, xmp)
    for entry in ifd.entries(data, place, form):
        if entry.tag == PHOTOSHOP and entry.tag not in changed:
            changed[PHOTOSHOP] = (entry.kind, without_thumbnails(ifd.value(data, entry)))
        elif entry.tag == CREDENTIALS:
            changed[CREDENTIALS] = None
    out += bytes(len(out) % 2)
    if not form.big and len(out) + (1 << 20) + len(xmp or b"") > CLASSIC_BYTES:
        raise InputError("a TIFF holds at most 4 GiB", code="stays_storage")
    here = len(out)
    out += ifd.directory(data, place, form, changed, here)
    struct.pack_into(form.word, out, 8 if form.big else 4, here)
    return bytes(out)


def without_thumbnails(resources: bytes) -> bytes:
    """Return Photoshop's image resources without the small pictures; all others, IPTC among them, to the byte."""
    out, place = bytearray(), 0
    while place + 12 <= len(resources) and resources[place : place + 4] == b"8BIM":
        number = struct.unpack_from(">H", resources, place + 4)[0]
        name = resources[place + 6] + 1
        size_at = place + 6 + name + name % 2
        if size_at + 4 > len(resources):
            break
        length = struct.unpack_from(">L", resources, size_at)[0]
        end = size_at + 4 + length + length % 2
        if number not in THUMBNAILS:
            out += resources[place:end]
        place = end
    return bytes(out + resources[place:])


def _check(page: tifffile.TiffPage, tags: Mapping[int, Any]) -> None:
    preview = tags.get(NEW_SUBFILE_TYPE, 0) == 1 and MAKE in tags
    if DNG_VERSION in tags or int(tags.get(PHOTOMETRIC, -1)) in RAW_PHOTOMETRICS or preview:
        raise InputError(RAW_SENTENCE, code="raw_unsupported")
    formats = {page.sampleformat} if isinstance(page.sampleformat, int) else set(page.sampleformat or (1,))
    bits = {page.bitspersample} if isinstance(page.bitspersample, int) else set(page.bitspersample)
    photometric = int(page.photometric)
    plain = page.compression == JPEG or photometric != YCBCR
    known = photometric in (WHITE, BLACK, RGB, PALETTE, SEPARATED, YCBCR) and plain and page.imagedepth == 1
    if not known or not formats <= {1, 4} or len(bits) != 1 or not bits <= {1, 2, 4, 8, 16}:
        what = f"{'/'.join(map(str, sorted(bits)))} bits, photometric {photometric}, sample format {sorted(formats)}"
        raise InputError(
            f"TIFFs of this kind ({what}) are not read; export the photo with 8 or 16 whole bits, grey, RGB or CMYK",
            code="format_unsupported",
        )


def _check_extent(page: tifffile.TiffPage, size: int) -> None:
    """Refuse a page whose strips lie outside of the file, or are missing; readers show those black."""
    ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)]
    whole = len(page.dataoffsets) == len(page.databytecounts) and page.dataoffsets and min(page.databytecounts) > 0
    if not whole:
        raise InputError("a part of the picture is missing in the file", code="image_corrupt")
    if max(ends) > size:
        raise InputError("the picture ends too early", code="image_truncated")


def _layout(page: tifffile.TiffPage, array: NDArray[Any]) -> Page:
    photometric = int(page.photometric)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    elif array.dtype.itemsize == 1 and page.bitspersample < 8 and photometric != PALETTE:
        array = (array.astype(np.uint16) * 255 // (2**page.bitspersample - 1)).astype(np.uint8)
    samples = page.samplesperpixel
    if array.ndim == 2:
        array = array[..., None]
    elif int(page.planarconfig or 1) == 2 and samples > 1:
        array = np.moveaxis(array, 0, -1)
    if array.ndim != 3 or array.shape[2] != samples:
        raise InputError("TIFFs of this shape are not read; export the photo anew", code="format_unsupported")
    colours = {WHITE: 1, BLACK: 1, PALETTE: 1, SEPARATED: 4}.get(photometric, 3)
    if samples < colours:
        raise InputError(
            f"TIFFs with {samples} inks are not read; export the photo as RGB or CMYK", code="format_unsupported"
        )
    extra = [int(kind) for kind in page.extrasamples]
    alpha = next((colours + i for i, kind in enumerate(extra) if kind in (PREMULTIPLIED, UNASSOCIATED)), None)
    direct = (
        int(page.compression) in ENCODERS
        and page.bitspersample in (8, 16)
        and photometric not in (PALETTE, YCBCR)
        and int(page.predictor or 1) in (1, HORIZONTAL)
        and int(page.fillorder or 1) == 1
    )
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return Page(stored=native, colours=colours, alpha=alpha, negative=photometric == WHITE, direct=direct)


def _seen(layout: Page, page: tifffile.TiffPage) -> tuple[Pixels, Model, bool]:
    """Return the photo's colours, positive, with its alpha behind them."""
    colours = layout.stored[..., : layout.colours]
    if int(page.photometric) == PALETTE:
        table = np.asarray(page.colormap)
        eight = (table >> 8 if table.max() > 255 else table).astype(np.uint8)
        return cast(Pixels, np.ascontiguousarray(eight.T[colours[..., 0]])), "RGB", False
    if layout.negative:
        colours = np.iinfo(colours.dtype).max - colours
    model: Model = {1: "L", 3: "RGB", 4: "CMYK"}[layout.colours]  # type: ignore[assignment]  # one of the three
    if layout.alpha is None or model == "CMYK":
        return cast(Pixels, np.ascontiguousarray(colours)), model, False
    return cast(Pixels, np.concatenate([colours, layout.stored[..., layout.alpha, None]], axis=2)), model, True


def _unseen(layout: Page, pixels: Pixels) -> Pixels:
    """Return all samples of the file, with the photo's colours among them."""
    stored = layout.stored.copy()
    colours = pixels[..., : layout.colours]
    stored[..., : layout.colours] = np.iinfo(colours.dtype).max - colours if layout.negative else colours
    return stored


def _stays(layout: Page, tags: Mapping[int, Any]) -> Stays | None:
    if LAYERS in tags:
        return Stays("stays_parts", "the file holds Photoshop's layers, which would still show the old picture")
    if tags.get(NEW_SUBFILE_TYPE, 0) & 1:
        return Stays("stays_parts", "the first picture of the file is a small version of another one in it")
    if layout.alpha is not None:
        most = np.iinfo(layout.stored.dtype).max
        if PREMULTIPLIED in _extra(tags) and int(layout.stored[..., layout.alpha].min()) < most:
            return Stays("stays_storage", "the colours of the file are multiplied by its transparency")
    if tags.get(SAMPLES, 1) > layout.colours and not layout.direct:
        return Stays("stays_storage", "the file holds further channels and is packed in a way that is not written")
    if int(tags.get(332, 1)) != 1:
        return Stays("stays_colour", "the inks of the file are not cyan, magenta, yellow and black")
    return None


def _extra(tags: Mapping[int, Any]) -> tuple[int, ...]:
    found = tags.get(EXTRA_SAMPLES, ())
    return (int(found),) if isinstance(found, int) else tuple(int(kind) for kind in found)


def _notes(layout: Page, page: tifffile.TiffPage, tags: Mapping[int, Any], pages: int) -> list[str]:
    notes = []
    if pages > 1:
        notes.append("the file has several pages; faces of the first one are looked at, the others stay as they are")
    if int(page.photometric) == PALETTE:
        notes.append("the palette becomes full colour where the photo is changed")
    if CREDENTIALS in tags:
        notes.append("a content credential of the source no longer holds and is left out")
    return notes


def _mode(page: tifffile.TiffPage) -> str:
    bits = page.bitspersample
    name = {WHITE: "L", BLACK: "L", PALETTE: "P", SEPARATED: "CMYK"}.get(int(page.photometric), "RGB")
    if name == "L":
        name = {1: "1", 16: "I;16"}.get(bits, "L")
    has_alpha = any(int(kind) in (PREMULTIPLIED, UNASSOCIATED) for kind in page.extrasamples)
    return f"{name}A" if has_alpha and name in ("L", "RGB") else name


def _raw(data: bytes, form: ifd.Form, tag: int) -> bytes | None:
    for entry in ifd.entries(data, ifd.first(data, form), form):
        if entry.tag == tag and entry.length:
            return ifd.value(data, entry)
    return None


def _strips(
    out: bytearray, file: tifffile.TiffFile, stored: Pixels, touched: NDArray[np.bool_], form: ifd.Form
) -> dict[int, tuple[int, bytes] | None]:
    """Write the strips or tiles anew that hold touched pixels, and return the entries that say where they are now."""
    page = file.pages[0]
    assert isinstance(page, tifffile.TiffPage), "the first page is read whole"
    offsets, counts = list(page.dataoffsets), list(page.databytecounts)
    own = _sole(file, len(offsets))
    planes = stored.shape[2] if int(page.planarconfig or 1) == 2 and stored.shape[2] > 1 else 1
    height, width = stored.shape[:2]
    high, wide = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, width)
    high = min(high, height) if not page.is_tiled else high
    down, across = -(-height // high), -(-width // wide)
    for number in range(len(offsets)):
        plane, rest = divmod(number, down * across)
        top, left = rest // across * high, rest % across * wide
        window = np.s_[top : top + high, left : left + wide]
        if not touched[window].any():
            continue
        samples = stored[window][..., plane : plane + 1] if planes > 1 else stored[window]
        if page.is_tiled:
            missing = [(0, high - samples.shape[0]), (0, wide - samples.shape[1]), (0, 0)]
            samples = cast(Pixels, np.pad(samples, missing, mode="edge"))
        packed = _packed(samples, page, form)
        old = slice(offsets[number], offsets[number] + counts[number])
        if own[number]:
            out[old] = bytes(counts[number])
        if not own[number] or len(packed) > counts[number]:
            out += bytes(len(out) % 2)
            offsets[number] = len(out)
            out += packed
        else:
            out[old.start : old.start + len(packed)] = packed
        counts[number] = len(packed)
    kind, letter = (ifd.LONG8, "Q") if form.big else (ifd.LONG, "L")
    where = (TILE_OFFSETS, TILE_COUNTS) if page.is_tiled else (OFFSETS, COUNTS)
    return {
        tag: (kind, struct.pack(f"{form.order}{len(values)}{letter}", *values))
        for tag, values in zip(where, (offsets, counts), strict=True)
    }


def _sole(file: tifffile.TiffFile, count: int) -> list[bool]:
    """Say of each strip of the first page whether nothing else of the file lies in its bytes."""
    spans: list[tuple[int, int]] = []
    for page in file.pages:
        spans.extend(
            (start, start + length) for start, length in zip(page.dataoffsets, page.databytecounts, strict=False)
        )
    order = sorted(range(len(spans)), key=spans.__getitem__)
    alone = [True] * len(spans)
    reach, last = 0, -1
    for i in order:
        if spans[i][0] < reach:
            alone[i] = alone[last] = False
        if spans[i][1] > reach:
            reach, last = spans[i][1], i
    return alone[:count]


def _packed(samples: Pixels, page: tifffile.TiffPage, form: ifd.Form) -> bytes:
    if int(page.predictor or 1) == HORIZONTAL:
        steps = samples.copy()
        np.subtract(samples[:, 1:], samples[:, :-1], out=steps[:, 1:])
        samples = steps
    ordered = samples.astype(samples.dtype.newbyteorder(form.order))
    if int(page.compression) == PACKBITS:  # each row is packed by itself
        return b"".join(imagecodecs.packbits_encode(row.tobytes()) for row in ordered)
    return bytes(ENCODERS[int(page.compression)](ordered.tobytes()))


def _whole(out: bytearray, native: Native, pixels: Pixels, form: ifd.Form) -> dict[int, tuple[int, bytes] | None]:
    """Write the page as deflated strips behind the file, and return the entries that say so."""
    height, _, channels = pixels.shape
    rows = max(1, STRIP_BYTES // max(1, pixels[0].nbytes))
    offsets, counts = [], []
    for top in range(0, height, rows):
        strip = pixels[top : top + rows]
        steps = strip.copy()
        np.subtract(strip[:, 1:], strip[:, :-1], out=steps[:, 1:])
        packed = imagecodecs.zlib_encode(steps.astype(steps.dtype.newbyteorder(form.order)).tobytes(), level=6)
        out += bytes(len(out) % 2)
        offsets.append(len(out))
        counts.append(len(packed))
        out += packed

    def shorts(*values: int) -> tuple[int, bytes]:
        return ifd.SHORT, struct.pack(f"{form.order}{len(values)}H", *values)

    kind, letter = (ifd.LONG8, "Q") if form.big else (ifd.LONG, "L")
    changed: dict[int, tuple[int, bytes] | None] = dict.fromkeys(OF_THE_STORAGE)
    changed |= {
        BITS: shorts(*(native.bits,) * channels),
        COMPRESSION: shorts(DEFLATE),
        PHOTOMETRIC: shorts({"L": BLACK, "RGB": RGB, "CMYK": SEPARATED}[native.model]),
        SAMPLES: shorts(channels),
        PLANAR: shorts(1),
        PREDICTOR: shorts(HORIZONTAL),
        ROWS: (ifd.LONG, struct.pack(f"{form.order}L", rows)),
        OFFSETS: (kind, struct.pack(f"{form.order}{len(offsets)}{letter}", *offsets)),
        COUNTS: (kind, struct.pack(f"{form.order}{len(counts)}{letter}", *counts)),
    }
    if native.alpha:
        changed[EXTRA_SAMPLES] = shorts(UNASSOCIATED)
    return changed
