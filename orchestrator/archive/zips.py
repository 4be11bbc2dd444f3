"""A zip file as a source: its directory is read one entry at a time, and each member is opened by where it lies.

The directory is parsed here and not by `zipfile.ZipFile`, which holds every entry in memory, fails as a whole on one
bad name and hides the names' bytes; members are unpacked and checked by zipfile's own reader.
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import IO, BinaryIO, cast

from orchestrator.archive.base import Found, Limits, Refused, moment
from orchestrator.archive.names import as_text
from orchestrator.errors import InputError

_END = struct.Struct("<4s4H2LH")
_END64_PLACE = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_UNIX, _MACOS = 3, 19
_ZIP64, _NTFS, _UNIX_TIMES, _STAMP, _OLD_UNIX, _UNICODE_PATH = 0x0001, 0x000A, 0x000D, 0x5455, 0x5855, 0x7075
_TURN = 1 << 32
"""Where offsets of 32 bits begin again from zero, in archives of macOS that are larger and know no zip64."""
_ENCRYPTED, _UTF8 = 0x1, 0x800
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One entry of the directory."""

    raw_path: bytes
    header_name: bytes
    made_on: int
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int
    mode: int
    modified: datetime | None


class Zip:
    """An open zip file.

    Args:
        file: it, for the directory.
        limits: of entries and ratio.
        data: it once more, for the members; a buffered file over a network would lose its buffer at every turn.

    Raises:
        InputError: `archive_unreadable` or `archive_too_large`, for the archive as a whole.
    """

    def __init__(self, file: BinaryIO, limits: Limits, data: BinaryIO | None = None) -> None:
        self._file = file
        self._data = data or file
        self._limits = limits
        self._start, self._end, self._count, self._shift = _directory(file)
        self._turns = self._shift > 0 and self._shift % _TURN == 0
        self._overlapping = self._check()

    def found(self) -> Iterator[Found | Refused]:
        """See Opened; in the order of the directory."""
        for entry in self._entries():
            if not entry.raw_path.endswith(b"/"):
                refusal = self._refusal(entry)
                yield (
                    Refused(path=as_text(entry.raw_path), raw_path=entry.raw_path, error=refusal)
                    if refusal
                    else (self._member(entry))
                )

    def close(self) -> None:
        """See Opened."""
        self._file.close()
        self._data.close()

    def _entries(self) -> Iterator[Entry]:
        place, number, last = self._start, 0, 0
        # the count at the end begins again after 65 535; what lies in the directory is what there is
        while number < self._count or place + _ENTRY.size <= self._end:
            self._file.seek(place)
            if number >= self._count and self._file.read(4) != b"PK\1\2":
                return  # a signature of the directory
            if number >= self._limits.members:
                raise InputError(f"a zip has at most {self._limits.members} entries", code="archive_too_large")
            self._file.seek(place)
            entry, length = _entry(self._file, number, self._limits.names)
            if self._turns:
                last = self._turned(entry, last)
                entry = replace(entry, offset=last)
            place, number = place + length, number + 1
            yield entry

    def _turned(self, entry: Entry, last: int) -> int:
        """Return where a member lies whose offset has only the lower 32 bits: at the next place that begins like it."""
        for offset in range(last // _TURN * _TURN + entry.offset, self._start, _TURN):
            self._file.seek(offset)
            if self._file.read(_LOCAL.size + len(entry.header_name)).endswith(entry.header_name):
                self._file.seek(offset)
                if self._file.read(4) == b"PK\3\4":
                    return offset
        return entry.offset

    def _check(self) -> set[int]:
        """Read the directory once, and return the offsets of members that share bytes, as some bombs do."""
        spans = array("Q")
        for entry in self._entries():
            spans.extend((entry.offset, entry.offset + _LOCAL.size + len(entry.raw_path) + entry.packed))
        order = sorted(range(0, len(spans), 2), key=spans.__getitem__)
        found, reach, last = set(), 0, 0
        for i in order:
            if spans[i] < reach:
                found |= {last, spans[i]}
            if spans[i + 1] > reach:
                reach, last = spans[i + 1], spans[i]
        return found

    def _refusal(self, entry: Entry) -> InputError | None:
        if stat.S_ISLNK(entry.mode):
            return InputError("the member is a link; links are not followed", code="member_is_link")
        if entry.flags & _ENCRYPTED:
            return InputError("the member is encrypted; unpack the archive with its password", code="member_encrypted")
        if entry.method not in _METHODS:
            return InputError(
                f"the member is packed by method {entry.method}, which is not read", code="member_packing"
            )
        if entry.offset in self._overlapping:
            return InputError("the member shares its bytes with another one", code="member_overlaps")
        if entry.size > self._limits.ratio * max(entry.packed, self._limits.ratio_floor // 100 // self._limits.ratio):
            return InputError(
                f"the member unpacks to {entry.size} bytes from {entry.packed}, more than {self._limits.ratio} times",
                code="member_bomb",
            )
        return None

    def _member(self, entry: Entry) -> Found:
        return Found(
            raw_path=entry.raw_path, size=entry.size, modified=entry.modified, open=lambda: self._opened(entry)
        )

    def _opened(self, entry: Entry) -> IO[bytes]:
        self._data.seek(entry.offset + (0 if self._turns else self._shift))
        header = self._data.read(_LOCAL.size)
        if len(header) < _LOCAL.size or not header.startswith(b"PK\3\4"):
            raise zipfile.BadZipFile("no member begins where the directory says")
        *_, name_length, extra_length = _LOCAL.unpack(header)
        self._data.seek(name_length + extra_length, os.SEEK_CUR)
        info = zipfile.ZipInfo("member")  # the name serves nothing but the reader's messages
        info.compress_type, info.CRC = entry.method, entry.crc
        info.compress_size, info.file_size = entry.packed, entry.size
        return cast(IO[bytes], zipfile.ZipExtFile(self._data, "r", info, None, False))


def _directory(file: BinaryIO) -> tuple[int, int, int, int]:
    """Return where the directory starts and ends, how many entries it says to have, and how far offsets are off."""
    size = file.seek(0, os.SEEK_END)
    tail_start = max(0, size - _END.size - 65_535)
    file.seek(tail_start)
    tail = file.read()
    place = tail.rfind(b"PK\5\6")
    if place < 0 or place + _END.size > len(tail):
        raise _unreadable("it has no directory at its end, as if it were cut off")
    _, _, _, _, count, length, offset, _ = _END.unpack_from(tail, place)
    end = tail_start + place
    if count == 0xFFFF or 0xFFFFFFFF in (length, offset):
        end, count, length, offset = _directory64(file, end, (count, length, offset))
    start = end - length
    if start < 0 or offset > start or count * _ENTRY.size > length:
        raise _unreadable("its directory lies outside of the file")
    return start, end, count, start - offset


def _directory64(file: BinaryIO, end: int, small: tuple[int, int, int]) -> tuple[int, int, int, int]:
    file.seek(max(0, end - _END64_PLACE.size))
    locator = file.read(_END64_PLACE.size)
    if not locator.startswith(b"PK\6\7") or len(locator) < _END64_PLACE.size:
        return end, *small  # exactly that many entries, and no larger directory
    place = _END64_PLACE.unpack(locator)[2]
    if place > end:
        raise _unreadable("its directory lies outside of the file")
    file.seek(place)
    record = file.read(_END64.size)
    if len(record) < _END64.size or not record.startswith(b"PK\6\6"):
        raise _unreadable("its directory is damaged")
    *_, count, length, offset = _END64.unpack(record)
    return place, count, length, offset


def _entry(file: BinaryIO, number: int, names: str) -> tuple[Entry, int]:
    header = file.read(_ENTRY.size)
    if len(header) < _ENTRY.size or not header.startswith(b"PK\1\2"):
        raise _unreadable(f"its directory is damaged at entry {number + 1}")
    (_, made, _, flags, method, clock, day, crc, packed, size, name_length, extra_length, comment_length) = (
        _ENTRY.unpack(header)[:13]
    )
    attributes, offset = _ENTRY.unpack(header)[-2:]
    name = file.read(name_length)
    extra = _extras(file.read(extra_length))
    size, packed, offset = _wide(extra.get(_ZIP64, b""), size, packed, offset)
    made_on = made >> 8
    entry = Entry(
        raw_path=_name(name, flags, made_on, extra, names),
        header_name=name,
        made_on=made_on,
        flags=flags,
        method=method,
        crc=crc,
        packed=packed,
        size=size,
        offset=offset,
        mode=attributes >> 16 if made_on in (_UNIX, _MACOS) else 0,
        modified=_modified(extra, day, clock),
    )
    return entry, _ENTRY.size + name_length + extra_length + comment_length


def _extras(data: bytes) -> dict[int, bytes]:
    found = {}
    while len(data) >= 4:
        kind, length = struct.unpack_from("<HH", data)
        found[kind] = data[4 : 4 + length]
        data = data[4 + length :]
    return found


def _wide(extra: bytes, *values: int) -> list[int]:
    """Return the values, each that is all ones replaced by the next number of the zip64 field."""
    wide = iter(struct.unpack(f"<{len(extra) // 8}Q", extra[: len(extra) // 8 * 8]))
    return [next(wide, value) if value == 0xFFFFFFFF else value for value in values]


def _name(raw: bytes, flags: int, made_on: int, extra: dict[int, bytes], names: str) -> bytes:
    """Return the name in UTF-8: of the Unicode field, or marked so, or valid as such (most tools), else decoded."""
    field = extra.get(_UNICODE_PATH, b"")
    if len(field) > 5 and field[0] == 1 and struct.unpack_from("<L", field, 1)[0] == zlib.crc32(raw):
        raw = field[5:]
    elif not flags & _UTF8:
        try:
            raw.decode()
        except UnicodeDecodeError:
            raw = raw.decode(names, "surrogateescape").encode("utf-8", "surrogateescape")
    return raw if made_on in (_UNIX, _MACOS) else raw.replace(b"\\", b"/")


def _modified(extra: dict[int, bytes], day: int, clock: int) -> datetime | None:
    """Return the time of a member: of the fields for it, or DOS's own in the zone of this machine."""
    stamp = extra.get(_STAMP, b"")
    if len(stamp) >= 5 and stamp[0] & 1:
        return moment(struct.unpack_from("<i", stamp, 1)[0])
    ntfs = extra.get(_NTFS, b"")
    if len(ntfs) >= 16 and struct.unpack_from("<HH", ntfs, 4) >= (1, 8):
        ticks = struct.unpack_from("<Q", ntfs, 8)[0]  # tenths of microseconds since 1601
        try:
            return datetime(1601, 1, 1, tzinfo=UTC) + timedelta(microseconds=ticks // 10)
        except OverflowError:
            return None
    for kind in (_OLD_UNIX, _UNIX_TIMES):
        if len(extra.get(kind, b"")) >= 8:
            return moment(struct.unpack_from("<i", extra[kind], 4)[0])
    try:
        local = datetime(
            1980 + (day >> 9), day >> 5 & 15, day & 31, clock >> 11, clock >> 5 & 63, min(clock % 32 * 2, 59)
        )
        return local.astimezone(UTC)  # DOS knows no zones: ours is the best guess
    except (ValueError, OverflowError, OSError):  # none, as writers of streams leave it
        return None


def _unreadable(reason: str) -> InputError:
    return InputError(f"the zip file cannot be read: {reason}", code="archive_unreadable")
