"""The erase that takes everything of a person away, and the count that proves it.

One transaction stops what is under way, removes rows, forgets names and marks the bytes; the caller deletes the bytes.
What stays is a tombstone: the identity's id, when it was erased, which scopes had been allowed, and audit rows of ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Text, cast, delete, func, or_, select, update
from sqlalchemy.orm import Session

from orchestrator.contracts.base import JsonObject
from orchestrator.contracts.people import EnrolParams
from orchestrator.contracts.photos import PhotoParams
from orchestrator.contracts.portraits import PortraitParams
from orchestrator.ledger import artifacts, audit, datasets, identities, photos, stage_results, training
from orchestrator.ledger.engine.session import Ledger, now, retrying
from orchestrator.ledger.engine.states import BatchState, State
from orchestrator.ledger.faces import groups
from orchestrator.ledger.privacy import register
from orchestrator.ledger.privacy.register import Words
from orchestrator.ledger.queue import lifecycle
from orchestrator.ledger.tables.rows import (
    Artifact,
    Batch,
    Consent,
    Identity,
    Item,
    ItemIdentity,
    Output,
    Reference,
    Stage,
)
from orchestrator.ledger.tables.rows_api import KeptAnswer, Upload
from orchestrator.ledger.tables.rows_photos import ArchivePerson, StageResultIdentity
from orchestrator.ledger.tables.rows_reviews import Review

PROMPTS = (PortraitParams.column_key("prompt"), PortraitParams.column_key("negative_prompt"))
INGESTED = PhotoParams.column_key("ingested")
KEPT = "artifact:"
FAILED_KEPT = timedelta(hours=24)
"""So long an enrolment that failed can be looked at and tried again."""
ERASED = "erased"
"""Stands where a name stood that a row cannot do without."""


@dataclass(frozen=True, kw_only=True)
class Erased:
    """What an erase took away; `keys` are the store keys whose bytes must go now."""

    identity_id: str
    references: int
    outputs: int
    items: int
    artifact_ids: list[str]
    keys: list[str]
    data_sets: list[str]
    """Versions of data sets that hold this person, marked now."""
    models: list[str]
    """Model versions that were trained on them, marked now."""
    words: Words
    """What rows called them: for the search that verifies the erase, and nowhere else."""


@retrying
def erase(ledger: Ledger, owner: str, identity_id: str) -> Erased:
    """Take away a person: references, embeddings, outputs that show them, handle and name; stop items under way.

    The caller deletes the bytes under `keys` and then confirms with `sweeper.artifacts_deleted`.

    Raises:
        NotFoundError: no such identity.
    """
    with ledger.write() as session:
        moment = now(session)
        identity = identities.get(session, owner, identity_id)
        words = Words(identity_id=identity.id, handle=identity.handle, name=identity.name)
        enrolments = _enrolments(session, owner, identity.handle)
        item_ids = list(session.scalars(select(ItemIdentity.item_id).where(ItemIdentity.identity_id == identity.id)))
        _stop_items(session, [*item_ids, *(item.id for item in enrolments)], moment)
        outputs = session.scalars(select(Output).where(Output.item_id.in_(item_ids))).all()
        refs = session.scalars(select(Reference).where(Reference.identity_id == identity.id)).all()
        artifact_ids = {o.artifact_id for o in outputs} | {r.artifact_id for r in refs}
        artifact_ids |= photos.artifacts_of(session, item_ids) | set(stage_results.forget(session, identity.id))
        artifact_ids |= {given.artifact_id for item in enrolments for given in EnrolParams.load(item.params).references}
        own = _handed_in(session, owner, item_ids, refs, enrolments, moment)
        artifact_ids |= own
        kept_for_others = _of_others(session, owner, identity.id, item_ids, artifact_ids) - own
        shown = datasets.forget(session, identity.id)
        artifact_ids |= set(shown)
        session.execute(update(Item).where(Item.id.in_(item_ids)).values(output_id=None))
        session.execute(delete(Output).where(Output.id.in_([o.id for o in outputs])))
        session.execute(delete(Reference).where(Reference.identity_id == identity.id))
        groups.forget(session, owner, groups.of_handle(session, owner, identity.handle))
        _forget_names(session, owner, identity, item_ids, enrolments, words, moment)
        free = artifact_ids - _still_used(session, artifact_ids) - kept_for_others
        session.execute(update(Artifact).where(Artifact.id.in_(free)).values(state="deleting", expires_at=moment))
        keys = list(session.scalars(select(Artifact.key).where(Artifact.id.in_(free))))
        tainted = datasets.taint(session, identity.id, moment, shown)
        erased = Erased(
            identity_id=identity.id,
            references=len(refs),
            outputs=len(outputs),
            items=len(item_ids),
            artifact_ids=sorted(free),
            keys=keys,
            data_sets=tainted,
            models=training.forget(session, tainted, moment),
            words=words,
        )
        detail = {
            "references": erased.references,
            "outputs": erased.outputs,
            "objects": len(keys),
            "data_sets": len(tainted),
            "models": len(erased.models),
        }
        audit.write(session, owner, "identity.erase", identity.id, detail, moment)
        return erased


def remaining(session: Session, identity_id: str) -> dict[str, int]:
    """Count the rows that still tell something of a person; all are zero after an erase."""
    items = select(ItemIdentity.item_id).where(ItemIdentity.identity_id == identity_id)
    identity = session.get_one(Identity, identity_id, populate_existing=True)
    counts = {
        "references": select(func.count(Reference.id)).where(Reference.identity_id == identity_id),
        "outputs": select(func.count(Output.id)).where(Output.item_id.in_(items)),
        "kept_results": select(func.count()).where(StageResultIdentity.identity_id == identity_id),
        "valid_consents": select(func.count(Consent.id)).where(
            Consent.identity_id == identity_id, Consent.revoked_at.is_(None)
        ),
    }
    found = {name: session.scalar(query) or 0 for name, query in counts.items()}
    chunks = datasets.showing(session, identity_id)
    return {**found, "chunks": chunks, "names": int(identity.handle is not None or identity.name is not None)}


def _stop_items(session: Session, item_ids: Sequence[str], moment: datetime) -> None:
    lifecycle.cancel(session, Stage.item_id.in_(item_ids), Item.id.in_(item_ids), moment)
    open_batches = select(Item.batch_id).where(Item.id.in_(item_ids)).distinct()
    for batch_id in session.scalars(
        select(Batch.id).where(
            Batch.id.in_(open_batches), Batch.state.in_((BatchState.IN_PROGRESS, BatchState.CANCELLING))
        )
    ).all():
        lifecycle.close_batch(session, batch_id, moment)


def _enrolments(session: Session, owner: str, handle: str | None) -> Sequence[Item]:
    """Return the items that added this person, or more pictures of them: they hold handle, name and file names."""
    query = select(Item).where(
        Item.owner == owner,
        Item.batch_id.in_(select(Batch.id).where(Batch.owner == owner, Batch.kind == "enrol")),
        Item.params[EnrolParams.column_key("handle")].as_string() == handle,
    )
    return session.scalars(query).all()


def _forget_names(
    session: Session,
    owner: str,
    identity: Identity,
    item_ids: Sequence[str],
    enrolments: Sequence[Item],
    words: Words,
    moment: datetime,
) -> None:
    """Empty every place that says who this was: handle, name, enrolments, prompts, kept answers, people of archives."""
    for item in enrolments:
        item.params = EnrolParams().dump()
    for item in session.scalars(select(Item).where(Item.id.in_(item_ids))):
        # photos have no prompts; whatever else a row says of the picture stays, so that it can still be read
        prompts = {name: "" for name in PROMPTS if item.params.get(name)}
        if prompts:
            item.params = {**item.params, **prompts}
    body = cast(KeptAnswer.body, Text)
    said = [body.contains(word, autoescape=True) for word in (identity.id, *words.patterns())]
    session.execute(delete(KeptAnswer).where(KeptAnswer.owner == owner, or_(*said)))
    # landmarks, boxes and hashes of pictures are theirs too
    shows = [*item_ids, *(item.id for item in enrolments)]
    session.execute(update(Stage).where(Stage.item_id.in_(shows)).values(result=None))
    for item in session.scalars(select(Item).where(Item.id.in_(item_ids))):
        if item.params.get(INGESTED):
            item.params = {**item.params, INGESTED: None}
    batches = select(Item.batch_id).where(Item.id.in_(item_ids))
    for person in session.scalars(select(ArchivePerson).where(ArchivePerson.batch_id.in_(batches))).all():
        if {face[0] for face in person.faces} & set(item_ids):
            session.delete(person)
    session.execute(update(Consent).where(Consent.identity_id == identity.id).values(granted_by=ERASED))
    session.execute(
        update(Consent)
        .where(Consent.identity_id == identity.id, Consent.revoked_at.is_(None))
        .values(revoked_at=moment)
    )
    session.execute(update(Review).where(Review.item_id.in_(item_ids)).values(note=""))
    identity.handle, identity.name, identity.erased_at = None, None, moment
    session.flush()
    register.scrub(session, owner, words)


def _handed_in(
    session: Session,
    owner: str,
    item_ids: Sequence[str],
    refs: Sequence[Reference],
    enrolments: Sequence[Item],
    moment: datetime,
) -> set[str]:
    """End the uploads that hold the person's pictures; return their bytes, and all that are the same.

    Those are the pictures themselves, by their hash, and archives that ended batches which show the person were read
    from. What else was uploaded cannot be known to show them; it goes when its time is over.
    """
    hashes = {ref.picture_sha256 for ref in refs if ref.picture_sha256}
    hashes |= {one.picture_sha256 or "" for item in enrolments for one in EnrolParams.load(item.params).references}
    batches = select(Item.batch_id).where(Item.id.in_(item_ids))
    read = {
        str(options.get("source") or "").removeprefix(KEPT)
        for options in session.scalars(select(Batch.options).where(Batch.id.in_(batches), ~Batch.open))
    }
    mine = Upload.sha256.in_(hashes) | Upload.artifact_id.in_(read)
    found = session.scalars(select(Upload).where(Upload.owner == owner, mine)).all()
    ended = {upload.artifact_id for upload in found if upload.artifact_id}
    for upload in found:
        upload.state, upload.name, upload.artifact_id, upload.expires_at = "aborted", ERASED, None, moment
    same = select(Artifact.id).where(Artifact.owner == owner, Artifact.sha256.in_(hashes) | Artifact.id.in_(read))
    return ended | set(session.scalars(same))


def _of_others(
    session: Session, owner: str, identity_id: str, item_ids: Sequence[str], artifact_ids: set[str]
) -> set[str]:
    """Return what items of other people use of these bytes.

    A photo into which the person's face was swapped shows somebody else before: its original and preview belong to
    the other items that were made of it. A photo in which the person stands is nobody else's.
    """
    items = session.execute(select(Item, Batch.options).join(Batch).where(Item.id.in_(item_ids))).tuples().all()
    stands = [item.id for item, options in items if not _only_comes_in(item, options, identity_id)]
    swapped = set(item_ids) - set(stands)
    if not swapped:
        return set()
    originals = photos.originals(session, list(swapped)) & artifact_ids
    others = set(photos.made_of(session, owner, originals)) - set(item_ids)
    return photos.artifacts_of(session, list(others)) - photos.artifacts_of(session, stands)


def _only_comes_in(item: Item, options: JsonObject, identity_id: str) -> bool:
    """Tell whether a photo shows the person only where their face was put."""
    if options.get("task") != "swap" or "swap" not in item.params:
        return False
    return all(rule.of != identity_id for rule in PhotoParams.load(item.params).swap)


def expiring(session: Session, owner: str) -> dict[str, str | int | None]:
    """Return how many objects of an owner wait for a use or for their end, and when the last of them goes."""
    waiting = Artifact.owner == owner, Artifact.state == "pending"
    count, last = session.execute(select(func.count(), func.max(Artifact.expires_at)).where(*waiting)).one()
    return {"objects": count, "until": last.isoformat() if last else None}


@retrying
def forget_failed(ledger: Ledger, *, before: timedelta = FAILED_KEPT) -> int:
    """Empty enrolments that came to nothing some time ago; no identity exists by which they could be erased.

    Returns how many those were; their pictures are let go.
    """
    with ledger.write() as session:
        moment = now(session)
        enrolling = select(Batch.id).where(Batch.kind == "enrol")
        query = select(Item).where(
            Item.batch_id.in_(enrolling),
            Item.state.in_((State.FAILED, State.CANCELLED)),
            Item.finished_at < moment - before,
            Item.params[EnrolParams.column_key("handle")].as_string() != "",
        )
        found = session.scalars(query).all()
        for item in found:
            given = EnrolParams.load(item.params)
            artifacts.discard(session, [one.artifact_id for one in given.references])
            item.params = EnrolParams().dump()
        return len(found)


def _still_used(session: Session, artifact_ids: set[str]) -> set[str]:
    used = set(session.scalars(select(Reference.artifact_id).where(Reference.artifact_id.in_(artifact_ids))))
    return used | set(session.scalars(select(Output.artifact_id).where(Output.artifact_id.in_(artifact_ids))))
