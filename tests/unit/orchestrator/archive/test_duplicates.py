"""The same photo is restored once; photos that only look alike are reported and never merged unasked."""

from __future__ import annotations

import time

import numpy as np

from orchestrator.archive.duplicates import Album, Look, Twin


def look(key: str, *, sha: str = "", pixels: str = "", phash: int = 0x0123456789ABCDEF, size: int = 300) -> Look:
    return Look(
        key=key, sha256=sha or f"file {key}", pixels_sha256=pixels or f"pixels {key}", phash=f"{phash:016x}",
        width=size, height=200,
    )  # fmt: skip


def test_the_same_file_is_there_once() -> None:
    album = Album()

    assert album.add(look("a", sha="1")) is None
    assert album.add(look("b", sha="1", pixels="x")) == Twin(key="b", of="a", how="bytes", merge=True)


def test_the_same_pixels_in_another_file_are_there_once() -> None:
    album = Album()
    album.add(look("a.png", pixels="1"))

    assert album.add(look("a.bmp", pixels="1")) == Twin(key="a.bmp", of="a.png", how="pixels", merge=True)
    assert album.add(look("again.bmp", sha="file a.bmp")) == Twin(key="again.bmp", of="a.png", how="bytes", merge=True)


def test_photos_that_look_alike_but_differ_are_named_and_not_merged() -> None:
    album = Album()
    album.add(look("shot 1"))

    twin = album.add(look("shot 2", phash=0x0123456789ABCDEF ^ 0b111))

    assert twin == Twin(key="shot 2", of="shot 1", how="near", merge=False)
    # and it is a photo of its own for those that follow
    assert album.add(look("copy", sha="file shot 2")) == Twin(key="copy", of="shot 2", how="bytes", merge=True)


def test_the_caller_may_merge_what_looks_alike() -> None:
    album = Album(merge_near=True)
    album.add(look("large", size=3000))

    assert album.add(look("b", size=3000, phash=0x0123456789ABCDEE)) == Twin(
        key="b", of="large", how="near", merge=True
    )
    # a chain of small steps does not drift away from the first one
    assert album.add(look("c", size=3000, phash=0x0123456789ABCDEE ^ 0b11110)) is None


def test_another_shape_or_a_flat_picture_is_no_twin() -> None:
    album = Album()
    album.add(look("a"))
    album.add(look("flat", phash=0))

    assert album.add(look("wide", size=400)) is None
    assert album.add(look("also flat", phash=0)) is None


def test_twenty_thousand_photos_take_seconds() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, 20_000)
    album, began = Album(), time.process_time()

    found = [album.add(look(str(i), phash=int(bits))) for i, bits in enumerate(hashes)]

    assert not any(found)
    assert album.add(look("last", phash=int(hashes[7_777]) ^ 1)) == Twin(key="last", of="7777", how="near", merge=False)
    assert time.process_time() - began < 60
