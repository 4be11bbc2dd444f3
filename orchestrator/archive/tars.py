"""A tar file as a source, packed by gzip, bzip2, xz or not at all: read once from front to end, never by name.

Headers are parsed by tarfile; what is ours is a stream that goes forward only, bounds what a header may claim, and
counts how far a packed archive unpacks.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from typing import IO, BinaryIO, cast

from orchestrator.archive.base import Found, Limits, Refused, moment
from orchestrator.archive.names import as_text
from orchestrator.errors import InputError

MAX_READ = 16 << 20
MAX_GLOBAL_HEADERS = 1000
BROKEN = (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, ValueError, RecursionError, OSError)
SPOOLED = 8 << 20
"""Bytes of a linked file that stay in memory."""
REST = "(the rest of the archive)"


class Tar:
    """An open tar file.

    Raises:
        InputError: `archive_unreadable`, for the archive as a whole.
    """

    def __init__(self, file: BinaryIO, limits: Limits) -> None:
        self._file = file
        self._limits = limits
        self._links: dict[str, list[str]] = {}
        self._first = self._begin()

    def found(self) -> Iterator[Found | Refused]:
        """See Opened; in the order of the archive, hard links last.

        After damage, reading goes on at the next sound header.
        """
        info = self._first
        lost = 0
        while info is not None:
            if info.islnk():
                self._links.setdefault(info.linkname, []).append(info.name)
            elif not info.isdir():
                yield self._member(info)
            self._tar.members.clear()  # type: ignore[attr-defined]  # else it keeps every one
            try:
                info = self._next()
            except tarfile.HeaderError:
                lost += 1
                yield _rest(f"(damaged part {lost})", "a header is damaged; what it stood for is lost")
                info = self._resumed()
            except (*BROKEN, InputError) as error:
                yield _rest(REST, f"the archive cannot be read on: {error}")
                break
        if self._links:
            yield from self._linked()

    def _begin(self) -> tarfile.TarInfo | None:
        """Go to the start of the archive and return its first header."""
        self._file.seek(0)
        self._stream = Forward(_unpacked(self._file), self._file, self._limits)
        try:
            self._tar = tarfile.TarFile(fileobj=self._stream, encoding="utf-8", errors="surrogateescape")
            return self._tar.next()
        except BROKEN as error:
            raise InputError(f"the tar file cannot be read: {error}", code="archive_unreadable") from error

    def _linked(self) -> Iterator[Found | Refused]:
        """Go through the archive once more, and yield the further names of its files; links of links count too."""
        waiting = dict(self._links)
        for target, names in list(waiting.items()):
            for name in names:  # what is linked to a name that is a link itself
                names.extend(further for further in waiting.pop(name, ()) if further not in names)
            waiting[target] = names
        info: tarfile.TarInfo | None = self._begin()
        while info is not None and waiting:
            names = waiting.pop(info.name, []) if info.isreg() else []
            if names:
                yield from self._copies(info, names)
            self._tar.members.clear()  # type: ignore[attr-defined]  # else it keeps every one
            try:
                info = self._next()
            except (*BROKEN, InputError):  # it was told in the first round
                break
        for target, names in waiting.items():
            for name in names:
                said = f"the member is a link to {target[:200]!r}, which the archive does not hold"
                yield _refused(name.encode("utf-8", "surrogateescape"), said, "member_is_link")

    def _copies(self, info: tarfile.TarInfo, names: list[str]) -> Iterator[Found | Refused]:
        """Yield a file under each of its further names, from one copy of its bytes."""
        with tempfile.SpooledTemporaryFile(SPOOLED) as copy:
            if info.size <= self._limits.member_bytes:
                try:
                    shutil.copyfileobj(self._opened(info), copy)
                except (*BROKEN, InputError) as error:
                    for name in names:
                        said = f"the member is damaged in its archive: {error}"
                        yield _refused(name.encode("utf-8", "surrogateescape"), said, "member_damaged")
                    return

            def opened() -> IO[bytes]:
                copy.seek(0)
                return cast(IO[bytes], Unclosed(copy))

            for name in names:
                raw = name.encode("utf-8", "surrogateescape")
                yield Found(raw_path=raw, size=info.size, modified=moment(info.mtime), open=opened)

    def close(self) -> None:
        """See Opened."""
        self._file.close()

    def _next(self) -> tarfile.TarInfo | None:
        try:
            return self._header()
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # typeshed leaves these out
            return None
        except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]  # typeshed lacks it
            raise tarfile.ReadError("it ends without an end mark, as if it were cut off") from None

    def _header(self) -> tarfile.TarInfo:
        if len(self._tar.pax_headers) > MAX_GLOBAL_HEADERS:
            raise tarfile.ReadError("it has far too many global headers")
        before = self._tar.offset
        self._stream.seek(before)
        info = tarfile.TarInfo.fromtarfile(self._tar)
        if self._tar.offset <= before or info.size < 0:  # it would be read again for ever
            raise tarfile.InvalidHeaderError("negative size")  # type: ignore[attr-defined]  # typeshed lacks it
        return info

    def _resumed(self) -> tarfile.TarInfo | None:
        """Look for the next header whose checksum is right; zeros may be a picture's as well as the end."""
        while True:
            self._tar.offset = -(-self._stream.tell() // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            try:
                return self._header()
            except (tarfile.EmptyHeaderError, tarfile.TruncatedHeaderError):  # type: ignore[attr-defined]  # typeshed lacks it
                return None
            except tarfile.HeaderError:
                continue
            except (*BROKEN, InputError):
                return None

    def _member(self, info: tarfile.TarInfo) -> Found | Refused:
        raw = info.name.encode("utf-8", "surrogateescape")
        if info.issym():
            return _refused(raw, "the member is a link; links are not followed", "member_is_link")
        if not info.isreg():
            return _refused(raw, "the member is neither a plain file nor a folder", "member_is_no_file")
        return Found(raw_path=raw, size=info.size, modified=moment(info.mtime), open=lambda: self._opened(info))

    def _opened(self, info: tarfile.TarInfo) -> IO[bytes]:
        opened = self._tar.extractfile(info)
        assert opened is not None, "a plain file can be opened"
        return opened


class Unclosed(io.RawIOBase):
    """A file that its reader may close without closing it for the next one."""

    def __init__(self, file: tempfile.SpooledTemporaryFile[bytes]) -> None:
        super().__init__()
        self._inner = file

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes."""
        return self._inner.read(size)


class Forward(io.RawIOBase):
    """A stream that is read once from front to end: seeking forward reads on, backward only over the last block.

    Args:
        source: unpacks while it is read.
        packed: the file below it; how far it has been read tells the ratio.
        limits: of the ratio.
    """

    def __init__(self, source: IO[bytes], packed: BinaryIO, limits: Limits) -> None:
        super().__init__()
        self._source = source
        self._packed = packed
        self._limits = limits
        self._place = 0
        self._tail = b""
        self._back = 0

    def tell(self) -> int:
        """Return how many unpacked bytes lie before the present place."""
        return self._place - self._back

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes.

        Raises:
            tarfile.ReadError: more is asked for at once than any header needs.
            InputError: `archive_bomb`.
        """
        if not 0 <= size <= MAX_READ:
            raise tarfile.ReadError(f"a header claims to be {size} bytes long")
        kept = self._tail[len(self._tail) - self._back :][:size]
        self._back -= len(kept)
        return kept + self._on(size - len(kept))

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a place further on, or at most a block back.

        Raises:
            tarfile.ReadError: it lies further back.
            InputError: `archive_bomb`.
        """
        assert whence == os.SEEK_SET, "tarfile counts from the start"
        if offset < self._place - len(self._tail):
            raise tarfile.ReadError("a header points backwards")
        self._back = max(0, self._place - offset)
        while self._place < offset and self._on(min(offset - self._place, 1 << 20)):
            pass
        return self.tell()

    def _on(self, size: int) -> bytes:
        piece = self._source.read(size) if size else b""
        self._place += len(piece)
        self._tail = (self._tail + piece[-tarfile.BLOCKSIZE :])[-tarfile.BLOCKSIZE :]
        limits, packed = self._limits, self._packed.tell()
        if self._place > limits.ratio_floor and self._place > limits.ratio * packed:
            raise InputError(
                f"{packed} bytes unpack to over {self._place}, more than {limits.ratio} times", code="archive_bomb"
            )
        return piece


def _unpacked(file: BinaryIO) -> IO[bytes]:
    head = file.read(6)
    file.seek(0)
    if head.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.GzipFile(fileobj=file, mode="rb"))
    if head.startswith(b"BZh"):
        return bz2.BZ2File(file)
    if head.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMAFile(file)
    return file


def _rest(name: str, message: str) -> Refused:
    return _refused(name.encode(), message, "archive_damaged")


def _refused(raw: bytes, message: str, code: str) -> Refused:
    return Refused(path=as_text(raw), raw_path=raw, error=InputError(message, code=code))
