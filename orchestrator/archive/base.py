"""What a source of photos yields, and the limits that every member is held to.

A source reads its own format and says what it found; judging names, sizes and contents is one place for all of them,
`orchestrator.archive.source`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, BinaryIO, Protocol

from orchestrator.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How an archive is read; each member beyond a limit is refused alone, the archive only for `members`.

    Attributes:
        member_bytes: most bytes of one member, unpacked.
        members: most entries of one zip, since its directory is checked as a whole first.
        ratio: most unpacked bytes per packed byte, of a zip member and of a compressed tar as far as it was read.
        ratio_floor: below so many unpacked bytes a tar may have any ratio; of a zip member, a hundredth of it.
        names: code page of names in zips that are no UTF-8 and not marked as such; the default is the format's rule.
    """

    member_bytes: int = 512 * 2**20
    members: int = 1_000_000
    ratio: int = 200
    ratio_floor: int = 1 << 30
    names: str = "cp437"


@dataclass(frozen=True, kw_only=True)
class Found:
    """One member as the source has it; `open` may be called once, before the next member is asked for."""

    raw_path: bytes
    size: int
    modified: datetime | None
    open: Callable[[], IO[bytes]]


@dataclass(frozen=True, kw_only=True)
class Photo:
    """A member that begins like a picture; whether it is a whole one, decoding will tell.

    Attributes:
        path: relative, joined by `/`, safe to write below a folder, different from every other path of the source.
        raw_path: the name's bytes as the source has them.
        size: bytes, as the source claims.
        modified: in UTC.
        media_type: by content, whatever the name says.
        notes: sentences for the record, such as that name and content differ.
        stream: the bytes, forward only, until the next member is asked for; reading raises InputError where the
            member is damaged.
    """

    path: str
    raw_path: bytes
    size: int
    modified: datetime | None
    media_type: str
    notes: tuple[str, ...]
    stream: BinaryIO


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A member that should be a photo and cannot be one; `path` is for people and ledgers, not for writing.

    `stream` has its bytes where it has a name to write them to, until the next member is asked for.
    """

    path: str
    raw_path: bytes
    error: InputError
    modified: datetime | None = None
    stream: BinaryIO | None = None


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A member that is no photo and does not claim to be; `text` is a side file's, where those were asked for.

    Attributes:
        left_behind: whether a system or a program left it, so that nobody misses it.
        stream: its bytes, until the next member is asked for.
    """

    path: str
    raw_path: bytes
    reason: str
    text: bytes | None = None
    left_behind: bool = False
    modified: datetime | None = None
    stream: BinaryIO | None = None


Member = Photo | Refused | Skipped


class Opened(Protocol):
    """An open folder, zip, tar or bucket."""

    def found(self) -> Iterator[Found | Refused]:
        """Yield every member that is no folder, in an order that stays the same."""

    def close(self) -> None:
        """Let go of files and connections."""


def moment(seconds: float) -> datetime | None:
    """Return a file time in UTC, or None where a stranger wrote one that no calendar has."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
