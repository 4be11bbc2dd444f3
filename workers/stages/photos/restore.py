"""Stage `restore`: DIIR on the faces of a photo; what it changed is kept as small pieces, the photo stays as it is.

Faces, inverted crops and finished pieces are taken from earlier work where that depends on the same things.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime

import numpy as np
from sqlalchemy.orm import Session

from fpga_models.diir import DiirResult, DiirSettings, Inversions, Reference, Restorer
from fpga_models.diir.detection import find_faces, upside_down
from fpga_models.diir.dial import at_fidelity
from fpga_models.diir.picture import Image
from fpga_models.diir.settings import settings_of
from fpga_models.errors import ModelError as NetworkError
from fpga_models.faces import Face, FacePack, align
from orchestrator.contracts.base import StoredRef
from orchestrator.contracts.photos import Candidate, FaceReport, Ingested, KeptReports, PhotoOptions, Restored
from orchestrator.errors import FpgaError, StageError
from orchestrator.ledger import artifacts, photos, stage_results
from orchestrator.ledger.queue.claims import Claim
from orchestrator.ledger.queue.outcomes import Outcome
from orchestrator.ledger.stage_results import NewResult
from orchestrator.ledger.tables.rows import ModelVersion
from orchestrator.ledger.tables.rows_photos import result_place
from workers.photo import patches_of
from workers.runtime.domains import NO_GENERATOR, OUTSIDE, Made
from workers.runtime.lease import Lease
from workers.runtime.stage import DrainedError, Ended, StageContext, StoppedError, thresholds_of, version_of
from workers.stages.photos.photo_bytes import TENSORS, decoded, ingested, kept_looks, pack_patches, preview, store_bytes
from workers.stages.portraits.people import Person, known_people, pair_faces

VERSION = 1
"""Raised whenever the same faces, people and settings would give other pieces."""
SKIPPED = {
    "face_too_small": "The face is smaller than was asked for; it stays.",
    "good_already": "The face resembles its person well enough; it stays.",
    "no_reference": "No reference belongs to this face.",
    "face_turned": "The head stands upside down; turn the photo and restore it again.",
    "photo_stays": "A change of this photo cannot be written; it stays.",
}
"""Why a face stays; the sentences about its domain are in `domains`."""


@dataclass(kw_only=True)
class Job:
    """One photo under way: what is known of it, and what was used again."""

    c: Claim
    version: ModelVersion
    found: Ingested
    options: PhotoOptions
    settings: DiirSettings
    faces: list[Face]
    people: list[Person]
    pairs: dict[int, int]
    skipped: dict[int, str]
    reasons: dict[int, str]
    """Sentence of each face that is skipped."""


def restore(context: StageContext, held: Sequence[Claim], lease: Lease) -> Iterator[Ended]:
    """Restore the photos of these claims, one after the other; the faces of one photo go through as one batch.

    Raises:
        DrainedError: the worker must stop now; what is left goes back to the queue.
    """
    version = version_of(context, held[0])
    pack, made = context.engine.faces(version), Made.of(version)
    restorer = Restorer(context.engine.portraits(version), pack) if made.draws else None
    for c in held:
        if context.draining():
            raise DrainedError
        if c.stage_id in lease.stopped:
            continue
        try:
            yield c, _restore(context, _job(context, c, version, made, pack), restorer, lease)
        except StoppedError:
            continue
        except NetworkError as error:
            yield c, StageError(str(error), code=error.code)
        except FpgaError as error:
            yield c, error


def _restore(context: StageContext, job: Job, restorer: Restorer | None, lease: Lease) -> Outcome:
    began, c = time.monotonic(), job.c
    inversions, kept_from = _inversions(context, job)
    shown = sorted({who for index in job.pairs.values() if (who := job.people[index].identity)})
    photos.link(context.ledger, c, shown, [job.found.faces_key])
    made = [_candidate(context, job, number, restorer, inversions, lease) for number in range(_candidates(job))]
    results = [new for _, new, _ in made if new]
    if inversions.made:
        results.append(_sealed(context, job, inversions))
    picture = made[0][2]
    shown_now = None if picture is None else preview(context, c.owner, picture)
    said = Restored(
        settings=asdict(job.settings),
        candidates=tuple(candidate for candidate, _, _ in made),
        reused_from={
            "faces": job.found.reused_from,
            "inversion": kept_from if inversions.found else None,
            "result": made[0][0].reused_from if made else None,
        },
        inversions={"reused": inversions.found, "made": inversions.made},
        seconds=round(time.monotonic() - began, 3),
        preview=shown_now,
        artifacts=tuple(
            artifact_id
            for artifact_id in (*(new.artifact_id for new in results), shown_now and shown_now.artifact_id)
            if artifact_id
        ),
    )

    def write(session: Session, moment: datetime) -> None:
        if shown_now:
            artifacts.confirm(session, shown_now.artifact_id)
        for new in results:
            stage_results.keep(session, c.owner, new, shown, moment)
        stage_results.show(session, c.owner, [candidate.key for candidate, _, _ in made if candidate.key], shown)

    return Outcome(result=said.dump(), write=write)


def _job(context: StageContext, c: Claim, version: ModelVersion, made: Made, pack: FacePack) -> Job:
    """Bring together what is known: faces, people with their consent of this moment, who is who, what stays."""
    found = ingested(context, c)
    looks = kept_looks(context, c.owner, found.faces_key)
    if looks is None:
        looks = _look(context, decoded(context, c).rgb, pack)
    faces = [face for face, _ in looks]
    sides = [float(min(face.box[2:] - face.box[:2])) for face in faces]
    refusals = [made.refusal(kind) for kind in context.engine.guard().kinds([score for _, score in looks])]
    people = known_people(context, c, pack, made)
    pairs: dict[int, int] = {}
    if None in refusals:  # outside its domain a recogniser's likeness means nothing
        found_pairs = pair_faces(faces, people, c, least=thresholds_of(context, version).pair)
        pairs = {face: who for face, who in found_pairs.items() if refusals[face] is None}
    options = PhotoOptions.load(c.options)
    skipped: dict[int, str] = {}
    for index, face in enumerate(faces):
        if refusals[index] is not None:
            skipped[index] = OUTSIDE
        elif index not in pairs:
            skipped[index] = "no_reference"
        elif found.stays() is not None:
            skipped[index] = "photo_stays"
        elif sides[index] < options.min_face:
            skipped[index] = "face_too_small"
        elif options.good is not None and float(face.embedding @ people[pairs[index]].vector) >= options.good:
            skipped[index] = "good_already"
        elif not made.draws:
            skipped[index] = NO_GENERATOR
    if wanted := pairs.keys() - skipped.keys():
        shown = {} if options.task == "swap" else {index: people[pairs[index]].vector for index in wanted}
        turned = upside_down(pack, decoded(context, c).rgb, faces, shown)
        skipped |= dict.fromkeys(turned & wanted, "face_turned")
    said = SKIPPED | {NO_GENERATOR: made.without_generator}
    reasons = {
        index: f"The face is {refusals[index]}." if outcome == OUTSIDE else said[outcome]
        for index, outcome in skipped.items()
    }
    settings = at_fidelity(settings_of(made.preset, options.task), options.fidelity)
    return Job(
        c=c,
        version=version,
        found=found,
        options=options,
        settings=replace(settings, pairing="map"),
        faces=faces,
        people=people,
        pairs=pairs,
        skipped=skipped,
        reasons=reasons,
    )


def _look(context: StageContext, rgb: Image, pack: FacePack) -> list[tuple[Face, float]]:
    faces = find_faces(pack, rgb)
    return list(zip(faces, context.engine.guard().scores([align(rgb, f.kps5) for f in faces]), strict=True))


def _candidates(job: Job) -> int:
    """Number of versions to make: one where nothing is to be changed."""
    return job.options.candidates if len(job.skipped) < len(job.pairs | job.skipped) else 1


def _candidate(
    context: StageContext, job: Job, number: int, restorer: Restorer | None, inversions: Inversions, lease: Lease
) -> tuple[Candidate, NewResult | None, Image | None]:
    """Return one version of the photo's faces, and what to keep and to look at where it was not there before."""
    # by the picture, not by its name: the same photo in two files is restored once
    c, seed = job.c, (job.c.seed + int(job.found.pixels_sha256[:7], 16) + number) % 2**31
    mapping = {face: who for face, who in job.pairs.items() if face not in job.skipped}
    if not mapping or restorer is None:
        return Candidate(seed=seed, faces=_reports(job, None)), None, None
    key = _key(context, job, mapping, seed)
    with context.ledger.read() as session:
        kept = None if job.options.force else stage_results.find(session, c.owner, key)
    if kept is not None:
        stored, reports = kept.artifact, KeptReports.load(kept.row.facts).faces
        patches = StoredRef(artifact_id=stored.id, key=stored.key, sha256=stored.sha256) if stored else None
        return Candidate(seed=seed, faces=reports, patches=patches, key=key, reused_from=kept.row.item_id), None, None
    result = _edit(context, job, mapping, seed, restorer, inversions, lease)
    image = np.ascontiguousarray(result.image, np.uint8)
    pieces = patches_of(image, result.mask)
    written = store_bytes(context, c.owner, pack_patches(pieces), ".safetensors", TENSORS) if pieces else None
    reports = _reports(job, result)
    new = NewResult(
        key=key,
        stage="restore",
        item_id=c.item_id,
        facts=KeptReports(faces=reports).dump(),
        artifact_id=written.artifact_id if written else None,
    )
    return Candidate(seed=seed, faces=reports, patches=written, key=key), new, image if pieces else None


def _edit(
    context: StageContext,
    job: Job,
    mapping: Mapping[int, int],
    seed: int,
    restorer: Restorer,
    inversions: Inversions,
    lease: Lease,
) -> DiirResult:
    def on_step(done: int, planned: int) -> None:
        if context.draining():
            raise DrainedError
        if job.c.stage_id in lease.stopped:
            raise StoppedError
        lease.progress(job.c, done / (planned + 1))

    return restorer.restore(
        decoded(context, job.c).rgb,
        [Reference(embedding=person.vector, crop=person.crop) for person in job.people],
        settings=job.settings,
        mapping=mapping,
        seed=seed,
        on_step=on_step,
        faces=job.faces,
        inversions=inversions,
    )


def _reports(job: Job, result: DiirResult | None) -> tuple[FaceReport, ...]:
    """Return what happened to each face, from left to right."""
    reports = []
    for index, face in enumerate(job.faces):
        done = result.faces[index] if result and index not in job.skipped else None
        who = job.pairs.get(index)
        outcome = done.outcome if done else job.skipped[index]
        reports.append(
            FaceReport(
                box=np.round(face.box.astype(float), 1).tolist(),
                kps5=np.round(face.kps5.astype(float), 2).tolist(),
                person=None if who is None else job.people[who].ref(),
                outcome=outcome,
                reason=done.reason if done else job.reasons[index],
                before=None if who is None else round(float(face.embedding @ job.people[who].vector), 4),
                t_star=done.t_star if done else None,
                attempts=done.attempts if done else 0,
            )
        )
    return tuple(reports)


def _inversions(context: StageContext, job: Job) -> tuple[Inversions, str | None]:
    """Return the paths that were climbed for this photo before, and the item that did it."""
    with context.ledger.read() as session:
        kept = None if job.options.force else stage_results.find(session, job.c.owner, _inversion_key(context, job))
    if kept is None or kept.artifact is None:
        return Inversions(), None
    data = context.store.get(kept.artifact.key, sha256=kept.artifact.sha256)
    return Inversions.from_bytes(context.vault.open(kept.row.envelope, data)), kept.row.item_id


def _sealed(context: StageContext, job: Job, inversions: Inversions) -> NewResult:
    """Store paths encrypted: a face can be decoded from them. Without the row, which has the key, they are noise."""
    key = _inversion_key(context, job)
    envelope = context.vault.new(result_place(job.c.owner, key))
    sealed = context.vault.seal(envelope, inversions.to_bytes())
    stored = store_bytes(context, job.c.owner, sealed, ".sealed", TENSORS)
    return NewResult(
        key=key,
        stage="invert",
        item_id=job.c.item_id,
        artifact_id=stored.artifact_id,
        data_key=envelope.key,
    )


def _inversion_key(context: StageContext, job: Job) -> str:
    return stage_results.result_key(
        "invert",
        VERSION,
        networks=[job.version.tensor_sha256],
        params={},
        input_sha256=job.found.pixels_sha256,
        profile=context.engine.profile(),
    )


def _key(context: StageContext, job: Job, mapping: Mapping[int, int], seed: int) -> str:
    people = {str(face): _digest(job.people[who]) for face, who in mapping.items()}
    who = {str(face): job.people[index].ref().model_dump(exclude_none=True) for face, index in job.pairs.items()}
    return stage_results.result_key(
        "restore",
        VERSION,
        networks=[job.version.tensor_sha256],
        params={"settings": asdict(job.settings), "people": people, "who": who, "skipped": job.skipped, "seed": seed},
        input_sha256=job.found.pixels_sha256,
        profile=context.engine.profile(),
    )


def _digest(person: Person) -> str:
    """Name what the networks are told of a person."""
    crop = b"" if person.crop is None else person.crop.tobytes()
    return hashlib.sha256(person.vector.astype(np.float32).tobytes() + crop).hexdigest()
