"""Decodes or writes photos from standard input to standard output, one after the other until the input ends.

Run by `workers.photo.guard` as `python -m workers.photo.child MEMORY`: it bounds its own memory first, and its time for
each photo, and may die of any of them.
"""

from __future__ import annotations

import hashlib
import sys
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import FpgaError, InputError
from workers.photo.apply import apply_patches
from workers.photo.check import confirm, misread
from workers.photo.colour import working
from workers.photo.formats.jpeg import JpegError
from workers.photo.frames import pack, receive
from workers.photo.guard import NO_MEMORY, bound_memory, bound_time
from workers.photo.native import Native, Stays, upright
from workers.photo.patch import Patch
from workers.photo.positions import has_positions, without_positions
from workers.photo.read import read_native
from workers.photo.write import OutputOptions, is_lossless, write

CPU_SECONDS = 240


def main() -> None:
    """Serve until the input ends."""
    bound_memory(int(sys.argv[1]))
    cv2.setNumThreads(1)
    try:
        while True:
            bound_time(CPU_SECONDS)
            for piece in _answer():
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
    except EOFError:
        return


def _answer() -> list[bytes | memoryview]:
    try:
        job, parts = receive(sys.stdin.buffer, most=sys.maxsize)
        return JOBS[job["job"]](job, parts)
    except FpgaError as error:
        return _refusal(error)
    except MemoryError:
        return _refusal(InputError("the photo needs more memory than is allowed", code=NO_MEMORY))


def decode(job: dict[str, Any], parts: list[bytes]) -> list[bytes | memoryview]:
    """Answer with the upright sRGB pixels of a photo and what its file says."""
    data = parts[0]
    native = read_native(data, job["max_pixels"])
    rgb = np.ascontiguousarray(upright(working(native).to_rgb(native.pixels), native.orientation))
    digest = hashlib.sha256(f"{rgb.shape}".encode())
    digest.update(rgb.data)
    head = {
        "width": rgb.shape[1],
        "height": rgb.shape[0],
        "facts": facts(native, data),
        "notes": native.notes,
        "pixels_sha256": digest.hexdigest(),
        "phash": perceptual_hash(rgb),
    }
    return pack(head, rgb.data.cast("B"))


def encode(job: dict[str, Any], parts: list[bytes]) -> list[bytes | memoryview]:
    """Answer with the photo as a file, changed where the patches say so, or with why it stays as it is.

    What was written is confirmed by a second reader; whatever that one doubts is not handed on.
    """
    data = parts[0]
    native = read_native(data, job["max_pixels"])
    options = OutputOptions(**job["options"])
    patches = [
        Patch(left=place["left"], top=place["top"], rgba=np.frombuffer(part, np.uint8).reshape(place["shape"]))
        for place, part in zip(job["patches"], parts[1:], strict=True)
    ]
    reason = native.stays or misread(native, data)
    if reason is not None:
        return _stays(reason, native)
    pixels, touched = apply_patches(native, patches)
    try:
        made = write(native, data, pixels, touched, job["record"], options)
    except JpegError as error:
        return _stays(Stays("stays_storage", f"the JPEG cannot be changed in place ({error})"), native)
    exact = is_lossless(native, made.form, data)
    outside, reason = confirm(native, data, made.data, made.form, made.reach, lossless=exact)
    if reason is not None:
        return _stays(reason, native)
    out = without_positions(made.data, made.form) if options.gps == "strip" else made.data
    return pack({"form": made.form, "outside": outside, "aside": made.aside, "notes": native.notes}, out)


def strip(job: dict[str, Any], parts: list[bytes]) -> list[bytes | memoryview]:
    """Answer with the file without recorded positions; nothing else of it moves, but for packed text in PNG."""
    data = parts[0]
    native = read_native(data, job["max_pixels"])
    return pack({}, without_positions(data, native.form))


def _stays(reason: Stays, native: Native) -> list[bytes | memoryview]:
    return pack({"stays": reason._asdict(), "notes": native.notes})


def facts(native: Native, data: bytes) -> dict[str, Any]:
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
        "gps": has_positions(data, native.form),
        "several_frames": native.several,
        "stays": native.stays._asdict() if native.stays else None,
    }


def perceptual_hash(rgb: NDArray[np.uint8]) -> str:
    """Return 64 bits that barely change when a photo (H, W, 3) is resized or packed anew, as 16 hex digits.

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
