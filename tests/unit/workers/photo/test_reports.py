"""What people reported of other programs: films and texts that were lost, positions that stayed, colours that turned.

The widest part of it, format by format, is `tests.integration.archive.test_corpus`.
"""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from orchestrator.errors import InputError
from tests.integration.archive.corpus import FILM, XMP, saved, tiff, with_chunks, with_segments
from tests.unit.workers.photo.pictures import RECORD, astronaut, decoded, edit, encoded, exif, written
from workers.photo import OutputOptions, encode_photo
from workers.photo.formats import jpeg as jpegs

IMAGE = astronaut()
PLAIN = encoded(IMAGE, "JPEG")
HERE = b'<rdf:Description exif:GPSLatitude="47,22.5N" exif:GPSLongitude="8,32E" dc:format="image/jpeg"/>'
WIDE = (b"<rdf:RDF>" + HERE + b"</rdf:RDF>").decode().encode("utf-16-le")
PLACES = (b"47,22", b"+47.3701", b"GPSLatitude", b"8,32")
GUID = b"0123456789ABCDEF0123456789ABCDEF"


def changed(data: bytes, **options: str) -> bytes:
    out, head = written(data, edit(decoded(data)[0])[1], **options)
    assert "stays" not in head, head
    return out


def code_of_change(data: bytes) -> str:
    out, head = written(data, edit(decoded(data)[0])[1])
    assert out == data
    return str(head["stays"]["code"])


def stripped(data: bytes) -> bytes:
    return encode_photo(data, [], record=RECORD, options=OutputOptions(gps="strip")).data


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">L", 8 + len(body)) + kind + body


def film(text: bytes = b"+47.3701+008.5336/") -> bytes:
    """A film of QuickTime's form that says where it was taken."""
    place = box(b"\xa9xyz", struct.pack(">HH", len(text), 0x15C7) + text)
    return box(b"ftyp", b"isom\0\0\2\0isommp42") + box(b"moov", box(b"udta", place)) + box(b"mdat", bytes(range(256)))


def extended(packet: bytes, cut: int) -> list[tuple[bytes, bytes]]:
    """XMP over two segments, cut at a place."""
    head = jpegs.XMP_SEGMENT + XMP.replace(b'xmp:Rating="4"', b'xmpNote:HasExtendedXMP="' + GUID + b'"')
    pieces = ((0, packet[:cut]), (cut, packet[cut:]))
    more = [jpegs.XMP_MORE + GUID + struct.pack(">LL", len(packet), at) + piece for at, piece in pieces]
    return [(jpegs.APP1, head), *((jpegs.APP1, body) for body in more)]


def test_exif_that_goes_on_in_a_second_segment_stays_to_the_byte() -> None:
    block = exif() + bytes(range(256)) * 300  # a maker's note of 75 kB behind the directories
    first, second = block[:60_000], jpegs.EXIF_SEGMENT + block[60_000:]
    data = with_segments(PLAIN, (jpegs.APP1, first), (jpegs.APP1, second))

    out = changed(data)

    kept = [body for marker, body in jpegs.segments(out)[0] if body.startswith(jpegs.EXIF_SEGMENT)]
    assert kept == [first, second]


@pytest.mark.parametrize("tail", [film(), FILM, b"\0\0\x40\x0aMotionPhoto_Data" + FILM + b"SEFH\1\0\0\0\x14\0\0\0SEFT"])
def test_a_film_stays_at_the_end_where_its_offset_counts_from(tail: bytes) -> None:
    packet = XMP.replace(b"xmp:Rating", b'GCamera:MicroVideoOffset="%d" xmp:Rating' % len(tail))
    data = with_segments(PLAIN, (jpegs.APP1, jpegs.XMP_SEGMENT + packet)) + tail

    out = changed(data)

    assert out.endswith(tail)
    assert b'GCamera:MicroVideoOffset="%d"' % len(tail) in out


def test_the_index_of_further_pictures_says_where_they_are_now() -> None:
    out = io.BytesIO()
    IMAGE.save(out, "MPO", save_all=True, append_images=[Image.new("L", (32, 24), 90)])

    made = Image.open(io.BytesIO(changed(out.getvalue())))

    assert getattr(made, "n_frames", 1) == 2
    made.seek(1)
    assert made.size == (32, 24)
    assert abs(int(np.asarray(made).mean()) - 90) < 2


@pytest.mark.parametrize("colours", [(12, 13), (9, 16), (9, 18), (1, 8)])
def test_an_avif_of_other_colours_stays_as_it_is(colours: tuple[int, int]) -> None:
    plain = encoded(IMAGE, "AVIF")
    place = plain.index(b"nclx") + 4
    data = plain[:place] + struct.pack(">HH", *colours) + plain[place + 4 :]

    assert code_of_change(data) == "stays_colour"


@pytest.mark.parametrize(
    "data",
    [
        PLAIN + with_segments(PLAIN, (jpegs.APP1, exif())),
        PLAIN + film(),
        with_segments(PLAIN, (jpegs.APP1, exif()), (jpegs.APP1, exif())),
        with_segments(PLAIN, (jpegs.APP1, jpegs.XMP_SEGMENT + HERE)),
        with_segments(PLAIN, *extended(b"<x>" + b" " * 500 + HERE + b"</x>", 300)),
        with_segments(PLAIN, (jpegs.APP1, jpegs.XMP_SEGMENT + WIDE)),
        tiff(np.asarray(IMAGE), 2, photometric="rgb", extratags=[(700, 1, len(HERE), HERE, True)]),
        with_chunks(saved("RGB", "PNG"), (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + HERE)),
        with_chunks(saved("RGB", "PNG"), (b"eXIf", exif()[6:])),
        saved("RGB", "PNG") + film(),
        saved("RGB", "WEBP", exif=exif(), xmp=HERE) + film(),
    ],
)
def test_no_position_stays_in_any_part(data: bytes) -> None:
    out = stripped(data)

    for text in (out, out.replace(b"\0", b"")):
        assert not any(place in text for place in PLACES)
    assert len(out) == len(data)
    assert decoded(out)[1]["facts"]["gps"] is False
    np.testing.assert_array_equal(decoded(out)[0], decoded(data)[0])


@pytest.mark.parametrize("cut", range(0, 90, 6))
def test_a_position_that_is_cut_in_two_by_segments_is_blanked(cut: int) -> None:
    data = with_segments(PLAIN, *extended(b"<x>" + HERE + b"</x>", 3 + cut))

    out = stripped(data)

    joined = b"".join(body[75:] for _, body in jpegs.segments(out)[0] if body.startswith(jpegs.XMP_MORE))
    assert not any(place in joined for place in PLACES)


@pytest.mark.parametrize("track", [b"gpmd", b"camm"])
def test_a_track_of_positions_that_cannot_be_blanked_fails(track: bytes) -> None:
    boxes = box(b"ftyp", b"isom\0\0\2\0") + box(b"moov", box(b"stsd", bytes(8) + box(track, bytes(8)))) + film(b"")

    with pytest.raises(InputError) as caught:
        stripped(PLAIN + boxes)

    assert caught.value.code == "gps_not_erased"


def test_a_position_in_the_second_segment_of_exif_is_blanked() -> None:
    block = exif()[6:]
    order = "<" if block[:2] == b"II" else ">"
    at = struct.unpack_from(f"{order}L", block, 4)[0]
    moved = bytearray(block[:4] + struct.pack(f"{order}L", at) + block[8:])
    count = struct.unpack_from(f"{order}H", moved, at)[0]
    places = [at + 2 + 12 * n for n in range(count)]
    pointer = next(p for p in places if struct.unpack_from(f"{order}H", moved, p)[0] == 0x8825)
    there = struct.unpack_from(f"{order}L", moved, pointer + 8)[0]
    far = 70_000
    struct.pack_into(f"{order}L", moved, pointer + 8, far)
    directory = struct.pack(f"{order}HHHL4sL", 1, 1, 2, 2, b"N\0\0\0", 0)
    whole = bytes(moved) + bytes(far - len(moved)) + directory
    assert there < far
    cut = 60_000
    pieces = (jpegs.EXIF_SEGMENT + whole[:cut], jpegs.EXIF_SEGMENT + whole[cut:])
    data = with_segments(PLAIN, *((jpegs.APP1, piece) for piece in pieces))
    assert decoded(data)[1]["facts"]["gps"]

    out = stripped(data)

    assert decoded(out)[1]["facts"]["gps"] is False
    assert len(out) == len(data)


def test_half_a_picture_is_refused_and_one_without_its_last_mark_is_not() -> None:
    _, head = decoded(PLAIN[:-2])
    assert head["notes"] == ["the mark of the end is missing in the file; the picture is whole"]
    assert changed(PLAIN[:-2])

    for share in (0.5, 0.9):
        with pytest.raises(InputError) as caught:
            decoded(PLAIN[: int(len(PLAIN) * share)])
        assert caught.value.code == "image_truncated"
