"""Pages of the library: every face, one person with references, consents and use, and the erase with its receipt."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Annotated

from fastapi import APIRouter, File, Form, Security, UploadFile
from starlette.responses import RedirectResponse, Response

from orchestrator.api.context import Allowed, Caller, Librarian
from orchestrator.api.pages import people_view
from orchestrator.api.pages.pages import shown
from orchestrator.contracts.base import Line
from orchestrator.errors import FpgaError, UsageError
from orchestrator.ledger import identities as rows
from orchestrator.people import examples, identities
from orchestrator.people.identities import ConsentGiven, NewPerson, Picture

router = APIRouter(prefix="/people", include_in_schema=False)
Looker = Annotated[Caller, Security(Allowed(cost=0.05), scopes=["people"])]
"""Who looks at faces: the many of a page take no more of the rate than a few requests."""
Pictures = Annotated[list[UploadFile], File(max_length=identities.MAX_PICTURES)]
Scopes = Annotated[list[Line], Form(max_length=len(rows.SCOPES))]
Text = Annotated[str, Form(max_length=100_000)]
Word = Annotated[str, Form(max_length=200)]
NO_STORE = {"Cache-Control": "private, no-store"}


@dataclass(frozen=True, kw_only=True)
class Given:
    """What was written into the form, so that a refusal does not empty it; files cannot be put back."""

    handle: str = ""
    name: str = ""
    scopes: Sequence[str] = ()
    granted_by: str = ""
    text: str = ""
    expires: str = ""


NOTHING = Given()


@router.get("")
def people(caller: Librarian) -> Response:
    """Show everybody in the library."""
    return _library(caller)


@router.post("")
def add(
    caller: Librarian,
    pictures: Pictures,
    handle: Word,
    scopes: Scopes = [],  # noqa: B006 fastapi copies it
    name: Word = "",
    granted_by: Word = "",
    text: Text = "",
    expires: Word = "",
    same_person: Annotated[bool, Form()] = False,
) -> Response:
    """Hand in a person's pictures; a worker looks for their face."""
    try:
        consent = consent_of(caller, scopes, granted_by, text, expires)
        person = NewPerson(
            handle=handle.strip(),
            pictures=_read(pictures),
            consent=consent,
            name=name.strip() or None,
            same_person=same_person,
        )
        batch_id = identities.add(caller.ledger, caller.store, caller.settings, [person], owner=caller.owner)
    except FpgaError as error:
        given = Given(handle=handle, name=name, scopes=scopes, granted_by=granted_by, text=text, expires=expires)
        return _library(caller, error, given)
    return RedirectResponse(f"/people/added/{batch_id}", 303)


@router.post("/examples")
def add_examples(caller: Librarian) -> Response:
    """Add the rendered people that come with the sources."""
    known = {person["handle"] for person in identities.list_people(caller.ledger, caller.owner)}
    new = examples.people(known, scopes=rows.SCOPES)
    if new:
        identities.add(caller.ledger, caller.store, caller.settings, new, owner=caller.owner)
    return RedirectResponse("/people", 303)


@router.get("/added/{batch_id}")
def added(caller: Librarian, batch_id: str) -> Response:
    """Say what a worker found in the pictures, and lead to the person."""
    (outcome,) = identities.outcomes(caller.ledger, caller.owner, batch_id)
    if outcome.identity_id:
        return RedirectResponse(f"/people/{outcome.identity_id}", 303)
    live = None if outcome.error else f"/v1/batches/{batch_id}/events"
    return shown("added.html", f"Adding {outcome.handle}", error=outcome.error, batch_id=batch_id, live=live)


@router.get("/{identity_id}")
def person(caller: Librarian, identity_id: str) -> Response:
    """Show a person."""
    return _person(caller, identity_id)


@router.get("/{identity_id}/face")
def face(caller: Looker, identity_id: str) -> Response:
    """Return a picture of a person's face."""
    data, media_type = people_view.face(caller.ledger, caller.store, caller.context.vault, caller.owner, identity_id)
    return Response(data, media_type=media_type, headers=NO_STORE)


@router.get("/{identity_id}/references/{reference_id}")
def reference(caller: Looker, identity_id: str, reference_id: str) -> Response:
    """Return a reference picture as a browser can show it."""
    c = caller
    data, media_type = people_view.reference(c.ledger, c.store, c.context.vault, c.owner, identity_id, reference_id)
    return Response(data, media_type=media_type, headers=NO_STORE)


@router.post("/{identity_id}/references")
def more(
    caller: Librarian, identity_id: str, pictures: Pictures, same_person: Annotated[bool, Form()] = False
) -> Response:
    """Hand in more pictures of a person; consents stay as they are."""
    handle = identities.show(caller.ledger, caller.owner, identity_id)["handle"]
    nothing = ConsentGiven(scopes=(), granted_by=caller.owner)
    try:
        new = NewPerson(handle=handle, pictures=_read(pictures), consent=nothing, same_person=same_person)
        batch_id = identities.add(caller.ledger, caller.store, caller.settings, [new], owner=caller.owner, more=True)
    except FpgaError as error:
        return _person(caller, identity_id, error)
    return RedirectResponse(f"/people/added/{batch_id}", 303)


@router.post("/{identity_id}/consents")
def grant(
    caller: Librarian,
    identity_id: str,
    scopes: Scopes = [],  # noqa: B006 fastapi copies it
    granted_by: Word = "",
    text: Text = "",
    expires: Word = "",
) -> Response:
    """Write down what a person allows."""
    try:
        consent = consent_of(caller, scopes, granted_by, text, expires)
        identities.grant(caller.ledger, caller.owner, identity_id, consent)
    except FpgaError as error:
        return _person(caller, identity_id, error)
    return RedirectResponse(f"/people/{identity_id}#consents", 303)


@router.post("/{identity_id}/consents/{scope}/revoke")
def revoke(caller: Librarian, identity_id: str, scope: str) -> Response:
    """End a consent."""
    try:
        identities.revoke(caller.ledger, caller.owner, identity_id, [scope])
    except FpgaError as error:
        return _person(caller, identity_id, error)
    return RedirectResponse(f"/people/{identity_id}#consents", 303)


@router.post("/{identity_id}/erase")
def erase(caller: Librarian, identity_id: str, confirm: Word = "") -> Response:
    """Erase a person whose handle was typed again, and show the receipt this once."""
    handle = identities.show(caller.ledger, caller.owner, identity_id)["handle"]
    try:
        if confirm.strip() != handle:
            raise UsageError("the handle that was typed is not this person's; nothing was erased", code="not_confirmed")
        receipt = identities.erase(caller.ledger, caller.store, caller.settings, caller.owner, identity_id)
    except FpgaError as error:
        return _person(caller, identity_id, error)
    file = base64.b64encode((json.dumps(receipt, indent=2) + "\n").encode()).decode()
    return shown("erased.html", "Erased", receipt=receipt, file=file)


def _library(caller: Caller, wrong: FpgaError | None = None, given: Given = NOTHING) -> Response:
    found = identities.list_people(caller.ledger, caller.owner)
    return shown(
        "people.html",
        "People",
        wrong.http_status if wrong else 200,
        people=found,
        all_scopes=rows.SCOPES,
        most=identities.MAX_PICTURES,
        wrong=wrong,
        given=given,
    )


def _person(caller: Caller, identity_id: str, wrong: FpgaError | None = None) -> Response:
    found = people_view.person(caller.ledger, caller.owner, identity_id)
    return shown(
        "person.html",
        found["name"] or found["handle"],
        wrong.http_status if wrong else 200,
        person=found,
        all_scopes=rows.SCOPES,
        most=identities.MAX_PICTURES,
        wrong=wrong,
    )


def _read(pictures: list[UploadFile]) -> tuple[Picture, ...]:
    """Read what a form sent; a file's name only serves the message about it."""
    return tuple(
        Picture(name=sent.filename or f"picture {number}", data=sent.file.read())
        for number, sent in enumerate(pictures, start=1)
        if sent.filename or sent.size
    )


def consent_of(caller: Caller, scopes: list[str], granted_by: str, text: str, expires: str) -> ConsentGiven:
    """Return a consent as a form gives it; it holds until the end of the day that was chosen."""
    if not scopes:
        raise UsageError("say what the person allows: at least one scope", code="bad_scope")
    until = _end_of(expires.strip()) if expires.strip() else None
    if until is not None and until <= datetime.now(UTC):
        raise UsageError(f"this consent ended on {expires}", code="consent_over")
    return ConsentGiven(
        scopes=tuple(scopes),
        granted_by=granted_by.strip() or caller.owner,
        text=text.encode() if text.strip() else None,
        expires_at=until,
    )


def _end_of(day: str) -> datetime:
    try:
        return datetime.combine(date.fromisoformat(day), time.max, UTC)
    except ValueError as error:
        raise UsageError(f"a date such as 2027-01-31 is wanted, got {day[:40]!r}", code="bad_date") from error
