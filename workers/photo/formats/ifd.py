"""Directories of TIFF, BigTIFF and EXIF as bytes: entries are read, copied and dropped without understanding them.

Values of tags nobody knows keep their bytes and their places, and so do makers' notes, which hold offsets of their own.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

SIZES = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8,
}  # fmt: skip
MOST_DIRECTORIES = 10_000
DEPTH = 3
"""Of directories below the first one: EXIF, and interoperability below it."""
EXIF_POINTER, GPS_POINTER, INTEROP_POINTER, SUB_DIRECTORIES = 0x8769, 0x8825, 0xA005, 0x014A
SHORT, LONG, LONG8, BYTE, UNDEFINED = 3, 4, 16, 1, 7


@dataclass(frozen=True, kw_only=True)
class Form:
    """How a file writes numbers: byte order, and whether it is a BigTIFF."""

    order: Literal["<", ">"]
    big: bool

    @property
    def entry(self) -> int:
        """Bytes of one entry."""
        return 20 if self.big else 12

    @property
    def word(self) -> str:
        """The struct of counts and offsets."""
        return f"{self.order}{'Q' if self.big else 'L'}"

    @property
    def room(self) -> int:
        """Bytes of a value that stands in its entry."""
        return 8 if self.big else 4

    @property
    def counter(self) -> str:
        """The struct of the number of entries."""
        return f"{self.order}{'Q' if self.big else 'H'}"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One entry; `place` is its own in the file, `at` that of its value."""

    tag: int
    kind: int
    count: int
    place: int
    at: int

    @property
    def length(self) -> int:
        """Bytes of the value."""
        return SIZES.get(self.kind, 1) * self.count


def form_of(data: bytes | bytearray | memoryview) -> Form:
    """Return how a block writes numbers.

    Raises:
        ValueError: it begins like no TIFF.
    """
    head = bytes(data[:8])
    orders: tuple[tuple[bytes, Literal["<", ">"]], ...] = ((b"II", "<"), (b"MM", ">"))
    for mark, order in orders:
        if head.startswith(mark) and len(head) == 8:
            number = struct.unpack_from(f"{order}H", head, 2)[0]
            if number == 42 or (number == 43 and head[4:8] == struct.pack(f"{order}HH", 8, 0)):
                return Form(order=order, big=number == 43)
    raise ValueError("no TIFF")


def first(data: bytes | bytearray | memoryview, form: Form) -> int:
    """Return where the first directory lies."""
    return _unpack(form.word, data, 8 if form.big else 4)


def entries(data: bytes | bytearray | memoryview, place: int, form: Form) -> list[Entry]:
    """Return the entries of a directory; none where it lies outside, those that are whole where it is cut off."""
    size = struct.calcsize(form.counter)
    if not 8 <= place <= len(data) - size:
        return []
    found = []
    for number in range(min(_unpack(form.counter, data, place), MOST_DIRECTORIES)):
        at = place + size + form.entry * number
        if at + form.entry > len(data):
            break
        tag, kind = struct.unpack_from(f"{form.order}HH", data, at)
        count = _unpack(form.word, data, at + 4)
        value = at + form.entry - form.room
        entry = Entry(tag=tag, kind=kind, count=count, place=at, at=value)
        if entry.length > form.room:
            entry = Entry(tag=tag, kind=kind, count=count, place=at, at=_unpack(form.word, data, value))
        found.append(entry)
    return found


def following(data: bytes | bytearray | memoryview, place: int, form: Form) -> int:
    """Return where the next directory of the chain lies; 0 for none."""
    size = struct.calcsize(form.counter)
    if not 8 <= place <= len(data) - size:
        return 0
    return _unpack(form.word, data, place + size + form.entry * _unpack(form.counter, data, place))


def chain(data: bytes | bytearray | memoryview, form: Form) -> Iterator[int]:
    """Yield the place of each directory of the chain, once."""
    place, seen = first(data, form), set[int]()
    while place and place not in seen and len(seen) < MOST_DIRECTORIES:
        seen.add(place)
        yield place
        place = following(data, place, form)


def all_directories(data: bytes | bytearray | memoryview, form: Form) -> list[int]:
    """Return the places of all directories: those of the chain and all that they point to, positions left out."""
    waiting, seen = list(chain(data, form)), dict[int, None]()
    while waiting and len(seen) < MOST_DIRECTORIES:
        place = waiting.pop(0)
        if place in seen:
            continue
        seen[place] = None
        for entry in entries(data, place, form):
            if entry.tag in (EXIF_POINTER, INTEROP_POINTER, SUB_DIRECTORIES):
                waiting.extend(numbers(data, entry, form))
    return list(seen)


def numbers(data: bytes | bytearray | memoryview, entry: Entry, form: Form) -> list[int]:
    """Return the whole numbers of an entry; none where it has others or lies outside."""
    kinds = {1: "B", 3: "H", 4: "L", 13: "L", 16: "Q", 18: "Q"}
    if entry.kind not in kinds or entry.at + entry.length > len(data):
        return []
    return list(struct.unpack_from(f"{form.order}{entry.count}{kinds[entry.kind]}", data, entry.at))


def value(data: bytes | bytearray | memoryview, entry: Entry) -> bytes:
    """Return the bytes of an entry's value."""
    return bytes(data[entry.at : entry.at + entry.length])


def directory(
    data: bytes | bytearray, place: int, form: Form, changed: Mapping[int, tuple[int, bytes] | None], at: int
) -> bytes:
    """Return a directory with some entries changed and the others as they are, and the new values behind it.

    Args:
        data: the file.
        place: of the old directory.
        form: of the file.
        changed: kind and value of tags that are new, None for those that go.
        at: where the new directory will lie.
    """
    kept = {entry.tag: bytes(data[entry.place : entry.place + form.entry]) for entry in entries(data, place, form)}
    new = {tag: given for tag, given in changed.items() if given is not None}
    tags = sorted((kept.keys() - changed.keys()) | new.keys())
    head = struct.calcsize(form.counter) + form.entry * len(tags) + form.room
    out, values = [struct.pack(form.counter, len(tags))], bytearray()
    for tag in tags:
        if tag not in new:
            out.append(kept[tag])
            continue
        kind, given = new[tag]
        field = given
        if len(given) > form.room:
            field = struct.pack(form.word, at + head + len(values))
            values += given + bytes(len(given) % 2)
        count = struct.pack(form.word, len(given) // SIZES[kind])
        out.append(struct.pack(f"{form.order}HH", tag, kind) + count + field.ljust(form.room, b"\0"))
    return b"".join(out) + struct.pack(form.word, following(data, place, form)) + bytes(values)


def alone(data: bytes | bytearray, wanted: Iterable[int]) -> bytes:
    """Return the wanted tags of the first directory, with the EXIF and GPS directories they point to, as a block.

    Values are copied byte by byte; texts of any encoding stay what they are.
    """
    form = form_of(data)
    small = Form(order=form.order, big=False)
    mark = b"II*\0" if form.order == "<" else b"MM\0*"
    out = bytearray(mark + struct.pack(small.word, 8))
    _copy(data, entries(data, first(data, form), form), form, small, frozenset(wanted), out)
    return bytes(out)


def _copy(
    data: bytes | bytearray,
    found: list[Entry],
    form: Form,
    small: Form,
    wanted: frozenset[int] | None,
    out: bytearray,
    depth: int = 0,
) -> None:
    kept = [entry for entry in found if wanted is None or entry.tag in wanted]
    kept = [e for e in kept if e.kind in SIZES and e.kind < LONG8 and e.at + e.length <= len(data)]
    here = len(out)
    out += struct.pack(small.counter, len(kept)) + bytes(small.entry * len(kept) + 4)
    for number, entry in enumerate(sorted(kept, key=lambda e: e.tag)):
        given, kind, count = value(data, entry), entry.kind, entry.count
        if entry.tag in (EXIF_POINTER, GPS_POINTER, INTEROP_POINTER) and depth < DEPTH:
            below = (numbers(data, entry, form) or [0])[0]
            given, kind, count = struct.pack(small.word, len(out) + len(out) % 2), LONG, 1
            out += bytes(len(out) % 2)
            _copy(data, entries(data, below, form), form, small, None, out, depth + 1)
        elif len(given) > 4:
            out += bytes(len(out) % 2)
            place = struct.pack(small.word, len(out))
            out += given
            given = place
        at = here + 2 + small.entry * number
        struct.pack_into(f"{small.order}HHL", out, at, entry.tag, kind, count)
        out[at + 8 : at + 12] = given.ljust(4, b"\0")


def _unpack(form: str, data: bytes | bytearray | memoryview, place: int) -> int:
    if not 0 <= place <= len(data) - struct.calcsize(form):
        return 0
    return int(struct.unpack_from(form, data, place)[0])
