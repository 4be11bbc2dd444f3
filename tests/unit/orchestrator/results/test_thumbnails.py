"""Thumbnails: small, made once, and never left behind by an erase that runs beside."""

from __future__ import annotations

import hashlib
import io

import pytest
from PIL import Image

from orchestrator.errors import InputError, NotFoundError
from orchestrator.results import thumbnails
from orchestrator.storage import ByteStore, content_key
from tests.unit.orchestrator.played import picture


def put(store: ByteStore, data: bytes) -> tuple[str, str]:
    """Store a picture and return its key and hash."""
    sha256 = hashlib.sha256(data).hexdigest()
    key = content_key("local", sha256, ".png")
    store.put(key, data, media_type="image/png")
    return key, sha256


def test_a_large_picture_becomes_small_and_keeps_its_proportions(store: ByteStore) -> None:
    made = Image.open(io.BytesIO(thumbnails.make(picture(size=1024))))

    assert (made.format, made.size) == ("WEBP", (thumbnails.SIDE, thumbnails.SIDE))
    with pytest.raises(InputError):
        thumbnails.make(b"<svg onload=alert(1)>")


def test_it_is_made_once(store: ByteStore) -> None:
    key, sha256 = put(store, picture(size=640))
    first = thumbnails.get(store, key, key, sha256, check=lambda: None)
    store.delete(key)

    assert thumbnails.get(store, key, key, sha256, check=lambda: None) == first


def test_an_erase_that_runs_beside_leaves_no_thumbnail(store: ByteStore) -> None:
    key, sha256 = put(store, picture(size=640))

    def erased() -> None:
        store.delete(key)  # the thumbnail was looked for before it was there
        raise NotFoundError("there is no such picture", code="picture_not_found")

    with pytest.raises(NotFoundError):
        thumbnails.get(store, key, key, sha256, check=erased)
    assert list(store.list()) == []
