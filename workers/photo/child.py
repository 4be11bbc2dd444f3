"""Decodes or writes one photo from standard input to standard output, in a process that may die of it.

Run by workers.photo as `python -m workers.photo.child MEMORY`: it bounds its own memory and time first.
"""

from __future__ import annotations

import hashlib
import sys
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import FpgaError, InputError, StageError
from workers.photo import exif, xmp
from workers.photo.apply import apply_patches, outside_change
from workers.photo.colour import working
from workers.photo.frames import pack, unpack
from workers.photo.native import GPS_IFD, Native, raw_exif, read_native, upright
from workers.photo.patch import Patch
from workers.photo.write import OutputOptions, is_lossless, write, written_form
from workers.runtime.guard import bound_this_process

CPU_SECONDS = 240


def main() -> None:
    """Serve one photo."""
    bound_this_process(memory=int(sys.argv[1]), cpu_seconds=CPU_SECONDS)
    cv2.setNumThreads(1)
    job, parts = unpack(sys.stdin.buffer.read())
    try:
        answer = JOBS[job["job"]](job, parts)
    except FpgaError as error:
        answer = _refusal(error)
    except MemoryError:
        answer = _refusal(InputError("the photo needs more memory than is allowed", code="image_out_of_memory"))
    for part in answer:
        sys.stdout.buffer.write(part)


def decode(job: dict[str, Any], parts: list[memoryview]) -> list[bytes | memoryview]:
    """Answer with the upright sRGB pixels of a photo and what its file says."""
    native = read_native(bytes(parts[0]), job["max_pixels"])
    rgb = np.ascontiguousarray(upright(working(native).to_rgb(native.pixels), native.orientation))
    digest = hashlib.sha256(f"{rgb.shape}".encode())
    digest.update(rgb.data)
    head = {
        "width": rgb.shape[1],
        "height": rgb.shape[0],
        "facts": facts(native),
        "notes": native.notes,
        "pixels_sha256": digest.hexdigest(),
        "phash": perceptual_hash(rgb),
    }
    return pack(head, rgb.data.cast("B"))


def encode(job: dict[str, Any], parts: list[memoryview]) -> list[bytes | memoryview]:
    """Answer with the photo as a file, changed where the patches say so."""
    data = bytes(parts[0])
    native = read_native(data, job["max_pixels"])
    options = OutputOptions(**job["options"])
    patches = [
        Patch(left=place["left"], top=place["top"], rgba=np.frombuffer(part, np.uint8).reshape(place["shape"]))
        for place, part in zip(job["patches"], parts[1:], strict=True)
    ]
    pixels, touched = apply_patches(native, patches)
    written = write(native, data, pixels, job["record"], options)
    form = written_form(native, options)
    outside = outside_change(native, read_native(written, job["max_pixels"]), touched)
    if is_lossless(native, form, data) and outside["max"]:
        raise StageError(f"pixels outside of the changes differ by up to {outside['max']}", code="output_differs")
    head = {"form": form, "outside": outside, "notes": native.notes}
    return pack(head, written)


def strip(job: dict[str, Any], parts: list[memoryview]) -> list[bytes | memoryview]:
    """Answer with where in the file positions are recorded: the old bytes and those that take their place."""
    data = bytes(parts[0])
    native = read_native(data, job["max_pixels"])
    found: list[bytes] = []
    block = data if native.form == "TIFF" else raw_exif(native, data)
    if block is not None and exif.has_gps(block):
        found += [block, exif.without_gps(block)]
    if native.xmp is not None and xmp.has_gps(native.xmp):
        found += [native.xmp, xmp.without_gps(native.xmp)]
    return pack({}, *found)


def facts(native: Native) -> dict[str, Any]:
    """Return what a record says of a source file; small JSON."""
    height, width = native.pixels.shape[:2]
    return {
        "format": native.form,
        "mode": native.mode,
        "bits": native.bits,
        "stored_size": [width, height],
        "orientation": native.orientation,
        "alpha": native.alpha,
        "profile": native.profile is not None,
        "gps": exif.has_gps(native.exif) or xmp.has_gps(native.xmp) or GPS_IFD in native.tags,
        "several_frames": native.several,
    }


def perceptual_hash(rgb: NDArray[np.uint8]) -> str:
    """Return 64 bits that barely change when a photo is resized or packed anew, as 16 hex digits.

    Signs of the lowest DCT frequencies of a 32x32 grey version against their median [field: pHash].
    """
    small = cv2.resize(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), (32, 32), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small.astype(np.float32))[:8, :8].ravel()
    bits = low > np.median(low[1:])
    return np.packbits(bits).tobytes().hex()


def _refusal(error: FpgaError) -> list[bytes | memoryview]:
    return pack({"error": error.as_json(), "kind": type(error).__name__})


JOBS = {"decode": decode, "encode": encode, "strip": strip}

if __name__ == "__main__":
    main()
