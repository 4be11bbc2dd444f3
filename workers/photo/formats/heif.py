"""AVIF and HEIC: what their boxes say of colours, depth and further pictures, before anything is decoded."""

from __future__ import annotations

import struct
from collections.abc import Iterator

INSIDE = {b"meta": 4, b"iprp": 0, b"ipco": 0, b"iinf": 6, b"moov": 0, b"trak": 0}
"""Boxes that hold boxes, and the bytes before those."""
DEPTH = 8
KNOWN = {b"ftyp", b"meta", b"mdat", b"free", b"skip", b"idat"}
ALPHA = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1")
SRGB_PRIMARIES, SRGB_TRANSFER, UNSPECIFIED = 1, 13, 2
BESIDE_A_PROFILE, ALONE = (2, 2), (1, 13)
"""Primaries and transfer that an AVIF is written with: where it has a colour profile, and where it has none."""

CREDENTIAL = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
"""How the body of a content credential's box begins."""


def boxes(data: bytes, start: int = 0, end: int | None = None, depth: int = 0) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and body of each box, those inside others too."""
    end = len(data) if end is None else end
    for kind, body_at, stop in _spans(data, start, end):
        yield kind, data[body_at:stop]
        if kind in INSIDE and depth < DEPTH:
            more = 2 if kind == b"iinf" and data[body_at : body_at + 1] != b"\0" else 0
            yield from boxes(data, body_at + INSIDE[kind] + more, stop, depth + 1)


def top(data: bytes) -> list[bytes]:
    """Return the kinds of the boxes that are in no other."""
    return [kind for kind, _, _ in _spans(data, 0, len(data))]


def stays(data: bytes, form: str) -> tuple[str, str] | None:
    """Return why no change can be written, or None."""
    if b"moov" in top(data) or data[8:12] in (b"avis", b"msf1", b"hevc", b"hevx"):
        return "stays_frames", "the file is a series of pictures or holds a film; a change of one would lose the others"
    if other := [kind for kind, at, _ in _spans(data, 0, len(data)) if kind not in KNOWN and not _credential(data, at)]:
        name = other[0].decode("latin-1")
        return "stays_parts", f"the file holds more than a picture ({name}), which would be lost"
    items = set[bytes]()
    profile = any(kind == b"colr" and body[:4] in (b"prof", b"rICC") for kind, body in boxes(data))
    for kind, body in boxes(data):
        if kind == b"auxC" and not body[4:].startswith(ALPHA):
            what = body[4:].partition(b"\0")[0].decode("latin-1")[:80]
            return "stays_parts", f"the file holds a second picture that belongs to it ({what}), which would be lost"
        if kind == b"infe" and len(body) >= 12:
            items.add(body[8:12] if body[0] == 2 else body[10:14])
        reason = _colour(kind, body, form, profile=profile)
        if reason:
            return "stays_colour", reason
    if form == "AVIF" and sampling(data) == "4:0:0":
        return "stays_storage", "the file is a grey AVIF, which is not written"
    if b"tmap" in items:
        return "stays_parts", "the file holds a gain map for bright screens, which would be lost"
    return None


def has_credential(data: bytes) -> bool:
    """Whether the file carries a content credential, which a change makes void."""
    return any(kind == b"uuid" and _credential(data, at) for kind, at, _ in _spans(data, 0, len(data)))


def _credential(data: bytes, body_at: int) -> bool:
    return data.startswith(CREDENTIAL, body_at)


def sampling(data: bytes) -> str:
    """Return the chroma sampling of an AVIF, as Pillow names it; 4:0:0 is grey."""
    for kind, body in boxes(data):
        if kind == b"av1C" and len(body) >= 4:
            if body[2] & 0x10:
                return "4:0:0"
            return {0: "4:4:4", 2: "4:2:2", 3: "4:2:0"}.get(body[2] >> 2 & 3, "4:2:0")
    return "4:2:0"


def _colour(kind: bytes, body: bytes, form: str, *, profile: bool) -> str | None:
    if kind == b"colr" and body[:4] == b"nclx" and len(body) >= 10:
        primaries, transfer = struct.unpack_from(">HH", body, 4)
        if form == "AVIF" and (primaries, transfer) != (BESIDE_A_PROFILE if profile else ALONE):
            return f"the colours of the file are tagged {primaries}/{transfer} (CICP), which is not written"
        if transfer not in (SRGB_TRANSFER, UNSPECIFIED, 1, 6) or primaries not in (1, 2, 5, 6):
            return f"the colours of the file are tagged {primaries}/{transfer} (CICP), which is not written"
    if kind == b"pixi" and body[5:] and max(body[5:]) > 8:
        return f"the file has {max(body[5:])} bits per channel, which are not written"
    if kind == b"av1C" and len(body) >= 3 and body[2] & 0x40:
        return "the file has more than 8 bits per channel, which are not written"
    if kind in (b"clli", b"mdcv"):
        return "the file is made for bright screens (HDR), which is not written"
    return None


def _spans(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    place = start
    while place + 8 <= end:
        size, kind = struct.unpack_from(">L4s", data, place)
        head = 8
        if size == 1 and place + 16 <= end:
            size, head = struct.unpack_from(">Q", data, place + 8)[0], 16
        stop = end if size == 0 else place + size
        if (size and size < head) or stop > end:
            return
        yield kind, place + head, stop
        place = stop
