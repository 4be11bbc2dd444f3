"""Recorded positions are found and blanked in every part of a file: no byte moves, so nothing else has to be known.

EXIF blocks wherever they lie (second pictures, films, makers' copies), every directory of a TIFF, XMP as text or
UTF-16, and the places where films keep theirs. What remains and still looks like a position makes it fail.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from orchestrator.errors import InputError
from workers.photo.formats import ifd, jpeg, png

MAX_VALUE = 1 << 16
"""Positions are short; a longer value is no position and is left alone."""
GPS_TAGS = 32
_NAME = rb"[\w.-]+:(?:GPS|Gps|gps|Geo(?:L|l)|geo_?l)\w+|geo:(?:lat|long|alt)|[\w.-]+:(?:L|l)(?:atitude|ongt?itude)"
_XMP = (
    re.compile(rb"\s(?:" + _NAME + rb")\s*=\s*(?:\"[^\"]*\"|'[^']*')"),
    re.compile(rb"<((?:" + _NAME + rb"))\b[^<>/]*>[^<]*</\1\s*>|<(?:" + _NAME + rb")\b[^<>]*/>"),
)
_BLOCKS = re.compile(rb"II\*\0|MM\0\*|II\+\0\x08\0\0\0|MM\0\+\0\x08\0\0")
_ISO6709 = re.compile(rb"[+-]\d{2}(?:\d{2}){0,2}\.\d{2,}[+-]\d{3}(?:\d{2}){0,2}\.\d{2,}")
_NMEA = re.compile(rb"\$G[PN](?:RMC|GGA|GLL),")
_TRACKS = (b"gpmd", b"camm", b"NVTK_GPS")
"""Sample entries of films whose tracks hold positions."""
_BOXES = (b"\xa9xyz", b"loci", b"gps ", b"gps0")
_GPS_KEY = re.compile(rb"(?i)gps")
OF_A_PIECE = 40
"""Bytes before each piece of an extended XMP packet: whose it is, how long the whole is, and where this one begins."""
KEPT = (b"IHDR", b"PLTE", b"IDAT", b"tRNS", b"IEND")
"""Chunks of a PNG that say what its pixels are."""


def has_positions(data: bytes, form: str) -> bool:
    """Whether any part of a file records a position."""
    if form == "PNG":
        return any(_in_chunk(chunk) for chunk in png.chunks(data)) or _in_part(png.rest(data))
    return _in_part(data) or any(_in_part(_joined(data, spans)) for spans in _split(data, form))


def without_positions(data: bytes, form: str) -> bytes:
    """Return the file without any position; packed text of a PNG that holds one is left out, all else keeps its place.

    Raises:
        InputError: `gps_not_erased`, where one is recorded in a way that is not understood.
    """
    if form == "PNG":
        kept = [(kind, _blanked(body)) if kind not in KEPT else (kind, body) for kind, body in _open_chunks(data)]
        out = png.join(kept) + _blanked(png.rest(data)) if has_positions(data, form) else data
    else:
        whole = bytearray(_blanked(data))
        for spans in _split(data, form):
            blanked = _blanked(_joined(whole, spans))
            for start, end in spans:
                whole[start:end], blanked = blanked[: end - start], blanked[end - start :]
        out = bytes(whole)
    if has_positions(out, form):
        raise InputError(
            "the file records a position in a part that cannot be blanked; export the photo without it",
            code="gps_not_erased",
        )
    return out


def _split(data: bytes, form: str) -> list[list[tuple[int, int]]]:
    """Return where the pieces lie of what goes on over several segments of a JPEG: EXIF, and extended XMP."""
    if form != "JPEG":
        return []
    exif, packet, place = list[tuple[int, int]](), list[tuple[int, int]](), 2
    for marker, body in jpeg.segments(data)[0]:
        start = data.index(body, place + 2) if body else place
        place = start + len(body)
        if marker == jpeg.APP1 and body.startswith(jpeg.EXIF_SEGMENT):
            exif.append((start + len(jpeg.EXIF_SEGMENT), place))
        elif marker == jpeg.APP1 and body.startswith(jpeg.XMP_MORE):
            packet.append((start + len(jpeg.XMP_MORE) + OF_A_PIECE, place))
    return [spans for spans in (exif, packet) if len(spans) > 1]


def _joined(data: bytes | bytearray, spans: list[tuple[int, int]]) -> bytes:
    return b"".join(data[start:end] for start, end in spans)


def _open_chunks(data: bytes) -> Iterator[png.Part]:
    """Yield the chunks of a PNG but those of packed text that holds a position, or of a key that names one."""
    for chunk in png.chunks(data):
        packed = chunk[0] == b"zTXt" or png.text_key(chunk).startswith(png.RAW_EXIF)
        packed = packed or (chunk[0] == b"iTXt" and chunk[1].partition(b"\0")[2][:1] == b"\1")
        if _in_chunk(chunk) and (packed or _GPS_KEY.search(png.text_key(chunk))):
            continue
        yield chunk


def _in_chunk(chunk: png.Part) -> bool:
    if chunk[0] in KEPT:
        return False
    key = png.text_key(chunk)
    if _GPS_KEY.search(key):
        return True
    if key.startswith(png.RAW_EXIF):
        block = png.from_hex(png.text_of(chunk) or b"")
        return block is not None and _in_part(block)
    return _in_part((png.text_of(chunk) or b"") if key else chunk[1])


def _in_part(data: bytes) -> bool:
    return (
        any(gps_of(data, start) for start in blocks(data))
        or any(field.search(packet) for packet in (data, _narrow(data)) for field in _XMP)
        or any(True for _ in _boxes(data))
        or _remains(data)
    )


def _remains(data: bytes) -> bool:
    """Whether the data still hold what looks like a position of a film."""
    found = _ISO6709.search(data) or _NMEA.search(data)
    return bool(found) or (b"moov" in data and b"stsd" in data and any(track in data for track in _TRACKS))


def _blanked(data: bytes) -> bytes:
    """Return the data with all positions that are understood made blanks, in place."""
    out = bytearray(data)
    for start in list(blocks(out)):
        _blank_block(out, start)
    for field in _XMP:
        for match in list(field.finditer(out)):
            out[match.start() : match.end()] = b" " * (match.end() - match.start())
    _blank_wide(out)
    for start, end in list(_boxes(out)):
        out[start:end] = bytes(end - start)
    for match in list(_ISO6709.finditer(out)):  # of QuickTime's keys, whose values lie apart from them
        out[match.start() : match.end()] = b" " * (match.end() - match.start())
    return bytes(out)


def blocks(data: bytes | bytearray) -> Iterator[int]:
    """Yield where something begins like an EXIF block or a TIFF."""
    for match in _BLOCKS.finditer(data):
        yield match.start()


def gps_of(data: bytes | bytearray, start: int = 0) -> list[tuple[int, int]]:
    """Return each directory of a block that points to a position, and where that one lies, both from the start."""
    view = memoryview(data)[start:]
    try:
        form = ifd.form_of(view)
    except ValueError:
        return []
    found = []
    for place in ifd.all_directories(view, form):
        for entry in ifd.entries(view, place, form):
            if entry.tag == ifd.GPS_POINTER:
                target = (ifd.numbers(view, entry, form) or [0])[0]
                inside = [e.tag for e in ifd.entries(view, target, form)]
                if inside and all(tag < GPS_TAGS for tag in inside):
                    found.append((place, target))
    return found


def _blank_block(data: bytearray, start: int) -> None:
    found = gps_of(data, start)
    if not found:
        return
    part = bytearray(memoryview(data)[start:])
    form = ifd.form_of(part)
    for place, target in found:
        for entry in ifd.entries(part, target, form):
            if form.room < entry.length <= MAX_VALUE and entry.at + entry.length <= len(part):
                part[entry.at : entry.at + entry.length] = bytes(entry.length)
        _zero_directory(part, target, form)
        _drop_pointer(part, place, form)
    data[start:] = part


def _zero_directory(part: bytearray, place: int, form: ifd.Form) -> None:
    size = struct.calcsize(form.counter)
    end = place + size + form.entry * len(ifd.entries(part, place, form)) + form.room
    part[place : min(end, len(part))] = bytes(min(end, len(part)) - place)


def _drop_pointer(part: bytearray, place: int, form: ifd.Form) -> None:
    """Take the entry out: those behind it and the link to the next directory move up."""
    size = struct.calcsize(form.counter)
    listed = ifd.entries(part, place, form)
    end = place + size + form.entry * len(listed) + form.room
    for entry in listed:
        if entry.tag == ifd.GPS_POINTER:
            part[entry.place : end - form.entry] = part[entry.place + form.entry : end]
            part[end - form.entry : end] = bytes(form.entry)
            struct.pack_into(form.counter, part, place, len(listed) - 1)
            return


def _narrow(data: bytes | bytearray) -> bytes:
    """Return the data without zeros, where UTF-16 text reads as ASCII; nothing where there is no such packet."""
    return bytes(data).replace(b"\0", b"") if _wide_packet(data) else b""


def _wide_packet(data: bytes | bytearray) -> bool:
    return any("RDF".encode(coding) in data for coding in ("utf-16-le", "utf-16-be"))


def _blank_wide(data: bytearray) -> None:
    """Blank positions in XMP of two bytes per sign."""
    for coding in ("utf-16-le", "utf-16-be"):
        mark = "rdf:RDF".encode(coding)
        start, end = data.find(mark), data.rfind(mark)
        if start < 0 or end <= start:
            continue
        text = bytes(data[start:end]).decode(coding, "surrogatepass").encode("utf-8", "surrogatepass")
        if not any(field.search(text) for field in _XMP):
            continue
        kept = bytes(data[start:end]).decode(coding, "surrogatepass")
        for field in _XMP:
            kept = re.sub(field.pattern.decode("ascii"), lambda found: " " * len(found[0]), kept)
        data[start:end] = kept.encode(coding, "surrogatepass")


def _boxes(data: bytes | bytearray) -> Iterator[tuple[int, int]]:
    """Yield where the values of films' position boxes lie, that hold anything."""
    if b"ftyp" not in data and b"moov" not in data:
        return
    for name in _BOXES:
        for match in re.finditer(re.escape(name), data):
            if match.start() < 4:
                continue
            size = struct.unpack_from(">L", data, match.start() - 4)[0]
            start, end = match.end(), match.start() - 4 + size
            if 8 < size <= MAX_VALUE and end <= len(data) and any(data[start:end]):
                yield start, end
