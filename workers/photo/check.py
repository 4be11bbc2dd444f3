"""A second, independent reader says whether a written photo is the source outside of the changes. Runs in the child.

libvips decodes by its own paths (libtiff, libspng, libwebp, nsgif, libheif); BMP is read by OpenCV. What is compared is
what it shows of the two files, not what our reader made of them: so a misreading of ours cannot confirm itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import pyvips
from numpy.typing import NDArray

from workers.photo.apply import Flags, outside_change
from workers.photo.native import Native, Pixels, Stays, upright

SAME_READING = 2
"""Levels of 8 bits by which two readers may differ, for rounding of colours and of JPEG's transform."""
NO_SECOND = ("HEIF",)
"""Formats that libvips' own build does not decode."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """What the second reader shows of a file: (H, W, C) as stored, and what else it says of it."""

    pixels: Pixels
    facts: dict[str, object]


class ReaderError(ValueError):
    """The second reader cannot read a file."""


def second(data: bytes, form: str) -> Seen:
    """Read a file by the second reader.

    Raises:
        ReaderError: it cannot.
    """
    if form == "BMP":
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
        if found is None:
            raise ReaderError("OpenCV cannot read it")
        planes = found[..., None] if found.ndim == 2 else found
        order = [2, 1, 0, 3][: planes.shape[2]] if planes.shape[2] >= 3 else [0]
        return Seen(pixels=np.ascontiguousarray(planes[..., order]), facts={})
    try:
        image = pyvips.Image.new_from_buffer(data, "")
        array: NDArray[np.uint8] | NDArray[np.uint16] = image.numpy().reshape(image.height, image.width, image.bands)
    except pyvips.Error as error:
        raise ReaderError(str(error)) from error
    fields = set(image.get_fields())
    facts: dict[str, object] = {
        name: image.get(name) for name in ("n-pages", "orientation", "bits-per-sample", "loop") if name in fields
    }
    facts["profile"] = hash(bytes(image.get("icc-profile-data"))) if "icc-profile-data" in fields else None
    facts["colours"] = image.interpretation
    return Seen(pixels=array, facts=facts)


def misread(native: Native, data: bytes) -> Stays | None:
    """Return why our reading of a source is not to be trusted, or None: another reader sees the same."""
    if native.form in NO_SECOND:
        return None
    try:
        theirs = second(data, native.form).pixels
    except ReaderError as error:
        said = str(error).strip().splitlines()[-1:]
        return Stays("stays_check", f"a second reader cannot read the file ({''.join(said)[:120]})")
    ours, theirs = upright(native.pixels, native.orientation), _shown(theirs, native.form, native.orientation)
    colours = {"L": 1, "RGB": 3, "CMYK": 4}[native.model]
    mine, other = _eight(ours[..., :colours]), _eight(theirs[..., : max(1, min(colours, theirs.shape[2]))])
    if mine.shape[2] == 1 and theirs.shape[2] >= 3:
        other = _eight(theirs[..., :3])
        mine = np.repeat(mine, 3, axis=2)
    if mine.shape != other.shape:
        return Stays("stays_check", "a second reader sees a picture of another size or kind")
    if native.form == "AVIF":  # coarser colours are enlarged in more than one way
        small = (max(1, mine.shape[1] // 4), max(1, mine.shape[0] // 4))
        mine, other = (cv2.resize(side, small, interpolation=cv2.INTER_AREA) for side in (mine, other))
        theirs = other
    apart = cv2.absdiff(mine, other).reshape(mine.shape)
    seen = apart if theirs.shape[2] in (1, 3) or native.model == "CMYK" else apart[theirs[..., -1] > 0]
    if seen.size and (float(np.mean(seen)) > SAME_READING / 2 or int(np.percentile(seen, 99.9)) > 4 * SAME_READING):
        return Stays("stays_check", "a second reader sees another picture than the one that was worked on")
    return None


def confirm(
    native: Native, data: bytes, written: bytes, form: str, reach: Flags, *, lossless: bool
) -> tuple[dict[str, float], Stays | None]:
    """Return how far a written photo differs outside of the changes to the second reader, and why it may not go.

    Args:
        native: the source, decoded from `data`.
        data: its file.
        written: the new one.
        form: its format.
        reach: (H, W) where it may differ.
        lossless: whether it must be the same elsewhere.
    """
    try:
        after = second(written, form)
        converted = form != native.form and native.form in ("AVIF", "HEIF")  # which `misread` has compared
        before = Seen(pixels=native.pixels, facts={}) if converted else second(data, native.form)
    except ReaderError as error:
        nothing = {"max": 0.0, "mean": 0.0, "share": 0.0}
        return nothing, Stays("stays_check", f"a second reader cannot read the changed photo ({str(error)[:120]})")
    turn = native.orientation
    old, new = _alike(_shown(before.pixels, "" if converted else native.form, turn), _shown(after.pixels, form, turn))
    reach = upright(reach, turn)
    if old.shape != new.shape:
        nothing = {"max": 0.0, "mean": 0.0, "share": 0.0}
        return nothing, Stays("stays_check", "a second reader sees another size or kind in the changed photo")
    if form != native.form and old.shape[2] in (2, 4):  # no format says what lies below full transparency
        seen = (old[..., -1:] > 0) | (new[..., -1:] > 0)
        old, new = old * seen, new * seen
    outside = outside_change(old, new, reach)
    if lossless and outside["max"]:
        return outside, Stays(
            "stays_check", f"a second reader sees pixels outside of the changes differ by up to {outside['max']}"
        )
    if form == native.form:
        for name in ("n-pages", "orientation", "profile", "loop"):
            if before.facts.get(name) != after.facts.get(name):
                return outside, Stays("stays_check", f"a second reader sees another {name} in the changed photo")
    return outside, None


def _shown(pixels: Pixels, form: str, orientation: int) -> Pixels:
    """Return pixels as they are to be looked at; libvips turns AVIF by itself, and nothing else."""
    return pixels if form == "AVIF" else upright(pixels, orientation)


def _alike(before: Pixels, after: Pixels) -> tuple[Pixels, Pixels]:
    """Return both with the same depth and channels, as they are seen."""
    if before.dtype != after.dtype:
        before, after = _eight(before), _eight(after)
    if before.shape[2] != after.shape[2]:
        before, after = _coloured(before), _coloured(after)
    most = min(before.shape[2], after.shape[2])
    if before.shape[2] in (2, 4) and after.shape[2] in (2, 4):
        return before, after
    return before[..., :most], after[..., :most]


def _coloured(pixels: Pixels) -> Pixels:
    if pixels.shape[2] >= 3:
        return pixels
    return np.concatenate([np.repeat(pixels[..., :1], 3, axis=2), pixels[..., 1:]], axis=2)


def _eight(pixels: Pixels) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
