"""Stage `ingest`: takes in a person's reference pictures; each must show exactly one face. All or nothing is kept.

The pictures must be of the kind that the preset was made for, and of one person; what makes a face a poor reference is
said, but does not stop it. Messages name a picture by its number: names of files are for who handed them in.

A person who is there already is embedded again from the sealed references, for a recogniser that has not done it; a
picture on which it finds no single face then stays with the recognisers that did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from fpga_models.diir.detection import find_faces
from fpga_models.faces import Face, FacePack, align
from fpga_models.faces.clusters import one_person
from fpga_models.faces.domain import DomainGuard
from fpga_models.idzoom.annotate import frontal, sharpness
from orchestrator.contracts.people import Enrolled, EnrolParams, GivenReference
from orchestrator.errors import InputError, StageError
from orchestrator.ledger import identities
from orchestrator.ledger.identities import NewReference
from orchestrator.ledger.queue.claims import Claim
from orchestrator.ledger.queue.outcomes import Outcome
from orchestrator.secrets.vault import Envelope
from workers.photo import Decoded, PhotoLimits, photo_reader
from workers.photo.picture import encode_crop
from workers.runtime.domains import OUTSIDE, Made
from workers.runtime.lease import Lease
from workers.runtime.stage import Ended, StageContext, one_by_one, thresholds_of, version_of

Reader = Callable[[bytes], Decoded]
LEAST_FACE_PX = 16
SMALL_PX, TURNED, BLURRED, HIDDEN = 48, 0.4, 0.12, 0.7
"""Below these a reference is said to be small (px), turned away (0 to 1), blurred (0 to 1), or hard to see (score)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Look:
    """One reference picture: its number, its face, the aligned crop and what the domain guard measured."""

    number: int
    face: Face
    crop: NDArray[np.uint8]
    domain: float
    size: tuple[int, int]

    @property
    def side(self) -> float:
        """Shorter side of the face's box, px."""
        return float(min(self.face.box[2:] - self.face.box[:2]))

    def faults(self) -> list[str]:
        """Return what makes it a poor reference, in words."""
        found = {
            f"small ({self.side:.0f} px)": self.side < SMALL_PX,
            "turned away": frontal(self.face.kps5) < TURNED,
            "blurred": sharpness(self.crop) < BLURRED,
            "partly covered or hard to see": self.face.score < HIDDEN,
        }
        return [word for word, applies in found.items() if applies]


def ingest(context: StageContext, held: Sequence[Claim], lease: Lease) -> Iterator[Ended]:
    """Enrol the people of these claims, one after the other."""
    version = version_of(context, held[0])
    pack, made = context.engine.faces(version), Made.of(version)
    lines = thresholds_of(context, version)
    least = max(lines.review, lines.pair / 2)  # a preset whose review was never measured lets everything through

    def work(c: Claim) -> Outcome:
        if EnrolParams.load(c.params).identity:
            return _reembed(context, c, pack, made, lease)
        return _enrol(context, c, pack, made, least, lease)

    return one_by_one(context, held, lease, work)


def _enrol(context: StageContext, c: Claim, pack: FacePack, made: Made, least: float, lease: Lease) -> Outcome:
    given = EnrolParams.load(c.params)
    if given.consent is None:
        raise StageError("what this item was to take in has been erased", code="erased")
    consent = given.consent
    looks: list[Look] = []
    with _reader(context) as decode:
        for number, reference in enumerate(given.references, start=1):
            looks.append(_look(context, decode, reference, _on_its_way(reference), number, pack))
            lease.progress(c, number / (len(given.references) + 1))
    _check_domain(looks, made, context.engine.guard())
    if not given.same_person:
        _check_one_person(looks, least)
        _check_who_is_there(context, c, looks, pack, least)
    pairs = zip(looks, given.references, strict=True)
    found = [_reference(context, look, reference, _on_its_way(reference), pack, made) for look, reference in pairs]
    notes = [f"reference picture {look.number} is {', '.join(faults)}" for look in looks if (faults := look.faults())]

    def write(session: Session, moment: datetime) -> None:
        identities.enrol(
            session,
            c.owner,
            handle=given.handle,
            name=given.name,
            found=found,
            consent=consent,
            moment=moment,
            rewrap=context.vault.rewrap,
        )

    return Outcome(result=Enrolled(references=len(found), notes=tuple(notes)).dump(), write=write)


def _reembed(context: StageContext, c: Claim, pack: FacePack, made: Made, lease: Lease) -> Outcome:
    identity = EnrolParams.load(c.params).identity or ""
    with context.ledger.read() as session:
        waiting = [
            (
                GivenReference(
                    artifact_id=artifact.id,
                    key=artifact.key,
                    sha256=artifact.sha256,
                    picture_sha256=row.picture_sha256,
                ),
                row.envelope,
            )
            for row, artifact in identities.to_embed(session, c.owner, identity, pack.encoder_sha256)
        ]
    found: list[NewReference] = []
    refused: list[InputError] = []
    with _reader(context) as decode:
        for number, (reference, envelope) in enumerate(waiting, start=1):
            try:
                look = _look(context, decode, reference, envelope, number, pack)
                _check_domain([look], made, context.engine.guard())
                found.append(_reference(context, look, reference, envelope, pack, made))
            except InputError as error:
                refused.append(error)
            lease.progress(c, number / (len(waiting) + 1))
    if refused and not found:
        raise refused[0]

    def write(session: Session, moment: datetime) -> None:
        identities.reembed(session, c.owner, identity, found, moment)

    return Outcome(result=Enrolled(references=len(found), left=len(refused)).dump(), write=write)


def _on_its_way(reference: GivenReference) -> Envelope:
    """Return the envelope of a picture that belongs to nobody in the library yet."""
    return Envelope(key=reference.data_key, place=reference.place)


def _reader(context: StageContext) -> AbstractContextManager[Reader]:
    return photo_reader(PhotoLimits.of_pictures(context.settings.max_pixels))


def _look(
    context: StageContext, decode: Reader, reference: GivenReference, envelope: Envelope, number: int, pack: FacePack
) -> Look:
    """Decode one picture in a guarded process and find its one face."""
    sealed = context.store.get(reference.key, sha256=reference.sha256)
    data = context.vault.open(envelope, sealed)
    image = decode(data).rgb
    faces = find_faces(pack, image)
    if len(faces) != 1:
        code, said = ("no_face", "no face") if not faces else ("several_faces", f"{len(faces)} faces")
        raise InputError(f"reference picture {number} shows {said}; exactly one is wanted", code=code, picture=number)
    crop = align(image, faces[0].kps5)
    look = Look(
        number=number,
        face=faces[0],
        crop=crop,
        domain=context.engine.guard().scores([crop])[0],
        size=(image.shape[1], image.shape[0]),
    )
    if look.side < LEAST_FACE_PX:
        raise InputError(
            f"the face in reference picture {number} is {look.side:.0f} px wide; at least {LEAST_FACE_PX} are wanted",
            code="face_too_small",
            picture=number,
        )
    return look


def _check_domain(looks: Sequence[Look], made: Made, guard: DomainGuard) -> None:
    """Refuse a person whose pictures, together, are of a kind that the preset was not made for.

    At the border a photographic preset takes them: nothing is drawn of them that the guard does not look at again.

    Raises:
        InputError: `outside_domain`.
    """
    kind = guard.together([look.domain for look in looks])
    refusal = made.refusal(kind)
    if refusal is not None and not (kind == "border" and made.domain == "photographs"):
        named = _named([look.number for look in looks])
        raise InputError(f"{named}: the face is {refusal}", code=OUTSIDE, kind=kind)


def _check_one_person(looks: Sequence[Look], least: float) -> None:
    """Refuse pictures of several people, naming those that do not go with the others.

    Raises:
        InputError: `several_people`.
    """
    apart = one_person(np.stack([look.face.embedding for look in looks]), likeness=least)
    if apart:
        numbers = [looks[index].number for index in apart]
        does = "does" if len(numbers) == 1 else "do"
        raise InputError(
            f"{_named(numbers)} {does} not show the person of the others; nothing was kept. Take them out, or say "
            "that all show one person with --same-person",
            code="several_people",
            pictures=numbers,
        )


def _check_who_is_there(context: StageContext, c: Claim, looks: Sequence[Look], pack: FacePack, least: float) -> None:
    """Refuse pictures that do not show the person whose references they are added to.

    Raises:
        InputError: `several_people`.
    """
    with context.ledger.read() as session:
        there = [
            np.frombuffer(context.vault.open(row.envelope, row.embedding), np.float32)
            for row in identities.of_handle(session, c.owner, EnrolParams.load(c.params).handle)
            if row.encoder == pack.encoder_sha256
        ]
    if not there:
        return
    numbers = [look.number for look in looks if float(np.mean(np.stack(there) @ look.face.embedding)) < least]
    if numbers:
        does = "does" if len(numbers) == 1 else "do"
        raise InputError(
            f"{_named(numbers)} {does} not show the person who is in the library; nothing was kept. Take them out, or "
            "say that all show one person with --same-person",
            code="several_people",
            pictures=numbers,
        )


def _named(numbers: Sequence[int]) -> str:
    return ", ".join(f"reference picture {number}" for number in numbers)


def _reference(
    context: StageContext, look: Look, reference: GivenReference, envelope: Envelope, pack: FacePack, made: Made
) -> NewReference:
    return NewReference(
        artifact_id=reference.artifact_id,
        envelope=envelope,
        picture_sha256=reference.picture_sha256 or reference.sha256,
        encoder=pack.encoder_sha256,
        embedding=context.vault.seal(envelope, look.face.embedding.astype(np.float32).tobytes()),
        crop=context.vault.seal(envelope, encode_crop(look.crop)),
        face={
            "box": np.round(look.face.box.astype(float), 1).tolist(),
            "kps5": np.round(look.face.kps5.astype(float), 1).tolist(),
            "score": round(look.face.score, 4),
            "size": list(look.size),
            "domain": made.domain,
            "domain_score": round(look.domain, 4),
            "faults": look.faults(),
        },
    )
