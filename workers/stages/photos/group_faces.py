"""Stage `group_faces`: gives the faces that scans found to the people there are, and finds new ones among the rest.

Groups that are there stay as they are, so that what a person said of them holds: faces only join them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from fpga_models.faces.clusters import Group, group
from orchestrator.contracts.photos import Grouped
from orchestrator.ledger.faces import groups
from orchestrator.ledger.queue.claims import Claim
from orchestrator.ledger.queue.outcomes import Outcome
from workers.runtime.lease import Lease
from workers.runtime.stage import Ended, StageContext, one_by_one, thresholds_of, version_of

LEAST_SIDE = 24
"""Faces with a shorter side, in px, are nobody's: too little is left of them to tell whose they are [ours]."""
LIKENESS = 0.85
"""Share of the pairing threshold that faces of one person reach on average [ours]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class New:
    """A face that is nobody's yet: its picture, how good it is, groups it is not of, and its embedding."""

    id: str
    photo: str
    quality: float
    refused: frozenset[str]
    vector: NDArray[np.float32]


def group_faces(context: StageContext, held: Sequence[Claim], lease: Lease) -> Iterator[Ended]:
    """Group the faces of an owner."""
    return one_by_one(context, held, lease, lambda c: _group(context, c, lease))


def _group(context: StageContext, c: Claim, lease: Lease) -> Outcome:
    version = version_of(context, c)
    pack = context.engine.faces(version)
    known: dict[str, Group] = {}
    with context.ledger.read() as session:
        for number, face in enumerate(groups.members(session, c.owner, pack.encoder_sha256), start=1):
            vector = np.frombuffer(context.vault.open(face.envelope, face.embedding), np.float32)
            nobody = Group(count=0, total=np.zeros(pack.width, np.float32), photos=set())
            known.setdefault(str(face.person_id), nobody).take(vector, face.pixels_sha256)
            if number % 1000 == 0:
                lease.progress(c, 0.5)
        new = [
            New(
                id=face.id,
                photo=face.pixels_sha256,
                quality=face.quality,
                refused=frozenset(face.refused),
                vector=np.frombuffer(context.vault.open(face.envelope, face.embedding), np.float32),
            )
            for face in groups.ungrouped(session, c.owner, pack.encoder_sha256, least_side=LEAST_SIDE)
        ]
        below = groups.roots(session, c.owner)
    places = {person: index for index, person in enumerate(known)}
    labels, found = group(
        np.stack([one.vector for one in new]) if new else np.zeros((0, pack.width), np.float32),
        [one.quality for one in new],
        [one.photo for one in new],
        list(known.values()),
        likeness=LIKENESS * thresholds_of(context, version).pair,
        refused={
            index: frozenset(places[p] for p in places if {p, below.get(p, p)} & one.refused)
            for index, one in enumerate(new)
            if one.refused
        },
    )
    joined = {new[index].id: label for index, label in enumerate(labels) if label is not None}
    fresh = len(found) - len(known)

    def write(session: Session, moment: datetime) -> None:
        groups.write(session, c.owner, pack.encoder_sha256, list(known), fresh, joined, moment)

    said = Grouped(faces=len(new), joined=sum(label < len(known) for label in joined.values()), people=fresh)
    return Outcome(result=said.dump(), write=write)
