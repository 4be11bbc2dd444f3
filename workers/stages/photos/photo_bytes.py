"""What the stages of a photo share: its original, its faces from the ledger, and small results in the byte store."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import numpy as tensors

from fpga_models.faces import Face
from orchestrator.contracts.base import StoredRef
from orchestrator.contracts.photos import Ingested, KeptFaces, PhotoParams
from orchestrator.errors import InputError, StageError
from orchestrator.ledger import artifacts, photos, stage_results
from orchestrator.ledger.queue.claims import Claim
from orchestrator.storage import content_key
from workers.photo import Decoded, Patch, PhotoLimits, decode_photo
from workers.runtime.stage import StageContext

TENSORS = "application/octet-stream"
PREVIEW_PX = 720


def limits(context: StageContext) -> PhotoLimits:
    """Return what one photo may take."""
    return PhotoLimits(pixels=context.settings.max_photo_pixels, file_bytes=context.settings.max_photo_bytes)


def original(context: StageContext, c: Claim) -> bytes:
    """Return the bytes of the source file.

    Raises:
        InputError: `original_missing`, the source could not be read when the batch was made.
        NotFoundError, TransientError: the store does not have them, or does not answer.
    """
    kept = PhotoParams.load(c.params).original
    if kept is None:
        raise InputError("the file could not be read; restore its source again", code="original_missing")
    return context.store.get(kept.key, sha256=kept.sha256)


def decoded(context: StageContext, c: Claim) -> Decoded:
    """Return the photo as the networks see it.

    Raises:
        InputError: it cannot be decoded.
    """
    return decode_photo(original(context, c), limits(context))


def ingested(context: StageContext, c: Claim) -> Ingested:
    """Return what ingest found, here or, for a photo that is done again, in the batch before.

    Raises:
        StageError: `ingest_missing`.
    """
    if (found := PhotoParams.load(c.params).ingested) is not None:
        return found
    with context.ledger.read() as session:
        said = photos.said(session, c.item_id, Ingested)
    if said is None:
        raise StageError(f"item {c.item_id} was never looked at", code="ingest_missing")
    return said


def kept_looks(context: StageContext, owner: str, key: str) -> list[tuple[Face, float]] | None:
    """Return the faces of a photo, each with what the domain guard measured of it, or None where they were erased."""
    with context.ledger.read() as session:
        kept = stage_results.find(session, owner, key)
    if kept is None or kept.row.data is None:
        return None
    listed = KeptFaces.load(kept.row.facts).faces
    if not listed:
        return []
    if listed[0].domain is None:  # looked at before there was a guard
        return None
    vectors = np.frombuffer(context.vault.open(kept.row.envelope, kept.row.data), np.float32).reshape(len(listed), -1)
    return [
        (
            Face(
                box=np.asarray(face.box, np.float32),
                kps5=np.asarray(face.kps5, np.float32),
                score=face.score,
                embedding=vector,
            ),
            float(face.domain or 0.0),
        )
        for face, vector in zip(listed, vectors, strict=True)
    ]


def store_bytes(context: StageContext, owner: str, data: bytes, suffix: str, media_type: str) -> StoredRef:
    """Put bytes under their hash; the artifact is pending until a transaction refers to it.

    Raises:
        StoreUnavailableError: the store is full or cannot be reached.
    """
    sha256 = hashlib.sha256(data).hexdigest()
    key = content_key(owner, sha256, suffix)
    artifact_id = artifacts.reserve(
        context.ledger, owner=owner, sha256=sha256, key=key, size=len(data), media_type=media_type
    )
    context.store.put(key, data, media_type=media_type, sha256=sha256)
    return StoredRef(artifact_id=artifact_id, key=key, sha256=sha256)


def preview(context: StageContext, owner: str, rgb: NDArray[np.uint8]) -> StoredRef:
    """Store a small JPEG of a picture (H, W, 3), for contact sheets and pages."""
    image = Image.fromarray(rgb)
    image.thumbnail((PREVIEW_PX, PREVIEW_PX), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=88)
    return store_bytes(context, owner, out.getvalue(), ".jpg", "image/jpeg")


def pack_patches(patches: list[Patch]) -> bytes:
    """Return pieces as one safetensors file, places included."""
    state: dict[str, NDArray[Any]] = {}
    for number, patch in enumerate(patches):
        state[f"{number}.rgba"] = np.ascontiguousarray(patch.rgba)
        state[f"{number}.place"] = np.array([patch.left, patch.top], np.int32)
    return tensors.save(state)


def read_patches(context: StageContext, stored: StoredRef | None) -> list[Patch]:
    """Return the pieces that `pack_patches` wrote; none where nothing was stored."""
    if stored is None:
        return []
    state = tensors.load(context.store.get(stored.key, sha256=stored.sha256))
    return [
        Patch(left=int(state[f"{n}.place"][0]), top=int(state[f"{n}.place"][1]), rgba=state[f"{n}.rgba"])
        for n in range(len(state) // 2)
    ]


def patched(rgb: NDArray[np.uint8], patches: list[Patch]) -> NDArray[np.uint8]:
    """Return a copy of an upright photo (H, W, 3) with the pieces laid over it."""
    result = rgb.copy()
    for patch in patches:
        height, width = patch.rgba.shape[:2]
        window = result[patch.top : patch.top + height, patch.left : patch.left + width]
        weight = patch.rgba[..., 3:].astype(np.float32) / 255
        mixed = window + weight * (patch.rgba[..., :3].astype(np.float32) - window)
        window[:] = np.where(weight > 0, np.round(mixed), window).astype(np.uint8)
    return result
