"""Mutates archives and photos from a seed, and feeds them to reader and decoder until one does what it must not.

    python -m tests.integration.archive.fuzz reader 4000 1       # which, how many, first seed
    python -m tests.integration.archive.fuzz photos 4000 1

Allowed are results and typed errors, within a bound of time. Each input's number is printed before it is tried, so
that the last line names the one that killed the process.
"""

from __future__ import annotations

import io
import signal
import struct
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from orchestrator.archive import Limits, Photo, open_source
from orchestrator.errors import InputError
from tests.unit.workers.photo.pictures import (
    PHONE,
    astronaut,
    decoded,
    deep,
    edit,
    encoded,
    exif,
    swapped_profile,
    tagged_tiff,
    written,
)
from workers.photo.guard import bound_memory, bound_time

SECONDS = 20
MEMORY = 3 << 30
LIMITS = Limits(member_bytes=1 << 20, members=10_000, ratio_floor=1 << 22)
SPECIAL = (0, 1, 0x7F, 0x80, 0xFF)


def mutated(rng: np.random.Generator, data: bytes) -> bytes:
    """Return the data with a few changes of the kinds that break parsers."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        if not out:
            break
        place = int(rng.integers(len(out)) if rng.random() < 0.6 else rng.integers(min(len(out), 512)))
        match int(rng.integers(7)):
            case 0:
                out[place] ^= 1 << int(rng.integers(8))
            case 1:
                out[place] = int(rng.choice(SPECIAL))
            case 2:
                del out[place:]
            case 3:
                del out[place : place + int(rng.integers(1, 64))]
            case 4:
                out[place:place] = out[place : place + int(rng.integers(1, 256))]
            case 5:
                number = struct.pack("<I", int(rng.choice([0, 1, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 20])))
                out[place : place + 4] = number if rng.random() < 0.5 else number[::-1]
            case _:
                out[-64:] = rng.bytes(64)
    return bytes(out)


def archives() -> list[bytes]:
    """Sound archives to start from."""
    small = encoded(astronaut(32, 24), "JPEG")
    members = {"a/1.jpg": small, "b.png": encoded(astronaut(8, 8), "PNG"), "n.txt": b"hello", "ü.jpg": small}
    found = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", method) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        found.append(out.getvalue())
    for mode, form in (
        ("w", tarfile.GNU_FORMAT),
        ("w", tarfile.PAX_FORMAT),
        ("w:gz", tarfile.PAX_FORMAT),
        ("w:xz", tarfile.USTAR_FORMAT),
    ):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode=mode, format=form) as tar:
            for name, data in {**members, "long/" * 40 + "x.jpg": small}.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        found.append(out.getvalue())
    return found


def photos() -> list[bytes]:
    """Sound photos to start from."""
    image = astronaut(48, 36)
    extras = {"exif": exif(orientation=6, preview=b"\xff\xd8x\xff\xd9"), "icc_profile": swapped_profile()}
    return [
        *(encoded(image, form, **extras) for form in ("JPEG", "PNG", "WEBP", "AVIF")),
        encoded(image, "JPEG", progressive=True, xmp=b'<rdf:RDF xmlns:rdf="x"></rdf:RDF>'),
        encoded(image.convert("CMYK"), "JPEG"),
        encoded(image.convert("P"), "PNG"),
        encoded(image, "WEBP", lossless=True),
        encoded(image, "TIFF", compression="tiff_lzw"),
        encoded(image, "TIFF", compression="jpeg"),
        encoded(image.convert("1"), "TIFF", compression="group4"),
        tagged_tiff(image),
        encoded(image, "GIF", save_all=True, append_images=[Image.new("RGB", image.size)]),
        encoded(image, "BMP"),
        deep(3, ".png"),
        deep(4, ".tif"),
        PHONE,
    ]


def read(data: bytes) -> None:
    """Read an archive to its end."""
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(data)
        with open_source(file.name, LIMITS) as source:
            for member in source.members():
                assert not member.path.startswith("/") or not isinstance(member, Photo), member
                if isinstance(member, Photo):
                    assert ".." not in member.path.split("/"), member
                    try:
                        member.stream.read()
                    except InputError:
                        continue


def take_through(data: bytes) -> None:
    """Decode a photo, change it and write it."""
    rgb, _ = decoded(data, 1_000_000)
    _, patches = edit(rgb)
    if patches:
        written(data, patches, gps="strip")


def main() -> None:
    """Feed mutants; print the count of results, refusals and the longest time, or die at the first escape."""
    which, count, first = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    bound_memory(MEMORY)
    bound_time(3600)
    seeds, feed = _ways()[which]
    good, refused, longest = 0, 0, 0.0
    for number in range(first, first + count):
        rng = np.random.default_rng(number)
        data = mutated(rng, seeds[int(rng.integers(len(seeds)))])
        print(number, flush=True)  # noqa: T201 the last one is the culprit
        signal.alarm(SECONDS)  # a hang ends the process
        began = time.monotonic()
        try:
            feed(data)
            good += 1
        except InputError:
            refused += 1
        except MemoryError:  # the child's answer to it is typed
            refused += 1
        longest = max(longest, time.monotonic() - began)
    signal.alarm(0)
    print(f"done good={good} refused={refused} longest={longest:.2f}")  # noqa: T201 the figures are what it is run for


def _ways() -> dict[str, tuple[list[bytes], Callable[[bytes], None]]]:
    return {"reader": (archives(), read), "photos": (photos(), take_through)}


if __name__ == "__main__":
    main()
