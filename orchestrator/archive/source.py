"""From what a person typed to photos, one at a time: `with open_source("scans.zip") as source: ...`

Memory stays the same at any size: nothing is unpacked ahead, and only a digest of each name is kept.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, BinaryIO, TypeVar

from orchestrator.archive.base import Found, Limits, Member, Opened, Photo, Refused, Skipped
from orchestrator.archive.folder import Folder, glob_source
from orchestrator.archive.kinds import HEAD, judge
from orchestrator.archive.names import as_text, safe_path
from orchestrator.archive.tars import Tar
from orchestrator.archive.zips import Zip
from orchestrator.errors import ForbiddenError, InputError, NotFoundError

if TYPE_CHECKING:
    from orchestrator.archive.bucket import Bucket, Place
    from orchestrator.archive.reach import Reach

T = TypeVar("T")
BUFFER = 1 << 16
SIDE_FILE_BYTES = 1 << 20
BROKEN = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, tarfile.TarError, NotImplementedError, ValueError)
"""What Python's readers raise where a member is not what its archive says."""
PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")
TAR_NAME = re.compile(r"\.(tar(\.\w+)?|t[gbx]z2?)$")
_OTHER_ARCHIVE = (b"Rar!\x1a\7", b"7z\xbc\xaf\x27\x1c", b"\x28\xb5\x2f\xfd")


class Source:
    """An open source; a context manager."""

    def __init__(self, opened: Opened, limits: Limits) -> None:
        self._opened = opened
        self._limits = limits
        self.side_files: tuple[str, ...] = ()
        """Endings, such as `.txt`, of members that are no photos but whose text is wanted with them."""

    def __enter__(self) -> Source:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._opened.close()

    def members(self) -> Iterator[Member]:
        """Yield every member but folders, in an order that stays the same; may be called once.

        A member that is bad in any way is Refused, and the next one follows.

        Raises:
            StoreUnavailableError: a bucket cannot be read any more.
        """
        seen: set[bytes] = set()
        for found in self._opened.found():
            member = found if isinstance(found, Refused) else self._judged(found)
            yield _unlike(member, seen)
            if member.stream is not None:
                member.stream.close()

    def _judged(self, found: Found) -> Member:
        raw, most = found.raw_path, self._limits.member_bytes
        try:
            path = safe_path(raw)
            stream = io.BufferedReader(MemberReader(found, max(most, found.size)), BUFFER)
            kind = judge(path, stream.peek(HEAD)[:HEAD], found.size)
        except InputError as error:
            return Refused(path=as_text(raw), raw_path=raw, error=error)
        refusal = kind.error
        if kind.media_type and found.size > most:
            said = f"a photo holds at most {most / 2**20:g} MiB, this one {found.size / 2**20:.0f} MiB"
            refusal = InputError(said, code="image_too_large")
        if refusal is not None:
            return Refused(path=path, raw_path=raw, error=refusal, modified=found.modified, stream=stream)
        if kind.media_type:
            return Photo(
                path=path,
                raw_path=raw,
                size=found.size,
                modified=found.modified,
                media_type=kind.media_type,
                notes=kind.notes,
                stream=stream,
            )
        wanted = self.side_files and path.lower().endswith(self.side_files)
        return Skipped(
            path=path,
            raw_path=raw,
            reason=kind.reason,
            text=stream.read(SIDE_FILE_BYTES) if wanted else None,
            left_behind=kind.left_behind,
            modified=found.modified,
            stream=stream,
        )


class MemberReader(io.RawIOBase):
    """The bytes of one member, counted; whatever goes wrong below becomes an InputError of that member."""

    def __init__(self, found: Found, limit: int) -> None:
        super().__init__()
        self._found = found
        self._limit = limit
        self._read = 0
        self._source: IO[bytes] = self._guarded(found.open)

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed names a private protocol
        """Fill the buffer as far as the source goes in one read.

        Raises:
            InputError: `member_damaged`, `member_unreadable`, or `image_too_large` beyond what was claimed.
        """
        piece = self._guarded(lambda: self._source.read(len(buffer)))
        self._read += len(piece)
        if self._read > self._limit:
            raise InputError(f"the member holds more than {self._limit} bytes", code="image_too_large")
        buffer[: len(piece)] = piece
        if not piece and self._read < self._found.size:
            raise InputError(f"the member ends after {self._read} of {self._found.size} bytes", code="member_damaged")
        return len(piece)

    def close(self) -> None:
        """Close the source too."""
        if not self.closed and hasattr(self, "_source"):
            with suppress(*BROKEN, OSError):
                self._source.close()
        super().close()

    def _guarded(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except BROKEN as error:
            raise InputError(f"the member is damaged in its archive: {error}", code="member_damaged") from error
        except (OSError, NotFoundError) as error:  # it may be gone by now
            reason = str(error)
            raise InputError(f"the member cannot be read: {reason}", code="member_unreadable") from error


def open_source(source: str | Place, limits: Limits | None = None, reach: Reach | None = None) -> Source:
    """Open a folder, a glob, a zip, a tar (also .gz, .bz2, .xz), a single photo, or any of these in `s3://bucket/...`.

    Args:
        source: what somebody named, or a place in a bucket that may be read.
        limits: of the source.
        reach: which buckets may be named; None for none.

    Raises:
        ForbiddenError: `bucket_not_granted`.
        NotFoundError: `source_missing`.
        UsageError: `bad_pattern`.
        InputError: `archive_unreadable`, `archive_too_large` or `archive_unsupported`: the source as a whole.
        StoreUnavailableError: the bucket cannot be listed.
    """
    limits = limits or Limits()
    if not isinstance(source, str) or source.startswith("s3://"):
        # Here, not at the top: importing boto3 takes longer than `fpga --help` may.
        from orchestrator.archive.bucket import Bucket  # noqa: PLC0415

        bucket = Bucket(_place(source, reach))
        return Source(_archive_in(bucket, limits) or bucket, limits)
    path = Path(source)
    if path.is_file():
        return Source(_archive(path, limits) or Folder(path), limits)
    if path.is_dir():
        return Source(Folder(path), limits)
    opened = glob_source(source)
    if opened is None:
        raise NotFoundError(f"there is no file, folder or pattern {source!r}", code="source_missing")
    return Source(opened, limits)


def _place(source: str | Place, reach: Reach | None) -> Place:
    # Here, not at the top: see open_source.
    from orchestrator.archive.bucket import Place  # noqa: PLC0415

    if not isinstance(source, str):
        return source
    Place.of(source)
    if reach is None:
        raise ForbiddenError(f"nobody said who may read {source}", code="bucket_not_granted")
    return reach.place(source, "read")


def _archive(path: Path, limits: Limits) -> Opened | None:
    """Return the archive that a file is, or None for any other file."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", code="archive_unreadable") from error
    try:
        opened = _by_content(path.name, file, limits)
    except InputError:
        file.close()
        raise
    if opened is None:
        file.close()
    return opened


def _archive_in(bucket: Bucket, limits: Limits) -> Opened | None:
    """Return the archive that an object is, or None where the URL is a prefix or another object."""
    file = bucket.object_file()
    return _by_content(bucket.name, file, limits, bucket.object_file()) if file is not None else None


def _by_content(name: str, file: BinaryIO, limits: Limits, again: BinaryIO | None = None) -> Opened | None:
    """Return the archive that a file is, told by its content first and its name last.

    Args:
        name: the file's.
        file: it, at its start.
        limits: of the archive.
        again: another opening of it, where going back and forth is dear.
    """
    head = file.read(HEAD)
    file.seek(0)
    if head.startswith((b"PK\3\4", b"PK\5\6", b"PK\7\x08")):
        return Zip(file, limits, again)
    if head.startswith(PACKED) or head[257:262] == b"ustar":
        return Tar(file, limits)
    if head.startswith(_OTHER_ARCHIVE):
        raise InputError(f"{name} is no zip or tar; other archives are not read", code="archive_unsupported")
    if name.lower().endswith(".zip"):
        return Zip(file, limits, again)
    return Tar(file, limits) if TAR_NAME.search(name.lower()) else None


def _unlike(member: Member, seen: set[bytes]) -> Member:
    """Return the member, or a refusal under a name of its own where another one has its path."""
    digest = hashlib.blake2b(member.path.encode(), digest_size=16).digest()
    if digest not in seen:
        seen.add(digest)
        return member
    number = 2
    while (digest := hashlib.blake2b(f"{member.path}#{number}".encode(), digest_size=16).digest()) in seen:
        number += 1
    seen.add(digest)
    path = f"{member.path}#{number}"
    if not isinstance(member, Photo):
        return replace(member, path=path)
    said = f"the archive has another member named {member.path!r}; the first one counts"
    return Refused(path=path, raw_path=member.raw_path, error=InputError(said, code="member_duplicate"))
