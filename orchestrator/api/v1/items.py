"""Items with their story, and the bytes they made, by links that live a quarter of an hour."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response, StreamingResponse

from orchestrator.api import links
from orchestrator.api.context import Caller, Context, Reader, Writer, context_of
from orchestrator.api.paging import TAGGED, tagged
from orchestrator.api.requests import Why
from orchestrator.errors import NotFoundError
from orchestrator.ledger.queue import batches, quarantine
from orchestrator.ledger.views import listings
from orchestrator.results import results
from orchestrator.storage.links import content_disposition
from orchestrator.storage.streams import PIECE

router = APIRouter(prefix="/v1", tags=["items"])
Seconds = Annotated[int, Query(ge=1, le=900, description="How long the link lives.")]


@router.get("/items/{item_id}", operation_id="get_item", responses=TAGGED)
def show(request: Request, caller: Reader, item_id: str) -> Response:
    """Show an item: what was asked, what came out, verdict and scores, each stage with its attempts."""
    return tagged(request, _shown(caller, item_id))


@router.post("/items/{item_id}/release", operation_id="release_item")
def release(caller: Writer, item_id: str, body: Why) -> dict[str, Any]:
    """Let an item that was held, having ended its worker again and again, be tried again; its batch goes on."""
    quarantine.release(caller.ledger, caller.owner, _batch_of(caller, item_id), item_id=item_id, reason=body.reason)
    return _shown(caller, item_id)


@router.post("/items/{item_id}/reject", operation_id="reject_item")
def reject(caller: Writer, item_id: str, body: Why) -> dict[str, Any]:
    """Give an item that is held up for good: it is `cancelled`."""
    quarantine.reject(caller.ledger, caller.owner, _batch_of(caller, item_id), item_id=item_id, reason=body.reason)
    return _shown(caller, item_id)


def _shown(caller: Caller, item_id: str) -> dict[str, Any]:
    with caller.ledger.read() as session:
        found = listings.item(session, caller.owner, item_id)
        (detail,) = batches.details(session, [found])
        shown = results.item_object(detail, library="people" in caller.bearer.scopes)
        chosen = next((stored for output, stored in detail.outputs if output.id == found.output_id), None)
    if shown["output"] is not None and chosen is not None:
        shown["output"]["artifact_id"] = chosen.id
    return shown


def _batch_of(caller: Caller, item_id: str) -> str:
    with caller.ledger.read() as session:
        return listings.item(session, caller.owner, item_id).batch_id


@router.get("/artifacts/{artifact_id}/link", operation_id="get_artifact_link")
def link(request: Request, caller: Reader, artifact_id: str, seconds: Seconds = 300) -> dict[str, Any]:
    """Return a link that downloads these bytes without a key, for a short time."""
    with caller.ledger.read() as session:
        found = listings.artifact(session, caller.owner, artifact_id)
    name = f"{found.sha256[:16]}.{found.media_type.rpartition('/')[2]}"
    url = caller.store.url(found.key, expires_seconds=seconds, filename=name, media_type=found.media_type)
    if urlsplit(url).scheme == "file":
        url = f"{request.base_url}v1/files/{links.signed(caller.owner, found.id, seconds)}"
    ends = datetime.now(UTC) + timedelta(seconds=seconds)
    return {
        "object": "artifact.link",
        "id": found.id,
        "url": url,
        "sha256": found.sha256,
        "size": found.size,
        "media_type": found.media_type,
        "expires_at": ends.isoformat(),
    }


@router.get("/files/{token}", operation_id="get_file", response_class=StreamingResponse)
def file(context: Annotated[Context, Depends(context_of)], token: str) -> Response:
    """Download by a link of a local byte store; S3 stores serve theirs themselves."""
    owner, artifact_id = links.opened(token)
    with context.ledger.read() as session:
        found = listings.artifact(session, owner, artifact_id)
    try:
        stream = context.store.open(found.key, sha256=found.sha256)
    except NotFoundError as error:
        raise NotFoundError("there are no such bytes any more", code="artifact_not_found") from error
    headers = {
        "Content-Length": str(found.size),
        "Content-Disposition": content_disposition(f"{found.sha256[:16]}.{found.media_type.rpartition('/')[2]}"),
        "Cache-Control": "private, no-store",
    }
    pieces = iter(lambda: stream.read(PIECE), b"")
    return StreamingResponse(pieces, media_type=found.media_type, headers=headers)
