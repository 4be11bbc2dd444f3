"""EXIF changed in place: the small picture of the old face is dropped, and nothing else moves.

Rewriting a block breaks the makers' notes, which hold offsets of their own; here every byte keeps its place.
"""

from __future__ import annotations

import struct

from workers.photo.formats import ifd

PREVIEW, PREVIEW_LENGTH = 0x0201, 0x0202


def without_preview(exif: bytes) -> bytes:
    """Return the block with its second directory, and the small picture that it describes, made zeros."""
    try:
        form = ifd.form_of(exif)
    except ValueError:
        return exif
    out = bytearray(exif)
    first = ifd.first(out, form)
    second = ifd.following(out, first, form)
    listed = ifd.entries(out, second, form)
    if not listed:
        return exif
    found = {entry.tag: (ifd.numbers(out, entry, form) or [0])[0] for entry in listed}
    start, length = found.get(PREVIEW, 0), found.get(PREVIEW_LENGTH, 0)
    spans = [(entry.at, entry.length) for entry in listed if entry.length > form.room]
    size = struct.calcsize(form.counter)
    spans += [(start, length), (second, size + form.entry * len(listed) + form.room)]
    link = first + size + form.entry * len(ifd.entries(out, first, form))
    for place, count in [*spans, (link, form.room)]:
        if place >= 8 and place + count <= len(out):
            out[place : place + count] = bytes(count)
    return bytes(out)
