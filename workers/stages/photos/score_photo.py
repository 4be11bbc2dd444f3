"""Stage `score_photo`: looks at a restored photo and says whether its faces are now those of their people.

Verdict [ours]: `unchanged` where no face was changed, so the photo is what it was; `accepted` where every face
that was tried resembles its person as much as the preset's measured threshold asks, by the edit or from the start,
`rejected` where one is gone or is somebody else's now, `needs_review` in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from fpga_models.diir.detection import find_faces
from fpga_models.faces import FacePack
from fpga_models.metrics.assignment import ABSENT, match_places
from orchestrator.contracts.photos import FaceReport, JudgedPhoto, Previews, Restored, ScoredPhoto, WhyUnchanged
from orchestrator.contracts.portraits import Verdict
from orchestrator.errors import StageError
from orchestrator.ledger import artifacts, photos
from orchestrator.ledger.evaluations import Thresholds
from orchestrator.ledger.queue.claims import Claim
from orchestrator.ledger.queue.outcomes import Outcome
from workers.runtime.domains import NO_GENERATOR, OUTSIDE, Made
from workers.runtime.lease import Lease
from workers.runtime.stage import Ended, StageContext, one_by_one, thresholds_of, version_of
from workers.stages.photos.photo_bytes import decoded, ingested, patched, preview, read_patches
from workers.stages.portraits.people import Person, known_people

ORDER: tuple[Verdict, ...] = ("accepted", "unchanged", "needs_review", "rejected")
UNTOUCHED = ("no_reference", "face_too_small", "good_already", "face_turned", "photo_stays", OUTSIDE, NO_GENERATOR)


def score_photo(context: StageContext, held: Sequence[Claim], lease: Lease) -> Iterator[Ended]:
    """Score the photos of these claims, one after the other."""
    return one_by_one(context, held, lease, lambda c: _score(context, c))


def _score(context: StageContext, c: Claim) -> Outcome:
    version = version_of(context, c)
    pack = context.engine.faces(version)
    with context.ledger.read() as session:
        made = photos.said(session, c.item_id, Restored)
    if made is None:
        raise StageError(f"item {c.item_id} was not restored", code="restore_missing")
    found = ingested(context, c)
    people = known_people(context, c, pack, Made.of(version))
    rgb = decoded(context, c).rgb
    pictures = [patched(rgb, read_patches(context, candidate.patches)) for candidate in made.candidates]
    lines = thresholds_of(context, version)
    scored = [
        _judge(pack, picture, candidate.faces, people, lines, found.stays())
        for picture, candidate in zip(pictures, made.candidates, strict=True)
    ]
    chosen = min(range(len(scored)), key=lambda n: (ORDER.index(scored[n].verdict), -(scored[n].similarity or 0)))
    before, after = (preview(context, c.owner, picture) for picture in (rgb, pictures[chosen]))
    said = ScoredPhoto(
        candidates=tuple(scored),
        chosen=chosen,
        previews=Previews(before=before, after=after),
        judge=Made.of(version).judge(pack.encoder_sha256),
        artifacts=(before.artifact_id, after.artifact_id),
    )

    def write(session: Session, _: datetime) -> None:
        artifacts.confirm(session, *said.artifacts)

    return Outcome(result=said.dump(), write=write)


def _judge(
    pack: FacePack,
    picture: NDArray[np.uint8],
    reports: Sequence[FaceReport],
    people: Sequence[Person],
    thresholds: Thresholds,
    stays: WhyUnchanged | None,
) -> JudgedPhoto:
    """Return the verdict on one version, with each face's similarity before and after."""
    changed = [report for report in reports if report.outcome not in UNTOUCHED]
    if not any(report.outcome == "changed" for report in reports):
        return JudgedPhoto(verdict="unchanged", reason=why_unchanged(reports, stays), faces=tuple(reports))
    seen = find_faces(pack, picture)
    places = np.array([face.kps5 for face in seen], np.float32).reshape(-1, 5, 2)
    matched = match_places(np.array([report.kps5 for report in changed], np.float32), places)
    by_name = {person.ref(): index for index, person in enumerate(people)}
    verdict: Verdict = "accepted"
    least, faces = 1.0, list[FaceReport]()
    for report, index in zip(changed, matched, strict=True):
        assert report.person is not None, "only faces of somebody are tried"
        own = by_name[report.person]
        cosines = None if index == ABSENT else np.array([seen[index].embedding @ person.vector for person in people])
        after = 0.0 if cosines is None else round(float(cosines[own]), 4)
        lost = cosines is None or int(cosines.argmax()) != own
        this: Verdict = "rejected" if report.outcome == "changed" and lost else "accepted"
        if this == "accepted" and after < thresholds.accept:
            this = "needs_review"
        verdict, least = max(verdict, this, key=ORDER.index), min(least, after)
        faces.append(report.model_copy(update={"after": after, "verdict": this}))
    rest = [report for report in reports if report.outcome in UNTOUCHED]
    return JudgedPhoto(verdict=verdict, similarity=least, faces=(*faces, *rest))


def why_unchanged(reports: Sequence[FaceReport], stays: WhyUnchanged | None) -> WhyUnchanged:
    """Return code and sentence of why a photo comes back as it was."""
    if stays and any(report.outcome == "photo_stays" for report in reports):
        return stays
    if not reports:
        return WhyUnchanged(code="no_face", message="no face was found in the photo; it comes back as it was")
    codes = {report.outcome for report in reports}
    for code in (OUTSIDE, NO_GENERATOR):  # what somebody can do something about comes first
        if code in codes:
            return WhyUnchanged(code=code, message=next(r.reason for r in reports if r.outcome == code))
    if "face_turned" in codes:
        return WhyUnchanged(
            code="face_turned", message="the heads stand upside down; turn the photo and restore it again"
        )
    if codes == {"no_reference"}:
        return WhyUnchanged(code="no_reference", message="nobody that may be restored was recognised in the photo")
    if tried := sorted(codes - set(UNTOUCHED)):
        return WhyUnchanged(code=tried[0], message="no face gained by it, so the photo stays as it was")
    code = "good_already" if "good_already" in codes else "face_too_small"
    return WhyUnchanged(code=code, message="every known face is good already, or smaller than was asked for")
