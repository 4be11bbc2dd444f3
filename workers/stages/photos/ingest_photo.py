"""Stage `ingest_photo`: decodes a photo in a guarded process and finds its faces; each picture is looked at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import cv2
import numpy as np
from sqlalchemy.orm import Session

from fpga_models.core.alignment import align
from fpga_models.diir.detection import find_faces
from fpga_models.diir.picture import Image
from fpga_models.faces import Face, FacePack
from orchestrator.contracts.photos import Ingested, KeptFace, KeptFaces, PhotoOptions
from orchestrator.ledger import stage_results
from orchestrator.ledger.queue.claims import Claim
from orchestrator.ledger.queue.outcomes import Outcome
from orchestrator.ledger.stage_results import NewResult
from orchestrator.ledger.tables.rows_photos import result_place
from workers.photo import Decoded
from workers.runtime.lease import Lease
from workers.runtime.stage import Ended, StageContext, one_by_one, version_of
from workers.stages.photos.photo_bytes import decoded, kept_looks

VERSION = 3
"""Raised whenever the same picture would give other faces."""


@dataclass(frozen=True, kw_only=True)
class Looked:
    """The faces of a photo, each with what the domain guard measured; `new` is to be kept, if it was not before."""

    key: str
    faces: list[tuple[Face, float]]
    new: NewResult | None
    reused_from: str | None


def ingest_photo(context: StageContext, held: Sequence[Claim], lease: Lease) -> Iterator[Ended]:
    """Look at the photos of these claims, one after the other."""
    pack = context.engine.faces(version_of(context, held[0]))
    return one_by_one(context, held, lease, lambda c: _look(context, c, pack))


def _look(context: StageContext, c: Claim, pack: FacePack) -> Outcome:
    photo, options = decoded(context, c), PhotoOptions.load(c.options)
    looked = look_at(context, c, photo, pack)

    def write(session: Session, moment: datetime) -> None:
        if looked.new is not None:
            stage_results.keep(session, c.owner, looked.new, [], moment)

    return Outcome(result=said_of(photo, looked).dump(), write=write, then="wait" if options.gathers() else "done")


def look_at(context: StageContext, c: Claim, photo: Decoded, pack: FacePack) -> Looked:
    """Return the faces of a decoded photo: those that were kept of the same picture, or found now."""
    key = stage_results.result_key(
        "faces",
        VERSION,
        networks=list(pack.settings.sha256.values()),
        params={},
        input_sha256=photo.pixels_sha256,
        profile=context.engine.profile(),
    )
    kept = None if PhotoOptions.load(c.options).force else kept_looks(context, c.owner, key)
    if kept is not None:
        with context.ledger.read() as session:
            found = stage_results.find(session, c.owner, key)
        return Looked(key=key, faces=kept, new=None, reused_from=found.row.item_id if found else None)
    faces = find_faces(pack, photo.rgb)
    vectors = np.stack([face.embedding for face in faces]) if faces else np.zeros((0, pack.width), np.float32)
    crops = [align(photo.rgb, face.kps5) for face in faces]
    scores = context.engine.guard().scores(crops)
    listed = tuple(kept_face(*one) for one in zip(faces, crops, scores, strict=True))
    envelope = context.vault.new(result_place(c.owner, key))
    new = NewResult(
        key=key,
        stage="faces",
        item_id=c.item_id,
        facts=KeptFaces(encoder=pack.encoder_sha256, faces=listed).dump(),
        data_key=envelope.key,
        data=context.vault.seal(envelope, vectors.astype(np.float32).tobytes()),
    )
    return Looked(key=key, faces=list(zip(faces, scores, strict=True)), new=new, reused_from=None)


def said_of(photo: Decoded, looked: Looked) -> Ingested:
    """Return what is said of a photo that was looked at."""
    return Ingested(
        width=photo.rgb.shape[1],
        height=photo.rgb.shape[0],
        pixels_sha256=photo.pixels_sha256,
        phash=photo.phash,
        facts=photo.facts,
        notes=tuple(photo.notes),
        faces_key=looked.key,
        faces=len(looked.faces),
        reused_from=looked.reused_from,
    )


def kept_face(face: Face, crop: Image, domain: float) -> KeptFace:
    """Return what is kept of a face, given its aligned crop."""
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    return KeptFace(
        box=np.round(face.box.astype(float), 2).tolist(),
        kps5=np.round(face.kps5.astype(float), 3).tolist(),
        score=round(face.score, 4),
        sharpness=round(float(cv2.Laplacian(grey, cv2.CV_64F).var()), 2),
        domain=round(domain, 4),
    )
