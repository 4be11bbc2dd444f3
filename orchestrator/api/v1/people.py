"""Who is who in archives of photographs: scans, the people they found, and what a person says of them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from orchestrator.api.context import Librarian
from orchestrator.api.paging import Answer, IdempotencyKey, once
from orchestrator.api.requests import Strict
from orchestrator.api.v1.identities import Consent
from orchestrator.api.v1.restorations import BucketUrl
from orchestrator.contracts.base import Line
from orchestrator.contracts.batches import Lane
from orchestrator.errors import UsageError
from orchestrator.ledger.views import listings
from orchestrator.people import found, scan
from orchestrator.photos import uploads
from orchestrator.results import results

router = APIRouter(prefix="/v1/people", tags=["people"])
Place = Annotated[str | None, Query(max_length=1024, description="Only this archive, named as it was scanned.")]
Limit = Annotated[int, Query(ge=1, le=1000)]
Offset = Annotated[int, Query(ge=0, le=10_000_000)]


class Scan(Strict):
    """What to look at: an upload (an archive or one photo), or a bucket's prefix."""

    upload: Line | None = None
    source: BucketUrl | None = None
    preset: Line | None = None
    again: bool = False
    """Look at every photo, not only at new ones."""
    lane: Lane = "bulk"


class Name(Strict):
    """What to call a person; with a handle, that they are this person of the library."""

    name: Line
    handle: Line | None = None


class Others(Strict):
    """People who are the same person."""

    others: Annotated[list[Line], Field(min_length=1, max_length=100)]


class Faces(Strict):
    """Faces by their ids."""

    faces: Annotated[list[Line], Field(min_length=1, max_length=1000)]


class ConsentAs(Consent):
    """What a person allows, and the handle that they get in the library, by default made of their name."""

    handle: Line | None = None


@router.post("/scans", status_code=202, operation_id="create_scan")
def create(request: Request, caller: Librarian, body: Scan, key: IdempotencyKey = None) -> Response:
    """Look for the faces of an archive and group them; the answer is the batch, which grows while it is read."""
    if (body.upload is None) == (body.source is None):
        raise UsageError("a scan has an upload or a source", code="bad_option")

    def make() -> Answer:
        source = body.source or uploads.as_source(caller.ledger, caller.owner, body.upload or "")[0]
        made = scan.submit(
            caller.ledger,
            caller.settings,
            source=source,
            owner=caller.owner,
            preset=body.preset,
            lane=body.lane,
            force=body.again,
        )
        with caller.ledger.read() as session:
            shown = results.batch_object(session, listings.batch(session, caller.owner, made.batch_id))
        return Answer(body=shown, status=202, location=f"/v1/batches/{made.batch_id}")

    return once(caller, request, key, body.model_dump_json().encode(), make)


@router.get("", operation_id="list_people")
def list_(caller: Librarian, archive: Place = None) -> dict[str, Any]:
    """List everybody whom scans found, those in most photos first."""
    return {"object": "list", "data": found.people(caller.ledger, caller.owner, archive), "next": None}


@router.get("/report", operation_id="report_people")
def report(caller: Librarian, archive: Place = None) -> dict[str, Any]:
    """Count what was found; name photos that are there more than once, and people who allow nothing."""
    return found.report(caller.ledger, caller.settings, caller.owner, archive)


@router.get("/unsorted", operation_id="list_unsorted_faces")
def unsorted(caller: Librarian, limit: Limit = 60, offset: Offset = 0) -> dict[str, Any]:
    """List faces that are nobody's, best first."""
    data = found.unsorted(caller.ledger, caller.owner, limit=limit, offset=offset)
    return {"object": "list", "data": data, "next": None}


@router.get("/faces/{face_id}/picture", operation_id="get_face_picture")
def picture(caller: Librarian, face_id: str) -> Response:
    """Return the small JPEG of a face, opened from its seal."""
    data = found.crop(caller.ledger, caller.context.vault, caller.owner, face_id)
    return Response(data, media_type="image/jpeg", headers={"Cache-Control": "private, no-store"})


@router.post("/split", status_code=201, operation_id="split_person")
def split(caller: Librarian, body: Faces) -> dict[str, Any]:
    """Make a new person of these faces."""
    return found.split(caller.ledger, caller.owner, body.faces)


@router.post("/refuse", operation_id="refuse_faces")
def refuse(caller: Librarian, body: Faces) -> dict[str, Any]:
    """Say that these faces are not the person's with whom they were grouped."""
    return {"object": "people.refused", "faces": found.refuse(caller.ledger, caller.owner, body.faces)}


@router.get("/{who}", operation_id="get_person")
def show(caller: Librarian, who: str, limit: Limit = 60, offset: Offset = 0) -> dict[str, Any]:
    """Show a person, by number, name, handle or id, with their faces, best first."""
    return found.show(caller.ledger, caller.owner, who, limit=limit, offset=offset)


@router.patch("/{who}", operation_id="name_person")
def name(caller: Librarian, who: str, body: Name) -> dict[str, Any]:
    """Name a person; later scans put their new faces under this name."""
    return found.name(caller.ledger, caller.owner, who, body.name, body.handle)


@router.post("/{who}/merge", operation_id="merge_people")
def merge(caller: Librarian, who: str, body: Others) -> dict[str, Any]:
    """Say that several people are one, who keeps the number of this one."""
    return found.merge(caller.ledger, caller.owner, who, body.others)


@router.post("/{who}/faces", operation_id="give_faces")
def give(caller: Librarian, who: str, body: Faces) -> dict[str, Any]:
    """Say that these faces are this person's."""
    return found.give(caller.ledger, caller.owner, who, body.faces)


@router.post("/{who}/consents", status_code=201, operation_id="grant_consent_of_person")
def consent(caller: Librarian, who: str, body: ConsentAs) -> dict[str, Any]:
    """Write down what a person allows; `batch_id` is that which takes them into the library, if they were not there."""
    given = body.given(caller.owner)
    batch_id = found.consent(caller.ledger, caller.store, caller.settings, caller.owner, who, given, handle=body.handle)
    return {**found.show(caller.ledger, caller.owner, who), "batch_id": batch_id}


@router.delete("/{who}", operation_id="forget_person")
def forget(caller: Librarian, who: str) -> dict[str, Any]:
    """Remove a person who is not in the library, with all their faces; photos stay as they are."""
    return {"object": "people.forgotten", "faces": found.forget(caller.ledger, caller.owner, who)}
