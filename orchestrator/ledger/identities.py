"""People: references with embeddings, and consents; taking a person away is erasure.py.

Names leave this module only towards the person who asks; keys, messages, logs and audit rows carry ids.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from orchestrator.contracts.people import GivenConsent
from orchestrator.errors import ConflictError, ConsentError, ModelError, NotFoundError
from orchestrator.ledger import artifacts, audit, datasets, training
from orchestrator.ledger.engine.base import new_id
from orchestrator.ledger.engine.session import Ledger, now, retrying
from orchestrator.ledger.tables.rows import Artifact, Consent, Identity, Reference, reference_place
from orchestrator.secrets.vault import Envelope

SCOPES = ("generate", "restore", "swap", "train")


Unseal = Callable[[Envelope, bytes], bytes]
"""Opens sealed bytes, given their envelope."""
Rewrap = Callable[[Envelope, str], str]
"""Wraps a data key for another place."""


@dataclass(frozen=True, kw_only=True)
class NewReference:
    """A reference picture whose face was found: box and landmarks in pixels.

    `embedding` is (E,) float32 of unit length as bytes, `crop` the aligned face as PNG; both are sealed in the
    `envelope` if it has a key.
    """

    artifact_id: str
    encoder: str
    envelope: Envelope
    picture_sha256: str
    embedding: bytes
    crop: bytes | None
    face: dict[str, Any]


def get(session: Session, owner: str, handle_or_id: str) -> Identity:
    """Return a living identity by its handle or id.

    Raises:
        NotFoundError: there is none of this owner, or it was erased.
    """
    found = session.scalars(
        select(Identity).where(
            Identity.owner == owner,
            Identity.erased_at.is_(None),
            (Identity.handle == handle_or_id) | (Identity.id == handle_or_id),
        )
    ).first()
    if found is None:
        raise NotFoundError(f"there is no identity {handle_or_id!r}", code="identity_not_found")
    return found


def listing(session: Session, owner: str) -> Sequence[tuple[Identity, int]]:
    """Return the living identities of this owner with their number of references, by handle."""
    query = (
        select(Identity, func.count(Reference.artifact_id.distinct()))
        .outerjoin(Reference, Reference.identity_id == Identity.id)
        .where(Identity.owner == owner, Identity.erased_at.is_(None))
        .group_by(Identity.id)
        .order_by(Identity.handle)
    )
    return list(session.execute(query).tuples())


def references(session: Session, identity_id: str) -> Sequence[tuple[Reference, Artifact]]:
    """Return the reference pictures of an identity, oldest first, each as it was embedded last."""
    query = (
        select(Reference, Artifact)
        .join(Artifact, Artifact.id == Reference.artifact_id)
        .where(Reference.identity_id == identity_id)
        .order_by(Reference.created_at, Reference.id)
    )
    return list({artifact.id: (row, artifact) for row, artifact in session.execute(query).tuples()}.values())


def embedded(session: Session, identity_id: str) -> Sequence[Reference]:
    """Return every embedding of an identity, by every recogniser that made one."""
    return session.scalars(select(Reference).where(Reference.identity_id == identity_id)).all()


def of_handle(session: Session, owner: str, handle: str) -> Sequence[Reference]:
    """Return the embedded references of the living person of a handle; none where there is nobody."""
    query = select(Reference).join(Identity, Identity.id == Reference.identity_id)
    living = Identity.owner == owner, Identity.handle == handle, Identity.erased_at.is_(None)
    return session.scalars(query.where(*living)).all()


def consents(session: Session, identity_id: str) -> Sequence[Consent]:
    """Return every consent ever given by this person, revoked and expired ones included."""
    return session.scalars(select(Consent).where(Consent.identity_id == identity_id).order_by(Consent.granted_at)).all()


def scopes(session: Session, owner: str, moment: datetime) -> dict[str, tuple[str, frozenset[str]]]:
    """Return {handle: (identity id, scopes allowed at this moment)} of all living identities of an owner."""
    allowed: dict[str, set[str]] = {}
    for identity_id, scope in session.execute(
        select(Consent.identity_id, Consent.scope).where(Consent.owner == owner, *_valid(moment))
    ).tuples():
        allowed.setdefault(identity_id, set()).add(scope)
    living = select(Identity.handle, Identity.id).where(Identity.owner == owner, Identity.erased_at.is_(None))
    return {
        handle: (identity_id, frozenset(allowed.get(identity_id, ())))
        for handle, identity_id in session.execute(living).tuples()
        if handle is not None
    }


def domains(session: Session, owner: str) -> dict[str, str]:
    """Return {identity id: what most of its references were seen to be}, as far as that was looked at."""
    seen: dict[str, Counter[str]] = {}
    query = select(Reference.identity_id, Reference.face).where(Reference.owner == owner)
    for identity_id, face in session.execute(query).tuples():
        if "domain" in face:
            seen.setdefault(identity_id, Counter())[face["domain"]] += 1
    return {identity_id: found.most_common(1)[0][0] for identity_id, found in seen.items()}


def scopes_ever(session: Session, owner: str) -> dict[str, frozenset[str]]:
    """Return {identity id: every scope that was ever granted}, whether it still holds or not."""
    ever: dict[str, set[str]] = {}
    for identity_id, scope in session.execute(
        select(Consent.identity_id, Consent.scope).where(Consent.owner == owner)
    ).tuples():
        ever.setdefault(identity_id, set()).add(scope)
    return {identity_id: frozenset(found) for identity_id, found in ever.items()}


def allowing(session: Session, owner: str, scope: str, moment: datetime) -> set[str]:
    """Return the ids of living people who allow something now."""
    return {identity_id for identity_id, allowed in scopes(session, owner, moment).values() if scope in allowed}


def embeddings(
    session: Session,
    owner: str,
    identity_ids: Sequence[str],
    *,
    scope: str,
    encoder: str,
    moment: datetime,
    unseal: Unseal,
    domain: str | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Return one unit-length embedding (E,) for each identity: the mean of its references.

    Consent is asked again here, at the moment of use: it may have ended since the batch was submitted.

    Args:
        domain: references that were seen to be of another domain are left out, and people without any other.
        unseal: opens what was sealed; a vault's `open`.

    Raises:
        ConsentError: an identity was erased, or no longer allows `scope`.
        ModelError: somebody's references were embedded by other recognisers only.
    """
    wanted = list(dict.fromkeys(identity_ids))
    allowed = set(
        session.scalars(
            select(Consent.identity_id)
            .join(Identity, Identity.id == Consent.identity_id)
            .where(
                Consent.identity_id.in_(wanted),
                Consent.scope == scope,
                Identity.owner == owner,
                Identity.erased_at.is_(None),
                *_valid(moment),
            )
        )
    )
    for identity_id in wanted:
        if identity_id not in allowed:
            raise ConsentError(f"identity {identity_id} does not allow {scope!r} (any more)", identity=identity_id)
    vectors: dict[str, list[NDArray[np.float32]]] = {i: [] for i in wanted}
    elsewhere: dict[str, str] = {}
    for row in session.scalars(select(Reference).where(Reference.identity_id.in_(wanted))):
        if domain is not None and row.face.get("domain", domain) != domain:
            continue
        if row.encoder == encoder:
            vectors[row.identity_id].append(np.frombuffer(unseal(row.envelope, row.embedding), np.float32))
        else:
            elsewhere[row.identity_id] = row.encoder
    for identity_id, other in elsewhere.items():
        if not vectors[identity_id]:
            raise ModelError(
                f"identity {identity_id} was embedded by recogniser {other[:12]}, this worker has {encoder[:12]}; "
                "run: fpga identity reembed",
                code="encoder_mismatch",
            )
    return {i: _unit(np.mean(found, axis=0)) for i, found in vectors.items() if found}


def crops(session: Session, identity_ids: Sequence[str], *, unseal: Unseal) -> dict[str, bytes]:
    """Return the aligned face of each identity's largest reference as PNG; those enrolled without one are left out.

    Ask for people that `embeddings` answered for: consent is not asked here again.
    """
    query = select(Reference).where(Reference.identity_id.in_(identity_ids), Reference.crop.is_not(None))
    best: dict[str, Reference] = {}
    for row in session.scalars(query.order_by(Reference.created_at, Reference.id)):
        if row.identity_id not in best or _side(row) > _side(best[row.identity_id]):
            best[row.identity_id] = row
    return {i: unseal(row.envelope, row.crop) for i, row in best.items() if row.crop is not None}


def _side(row: Reference) -> float:
    left, top, right, bottom = row.face["box"]
    return float(min(right - left, bottom - top))


def enrol(
    session: Session,
    owner: str,
    *,
    handle: str,
    name: str | None,
    found: Sequence[NewReference],
    consent: GivenConsent,
    moment: datetime,
    rewrap: Rewrap,
) -> str:
    """Write an identity with references and consents, or add references to the one of that handle; return its id.

    Args:
        rewrap: makes the keys of the references this person's; a vault's `rewrap`.
    """
    identity = session.scalars(
        select(Identity).where(Identity.owner == owner, Identity.handle == handle, Identity.erased_at.is_(None))
    ).first()
    if identity is None:
        identity = Identity(id=new_id("idn"), owner=owner, handle=handle, name=name, created_at=moment)
        session.add(identity)
        session.flush()
    known = set(session.scalars(select(Reference.picture_sha256).where(Reference.identity_id == identity.id)))
    for new in found:
        if new.picture_sha256 in known:
            artifacts.discard(session, [new.artifact_id])
        else:
            artifacts.confirm(session, new.artifact_id)
            key = None if new.envelope.key is None else rewrap(new.envelope, reference_place(identity.id))
            _add(session, owner, identity.id, new, key, moment)
    for scope in consent.scopes:
        grant(
            session,
            owner,
            identity.id,
            scope=scope,
            granted_by=consent.granted_by,
            text_sha256=consent.text_sha256,
            expires_at=consent.expires_at,
            moment=moment,
        )
    audit.write(session, owner, "identity.enrol", identity.id, {"references": len(found)}, moment)
    return identity.id


def to_embed(session: Session, owner: str, identity_id: str, encoder: str) -> Sequence[tuple[Reference, Artifact]]:
    """Return the references of a living identity that this recogniser has not embedded, oldest first.

    Raises:
        NotFoundError: there is no such identity, or it was erased.
    """
    identity = get(session, owner, identity_id)
    query = select(Reference.artifact_id).where(Reference.identity_id == identity.id, Reference.encoder == encoder)
    there = set(session.scalars(query))
    return [(row, artifact) for row, artifact in references(session, identity.id) if artifact.id not in there]


def reembed(session: Session, owner: str, identity_id: str, found: Sequence[NewReference], moment: datetime) -> int:
    """Write references once more, as another recogniser embedded them; return how many were not there yet.

    They keep the time at which their pictures were given.

    Raises:
        NotFoundError: the identity was erased meanwhile.
    """
    identity = get(session, owner, identity_id)
    rows = session.scalars(select(Reference).where(Reference.identity_id == identity.id)).all()
    given = {row.artifact_id: row.created_at for row in rows}
    there = {(row.artifact_id, row.encoder) for row in rows}
    fresh = [new for new in found if new.artifact_id in given and (new.artifact_id, new.encoder) not in there]
    for new in fresh:
        _add(session, owner, identity.id, new, new.envelope.key, given[new.artifact_id])
    audit.write(session, owner, "identity.reembed", identity.id, {"references": len(fresh)}, moment)
    return len(fresh)


def _add(
    session: Session, owner: str, identity_id: str, new: NewReference, data_key: str | None, given_at: datetime
) -> None:
    session.add(
        Reference(
            id=new_id("ref"),
            identity_id=identity_id,
            owner=owner,
            artifact_id=new.artifact_id,
            encoder=new.encoder,
            data_key=data_key,
            picture_sha256=new.picture_sha256,
            embedding=new.embedding,
            crop=new.crop,
            face=new.face,
            created_at=given_at,
        )
    )


def grant(
    session: Session,
    owner: str,
    identity_id: str,
    *,
    scope: str,
    granted_by: str,
    text_sha256: str | None,
    expires_at: datetime | None,
    moment: datetime,
) -> None:
    """Write down that a person allowed a scope."""
    session.add(
        Consent(
            id=new_id("con"),
            identity_id=identity_id,
            owner=owner,
            scope=scope,
            granted_by=granted_by,
            text_sha256=text_sha256,
            granted_at=moment,
            expires_at=expires_at,
        )
    )
    audit.write(session, owner, "consent.grant", identity_id, {"scope": scope}, moment)


@retrying
def revoke(ledger: Ledger, owner: str, identity_id: str, scope: str) -> int:
    """End every valid consent of this scope and return how many there were.

    Who no longer allows `train` taints the data sets that hold them and the models made of these, as an erase does.
    """
    with ledger.write() as session:
        moment = now(session)
        ended = session.scalars(
            update(Consent)
            .where(Consent.identity_id == identity_id, Consent.scope == scope, Consent.revoked_at.is_(None))
            .values(revoked_at=moment)
            .returning(Consent.id)
        ).all()
        if scope == datasets.SCOPE:
            training.forget(session, datasets.taint(session, identity_id, moment), moment)
        audit.write(session, owner, "consent.revoke", identity_id, {"scope": scope, "ended": len(ended)}, moment)
        return len(ended)


def check_handle_free(session: Session, owner: str, handle: str) -> None:
    """Check that no living identity has this handle.

    Raises:
        ConflictError: one has.
    """
    if session.scalar(
        select(Identity.id).where(Identity.owner == owner, Identity.handle == handle, Identity.erased_at.is_(None))
    ):
        raise ConflictError(
            f"there is a person {handle!r} already: add the pictures to them instead (at the command line with --more)",
            code="handle_taken",
        )


def _valid(moment: datetime) -> tuple[Any, ...]:
    return Consent.revoked_at.is_(None), (Consent.expires_at.is_(None)) | (Consent.expires_at > moment)


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    length = float(np.linalg.norm(vector))
    assert length > 0, "an embedding has a length"
    return (vector / length).astype(np.float32)
