"""People: reference pictures, what they allow, where they are used, and taking them away."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Request, UploadFile
from pydantic import AwareDatetime, Field
from starlette.responses import Response

from orchestrator.api.context import Librarian
from orchestrator.api.paging import TAGGED, Answer, IdempotencyKey, Prefer, once, tagged, wait_seconds, waiting
from orchestrator.api.requests import Strict
from orchestrator.contracts.base import Line
from orchestrator.errors import InputError, NotFoundError, UsageError
from orchestrator.ledger import identities as people
from orchestrator.ledger.tables.rows import Identity
from orchestrator.ledger.views import listings
from orchestrator.people import identities
from orchestrator.people.identities import ConsentGiven, NewPerson, Picture
from orchestrator.pictures import check_picture

router = APIRouter(prefix="/v1/identities", tags=["identities"])


ENROLLED: dict[int | str, dict[str, object]] = {
    201: {"description": "The person was enrolled while the client waited."}
}


class Consent(Strict):
    """What a person allows; of `text`, which they saw, only the sha256 is kept."""

    scopes: Annotated[list[Line], Field(min_length=1, max_length=4)]
    granted_by: Line | None = None
    text: Annotated[str, Field(max_length=100_000)] | None = None
    expires_at: AwareDatetime | None = None

    def given(self, owner: str) -> ConsentGiven:
        """Return it as the library takes it.

        Raises:
            UsageError: it ended before it began.
        """
        if self.expires_at is not None and self.expires_at <= datetime.now(UTC):
            raise UsageError(f"this consent ended at {self.expires_at.isoformat()}", code="consent_over")
        text = self.text.encode("utf-8", "replace") if self.text is not None else None
        return ConsentGiven(
            scopes=tuple(self.scopes), granted_by=self.granted_by or owner, text=text, expires_at=self.expires_at
        )


@router.get("", operation_id="list_identities")
def list_(caller: Librarian) -> dict[str, Any]:
    """List everybody in the library, by handle."""
    return {"object": "list", "data": identities.list_people(caller.ledger, caller.owner), "next": None}


@router.post("", status_code=202, operation_id="create_identity", responses=ENROLLED)
def create(
    request: Request,
    caller: Librarian,
    pictures: Annotated[list[UploadFile], File(max_length=identities.MAX_PICTURES)],
    handle: Annotated[str, Form(min_length=1, max_length=64)],
    scopes: Annotated[list[Line], Form(min_length=1, max_length=4)],
    name: Annotated[Line | None, Form()] = None,
    granted_by: Annotated[Line | None, Form()] = None,
    consent_text: Annotated[str | None, Form(max_length=100_000)] = None,
    expires_at: Annotated[AwareDatetime | None, Form()] = None,
    more: Annotated[bool, Form()] = False,
    same_person: Annotated[bool, Form(description="All show this person, however unlike they look.")] = False,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Add a person with 1 to 32 reference pictures; the answer is the batch that looks for their faces."""
    consent = Consent(scopes=scopes, granted_by=granted_by, text=consent_text, expires_at=expires_at)
    handed_in = tuple(
        Picture(name=f"picture {number}", data=sent.file.read()) for number, sent in enumerate(pictures, start=1)
    )
    person = NewPerson(
        handle=handle, pictures=handed_in, consent=consent.given(caller.owner), name=name, same_person=same_person
    )
    digests = [hashlib.sha256(picture.data).hexdigest() for picture in handed_in]
    asked = json.dumps([handle, name, more, same_person, consent.model_dump(mode="json"), digests]).encode()

    def make() -> Answer:
        batch_id = identities.add(caller.ledger, caller.store, caller.settings, [person], owner=caller.owner, more=more)
        with waiting(wait_seconds(prefer)) as seconds:
            (outcome,) = identities.wait_enrolled(caller.ledger, caller.owner, batch_id, timeout_seconds=seconds)
        location = f"/v1/identities/{outcome.identity_id}" if outcome.identity_id else f"/v1/batches/{batch_id}"
        return Answer(
            body={**outcome.as_json(), "batch_id": batch_id},
            status=201 if outcome.identity_id else 202,
            location=location,
        )

    return once(caller, request, key, asked, make)


@router.get("/{identity_id}", operation_id="get_identity", responses=TAGGED)
def show(request: Request, caller: Librarian, identity_id: str) -> Response:
    """Show a person: references, consents, and the newest batches that show them."""
    found = identities.show(caller.ledger, caller.owner, identity_id)
    with caller.ledger.read() as session:
        used = [
            {"batch_id": batch.id, "name": batch.name, "items": count}
            for batch, count in listings.used_in(session, found["id"])
        ]
    return tagged(request, {**found, "used_in": used})


@router.get("/{identity_id}/references/{reference_id}/picture", operation_id="get_reference_picture")
def picture(caller: Librarian, identity_id: str, reference_id: str) -> Response:
    """Return a reference picture, opened from its seal."""
    with caller.ledger.read() as session:
        row: Identity = people.get(session, caller.owner, identity_id)
        pairs = people.references(session, row.id)
    found = next(((reference, stored) for reference, stored in pairs if reference.id == reference_id), None)
    if found is None:
        raise NotFoundError(f"there is no reference {reference_id!r}", code="reference_not_found")
    reference, stored = found
    data = caller.context.vault.open(reference.envelope, caller.store.get(stored.key, sha256=stored.sha256))
    try:
        media_type = check_picture(data).media_type
    except InputError as error:
        raise NotFoundError("this reference has no picture that can be shown", code="reference_not_found") from error
    return Response(data, media_type=media_type, headers={"Cache-Control": "private, no-store"})


@router.post("/{identity_id}/consents", status_code=201, operation_id="grant_consent")
def grant(caller: Librarian, identity_id: str, body: Consent) -> dict[str, Any]:
    """Write down what a person allows."""
    return identities.grant(caller.ledger, caller.owner, identity_id, body.given(caller.owner))


@router.delete("/{identity_id}/consents/{scope}", operation_id="revoke_consent")
def revoke(caller: Librarian, identity_id: str, scope: str) -> dict[str, Any]:
    """End a person's consent for a scope; work under way that needs it stops at its next look."""
    return identities.revoke(caller.ledger, caller.owner, identity_id, [scope])


@router.delete("/{identity_id}", operation_id="erase_identity")
def erase(caller: Librarian, identity_id: str) -> dict[str, Any]:
    """Erase a person: references, embeddings, and every picture that shows them; the answer is the receipt."""
    return identities.erase(caller.ledger, caller.store, caller.settings, caller.owner, identity_id)
