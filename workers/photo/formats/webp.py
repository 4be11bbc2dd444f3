"""WebP: its chunks are carried over as bytes, around new pixels."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence

Part = tuple[bytes, bytes]
PIXELS = (b"VP8 ", b"VP8L", b"ALPH")
EXIF_FLAG, XMP_FLAG, ALPHA_FLAG, ICC_FLAG = 0x08, 0x04, 0x10, 0x20


def ends_at(data: bytes) -> int:
    """Return where the file ends by its own length."""
    return 8 + int(struct.unpack_from("<L", data, 4)[0])


def chunks(data: bytes) -> Iterator[Part]:
    """Yield kind and body of each chunk."""
    end = min(len(data), ends_at(data))
    place = 12
    while place + 8 <= end:
        kind, length = struct.unpack_from("<4sL", data, place)
        yield kind, data[place + 8 : place + 8 + length]
        place += 8 + length + length % 2


def is_lossless(data: bytes) -> bool:
    """Whether the pixels are packed without loss."""
    return any(kind == b"VP8L" for kind, _ in chunks(data))


def stays(data: bytes) -> tuple[str, str] | None:
    """Return why no change can be written, or None."""
    if any(kind in (b"ANIM", b"ANMF") for kind, _ in chunks(data)):
        return "stays_frames", "the file is an animation; a change of one picture would lose the others"
    return None


def rest(data: bytes) -> bytes:
    """Return what lies behind the end of the file's own length."""
    end = ends_at(data)
    return data[end + end % 2 :]


def around(
    data: bytes, encoded: bytes, *, size: tuple[int, int], alpha: bool, given: Mapping[bytes, bytes | None]
) -> bytes:
    """Return the file with the pixels of another one.

    Args:
        data: whose chunks are kept, in their order.
        encoded: whose pixels are taken.
        size: width and height.
        alpha: whether there is one.
        given: chunks that are new, such as XMP; None drops one.
    """
    new = [chunk for chunk in chunks(encoded) if chunk[0] in PIXELS]
    kept = [(k, body) for k, body in chunks(data) if k not in (*PIXELS, b"VP8X") and k not in given]
    flags = next((body[0] for k, body in chunks(data) if k == b"VP8X" and body), 0)
    behind = [(kind, body) for kind, body in given.items() if body is not None]
    names = {kind for kind, _ in [*kept, *behind]}
    flags &= ~(EXIF_FLAG | XMP_FLAG | ALPHA_FLAG | ICC_FLAG)
    flags |= EXIF_FLAG * (b"EXIF" in names) | XMP_FLAG * (b"XMP " in names) | ICC_FLAG * (b"ICCP" in names)
    flags |= ALPHA_FLAG * alpha
    head = struct.pack("<L", flags) + (size[0] - 1).to_bytes(3, "little") + (size[1] - 1).to_bytes(3, "little")
    profile = [chunk for chunk in kept if chunk[0] == b"ICCP"]
    others = [chunk for chunk in kept if chunk[0] != b"ICCP"]
    return _join([(b"VP8X", head), *profile, *new, *others, *behind]) + rest(data)


def _join(parts: Sequence[Part]) -> bytes:
    body = b"WEBP" + b"".join(
        struct.pack("<4sL", kind, len(content)) + content + bytes(len(content) % 2) for kind, content in parts
    )
    return b"RIFF" + struct.pack("<L", len(body)) + body
