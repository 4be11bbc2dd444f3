"""Every kind of photo, restored and swapped: its own bytes, or equal outside of the changes to programs of others.

ImageMagick (with the system's libtiff, libpng, libjpeg, libwebp, libheif) and libvips read pixels, exiftool metadata.
Where those programs are not installed, libvips alone reads.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
from numpy.typing import NDArray

from orchestrator.errors import InputError
from tests.integration.archive.corpus import corpus
from tests.unit.workers.photo.pictures import decoded, edit, written
from workers.photo import Patch
from workers.photo.native import upright

Flags = NDArray[np.bool_]
STORAGE = re.compile(
    r"SourceFile|System:|ExifTool:|IFD0:(Strip|Tile)(Offsets|ByteCounts)|IFD0:(RowsPerStrip|Compression|JPEGTables|"
    r"PreviewImage\w*|ApplicationNotes)|IFD1:Thumbnail|File:(EncodingProcess|FileType$)|PNG:Interlace|RIFF:WebP_Flags|"
    r"QuickTime:MediaData|MPImage\d:MPImage(Length|Start)"
)
"""What exiftool says of where and how pixels are stored, of the small old face, and of the packet that ours joined."""
FEW_COLOURS = ("mode P", "mode 1", "palette", "pillow 1", "pillow P", "fax")
"""Files whose pixels are stored as full colour or grey afterwards."""
UNCHANGED = {
    **{f"premultiplied {bits} {number}.tif": "stays_storage" for bits in (8, 16) for number in range(6)},
    **dict.fromkeys(("grey alpha 8 5.tif", "grey alpha 16 5.tif"), "stays_check"),
    **dict.fromkeys(("packed lzma.tif", "packed zstd.tif", "packed jpeg2000.tif"), "stays_check"),
    **dict.fromkeys(("pillow LAB.tif", "pillow F.tif", "pillow I.tif"), "format_unsupported"),
    **{f"of type {kind}.tif": "format_unsupported" for kind in ("f4", "f2", "i2", "u4", "f8")},
    **dict.fromkeys(("thumbnail first.tif", "layers.tif"), "stays_parts"),
    **dict.fromkeys(("hdr by cicp 8.png", "hdr by cicp 16.png", "ten bits.avif"), "stays_colour"),
    **dict.fromkeys(("animated.png", "animated.webp", "animated.avif", "animated.gif"), "stays_frames"),
    "twelve bits.jpg": "format_unsupported",
    "lossless.jpg": "stays_storage",
}
"""Why, of those that are not changed: libvips is built without the packings of stays_check, and misreads two planes."""
ROOM = 24
"""Pixels around a change that the blocks of a JPEG may show."""
LOSSY_MEAN = 3.0
"""Levels by which WebP with loss, AVIF and HEIC may differ in the mean, packed anew."""


def swapped(rgb: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], list[Patch]]:
    """Two pieces, one in a corner of the picture and one at its edge, as faces that are cut off are."""
    wanted, patches = rgb.copy(), []
    for top, left in ((0, 0), (rgb.shape[0] - 20, rgb.shape[1] // 2)):
        piece = 255 - rgb[top : top + 20, left : left + 22]
        wanted[top : top + 20, left : left + 22] = piece
        patches.append(Patch(left=left, top=top, rgba=np.dstack([piece, np.full(piece.shape[:2], 255, np.uint8)])))
    return wanted, patches


EDITS: dict[str, Callable[[NDArray[np.uint8]], tuple[NDArray[np.uint8], list[Patch]]]] = {
    "restore": edit,
    "swap": swapped,
}


@dataclass
class Tried:
    """One file of the corpus, after one edit."""

    number: int
    name: str
    data: bytes
    fate: str
    out: bytes = b""
    suffix: str = ""
    exact: bool = True
    reach: Flags = field(default_factory=lambda: np.zeros((0, 0), np.bool_))
    """Upright, where it was to change."""
    turn: int = 1
    faults: list[str] = field(default_factory=list)


def tried(number: int, name: str, data: bytes, task: str) -> Tried:
    """Change one photo."""
    try:
        rgb, head = decoded(data)
        _, patches = EDITS[task](rgb)
        out, said = written(data, patches)
    except InputError as error:
        return Tried(number, name, data, error.code)
    if "stays" in said:
        return Tried(number, name, data, said["stays"]["code"], out=out)
    reach = np.zeros(rgb.shape[:2], np.bool_)
    for patch in patches:
        height, width = patch.rgba.shape[:2]
        reach[patch.top : patch.top + height, patch.left : patch.left + width] |= patch.rgba[..., 3] > 0
    form = said["form"]
    exact = form in ("TIFF", "PNG", "BMP") or (form == "WEBP" and b"VP8L" in data)
    if form == "JPEG" and head["facts"]["format"] == "JPEG":
        blocks = np.zeros_like(reach)
        for y, x in np.argwhere(reach):
            blocks[max(0, y - ROOM) : y + ROOM + 1, max(0, x - ROOM) : x + ROOM + 1] = True
        exact, reach = True, blocks
    renamed = {"GIF": ".png", "HEIF": ".jpg"}.get(head["facts"]["format"], "")
    turn = 1 if form == "AVIF" else head["facts"]["orientation"]
    return Tried(number, name, data, "changed", out, renamed, exact, reach, turn)


def compared(case: Tried, program: str, before: NDArray[Any], after: NDArray[Any]) -> None:
    """Note where two readings by one program differ."""
    before, after = upright(before, case.turn), upright(after, 1 if case.suffix == ".jpg" else case.turn)
    if before.shape[:2] != case.reach.shape or after.shape[:2] != case.reach.shape:
        case.faults.append(f"{program}: the size is another one, {before.shape} and {after.shape}")
        return
    if before.shape != after.shape:
        case.faults.append(f"{program}: {before.shape[2]} channels became {after.shape[2]}")
        return
    if case.suffix and before.shape[2] == 4:  # no format says what lies below full transparency
        seen = (before[..., 3:] > 0) | (after[..., 3:] > 0)
        before, after = np.where(seen, before, 0), np.where(seen, after, 0)
    apart = np.abs(before.astype(float) - after.astype(float))
    scale = 257 if before.dtype == np.uint16 else 1
    outside = apart[~case.reach] / scale
    if case.exact and outside.max(initial=0) > (1 if "pillow P" in case.name else 0):  # its table has 16 bits
        case.faults.append(f"{program}: differs outside by up to {outside.max():.2f}")
    if not case.exact and outside.mean() > LOSSY_MEAN:
        case.faults.append(f"{program}: differs outside by {outside.mean():.2f} in the mean")
    if apart[case.reach].mean() / scale < 5:
        case.faults.append(f"{program}: shows no change")


def by_vips(case: Tried) -> None:
    """Compare as libvips shows both, all further pages too."""

    def pages(data: bytes) -> list[NDArray[Any]]:
        first = pyvips.Image.new_from_buffer(data, "")
        count = first.get("n-pages") if "n-pages" in first.get_fields() else 1
        found = [first, *(pyvips.Image.new_from_buffer(data, "", page=n) for n in range(1, count))]
        return [page.numpy().reshape(page.height, page.width, page.bands) for page in found]

    try:
        before = pages(case.data)
    except pyvips.Error as error:
        if not case.name.endswith((".heic", ".bmp")):  # which its build does not read
            case.faults.append(f"libvips cannot read the source ({str(error).strip()[:80]})")
        return
    after = pages(case.out)
    if len(before) != len(after):
        case.faults.append(f"libvips: {len(before)} pages became {len(after)}")
    first, second = alike(before[0], after[0])
    compared(case, "libvips", first, second)
    for old, new in zip(before[1:], after[1:], strict=False):
        if not np.array_equal(old, new):
            case.faults.append("libvips: a further page changed")


def alike(before: NDArray[Any], after: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Grey as colours, where a palette became some."""
    if before.shape[2] < 3 <= after.shape[2]:
        before = np.concatenate([np.repeat(before[..., :1], 3, axis=2), before[..., 1:]], axis=2)
    return before, after


def by_magick(cases: list[Tried], folder: Path) -> None:
    """Compare as ImageMagick shows both."""
    shown = {}
    for side in ("before", "after"):
        (folder / side).mkdir(parents=True)
        for case in cases:
            ending = Path(case.name).suffix
            name = f"{case.number}{ending if side == 'before' else case.suffix or ending}"
            (folder / side / name).write_bytes(case.data if side == "before" else case.out)
        raws = folder / f"{side} shown"
        raws.mkdir()
        given = [str(path) for path in sorted((folder / side).iterdir())]
        command = ["mogrify", "-format", "rgba", "-depth", "16", "-path", str(raws)]
        subprocess.run([*command, *given], check=False, capture_output=True)
        shown[side] = {path.stem.partition("-")[0]: path for path in sorted(raws.iterdir(), reverse=True)}
    for case in cases:
        files = [shown[side].get(str(case.number)) for side in ("before", "after")]
        if None in files:
            if files != [None, None]:
                case.faults.append("ImageMagick reads only one of both")
            continue
        before, after = (np.frombuffer(file.read_bytes(), np.uint16) for file in files if file)
        height, width = case.reach.shape
        stored = (width, height) if case.turn > 4 else (height, width)
        size = height * width * 4
        if before.size < size or before.size != after.size or not np.array_equal(before[size:], after[size:]):
            case.faults.append("ImageMagick: another size, or a further page is another one")
            continue
        upright_now = (height, width) if case.suffix == ".jpg" else stored
        compared(case, "ImageMagick", before[:size].reshape(*stored, 4), after[:size].reshape(*upright_now, 4))


def told(folder: Path) -> dict[str, dict[str, Any]]:
    """What exiftool says of each file of a folder, films behind pictures included."""
    command = ["exiftool", "-json", "-G1", "-a", "-u", "-n", "-ee", str(folder)]
    said = subprocess.run(command, check=False, capture_output=True, text=True).stdout
    return {Path(one["SourceFile"]).stem: one for one in json.loads(said)}


def by_exiftool(cases: list[Tried], folder: Path) -> None:
    """Note what metadata are gone or are others; run after `by_magick`, which lays the files out."""
    before, after = told(folder / "before"), told(folder / "after")
    for case in cases:
        old, new = before[str(case.number)], after[str(case.number)]
        moved = {str(value) for value in new.values()} if case.suffix else set()
        for key, value in old.items():
            if (
                new.get(key) != value
                and str(value) not in moved
                and not STORAGE.match(key)
                and not may_change(case, key)
            ):
                case.faults.append(f"exiftool: {key} was {str(value)[:60]!r}, is {str(new.get(key))[:60]!r}")


def may_change(case: Tried, key: str) -> bool:
    """Whether a fact tells of how this very kind of file stores its pixels."""
    few = key.startswith(("PNG:", "File:", "IFD0:")) and any(word in case.name for word in FEW_COLOURS)
    other = case.suffix and key.startswith(("GIF:", "QuickTime:", "Meta:", "File:", "Composite:", "IFD0:Orientation"))
    return bool(few or other)


def run(names: list[str], task: str, folder: Path) -> list[Tried]:
    """Change these files of the corpus and let the other programs look at them."""
    made = corpus()
    cases = [tried(number, name, made[name], task) for number, name in enumerate(names)]
    for case in cases:
        if case.fate.startswith("stays") and case.out != case.data:
            case.faults.append("stays, but not by its bytes")
    changed = [case for case in cases if case.fate == "changed"]
    for case in changed:
        by_vips(case)
    if shutil.which("mogrify"):
        by_magick(changed, folder)
        if shutil.which("exiftool"):
            by_exiftool(changed, folder)
    return cases


def faults(cases: list[Tried]) -> dict[str, list[str]]:
    return {case.name: case.faults for case in cases if case.faults}


def test_a_selection_of_all_kinds_is_whole_outside_of_the_changes(tmp_path: Path) -> None:
    cases = run(list(corpus())[::12], "restore", tmp_path)

    assert faults(cases) == {}
    assert sum(case.fate == "changed" for case in cases) > 20


@pytest.mark.slow  # 365 files, each read by three other programs
@pytest.mark.parametrize("task", EDITS)
def test_every_kind_of_photo_is_its_own_bytes_or_whole_outside_of_the_changes(task: str, tmp_path: Path) -> None:
    cases = run(list(corpus()), task, tmp_path)

    assert faults(cases) == {}
    assert {case.name: case.fate for case in cases if case.fate != "changed"} == UNCHANGED
    assert len(cases) - len(UNCHANGED) >= 300
