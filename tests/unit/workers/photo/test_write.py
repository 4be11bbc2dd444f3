"""A changed photo is its source except for the changes; an unchanged one is its source to the last byte."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from orchestrator.errors import InputError
from orchestrator.pictures import read_record
from orchestrator.secrets.credentials import Signer, Story, read
from orchestrator.settings import Settings
from tests.unit.workers.photo.pictures import (
    ASTRONAUT,
    PHONE,
    RECORD,
    astronaut,
    decoded,
    deep,
    edit,
    encoded,
    exif,
    grey16,
    swapped_profile,
    tagged_tiff,
    written,
)
from workers.photo import OutputOptions, Patch, encode_photo
from workers.photo.formats.xmp import SOURCE_TYPE
from workers.photo.read import read_native

IMAGE = astronaut()
IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
ALPHA = IMAGE.copy()
ALPHA.putalpha(Image.linear_gradient("L").resize(IMAGE.size))
LOSSLESS: dict[str, bytes] = {
    "png": encoded(IMAGE, "PNG"),
    "png 1": encoded(IMAGE.convert("1"), "PNG"),
    "png L": encoded(IMAGE.convert("L"), "PNG"),
    "png LA": encoded(ALPHA.convert("LA"), "PNG"),
    "png P": encoded(IMAGE.convert("P"), "PNG"),
    "png P transparent": encoded(IMAGE.convert("P"), "PNG", transparency=3),
    "png RGBA": encoded(ALPHA, "PNG"),
    "png 16": deep(3, ".png"),
    "png 16 alpha": deep(4, ".png"),
    "png grey 16": encoded(grey16(), "PNG"),
    "png profile": encoded(IMAGE, "PNG", icc_profile=swapped_profile()),
    "png turned": encoded(IMAGE, "PNG", exif=exif(orientation=6)),
    "tiff": tagged_tiff(IMAGE),
    "tiff lzw": encoded(IMAGE, "TIFF", compression="tiff_lzw"),
    "tiff turned": encoded(IMAGE, "TIFF", exif=exif(orientation=7)),
    "tiff L": encoded(IMAGE.convert("L"), "TIFF"),
    "tiff P": encoded(IMAGE.convert("P"), "TIFF"),
    "tiff RGBA": encoded(ALPHA, "TIFF"),
    "tiff CMYK": encoded(IMAGE.convert("CMYK"), "TIFF", compression="tiff_adobe_deflate"),
    "tiff 16": deep(3, ".tif"),
    "tiff grey 16": encoded(grey16(), "TIFF"),
    "webp lossless": encoded(IMAGE, "WEBP", lossless=True),
    "webp lossless alpha": encoded(ALPHA, "WEBP", lossless=True, exact=True),
    "bmp": encoded(IMAGE, "BMP"),
    "gif": encoded(IMAGE, "GIF"),
}


@pytest.mark.parametrize("kind", LOSSLESS)
def test_outside_of_the_changes_every_stored_value_stays(kind: str) -> None:
    data = LOSSLESS[kind]
    rgb, before = decoded(data)
    _, patches = edit(rgb)

    out, head = written(data, patches)

    old, new = read_native(data, 10**7), read_native(out, 10**7)
    assert new.pixels.dtype == old.pixels.dtype
    assert head["outside"] == {"max": 0, "mean": 0, "share": 0}
    seen, after = decoded(out)
    patch = patches[0]
    window = np.s_[patch.top : patch.top + patch.rgba.shape[0], patch.left : patch.left + patch.rgba.shape[1]]
    untouched = np.ones(rgb.shape[:2], bool)
    untouched[window] = patch.rgba[..., 3] == 0
    np.testing.assert_array_equal(seen[untouched], rgb[untouched])
    assert after["facts"]["orientation"] == before["facts"]["orientation"]
    assert after["facts"]["stored_size"] == before["facts"]["stored_size"]
    assert after["facts"]["bits"] == before["facts"]["bits"]
    assert after["facts"]["profile"] == before["facts"]["profile"]
    assert after["facts"]["alpha"] == before["facts"]["alpha"]


@pytest.mark.parametrize("kind", ["png", "png 16", "png profile", "png turned", "tiff turned", "tiff 16", "bmp", "gif"])
def test_inside_the_changes_the_photo_looks_as_wanted(kind: str) -> None:
    rgb, _ = decoded(LOSSLESS[kind])
    wanted, patches = edit(rgb)

    seen, _ = decoded(written(LOSSLESS[kind], patches)[0])

    apart = np.abs(seen.astype(int) - wanted).max()
    assert apart <= (3 if kind == "png profile" else 1 if "16" in kind else 0)


def test_the_soft_edge_of_a_sixteen_bit_photo_keeps_its_fine_steps() -> None:
    ramp = np.tile(np.linspace(20_000, 30_000, 640).astype(np.uint16)[None, :, None], (64, 1, 3))
    data = cv2.imencode(".png", ramp)[1].tobytes()
    rgb, _ = decoded(data)
    faint = np.dstack([np.clip(rgb.astype(int) + 1, 0, 255), np.full(rgb.shape[:2], 10)]).astype(np.uint8)

    out, _ = written(data, [Patch(left=0, top=0, rgba=faint)])

    row = read_native(out, 10**7).pixels[32, :, 0].astype(int)
    assert np.abs(np.diff(row)).max() < 40  # an 8-bit edge would step by 257


def test_what_is_fully_transparent_stays_as_it_is() -> None:
    image = Image.new("RGBA", (64, 64), (9, 8, 7, 0))
    image.paste((50, 60, 70, 255), (0, 0, 32, 64))
    data = encoded(image, "PNG")
    rgb, _ = decoded(data)
    _, patches = edit(rgb)

    out = np.asarray(Image.open(io.BytesIO(written(data, patches)[0])))

    assert (out[:, 32:] == (9, 8, 7, 0)).all()
    assert (out[32, 24:32, :3] != (50, 60, 70)).all()


def test_a_palette_becomes_full_colour_and_it_is_said() -> None:
    _, patches = edit(decoded(LOSSLESS["png P"])[0])

    out, head = written(LOSSLESS["png P"], patches)

    assert Image.open(io.BytesIO(out)).mode == "RGB"
    assert "the palette becomes full colour where the photo is changed" in head["notes"]


@pytest.mark.parametrize("gps", ["keep", "strip"])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_metadata_of_the_source_stay(form: str, gps: str) -> None:
    source = exif(orientation=6)
    if form == "TIFF":
        data = tagged_tiff(IMAGE, icc_profile=swapped_profile())
    else:
        data = encoded(IMAGE, form, exif=source, icc_profile=swapped_profile())
    _, patches = edit(decoded(data)[0])

    out, head = written(data, patches, gps=gps)

    image, old = Image.open(io.BytesIO(out)), Image.open(io.BytesIO(data))
    found, wanted = image.getexif(), old.getexif()
    assert image.info["icc_profile"] == swapped_profile()
    assert found.get(0x0112, 1) == wanted.get(0x0112, 1)
    assert found.get(0x0110) == wanted.get(0x0110)
    assert found.get_ifd(0x8769)[0x9003] == "1999:12:31 23:59:59"
    assert found.get_ifd(0x8769).get(0x927C) == wanted.get_ifd(0x8769).get(0x927C)
    assert dict(found.get_ifd(0x8825)) == (dict(wanted.get_ifd(0x8825)) if gps == "keep" else {})
    assert head["form"] == form
    assert read_record(out) == RECORD


def test_a_jpeg_keeps_its_tables_sampling_scans_and_segments() -> None:
    data = encoded(
        IMAGE,
        "JPEG",
        quality=77,
        subsampling=1,
        progressive=True,
        dpi=(240, 240),
        comment=b"from the attic",
        exif=exif(),
    )
    data = data[:2] + b"\xff\xed\x00\x14Photoshop 3.0\0IPTC" + data[2:]
    _, patches = edit(decoded(data)[0])

    out, head = written(data, patches)

    old, new = Image.open(io.BytesIO(data)), Image.open(io.BytesIO(out))
    assert isinstance(old, JpegImagePlugin.JpegImageFile)
    assert isinstance(new, JpegImagePlugin.JpegImageFile)
    assert new.quantization == old.quantization
    assert JpegImagePlugin.get_sampling(new) == JpegImagePlugin.get_sampling(old) == 1
    assert "the progressive JPEG becomes a sequential one; its pixels stay" in head["notes"]
    assert (new.info["dpi"], new.info["comment"]) == ((240, 240), b"from the attic")
    assert new.info["exif"] == exif()
    assert b"Photoshop 3.0\0IPTC" in out


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_four_colour_jpegs_stay_so(mode: str) -> None:
    data = encoded(IMAGE.convert(mode), "JPEG", quality=92)
    _, patches = edit(decoded(data)[0])

    out, head = written(data, patches)

    assert Image.open(io.BytesIO(out)).mode == mode
    assert head["outside"]["mean"] < 1


def test_jpeg_changes_little_beyond_the_blocks_that_were_touched() -> None:
    data = encoded(Image.open(io.BytesIO(ASTRONAUT)).convert("RGB"), "JPEG", quality=90)
    rgb, _ = decoded(data)
    _, patches = edit(rgb)

    seen, _ = decoded(written(data, patches)[0])

    patch = patches[0]
    far = np.ones(rgb.shape[:2], bool)
    far[
        patch.top - 32 : patch.top + patch.rgba.shape[0] + 32, patch.left - 32 : patch.left + patch.rgba.shape[1] + 32
    ] = False
    apart = np.abs(seen[far].astype(int) - rgb[far])
    assert apart.mean() < 0.3
    assert np.percentile(apart, 99) <= 3


def test_the_small_picture_inside_exif_is_dropped_since_it_shows_the_old_face() -> None:
    data = encoded(IMAGE, "JPEG", exif=exif(preview=b"\xff\xd8OLD FACE\xff\xd9"))
    _, patches = edit(decoded(data)[0])
    assert b"OLD FACE" in data

    out, _ = written(data, patches)

    assert b"OLD FACE" not in out
    assert Image.open(io.BytesIO(out)).getexif().get_ifd(0x8769)[0x927C] == b"note\0of\0the maker"


def test_xmp_of_the_source_stays_and_ours_is_added_once() -> None:
    packet = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description rdf:about="uuid:7" xmlns:dc="http://purl.org/dc/elements/1.1/" dc:format="image/jpeg" '
        b'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" Iptc4xmpExt:DigitalSourceType="camera"/>'
        b"</rdf:RDF></x:xmpmeta>"
    )
    data = encoded(IMAGE, "JPEG", xmp=packet)
    _, patches = edit(decoded(data)[0])

    once = written(data, patches)[0]
    twice = written(once, edit(decoded(once)[0])[1])[0]

    for out in (once, twice):
        found = list(ElementTree.fromstring(Image.open(io.BytesIO(out)).info["xmp"])[0])
        assert [part.get(f"{{{IPTC}}}DigitalSourceType") for part in found] == [None, SOURCE_TYPE]
        assert found[0].get("{http://purl.org/dc/elements/1.1/}format") == "image/jpeg"
        assert {part.get("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}about") for part in found} == {"uuid:7"}
        assert read_record(out) == RECORD
        assert out.count(b"urn:fpga:record:1") == 1


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_a_content_credential_that_no_longer_holds_is_left_out_and_it_is_said(form: str, tmp_path: Path) -> None:
    signer, story = Signer.of(Settings(state_dir=tmp_path)), Story(what="drawn", model={})
    data = signer.sign(encoded(IMAGE, form), f"image/{form.lower()}", story).data
    _, patches = edit(decoded(data)[0])

    out, head = written(data, patches)

    assert read(data, f"image/{form.lower()}", Settings(state_dir=tmp_path)).state == "valid"
    assert read(out, f"image/{form.lower()}", Settings(state_dir=tmp_path)).state == "none"
    assert "a content credential of the source no longer holds and is left out" in head["notes"]


@pytest.mark.parametrize(
    ("level", "kept"), [("none", None), ("minimal", {"schema", "software", "preset"}), ("full", set(RECORD))]
)
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_the_record_is_no_longer_than_its_level_allows(form: str, level: str, kept: set[str] | None) -> None:
    data = encoded(IMAGE, form)
    _, patches = edit(decoded(data)[0])

    out, _ = written(data, patches, level=level)

    record = read_record(out)
    assert (set(record) if record is not None else None) == kept
    assert SOURCE_TYPE.encode() in out


def test_a_record_beside_huge_metadata_stays_out_and_it_is_said() -> None:
    packet = b'<rdf:RDF xmlns:rdf="x">' + b" " * 65_150 + b"</rdf:RDF>"
    data = encoded(IMAGE, "JPEG", xmp=packet)
    _, patches = edit(decoded(data)[0])

    out, head = written(data, patches)

    assert read_record(out) is None
    assert "the record does not fit into the file beside its own metadata; it lies in a side file" in head["notes"]
    assert decoded(out)[0].shape == (120, 160, 3)


def test_heic_becomes_an_upright_jpeg_with_its_metadata() -> None:
    rgb, _ = decoded(PHONE)
    wanted, patches = edit(rgb)

    encoded_ = encode_photo(PHONE, patches, record=RECORD)

    assert (encoded_.media_type, encoded_.suffix) == ("image/jpeg", ".jpg")
    seen, head = decoded(encoded_.data)
    assert seen.shape == rgb.shape
    assert np.abs(seen.astype(int) - wanted).mean() < 2
    assert head["facts"]["gps"]
    assert Image.open(io.BytesIO(encoded_.data)).getexif()[0x0110] == "test phone"


@pytest.mark.parametrize("form", ["JPEG", "TIFF", "AVIF", "WEBP"])
def test_png_can_be_asked_for_instead(form: str) -> None:
    data = encoded(IMAGE, form, exif=exif(orientation=8))
    rgb, _ = decoded(data)
    wanted, patches = edit(rgb)

    result = encode_photo(data, patches, record=RECORD, options=OutputOptions(format="png"))

    assert (result.media_type, result.suffix, result.outside["max"]) == ("image/png", ".png", 0)
    seen, head = decoded(result.data)
    np.testing.assert_array_equal(seen, wanted)
    assert head["facts"]["orientation"] == 8
    assert head["facts"]["gps"]


@pytest.mark.parametrize(
    "data", [ASTRONAUT, PHONE, LOSSLESS["tiff"], encoded(IMAGE, "GIF"), encoded(IMAGE, "JPEG", exif=exif())]
)
def test_an_unchanged_photo_comes_back_to_the_last_byte(data: bytes) -> None:
    nothing = Patch(left=0, top=0, rgba=np.zeros((4, 4, 4), np.uint8))

    for patches in ([], [nothing]):
        result = encode_photo(data, patches, record=RECORD)
        assert result.data == data
        assert (result.changed, result.suffix, result.outside["max"]) == (False, "", 0)


PLACED: dict[str, bytes] = {
    "jpeg": encoded(IMAGE, "JPEG", exif=exif()),
    "png": encoded(IMAGE, "PNG", exif=exif()),
    "webp": encoded(IMAGE, "WEBP", exif=exif()),
    "avif": encoded(IMAGE, "AVIF", exif=exif()),
    "tiff": LOSSLESS["tiff"],
    "heic": PHONE,
    "xmp": encoded(IMAGE, "JPEG", xmp=b'<rdf:Description exif:GPSLatitude="47,22N" dc:format="x"/>'),
}


@pytest.mark.parametrize("kind", PLACED)
def test_positions_are_blanked_in_place_where_that_is_all(kind: str) -> None:
    data = PLACED[kind]
    before, head = decoded(data)
    assert head["facts"]["gps"]

    result = encode_photo(data, [], record=RECORD, options=OutputOptions(gps="strip"))

    after, head = decoded(result.data)
    assert not head["facts"]["gps"]
    assert not result.changed
    np.testing.assert_array_equal(after, before)
    assert len(result.data) == len(data)
    assert b"GPSLatitude" not in result.data
    assert Image.open(io.BytesIO(result.data)).getexif().get(0x0110) == Image.open(io.BytesIO(data)).getexif().get(
        0x0110
    )


def test_a_patch_outside_of_the_photo_is_refused() -> None:
    patch = Patch(left=150, top=0, rgba=np.full((20, 20, 4), 255, np.uint8))

    with pytest.raises(InputError) as caught:
        encode_photo(LOSSLESS["png"], [patch], record=RECORD)

    assert caught.value.code == "patch_outside"


def test_a_patch_travels_as_png() -> None:
    rgba: Any = np.random.default_rng(0).integers(0, 256, (7, 5, 4), np.uint8)

    back = Patch.from_png(Patch(left=3, top=4, rgba=rgba).to_png(), left=3, top=4)

    np.testing.assert_array_equal(back.rgba, rgba)
    assert (back.left, back.top) == (3, 4)


def test_a_real_face_of_a_real_photograph_is_taken_through_and_back() -> None:
    result = encode_photo(ASTRONAUT, edit(decoded(ASTRONAUT)[0])[1], record=RECORD)

    source, out = Image.open(io.BytesIO(ASTRONAUT)), Image.open(io.BytesIO(result.data))
    assert result.outside == {"max": 0, "mean": 0, "share": 0}
    assert (out.size, out.mode, out.info["icc_profile"]) == (source.size, source.mode, source.info["icc_profile"])
    assert out.info["Comment"] == source.info["Comment"]
    assert out.info["dpi"] == source.info["dpi"]
    assert read_record(result.data) == RECORD
