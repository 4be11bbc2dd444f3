"""Stage `score`: looks at a finished portrait and says whether it shows the people it should, where it should.

Verdict [ours]: `accepted` when every requested face is there, resembles its own person at least as much as the
preset's measured threshold asks, and no other requested person more; `rejected` when a face is missing, unlike, or
somebody else's; `needs_review` in between, and where the eyes of a face differ more than those of real pictures do,
if the preset says how much that is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sqlalchemy.orm import Session

from fpga_models.faces.pack import Face
from fpga_models.metrics.assignment import ABSENT, match_places
from fpga_models.metrics.eyes import eye_differences
from orchestrator.contracts.portraits import (
    FaceFound,
    PersonScore,
    PlacedPerson,
    PortraitOptions,
    PortraitParams,
    Scored,
    Verdict,
)
from orchestrator.errors import StageError
from orchestrator.ledger.evaluations import Thresholds
from orchestrator.ledger.queue import outputs
from orchestrator.ledger.queue.claims import Claim
from orchestrator.ledger.queue.outcomes import Outcome
from workers.runtime.domains import Made
from workers.runtime.lease import Lease
from workers.runtime.stage import Ended, StageContext, one_by_one, thresholds_of, version_of
from workers.stages.portraits.people import vectors_of

Floats = NDArray[np.float32]
DIGITS = 4


def score(context: StageContext, held: Sequence[Claim], lease: Lease) -> Iterator[Ended]:
    """Score the outputs of these claims, one after the other."""
    return one_by_one(context, held, lease, lambda c: _score(context, c))


def _score(context: StageContext, c: Claim) -> Outcome:
    with context.ledger.read() as session:
        drawn = outputs.of_round(session, c.item_id, c.round)
    if drawn is None:
        raise StageError(f"item {c.item_id} has no output of round {c.round} to score", code="output_missing")
    # thresholds and face pack of the version that made it: the batch may have gone on to another since
    version = version_of(context, replace(c, model_version_id=drawn.model_version_id))
    with context.ledger.read() as session:
        pack = context.engine.faces(version)
        people = PortraitParams.load(c.params).people
        ids = [person.identity for person in people]
        vectors = vectors_of(context, session, c, ids, scope="generate", pack=pack, made=Made.of(version))
    with Image.open(BytesIO(context.store.get(drawn.key, sha256=drawn.sha256)), formats=("PNG",)) as opened:
        image = np.asarray(opened.convert("RGB"))
    faces = pack.detect(image)
    wanted = np.stack([vectors[i] for i in ids]) if ids else np.zeros((0, pack.width), np.float32)
    eyes = eye_differences(image, [face.kps5 for face in faces])
    found = judge(faces, wanted, places(people), thresholds_of(context, version), eyes)
    scores = found.model_copy(update={"judge": Made.of(version).judge(pack.encoder_sha256)})
    # where this is not the first round, all before it were rejected too
    again = scores.verdict == outputs.REJECTED and c.round < PortraitOptions.load(c.options).redraws
    kept = scores.model_dump(mode="json", exclude={"artifacts"})

    def write(session: Session, _: datetime) -> None:
        outputs.judge(session, c, drawn.id, kept)

    return Outcome(result=scores.dump(), write=write, then="again" if again else "done")


def places(people: Sequence[PlacedPerson]) -> Floats:
    """Return the requested landmarks (K, 5, 2) px; people given by a box get a face of usual proportions in it."""
    return np.asarray([person.kps5 for person in people], np.float32).reshape(-1, 5, 2)


def judge(
    faces: Sequence[Face],
    wanted: Floats,
    requested: Floats,
    thresholds: Thresholds,
    eyes: Sequence[float | None] = (),
) -> Scored:
    """Compare found faces with the wanted people.

    Args:
        faces: what the detector found.
        wanted: (K, E) unit-length embeddings of the requested people.
        requested: (K, 5, 2) their landmarks, px.
        thresholds: `accept` and `review`, cosines measured for the preset; `eyes`, from which eyes differ too much.
        eyes: difference of the eyes of each face, None for those that are too small; empty leaves them unseen.

    Returns:
        Of a picture without people the similarity is None.
    """
    found = np.stack([face.embedding for face in faces]) if faces else np.zeros((0, wanted.shape[1]), np.float32)
    matrix = found @ wanted.T  # (M, K)
    kps = np.stack([face.kps5 for face in faces]) if faces else np.zeros((0, 5, 2), np.float32)
    matched = match_places(requested, kps)
    people: list[PersonScore] = []
    for person, index in enumerate(matched):
        if index == ABSENT:
            people.append(PersonScore(face=None, similarity=0.0, nearest=None))
            continue
        row = matrix[index]
        differ = eyes[index] if len(eyes) else None
        people.append(
            PersonScore(
                face=int(index),
                similarity=round(float(row[person]), DIGITS),
                nearest=int(row.argmax()),
                eyes=None if differ is None else round(differ, 2),
            )
        )
    return Scored(
        verdict=_verdict(people, thresholds),
        similarity=min((p.similarity for p in people), default=None),
        people=tuple(people),
        matrix=np.round(matrix.astype(float), DIGITS).tolist(),
        faces=tuple(
            FaceFound(box=np.round(face.box.astype(float), 1).tolist(), score=round(face.score, DIGITS))
            for face in faces
        ),
        thresholds={"accept": thresholds.accept, "review": thresholds.review, "eyes": thresholds.eyes},
    )


def _verdict(people: Sequence[PersonScore], thresholds: Thresholds) -> Verdict:
    worst: Verdict = "accepted"
    for index, person in enumerate(people):
        if person.face is None or person.nearest != index or person.similarity < thresholds.review:
            return "rejected"
        unlike_eyes = thresholds.eyes is not None and person.eyes is not None and person.eyes > thresholds.eyes
        if person.similarity < thresholds.accept or unlike_eyes:
            worst = "needs_review"
    return worst
