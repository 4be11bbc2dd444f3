"""Stage `ingest`: takes in a person's reference pictures; each must show exactly one face. All or nothing is kept.

A person who is there already is embedded again from the sealed references, for a recogniser that has not done it; a
picture on which it finds no single face then stays with the recognisers that did.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import numpy as np
from sqlalchemy.orm import Session

from fpga_models.core.alignment import align
from orchestrator.contracts.people import Enrolled, EnrolParams, GivenReference
from orchestrator.errors import InputError, StageError
from orchestrator.ledger import identities
from orchestrator.ledger.identities import NewReference
from orchestrator.ledger.queue.claims import Claim
from orchestrator.ledger.queue.outcomes import Outcome
from orchestrator.ledger.tables.rows import ModelVersion
from workers.decode import decode
from workers.photo.picture import encode_crop
from workers.runtime.lease import Lease
from workers.runtime.stage import Ended, StageContext, one_by_one, version_of

LEAST_FACE_PX = 16


def ingest(context: StageContext, held: Sequence[Claim], lease: Lease) -> Iterator[Ended]:
    """Enrol the people of these claims, one after the other."""
    version = version_of(context, held[0])
    return one_by_one(
        context,
        held,
        lease,
        lambda c: (_reembed if EnrolParams.load(c.params).identity else _enrol)(context, c, version, lease),
    )


def _enrol(context: StageContext, c: Claim, version: ModelVersion, lease: Lease) -> Outcome:
    given = EnrolParams.load(c.params)
    if given.consent is None:
        raise StageError("what this item was to take in has been erased", code="erased")
    consent = given.consent
    found: list[NewReference] = []
    for number, reference in enumerate(given.references, start=1):
        found.append(_reference(context, reference, number, version))
        lease.progress(c, number / (len(given.references) + 1))

    def write(session: Session, moment: datetime) -> None:
        identities.enrol(
            session,
            c.owner,
            handle=given.handle,
            name=given.name,
            found=found,
            consent=consent,
            moment=moment,
        )

    return Outcome(result=Enrolled(references=len(found)).dump(), write=write)


def _reembed(context: StageContext, c: Claim, version: ModelVersion, lease: Lease) -> Outcome:
    encoder = context.engine.faces(version).encoder_sha256
    identity = EnrolParams.load(c.params).identity or ""
    with context.ledger.read() as session:
        waiting = [
            GivenReference(
                artifact_id=artifact.id,
                key=artifact.key,
                sha256=artifact.sha256,
                data_key=row.data_key,
                picture_sha256=row.picture_sha256,
            )
            for row, artifact in identities.to_embed(session, c.owner, identity, encoder)
        ]
    found: list[NewReference] = []
    refused: list[InputError] = []
    for number, reference in enumerate(waiting, start=1):
        try:
            found.append(_reference(context, reference, number, version))
        except InputError as error:
            refused.append(error)
        lease.progress(c, number / (len(waiting) + 1))
    if refused and not found:
        raise refused[0]

    def write(session: Session, moment: datetime) -> None:
        identities.reembed(session, c.owner, identity, found, moment)

    return Outcome(result=Enrolled(references=len(found), left=len(refused)).dump(), write=write)


def _reference(context: StageContext, reference: GivenReference, number: int, version: ModelVersion) -> NewReference:
    """Decode one picture in a guarded process, find its one face and embed it."""
    sealed = context.store.get(reference.key, sha256=reference.sha256)
    data = context.vault.open(reference.data_key, sealed)
    image = decode(data, max_pixels=context.settings.max_pixels)
    pack = context.engine.faces(version)
    faces = pack.detect(image)
    if len(faces) != 1:
        code, said = ("no_face", "no face") if not faces else ("several_faces", f"{len(faces)} faces")
        raise InputError(f"reference picture {number} shows {said}; exactly one is wanted", code=code, picture=number)
    face = faces[0]
    side = float(min(face.box[2] - face.box[0], face.box[3] - face.box[1]))
    if side < LEAST_FACE_PX:
        raise InputError(
            f"the face in reference picture {number} is {side:.0f} px wide; at least {LEAST_FACE_PX} are wanted",
            code="face_too_small",
            picture=number,
        )
    key, embedding = reference.data_key, face.embedding.astype(np.float32).tobytes()
    crop = encode_crop(align(image, face.kps5))
    return NewReference(
        artifact_id=reference.artifact_id,
        data_key=key,
        picture_sha256=reference.picture_sha256 or reference.sha256,
        encoder=pack.encoder_sha256,
        embedding=context.vault.seal(key, embedding) if key else embedding,
        crop=context.vault.seal(key, crop) if key else crop,
        face={
            "box": np.round(face.box.astype(float), 1).tolist(),
            "kps5": np.round(face.kps5.astype(float), 1).tolist(),
            "score": round(face.score, 4),
            "size": [image.shape[1], image.shape[0]],
        },
    )
