"""PNG: chunks are read and carried over as bytes; only those of the pixels ever reach a decoder.

So a text of any size, a wrong checksum of a comment or a profile that is too long for a decoder hurts no picture.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Sequence

SIGNATURE = b"\x89PNG\r\n\x1a\n"
Part = tuple[bytes, bytes]
MOST_TEXT = 256 * 2**20
XMP_KEY = b"XML:com.adobe.xmp"
RAW_EXIF = b"Raw profile type"
PQ, HLG = 16, 18


def chunks(data: bytes) -> Iterator[Part]:
    """Yield kind and body of each chunk up to IEND."""
    for kind, body, _ in checked_chunks(data):
        yield kind, body


def checked_chunks(data: bytes) -> Iterator[tuple[bytes, bytes, int | None]]:
    """Yield kind, body and stored checksum of each chunk up to IEND; the checksum is None where it is cut off."""
    place = len(SIGNATURE)
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">L4s", data, place)
        end = place + 8 + length
        stored = struct.unpack_from(">L", data, end)[0] if end + 4 <= len(data) else None
        yield kind, data[place + 8 : end], stored
        place = end + 4
        if kind == b"IEND":
            return


def rest(data: bytes) -> bytes:
    """Return what lies behind the end of the picture."""
    place = len(SIGNATURE)
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">L4s", data, place)
        place += 12 + length
        if kind == b"IEND":
            return data[place:]
    return b""


def join(parts: Sequence[Part]) -> bytes:
    """Return the PNG of these chunks."""
    return SIGNATURE + b"".join(
        struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body)) for kind, body in parts
    )


def pixels_alone(data: bytes, *, transparency: bool = True) -> bytes:
    """Return the PNG without any chunk that does not say what its pixels are; cut off where it is cut off."""
    wanted = {b"IHDR", b"PLTE", b"IDAT", b"IEND"} | ({b"tRNS", b"acTL"} if transparency else set())
    out, place = bytearray(SIGNATURE), len(SIGNATURE)
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">L4s", data, place)
        if kind in wanted:
            out += data[place : place + 12 + length]
        place += 12 + length
        if kind == b"IEND":
            break
    return bytes(out)


def bits(data: bytes) -> int:
    """Return the bit depth of the header."""
    return data[24] if len(data) > 25 else 0


def colour_type(data: bytes) -> int:
    """Return the colour type of the header."""
    return data[25]


def stays(data: bytes) -> tuple[str, str] | None:
    """Return why no change can be written, or None."""
    for kind, body in chunks(data):
        if kind == b"acTL":
            return "stays_frames", "the file is an animation; a change of one picture would lose the others"
        if kind == b"cICP" and len(body) == 4 and body[1] in (PQ, HLG):
            return "stays_colour", "the colours of the file are of high dynamic range, which the networks do not know"
    return None


def international_text(key: str, text: bytes) -> Part:
    """Return an iTXt chunk of UTF-8 text."""
    return b"iTXt", key.encode("latin-1") + b"\0\0\0\0\0" + text


def raw_profile(kind: str, block: bytes) -> Part:
    """Return a zTXt chunk that holds a block in hex digits, as ImageMagick and exiftool read and write them."""
    text = f"\n{kind}\n{len(block):8}\n{block.hex()}\n".encode()
    return b"zTXt", RAW_EXIF + f" {kind}\0\0".encode() + zlib.compress(text)


def text_key(chunk: Part) -> bytes:
    """Return the key of a text chunk, or nothing for any other."""
    return chunk[1].partition(b"\0")[0] if chunk[0] in (b"tEXt", b"zTXt", b"iTXt") else b""


def text_of(chunk: Part) -> bytes | None:
    """Return the text of a text chunk, unpacked; None where that cannot be done."""
    kind, body = chunk
    _, _, after = body.partition(b"\0")
    try:
        if kind == b"tEXt":
            return after
        if kind == b"zTXt":
            return _unpacked(after[1:])
        packed, text = after[:1], after[2:].split(b"\0", 2)[-1]
        return _unpacked(text) if packed == b"\1" else text
    except zlib.error:
        return None


def profile(data: bytes) -> bytes | None:
    """Return the colour profile, unpacked."""
    for kind, body in chunks(data):
        if kind == b"iCCP":
            try:
                return _unpacked(body.partition(b"\0")[2][1:])
            except zlib.error:
                return None
    return None


def exif(data: bytes) -> bytes | None:
    """Return the EXIF block: that of its chunk, or of the text that old programs wrote."""
    old = None
    for chunk in chunks(data):
        if chunk[0] == b"eXIf" and chunk[1][:4] in (b"II*\0", b"MM\0*"):
            return chunk[1]
        if text_key(chunk) in (b"Raw profile type exif", b"Raw profile type APP1"):
            old = from_hex(text_of(chunk) or b"") or old
    return old


def xmp(data: bytes) -> bytes | None:
    """Return the XMP packet."""
    for chunk in chunks(data):
        if chunk[0] == b"iTXt" and text_key(chunk) == XMP_KEY:
            return text_of(chunk)
    return None


def from_hex(text: bytes) -> bytes | None:
    """Return the EXIF block of a text that old programs wrote in hex digits, or None."""
    lines = text.strip().split(b"\n", 2)
    digits = re.sub(rb"[^0-9a-fA-F]", b"", lines[-1])
    try:
        block = bytes.fromhex(digits.decode("ascii")).removeprefix(b"Exif\0\0")
    except ValueError:
        return None
    return block if block[:4] in (b"II*\0", b"MM\0*") else None


def _unpacked(packed: bytes) -> bytes:
    return zlib.decompressobj().decompress(packed, MOST_TEXT)
