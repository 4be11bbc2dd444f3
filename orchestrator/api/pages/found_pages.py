"""Pages of people in photos: every group of faces that scans found, and one of them, to be named and corrected."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Query
from starlette.responses import RedirectResponse, Response

from orchestrator.api.context import Caller, Librarian
from orchestrator.api.pages.pages import shown
from orchestrator.api.pages.people_pages import NO_STORE, Looker, Scopes, Text, Word, consent_of
from orchestrator.contracts.base import Line
from orchestrator.errors import FpgaError, UsageError
from orchestrator.ledger import identities as rows
from orchestrator.people import found

router = APIRouter(prefix="/faces", include_in_schema=False)
Ids = Annotated[list[Line], Form(max_length=1000)]
Page = Annotated[int, Query(ge=0, le=100_000)]
ON_PAGE = 60


@router.get("")
def people(caller: Librarian) -> Response:
    """Show everybody whom scans found, with their best faces."""
    return _everybody(caller)


@router.get("/unsorted")
def unsorted(caller: Librarian, page: Page = 0) -> Response:
    """Show faces that are nobody's."""
    faces = found.unsorted(caller.ledger, caller.owner, limit=ON_PAGE, offset=page * ON_PAGE)
    return shown("unsorted.html", "Faces that are nobody's", faces=faces, page=page, more=len(faces) == ON_PAGE)


@router.get("/{who}")
def person(caller: Librarian, who: str, page: Page = 0) -> Response:
    """Show a person with their faces."""
    return _person(caller, who, page=page)


@router.get("/{face_id}/picture")
def picture(caller: Looker, face_id: str) -> Response:
    """Return the picture of a face."""
    data = found.crop(caller.ledger, caller.context.vault, caller.owner, face_id)
    return Response(data, media_type="image/jpeg", headers=NO_STORE)


@router.post("/unsorted")
def make(caller: Librarian, faces: Ids = [], who: Word = "") -> Response:  # noqa: B006 fastapi copies it
    """Make a person of faces that are nobody's, or give them to one."""
    if who.strip():
        one = found.give(caller.ledger, caller.owner, who.strip(), faces)
    else:
        one = found.split(caller.ledger, caller.owner, faces)
    return RedirectResponse(f"/faces/{one['id']}", 303)


@router.post("/{who}/name")
def name(caller: Librarian, who: str, given: Annotated[Word, Form(alias="name")] = "") -> Response:
    """Name a person."""
    try:
        found.name(caller.ledger, caller.owner, who, given)
    except FpgaError as error:
        return _person(caller, who, error)
    return RedirectResponse(f"/faces/{who}", 303)


@router.post("/{who}/merge")
def merge(caller: Librarian, who: str, others: Word = "") -> Response:
    """Make several people one."""
    try:
        found.merge(caller.ledger, caller.owner, who, [one.strip() for one in others.split(",") if one.strip()])
    except FpgaError as error:
        return _person(caller, who, error)
    return RedirectResponse(f"/faces/{who}", 303)


@router.post("/{who}/faces")
def faces(caller: Librarian, who: str, action: Word, faces: Ids = []) -> Response:  # noqa: B006 fastapi copies it
    """Take the chosen faces away, or make a person of their own of them."""
    try:
        if action == "refuse":
            found.refuse(caller.ledger, caller.owner, faces)
        elif action == "split":
            return RedirectResponse(f"/faces/{found.split(caller.ledger, caller.owner, faces)['id']}", 303)
        else:
            raise UsageError(f"there is no action {action[:40]!r}", code="bad_option")
    except FpgaError as error:
        return _person(caller, who, error)
    there = any(one["id"] == who for one in found.people(caller.ledger, caller.owner))
    return RedirectResponse(f"/faces/{who}" if there else "/faces", 303)


@router.post("/{who}/consents")
def consent(
    caller: Librarian,
    who: str,
    scopes: Scopes = [],  # noqa: B006 fastapi copies it
    granted_by: Word = "",
    text: Text = "",
    expires: Word = "",
    handle: Word = "",
) -> Response:
    """Write down what a person allows; who is not in the library yet is taken in."""
    try:
        given = consent_of(caller, scopes, granted_by, text, expires)
        batch_id = found.consent(
            caller.ledger, caller.store, caller.settings, caller.owner, who, given, handle=handle.strip() or None
        )
    except FpgaError as error:
        return _person(caller, who, error)
    return RedirectResponse(f"/people/added/{batch_id}" if batch_id else f"/faces/{who}", 303)


@router.post("/{who}/forget")
def forget(caller: Librarian, who: str, confirm: Word = "") -> Response:
    """Remove a person's faces, once their number was typed again."""
    try:
        number = str(found.show(caller.ledger, caller.owner, who, limit=1)["number"])
        if confirm.strip() != number:
            raise UsageError(
                "the number that was typed is not this person's; nothing was removed", code="not_confirmed"
            )
        found.forget(caller.ledger, caller.owner, who)
    except FpgaError as error:
        return _person(caller, who, error)
    return RedirectResponse("/faces", 303)


def _everybody(caller: Caller) -> Response:
    return shown(
        "found.html",
        "People in photos",
        people=found.people(caller.ledger, caller.owner),
        totals=found.totals(caller.ledger, caller.owner),
    )


def _person(caller: Caller, who: str, wrong: FpgaError | None = None, *, page: int = 0) -> Response:
    one = found.show(caller.ledger, caller.owner, who, limit=ON_PAGE, offset=page * ON_PAGE)
    return shown(
        "found_person.html",
        one["name"] or f"Person {one['number']}",
        wrong.http_status if wrong else 200,
        person=one,
        all_scopes=rows.SCOPES,
        wrong=wrong,
        page=page,
        more=one["faces"] > (page + 1) * ON_PAGE,
    )
