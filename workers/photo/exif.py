"""EXIF changed in place: positions are erased, the preview of the old picture dropped, and nothing else moves.

Rewriting a block breaks the makers' notes, which hold offsets of their own; here every byte keeps its place.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

GPS_POINTER = 0x8825
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
MAX_VALUE = 1 << 16
"""Positions are short; a longer value is no position and is left alone."""
ENTRY = 12


class Block:
    """An EXIF block, or a whole TIFF file, which has the same shape.

    Raises:
        ValueError: it does not begin with a byte order and a first directory.
    """

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)
        if data[:4] not in (b"II*\0", b"MM\0*") or len(data) < 8:
            raise ValueError("no EXIF block")
        self._order = "<" if data[:2] == b"II" else ">"
        self._first = self._long(4)

    def has_gps(self) -> bool:
        """Whether a position is recorded."""
        return any(tag == GPS_POINTER for tag, _ in self._entries(self._first))

    def erase_gps(self) -> None:
        """Overwrite the position's directory and values with zeros, and drop the entry that points to them."""
        for tag, place in list(self._entries(self._first)):
            if tag == GPS_POINTER:
                self._erase_directory(self._long(place + 8))
                self._drop_entry(self._first, place)
                return

    def drop_preview(self) -> None:
        """Overwrite the second directory of an EXIF block, with the small picture it describes."""
        link = self._first + 2 + ENTRY * self._count(self._first)
        second = self._long(link)
        if not second:
            return
        values = {tag: self._long(place + 8) for tag, place in self._entries(second)}
        start, length = values.get(0x0201, 0), values.get(0x0202, 0)
        self._zero(start, length)
        self._erase_directory(second)
        self._zero(link, 4)

    def _entries(self, place: int) -> Iterator[tuple[int, int]]:
        for number in range(self._count(place)):
            entry = place + 2 + ENTRY * number
            if entry + ENTRY > len(self.data):
                return
            yield struct.unpack_from(f"{self._order}H", self.data, entry)[0], entry

    def _erase_directory(self, place: int) -> None:
        for _, entry in self._entries(place):
            kind, count = struct.unpack_from(f"{self._order}HL", self.data, entry + 2)
            length = SIZES.get(kind, 1) * count
            if 4 < length <= MAX_VALUE:
                self._zero(self._long(entry + 8), length)
        self._zero(place, 2 + ENTRY * self._count(place) + 4)

    def _drop_entry(self, directory: int, entry: int) -> None:
        count = self._count(directory)
        end = directory + 2 + ENTRY * count + 4
        self.data[entry : end - ENTRY] = self.data[entry + ENTRY : end]
        self._zero(end - ENTRY, ENTRY)
        struct.pack_into(f"{self._order}H", self.data, directory, count - 1)

    def _count(self, place: int) -> int:
        if not 8 <= place <= len(self.data) - 2:
            return 0
        return int(struct.unpack_from(f"{self._order}H", self.data, place)[0])

    def _long(self, place: int) -> int:
        if not 0 <= place <= len(self.data) - 4:
            return 0
        return int(struct.unpack_from(f"{self._order}L", self.data, place)[0])

    def _zero(self, start: int, length: int) -> None:
        if start >= 8 and start + length <= len(self.data):
            self.data[start : start + length] = bytes(length)


def has_gps(exif: bytes | None) -> bool:
    """Whether an EXIF block records a position."""
    try:
        return exif is not None and Block(exif).has_gps()
    except ValueError:
        return False


def without_gps(exif: bytes) -> bytes:
    """Return the block without its position, of the same length."""
    return _changed(exif, Block.erase_gps)


def without_preview(exif: bytes) -> bytes:
    """Return the block without its small picture, of the same length."""
    return _changed(exif, Block.drop_preview)


def _changed(exif: bytes, change: Callable[[Block], None]) -> bytes:
    try:
        block = Block(exif)
    except ValueError:
        return exif
    change(block)
    return bytes(block.data)
