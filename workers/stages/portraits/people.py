"""Whose face is whose: people of the library with their consent, people of the archive by their faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from fpga_models.diir.pairing import Reference, pair
from fpga_models.diir.settings import RESTORE, DiirSettings
from fpga_models.faces import Face, FacePack
from orchestrator.contracts.photos import PersonRef, PhotoOptions, PhotoParams, SwapRule
from orchestrator.errors import ModelError, StageError
from orchestrator.ledger import identities, photos
from orchestrator.ledger.engine.session import now
from orchestrator.ledger.queue.claims import Claim
from workers.photo.picture import decode_crop
from workers.runtime.domains import OUTSIDE, Made
from workers.runtime.stage import StageContext

Floats = NDArray[np.float32]
MARGIN = 0.1
"""A face belongs to somebody if the next candidate is at least so far behind [ours]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Person:
    """Somebody a face may belong to.

    Attributes:
        vector: (E,) unit-length embedding.
        crop: (112, 112, 3) uint8 RGB aligned face of a reference, or None.
        identity: id in the library, or None.
        number: of a person known only by the faces of this archive, or None.
    """

    vector: Floats
    crop: NDArray[np.uint8] | None = None
    identity: str | None = None
    number: int | None = None

    def ref(self) -> PersonRef:
        """Return who it is, for records: ids only, and where the references came from."""
        if self.identity is not None:
            return PersonRef(identity=self.identity, references="library")
        return PersonRef(archive_person=self.number, references="best faces of this archive")


def vectors_of(
    context: StageContext, session: Session, c: Claim, wanted: Sequence[str], *, scope: str, pack: FacePack, made: Made
) -> dict[str, Floats]:
    """Return unit-length embeddings by this pack; people whose references the preset was not made for are left out.

    Raises:
        ConsentError: somebody does not allow it any more, or was erased.
        ModelError: embedded by other recognisers only.
    """

    return identities.embeddings(
        session,
        c.owner,
        wanted,
        scope=scope,
        encoder=pack.encoder_sha256,
        moment=now(session),
        unseal=context.vault.open,
        domain=made.domain,
    )


def known_people(context: StageContext, c: Claim, pack: FacePack, made: Made) -> list[Person]:
    """Return everybody that faces of this batch may be paired with; consent is asked now.

    Who withdrew, or was erased, since the archive was opened is paired with nothing: their faces stay as they are, and
    everybody else's are worked on. Who was asked for by name is missed.

    Raises:
        ConsentError: somebody whom this photo is to show, or whom every photo shows, does not allow it any more.
        ModelError: embedded by another recogniser.
    """
    options = PhotoOptions.load(c.options)
    wanted = [who for rule in PhotoParams.load(c.params).swap for who in (rule.of, rule.to) if who]
    with context.ledger.read() as session:
        allowed = identities.allowing(session, c.owner, options.task, now(session))
        wanted += [who for who in options.identities if options.everyone or who in allowed]
        vectors = vectors_of(context, session, c, wanted, scope=options.task, pack=pack, made=made)
        crops = identities.crops(session, list(vectors), unseal=context.vault.open)
        found = photos.people(session, options.people_of or c.batch_id) if options.cluster else ()
    people = [
        Person(vector=vectors[i], crop=decode_crop(crops.get(i)), identity=i)
        for i in dict.fromkeys(wanted)
        if i in vectors
    ]
    for row in found:
        if row.encoder != pack.encoder_sha256:
            raise ModelError("the faces of this archive were compared by another recogniser", code="encoder_mismatch")
        people.append(
            Person(vector=np.frombuffer(context.vault.open(row.envelope, row.data), np.float32), number=row.number)
        )
    return people


def pair_faces(faces: Sequence[Face], people: Sequence[Person], c: Claim, *, least: float) -> dict[int, int]:
    """Return index of the person by index of the face, by the rules of the batch; faces of nobody are left out.

    A face that is restored into the wrong person is worse than one that stays, so likeness alone must reach the
    threshold that was measured or published for the recogniser. Where the caller says who a photo shows, it need not.

    Args:
        least: cosine from which a face may be a person's (the version's threshold of pairing).

    Raises:
        StageError: a rule of a swap names a face that is not there.
    """
    sure = replace(RESTORE, min_likeness=least, margin=MARGIN)
    if rules := PhotoParams.load(c.params).swap:
        return dict(_swapped(faces, people, rule, sure) for rule in rules)
    if not faces or not people:
        return {}
    references = [Reference(embedding=person.vector) for person in people]
    if PhotoOptions.load(c.options).everyone:
        likeness = np.stack([face.embedding for face in faces]) @ people[0].vector
        return {int(likeness.argmax()): 0}
    return pair(faces, references, sure)


def _swapped(faces: Sequence[Face], people: Sequence[Person], rule: SwapRule, sure: DiirSettings) -> tuple[int, int]:
    by_id = {person.identity: index for index, person in enumerate(people)}
    if missing := {who for who in (rule.to, rule.of) if who} - by_id.keys():
        raise StageError(
            f"identity {min(missing)} was enrolled from pictures that this preset was not made for", code=OUTSIDE
        )
    to = by_id[rule.to]
    if rule.face is not None:
        if rule.face >= len(faces):
            raise StageError(f"the map names face {rule.face}, the photo shows {len(faces)}", code="swap_face_missing")
        return rule.face, to
    if not faces:
        raise StageError("no face was found in the photo, so none can be swapped", code="no_face")
    if rule.of:
        replaced = [Reference(embedding=people[by_id[rule.of]].vector)]
        found = pair(faces, replaced, sure)
        if not found:
            raise StageError("nobody in the photo resembles the person to be replaced", code="swap_person_missing")
        return next(iter(found)), to
    sides = [float(np.prod(face.box[2:] - face.box[:2])) for face in faces]
    return int(np.argmax(sides)), to
