"""Keeps the original of a photo in the byte store before anything else happens to it."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.archive.base import Photo
from orchestrator.ledger import artifacts
from orchestrator.ledger.engine.session import Ledger
from orchestrator.storage import ByteStore, content_key
from orchestrator.storage.streams import spooled

SUFFIXES = {
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/webp": ".webp",
    "image/tiff": ".tif",
    "image/gif": ".gif",
    "image/bmp": ".bmp",
    "image/avif": ".avif",
    "image/heif": ".heic",
}


@dataclass(frozen=True, kw_only=True)
class Original:
    """The stored bytes of a photo; the artifact is pending until a transaction refers to it."""

    artifact_id: str
    key: str
    sha256: str
    size: int
    media_type: str


def keep_original(ledger: Ledger, store: ByteStore, owner: str, photo: Photo) -> Original:
    """Copy a photo's stream into the byte store, hashed on the way, and return where it is.

    Up to 8 MiB of it are in memory, more in a temporary file. The same bytes are stored once per owner.

    Raises:
        InputError: the member is damaged, or larger than it claims; nothing is stored.
        StoreUnavailableError: the store is full or cannot be reached.
        TransientError: the same bytes are being deleted right now.
    """
    with spooled(photo.stream) as (copy, sha256, size):
        key = content_key(owner, sha256, SUFFIXES[photo.media_type])
        artifact_id = artifacts.reserve(
            ledger, owner=owner, sha256=sha256, key=key, size=size, media_type=photo.media_type
        )
        store.put(key, copy, media_type=photo.media_type, sha256=sha256)  # type: ignore[arg-type]  # IO is a BinaryIO
    return Original(artifact_id=artifact_id, key=key, sha256=sha256, size=size, media_type=photo.media_type)
