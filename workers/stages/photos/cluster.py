"""Stage `cluster`: finds the people of an archive among its faces; the best of them serve as their references.

One item of the batch does it for all, once every photo was looked at; then all of them go on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from fpga_models.faces.clusters import Cluster, find_people, quality
from fpga_models.faces.domain import is_inside
from orchestrator.contracts.photos import Clustered, KeptFaces, PhotoOptions
from orchestrator.errors import ConsentError
from orchestrator.ledger import photos, stage_results
from orchestrator.ledger.engine.base import new_id
from orchestrator.ledger.queue.claims import Claim
from orchestrator.ledger.queue.outcomes import Outcome
from orchestrator.ledger.tables.rows_photos import ArchivePerson, archive_person_place
from workers.runtime.domains import Made
from workers.runtime.lease import Lease
from workers.runtime.stage import Ended, StageContext, one_by_one, thresholds_of, version_of

LEAST_SIDE = 24
"""Faces with a shorter side are no references [ours]."""
LIKENESS = 0.85
"""Share of the pairing threshold that faces of one person reach on average [ours]."""


def cluster(context: StageContext, held: Sequence[Claim], lease: Lease) -> Iterator[Ended]:
    """Find the people of one archive."""
    return one_by_one(context, held, lease, lambda c: _gather(context, c))


def _gather(context: StageContext, c: Claim) -> Outcome:
    if PhotoOptions.load(c.options).attestation is None:  # asked at submit, and again where it is used
        raise ConsentError("nobody stated that the unknown people of this archive may be restored")
    version = version_of(context, c)
    pack = context.engine.faces(version)
    encoder = pack.encoder_sha256
    faces = _faces(context, c, Made.of(version))
    fit = [face for face in faces if face["side"] >= LEAST_SIDE]
    vectors = np.stack([face["vector"] for face in fit]) if fit else np.zeros((0, pack.width), np.float32)
    people = find_people(
        vectors,
        [face["quality"] for face in fit],
        [face["photo"] for face in fit],
        likeness=LIKENESS * thresholds_of(context, version).pair,
    )
    rows = [_row(context, c, number, one, fit, encoder) for number, one in enumerate(people, start=1)]

    def write(session: Session, moment: datetime) -> None:
        session.add_all(ArchivePerson(**row, created_at=moment) for row in rows)

    return Outcome(result=Clustered(people=len(rows), faces=len(faces), fit=len(fit)).dump(), write=write)


def _row(
    context: StageContext, c: Claim, number: int, one: Cluster, fit: Sequence[dict[str, Any]], encoder: str
) -> dict[str, Any]:
    person_id = new_id("arp")
    envelope = context.vault.new(archive_person_place(person_id))
    return {
        "id": person_id,
        "owner": c.owner,
        "batch_id": c.batch_id,
        "number": number,
        "encoder": encoder,
        "faces": [[fit[index]["item"], fit[index]["face"], round(fit[index]["quality"], 2)] for index in one.best],
        "data_key": envelope.key,
        "data": context.vault.seal(envelope, one.vector.tobytes()),
    }


def _faces(context: StageContext, c: Claim, made: Made) -> list[dict[str, Any]]:
    """Return every face that the preset was made for, once: the same picture in two files counts as one photo."""
    guard = context.engine.guard()
    found: list[dict[str, Any]] = []
    seen: set[str] = set()
    with context.ledger.read() as session:
        for item_id, said in photos.ingested(session, c.batch_id):
            if said.pixels_sha256 in seen:
                continue
            seen.add(said.pixels_sha256)
            kept = stage_results.find(session, c.owner, said.faces_key)
            listed = KeptFaces.load(kept.row.facts).faces if kept else ()
            if kept is None or not kept.row.data or not listed:
                continue
            vectors = np.frombuffer(context.vault.open(kept.row.envelope, kept.row.data), np.float32)
            rows = vectors.reshape(len(listed), -1)
            kinds = guard.kinds([face.domain or 0.0 for face in listed])
            for index, (face, vector, kind) in enumerate(zip(listed, rows, kinds, strict=True)):
                if not is_inside(kind, made.domain):
                    continue
                left, top, right, bottom = face.box
                side = min(right - left, bottom - top)
                found.append(
                    {
                        "item": item_id,
                        "photo": said.pixels_sha256,
                        "face": index,
                        "side": side,
                        "quality": quality(side, face.score, face.sharpness),
                        "vector": vector,
                    }
                )
    return found
