"""JPEG: a change is put into the coefficients of the blocks it touches; all others stay as they are, to the bit [ours].

    new = old + round(DCT(change) / table)

in each component's own sampling, so neither tables nor sampling change and nothing is packed anew elsewhere. Segments
are carried over as bytes, and so is all that lies behind the picture: films, second pictures, gain maps.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jpeglib
import numpy as np
from numpy.typing import NDArray

Part = tuple[bytes, bytes]
Flags = NDArray[np.bool_]
XMP_SEGMENT = b"http://ns.adobe.com/xap/1.0/\0"
XMP_MORE = b"http://ns.adobe.com/xmp/extension/\0"
EXIF_SEGMENT = b"Exif\0\0"
MPF_SEGMENT = b"MPF\0"
PHOTOSHOP = b"Photoshop 3.0\0"
APP1, APP2, APP11, APP13, ADOBE = b"\xff\xe1", b"\xff\xe2", b"\xff\xeb", b"\xff\xed", b"\xff\xee"
MAX_SEGMENT = 65_533
PADDING = 64
"""Zeros given to a decoder in place of a missing mark of the end; half a picture would need more."""
MP_ENTRIES, MP_ENTRY = 0xB002, 16
FROM_RGB = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32)
"""Of a difference of colours, JFIF's Y, Cb and Cr."""
BLOCK = 8
_COSINES = np.sqrt(np.where(np.arange(BLOCK)[:, None] == 0, 1, 2) / BLOCK) * np.cos(
    np.pi * np.arange(BLOCK)[:, None] * (2 * np.arange(BLOCK) + 1) / (2 * BLOCK)
)
"""The orthonormal DCT-II of a block, by rows."""
LOSSLESS_FRAMES = (0xC3, 0xC7, 0xCB, 0xCF, 0xF7)
ARITHMETIC_FRAMES = (0xC9, 0xCA, 0xCD, 0xCE)


class JpegError(ValueError):
    """The coefficients of a file cannot be read or written."""


def segments(data: bytes) -> tuple[list[Part], bytes]:
    """Return marker and body of each segment before the first scan, and all that follows from there."""
    place, found = 2, list[Part]()
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place : place + 2]
        if marker == b"\xff\xff":  # fill byte
            place += 1
            continue
        if marker == b"\xff\xda":
            break
        length = struct.unpack_from(">H", data, place + 2)[0]
        found.append((marker, data[place + 4 : place + 2 + length]))
        place += 2 + length
    return found, data[place:]


def join(parts: Sequence[Part], rest: bytes) -> bytes:
    """Return the JPEG of these segments."""
    return b"\xff\xd8" + b"".join(marker + struct.pack(">H", len(body) + 2) + body for marker, body in parts) + rest


def is_application(segment: Part) -> bool:
    """Whether a segment holds metadata: APP0 to APP15, or a comment."""
    return 0xE0 <= segment[0][1] <= 0xEF or segment[0] == b"\xff\xfe"


def end(data: bytes) -> int | None:
    """Return where the first picture ends, behind its mark; None where it has none."""
    place = len(data) - len(segments(data)[1])
    while 0 <= (place := data.find(b"\xff", place)) < len(data) - 1:
        marker = data[place + 1]
        if marker == 0xD9:
            return place + 2
        if marker in (0x00, 0xFF) or 0xD0 <= marker <= 0xD7:  # a byte of the scan, fill, a restart
            place += 1 if marker == 0xFF else 2
        elif place + 4 <= len(data):
            place += 2 + struct.unpack_from(">H", data, place + 2)[0]
        else:
            return None
    return None


def behind(data: bytes) -> bytes:
    """Return what lies behind the first picture."""
    place = end(data)
    return b"" if place is None else data[place:]


def pictures(data: bytes) -> int:
    """Return how many pictures the file says or shows to hold."""
    return 1 + int(b"\xff\xd8\xff" in behind(data))


def xmp(data: bytes) -> bytes | None:
    """Return the main XMP packet."""
    for marker, body in segments(data)[0]:
        if marker == APP1 and body.startswith(XMP_SEGMENT):
            return body[len(XMP_SEGMENT) :]
    return None


def frame(data: bytes) -> Part | None:
    """Return the segment that says how the picture is coded."""
    for marker, body in segments(data)[0]:
        if marker[1] == 0xF7 or (0xC0 <= marker[1] <= 0xCF and marker[1] not in (0xC4, 0xC8, 0xCC)):
            return marker, body
    return None


def stays(data: bytes) -> tuple[str, str] | None:
    """Return why no change can be written, or None."""
    found = frame(data)
    if found is None or not found[1]:
        return None
    marker, body = found
    if marker[1] in LOSSLESS_FRAMES:
        return "stays_storage", "JPEGs without loss are not written"
    if body[0] != BLOCK:
        return "stays_storage", f"JPEGs of {body[0]} bits are not written"
    if marker[1] in ARITHMETIC_FRAMES:
        return "stays_storage", "JPEGs with arithmetic coding are not written"
    return None


def changed(data: bytes, before: NDArray[np.uint8], after: NDArray[np.uint8]) -> tuple[bytes, Flags]:
    """Return the first picture's coding with changed pixels, and which pixels (H, W) its changed blocks may show.

    Args:
        data: the file.
        before, after: (H, W, C) of its pixels as Pillow decodes them.

    Returns:
        Tables, frame and scans of a JPEG that holds nothing else, and the mask.

    Raises:
        JpegError: the library cannot read or write it.
    """
    height, width = before.shape[:2]
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "a.jpg", Path(folder) / "b.jpg"
        source.write_bytes(data)
        try:
            coded = jpeglib.read_dct(str(source))
            coded.load()
            planes = [plane for plane in (coded.Y, coded.Cb, coded.Cr, coded.K) if plane is not None]
            reach = np.zeros((height, width), np.bool_)
            most = np.max(np.asarray(coded.samp_factor), axis=0)
            delta = _components(after.astype(np.float32) - before, coded.jpeg_color_space.name, data)
            for number, plane in enumerate(planes):
                ratio = most // np.asarray(coded.samp_factor)[number]
                table = coded.qt[coded.quant_tbl_no[number]].astype(np.float32)
                _add(plane, delta[..., number], table, ratio, reach)
            coded.write_dct(str(target), flags=["+OPTIMIZE_CODING"])
        except (OSError, RuntimeError, ValueError, LookupError, AttributeError, TypeError) as error:
            raise JpegError(str(error)) from error
        return target.read_bytes(), reach


def _components(delta: NDArray[np.float32], space: str, data: bytes) -> NDArray[np.float32]:
    """Return a difference of Pillow's pixels as one of the stored components."""
    inverted = any(marker == ADOBE and body.startswith(b"Adobe") for marker, body in segments(data)[0])
    if space == "JCS_YCbCr":
        return delta @ FROM_RGB.T
    if space == "JCS_YCCK":
        colours = delta[..., :3] if inverted else -delta[..., :3]
        black = -delta[..., 3:] if inverted else delta[..., 3:]
        return np.concatenate([colours @ FROM_RGB.T, black], axis=2)
    return -delta if space == "JCS_CMYK" and inverted else delta


def _add(
    plane: NDArray[np.int16], delta: NDArray[np.float32], table: NDArray[np.float32], ratio: Sequence[int], reach: Flags
) -> None:
    """Add a change to the coefficients (rows, columns, 8, 8) of one component, in place, and mark what it reaches."""
    rows, columns = plane.shape[:2]
    down, across = int(ratio[0]), int(ratio[1])
    high, wide = BLOCK * down, BLOCK * across
    missing = [(0, max(0, size - have)) for size, have in zip((rows * high, columns * wide), delta.shape, strict=True)]
    whole = np.pad(delta, missing, mode="edge")[: rows * high, : columns * wide]
    blocks = whole.reshape(rows, high, columns, wide).swapaxes(1, 2)
    touched = blocks.any(axis=(2, 3))
    small = blocks[touched].reshape(-1, BLOCK, down, BLOCK, across).mean(axis=(2, 4))
    plane[touched] += np.rint(_COSINES @ small @ _COSINES.T / table).astype(np.int16)
    for row, column in np.argwhere(touched):  # smooth enlargement of a coarser component looks one sample further
        top, left = row * high, column * wide
        reach[max(0, top - down) : top + high + down, max(0, left - across) : left + wide + across] = True


def with_moved_pictures(data: bytes, old: bytes) -> bytes:
    """Return a JPEG whose index of further pictures (MPF) says where they lie now.

    Args:
        data: with the index as the old file has it.
        old: the file before; what lies behind its first picture lies behind that of `data`.
    """
    base, old_base = _mpf(data), _mpf(old)
    now, then = end(data), end(old)
    if base is None or old_base is None or now is None or then is None:
        return data
    out = bytearray(data)
    order = ">" if out[base : base + 2] == b"MM" else "<"
    directory = base + struct.unpack_from(f"{order}L", out, base + 4)[0]
    if directory + 2 > len(out):
        return data
    for number in range(struct.unpack_from(f"{order}H", out, directory)[0]):
        tag, _, length, offset = struct.unpack_from(f"{order}HHLL", out, directory + 2 + 12 * number)
        if tag != MP_ENTRIES:
            continue
        for place in range(base + offset, base + offset + length, MP_ENTRY):
            _, size, start, _ = struct.unpack_from(f"{order}LLLHH"[:-1], out, place)
            if start == 0:
                struct.pack_into(f"{order}L", out, place + 4, size + now - then)
            else:
                moved = start + (now - then) - (base - old_base)
                struct.pack_into(f"{order}L", out, place + 8, moved)
    return bytes(out)


def _mpf(data: bytes) -> int | None:
    """Return where the index of further pictures counts from."""
    place = 2
    for marker, body in segments(data)[0]:
        while data[place : place + 2] == b"\xff\xff":
            place += 1
        if marker == APP2 and body.startswith(MPF_SEGMENT) and len(body) >= 12:
            return place + 4 + len(MPF_SEGMENT)
        place += 4 + len(body)
    return None
