"""What a stage calls: photos decoded, or written with their changes, in a guarded child process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import FpgaError, InputError, StageError
from orchestrator.pictures import MAX_BYTES, MEDIA_TYPES, known_format
from workers.photo.guard import Guarded
from workers.photo.patch import Patch, is_changed
from workers.photo.write import OutputOptions

T = TypeVar("T")
Understood = Callable[[dict[str, Any], list[bytes]], T]
CHILD = "workers.photo.child"
BASE_MEMORY = 1 << 30
"""Address space of the child before it has any picture: libraries map much more than they use."""
BYTES_PER_PIXEL = 24
"""Of a 16-bit photo with alpha: its pixels twice, its 8-bit version and the bands on the way."""
SUFFIXES = {"PNG": ".png", "JPEG": ".jpg"}


@dataclass(frozen=True, kw_only=True)
class PhotoLimits:
    """What one photo may take: pixels and bytes of its file, address space of the child (0: by pixels), seconds."""

    pixels: int = 120_000_000
    file_bytes: int = 512 * 2**20
    memory: int = 0
    wall_seconds: float = 300.0

    @classmethod
    def of_pictures(cls, pixels: int) -> Self:
        """Return what a reference or a picture of a data set may take; `check_picture` bounds its bytes too."""
        return cls(pixels=pixels, file_bytes=MAX_BYTES, wall_seconds=60.0)

    def child_memory(self, size: int) -> int:
        """Return the address space for files of this size."""
        return self.memory or BASE_MEMORY + 3 * size + BYTES_PER_PIXEL * self.pixels


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoded:
    """A photo as the networks see it.

    Attributes:
        rgb: (H, W, 3) uint8, sRGB, upright; what is transparent shows white.
        facts: small JSON on the file: format, mode, bits, stored_size, orientation, alpha, profile, gps, frames.
        notes: sentences for the record.
        pixels_sha256: of `rgb` and its shape: the same picture in another container has the same.
        phash: 16 hex digits, see `orchestrator.archive.duplicates`.
    """

    rgb: NDArray[np.uint8]
    facts: dict[str, Any]
    notes: tuple[str, ...]
    pixels_sha256: str
    phash: str


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A photo as a file.

    Attributes:
        data: its bytes; those of the source where nothing was changed.
        media_type: of the bytes.
        suffix: appended to the name where the format is not the source's, else empty.
        changed: whether any pixel was.
        outside: how far pixels differ where nothing was changed, in 8-bit levels: `max`, `mean`, `share`.
        stays: code and sentence of why it was not changed though it was to be, or None.
        aside: whether the record found no place in the file and belongs into a side file.
        notes: sentences for the record.
    """

    data: bytes
    media_type: str
    suffix: str
    changed: bool
    outside: dict[str, float]
    stays: dict[str, str] | None = None
    aside: bool = False
    notes: tuple[str, ...]


@contextmanager
def photo_reader(limits: PhotoLimits) -> Iterator[Callable[[bytes], Decoded]]:
    """Give a `decode_photo` for many pictures: one child decodes them, since a process for each would cost more."""
    with Guarded(CHILD, memory=limits.child_memory(limits.file_bytes)) as child:
        yield lambda data: _ask(child, {"job": "decode"}, [data], limits, _decoded)


def decode_photo(data: bytes, limits: PhotoLimits | None = None) -> Decoded:
    """Decode a photo of any format of `orchestrator.pictures.MEDIA_TYPES`, of 8 or 16 bits.

    Raises:
        InputError: `image_empty`, `not_an_image`, `format_unsupported`, `raw_unsupported`, `image_too_large`,
            `image_truncated`, `image_corrupt`, `image_out_of_memory`, or `image_undecodable` where the child died
            or ran out of time.
    """
    return _alone({"job": "decode"}, [data], limits or PhotoLimits(), _decoded)


def _decoded(head: dict[str, Any], parts: list[bytes]) -> Decoded:
    (pixels,) = parts
    return Decoded(
        rgb=np.frombuffer(pixels, np.uint8).reshape(head["height"], head["width"], 3),
        facts=head["facts"],
        notes=tuple(head["notes"]),
        pixels_sha256=head["pixels_sha256"],
        phash=head["phash"],
    )


def encode_photo(
    data: bytes,
    patches: Sequence[Patch],
    *,
    record: Mapping[str, Any],
    options: OutputOptions | None = None,
    limits: PhotoLimits | None = None,
) -> Encoded:
    """Write a photo with these changes, and measure what differs elsewhere: nothing, where the format allows that.

    Without any change the source's own bytes come back; only positions are blanked in them if that is wanted. So they
    do where a change cannot be written without loss of something else, or a second reader doubts it: see `stays`.

    Args:
        data: the source file.
        patches: what was changed, see `patches_of`.
        record: small JSON that says how; see `docs/archive.md` for what is embedded where.
        options: format, positions, level of the record.
        limits: of the child.

    Raises:
        InputError: as `decode_photo`, `patch_outside`, or `gps_not_erased`.
    """
    options, limits = options or OutputOptions(), limits or PhotoLimits()
    if not is_changed(patches):
        return _unchanged(data, options, limits)
    job = {
        "job": "encode",
        "record": dict(record),
        "options": asdict(options),
        "patches": [{"left": p.left, "top": p.top, "shape": p.rgba.shape} for p in patches],
    }
    made = _alone(job, [data, *(p.rgba.tobytes() for p in patches)], limits, _encoded)
    if made.stays is not None:
        return replace(_unchanged(data, options, limits), stays=made.stays, notes=made.notes)
    return replace(made, suffix="") if MEDIA_TYPES.get(known_format(data)) == made.media_type else made


def _encoded(head: dict[str, Any], parts: list[bytes]) -> Encoded:
    stays = head.get("stays")
    return Encoded(
        data=b"" if stays else parts[0],
        media_type="" if stays else MEDIA_TYPES[head["form"]],
        suffix="" if stays else SUFFIXES.get(head["form"], ""),
        changed=not stays,
        outside={} if stays else head["outside"],
        stays=stays,
        aside=not stays and head["aside"],
        notes=tuple(head["notes"]),
    )


def _unchanged(data: bytes, options: OutputOptions, limits: PhotoLimits) -> Encoded:
    kept = data
    if options.gps == "strip":
        kept = _alone({"job": "strip"}, [data], limits, lambda _, parts: parts[0])
    return Encoded(
        data=kept,
        media_type=MEDIA_TYPES[known_format(data)],
        suffix="",
        changed=False,
        outside={"max": 0, "mean": 0.0, "share": 0.0},
        notes=(),
    )


def _alone(job: dict[str, Any], parts: Sequence[bytes], limits: PhotoLimits, understood: Understood[T]) -> T:
    """Give a job to a child of its own."""
    memory = limits.child_memory(sum(len(part) for part in parts))
    with Guarded(CHILD, memory=memory) as child:
        return _ask(child, job, parts, limits, understood)


def _ask(
    child: Guarded, job: dict[str, Any], parts: Sequence[bytes], limits: PhotoLimits, understood: Understood[T]
) -> T:
    """Give a job to a guarded child and return its answer; what the child says is not believed without a check."""
    size = len(parts[0])
    if size > limits.file_bytes:
        most = limits.file_bytes / 2**20
        raise InputError(f"a photo holds at most {most:g} MiB, got {size / 2**20:.0f} MiB", code="image_too_large")

    def read(head: dict[str, Any], answer: list[bytes]) -> T:
        refusal = _refusal(head)
        if refusal is not None:
            raise refusal
        return understood(head, answer)

    return child.ask({**job, "max_pixels": limits.pixels}, parts, read, wall_seconds=limits.wall_seconds)


def _refusal(head: dict[str, Any]) -> FpgaError | None:
    if "error" not in head:
        return None
    error = head["error"]
    kind = {"InputError": InputError, "StageError": StageError}[head["kind"]]
    return kind(str(error["message"]), code=str(error["code"]), **error.get("details", {}))
