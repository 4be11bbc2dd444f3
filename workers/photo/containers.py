"""PNG chunks and JPEG segments: a photo's own metadata are carried over byte by byte, around new pixels."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
Part = tuple[bytes, bytes]
XMP_TEXT = b"XML:com.adobe.xmp\0"
XMP_SEGMENT = b"http://ns.adobe.com/xap/1.0/\0"
XMP_MORE = b"http://ns.adobe.com/xmp/extension/\0"
EXIF_SEGMENT = b"Exif\0\0"
MAX_SEGMENT = 65_533


def png_chunks(data: bytes) -> Iterator[Part]:
    """Yield kind and body of each chunk up to IEND."""
    place = len(PNG_SIGNATURE)
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">L4s", data, place)
        yield kind, data[place + 8 : place + 8 + length]
        place += 12 + length
        if kind == b"IEND":
            return


def join_png(chunks: Sequence[Part]) -> bytes:
    """Return the PNG of these chunks."""
    return PNG_SIGNATURE + b"".join(
        struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body)) for kind, body in chunks
    )


def international_text(key: str, text: bytes) -> Part:
    """Return an iTXt chunk of UTF-8 text."""
    return b"iTXt", key.encode("latin-1") + b"\0\0\0\0\0" + text


def text_key(chunk: Part) -> bytes:
    """Return the key of a text chunk, or nothing for any other."""
    return chunk[1].partition(b"\0")[0] if chunk[0] in (b"tEXt", b"zTXt", b"iTXt") else b""


def jpeg_segments(data: bytes) -> tuple[list[Part], bytes]:
    """Return marker and body of each segment before the first scan, and all that follows from there."""
    place, segments = 2, []
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place : place + 2]
        if marker == b"\xff\xff":  # fill byte
            place += 1
            continue
        if marker == b"\xff\xda":
            break
        length = struct.unpack_from(">H", data, place + 2)[0]
        segments.append((marker, data[place + 4 : place + 2 + length]))
        place += 2 + length
    return segments, data[place:]


def join_jpeg(segments: Sequence[Part], rest: bytes) -> bytes:
    """Return the JPEG of these segments."""
    return b"\xff\xd8" + b"".join(marker + struct.pack(">H", len(body) + 2) + body for marker, body in segments) + rest


def is_application(segment: Part) -> bool:
    """Whether a JPEG segment holds metadata: APP0 to APP15, or a comment."""
    return 0xE0 <= segment[0][1] <= 0xEF or segment[0] == b"\xff\xfe"


def replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    """Return the data with one run of bytes replaced by another of the same length; unchanged if it is not there."""
    assert len(old) == len(new), "bytes are replaced in place"
    return data.replace(old, new, 1) if old else data
