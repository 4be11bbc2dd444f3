"""Small pictures for galleries, made at the first look and kept beside the picture they were made of.

Their key follows from the picture's, so that whoever deletes a picture deletes its thumbnail too (`delete`): nobody
keeps a list of them, and an erased person leaves none.
"""

from __future__ import annotations

import io
from collections.abc import Callable

from PIL import Image

from orchestrator.errors import ConflictError, InputError, NotFoundError
from orchestrator.pictures import BROKEN, MAX_PIXELS, check_picture, open_picture
from orchestrator.storage import ByteStore

MEDIA_TYPE = "image/webp"
SIDE = 320
"""Longest side in px: sharp at the 160 CSS px of a tile on a dense screen."""
QUALITY = 80


def key_of(key: str) -> str:
    """Return the key of the thumbnail of the picture under this key."""
    folder, _, name = key.rpartition("/")
    return f"thumbnails/{folder}/small-{name.partition('.')[0]}.webp".replace("//", "/")


def get(store: ByteStore, key: str, source: str, source_sha256: str, *, check: Callable[[], object]) -> bytes:
    """Return the thumbnail of the picture under `key`, made of the picture under `source` if there is none yet.

    Args:
        check: raises NotFoundError once the picture is no longer to be shown; asked after a thumbnail was stored, so
            that an erase that ran meanwhile leaves none.

    Raises:
        NotFoundError: `picture_not_found`, the source is gone or is no picture that browsers show.
        StoreUnavailableError, TransientError: bytes cannot be read.
    """
    small = key_of(key)
    try:
        return store.get(small)
    except NotFoundError:
        pass
    try:
        made = make(store.get(source, sha256=source_sha256))
        store.put(small, made, media_type=MEDIA_TYPE)
    except (InputError, NotFoundError) as error:
        raise NotFoundError("there is no picture to show", code="picture_not_found") from error
    except ConflictError:  # another process was faster, with another version of the encoder
        made = store.get(small)
    try:
        check()
    except NotFoundError:
        store.delete(small)
        raise
    return made


def make(data: bytes) -> bytes:
    """Return a picture (JPEG, PNG or WebP) as WebP of at most SIDE px; a smaller one keeps its size.

    Raises:
        InputError: it is none, or is damaged.
    """
    check_picture(data, max_pixels=MAX_PIXELS)
    try:
        with open_picture(data) as image:
            image.draft("RGB", (SIDE, SIDE))
            rgb = image.convert("RGB")
    except BROKEN as error:
        raise InputError("the picture is damaged", code="image_corrupt") from error
    rgb.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    rgb.save(out, "WEBP", quality=QUALITY, method=4)
    return out.getvalue()


def delete(store: ByteStore, key: str) -> None:
    """Delete a stored object and the thumbnail that was made of it, the thumbnail first."""
    store.delete(key_of(key))
    store.delete(key)
