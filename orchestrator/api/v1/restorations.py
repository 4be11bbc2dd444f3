"""Photo archives over HTTP: restore or swap what was uploaded or lies in a bucket, and hand photos over one by one."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field, StringConstraints
from starlette.responses import JSONResponse, Response

from orchestrator.api.context import Caller, Sender, Writer
from orchestrator.api.paging import Answer, IdempotencyKey, once
from orchestrator.api.requests import Strict
from orchestrator.archive import Photo, Refused
from orchestrator.archive.kinds import HEAD, judge
from orchestrator.archive.names import as_text, safe_path
from orchestrator.contracts.base import Line
from orchestrator.contracts.batches import Lane
from orchestrator.contracts.photos import RedoOptions, RestoreOptions
from orchestrator.contracts.portraits import MAX_PRIORITY
from orchestrator.errors import InputError, UsageError
from orchestrator.ledger.views import listings
from orchestrator.photos import feeding, restore, uploads
from orchestrator.results import results

router = APIRouter(prefix="/v1", tags=["restorations"])
BucketUrl = Annotated[str, StringConstraints(pattern=r"^s3://[^\s\x00-\x1f]+$", max_length=1024)]
Path = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


LEFT_OUT: dict[int | str, dict[str, object]] = {
    200: {"description": "It does not claim to be a photo, and was left out."}
}


class Restoration(RestoreOptions):
    """What to restore: an upload (an archive or one photo), a bucket's prefix, or neither, to hand photos over."""

    upload: Line | None = None
    source: BucketUrl | None = None
    out: BucketUrl | None = None
    """Where finished photos are written to as well; they can always be read from the batch."""
    name: Line | None = None
    preset: Line | None = None
    lane: Lane = "bulk"
    priority: Annotated[int, Field(ge=-MAX_PRIORITY, le=MAX_PRIORITY)] = 0
    paused: bool = False

    def options(self) -> RestoreOptions:
        """Return them as every other door hands them on."""
        return RestoreOptions(**{name: getattr(self, name) for name in RestoreOptions.model_fields})


class NewPhoto(Strict):
    """A finished upload and where it stands in the tree."""

    upload: Line
    path: Path


@router.post("/restorations", status_code=202, operation_id="create_restoration")
def create(request: Request, caller: Writer, body: Restoration, key: IdempotencyKey = None) -> Response:
    """Open a batch that restores photos, or swaps faces in them; it grows while its source is read."""
    if body.upload and body.source:
        raise UsageError("a restoration has an upload or a source, not both", code="bad_option")

    def make() -> Answer:
        source, name = body.source, body.name
        if body.upload:
            source, said = uploads.as_source(caller.ledger, caller.owner, body.upload)
            name = name or as_text(said.encode())[:200]
        made = restore.submit(
            caller.ledger,
            caller.settings,
            source=source,
            options=body.options(),
            owner=caller.owner,
            name=name,
            preset=body.preset,
            lane=body.lane,
            priority=body.priority,
            out=body.out,
            paused=body.paused,
        )
        return Answer(body=_shown(caller, made.batch_id), status=202, location=f"/v1/batches/{made.batch_id}")

    return once(caller, request, key, body.model_dump_json(by_alias=True).encode(), make)


@router.post("/batches/{batch_id}/photos", status_code=201, operation_id="add_photo", responses=LEFT_OUT)
def add(caller: Sender, batch_id: str, body: NewPhoto) -> Response:
    """Hand an uploaded photo to an open restoration without a source; one that it has already changes nothing.

    What cannot be a photo becomes an item that failed, with its code; what does not claim to be one is left out (200).
    """
    with caller.ledger.read() as session:
        listings.batch(session, caller.owner, batch_id)
    upload, artifact = uploads.whole(caller.ledger, caller.owner, body.upload)
    with caller.store.open(artifact.key) as stream:
        head = stream.read(HEAD)
    try:
        path = safe_path(body.path.encode("utf-8", "surrogateescape"))
        kind = judge(path, head, upload.size)
    except InputError as error:
        raise UsageError(error.message, code=error.code) from error
    raw = path.encode()
    if kind.error is None and not kind.media_type:
        return JSONResponse({"object": "photo", "path": path, "skipped": kind.reason, "items": []}, 200)
    with caller.store.open(artifact.key) as stream:
        member: Photo | Refused = (
            Refused(path=path, raw_path=raw, error=kind.error)
            if kind.error
            else Photo(
                path=path,
                raw_path=raw,
                size=upload.size,
                modified=None,
                media_type=kind.media_type,
                notes=kind.notes,
                stream=stream,
            )
        )
        made = feeding.add(caller.ledger, caller.store, caller.settings, caller.owner, batch_id, member)
    return JSONResponse({"object": "photo", "path": path, "skipped": None, "items": made}, 201)


@router.post("/items/{item_id}/redo", status_code=202, operation_id="redo_item")
def redo(request: Request, caller: Writer, item_id: str, body: RedoOptions, key: IdempotencyKey = None) -> Response:
    """Make one photo again with other settings; its faces and inversions are used again."""

    def make() -> Answer:
        made = restore.redo(caller.ledger, caller.settings, caller.owner, item_id, body)
        return Answer(body=_shown(caller, made), status=202, location=f"/v1/batches/{made}")

    return once(caller, request, key, body.model_dump_json().encode(), make)


def _shown(caller: Caller, batch_id: str) -> dict[str, Any]:
    with caller.ledger.read() as session:
        return results.batch_object(session, listings.batch(session, caller.owner, batch_id))
