"""Bytes of pictures for pages. An output never changes, but it may be erased: a browser asks each time, and is told
`304` as long as it may show what it has."""

from __future__ import annotations

from functools import partial
from typing import Literal

from fastapi import APIRouter, Request
from starlette.responses import Response

from orchestrator.api.context import Caller, Viewer
from orchestrator.contracts.photos import Restored
from orchestrator.errors import NotFoundError
from orchestrator.ledger import photos
from orchestrator.ledger.tables.rows import Artifact, Output
from orchestrator.ledger.views import gallery, listings
from orchestrator.pictures import SHOWN_TYPES
from orchestrator.results import thumbnails

router = APIRouter(include_in_schema=False)
CACHED = "private, no-cache"


@router.get("/pictures/{output_id}/{size}")
def picture(request: Request, caller: Viewer, output_id: str, size: Literal["small", "full", "before"]) -> Response:
    """Return a picture: small for galleries, full, or as it was before it was restored."""
    output, artifact = _found(caller, output_id)
    key, sha256, media_type = _source(output, artifact, "before" if size == "before" else "after")
    if size != "before" and media_type not in SHOWN_TYPES:
        raise NotFoundError("a browser cannot show this picture", code="picture_not_found")
    headers = {"ETag": f'"{size}-{sha256[:32]}"', "Cache-Control": CACHED}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    if size == "small":
        check = partial(_found, caller, output_id)
        data = thumbnails.get(caller.store, artifact.key, key, sha256, check=check)
        media_type = thumbnails.MEDIA_TYPE
    else:
        data = caller.store.get(key, sha256=sha256)
    return Response(data, media_type=media_type, headers=headers)


@router.get("/items/{item_id}/preview")
def preview(request: Request, caller: Viewer, item_id: str) -> Response:
    """Return the small picture of a photo that is restored and not yet checked."""
    with caller.ledger.read() as session:
        item = listings.item(session, caller.owner, item_id)
        made = photos.said(session, item.id, Restored)
        if made is None or made.preview is None:
            raise NotFoundError("there is no such picture", code="picture_not_found")
        kept = listings.artifact(session, caller.owner, made.preview.artifact_id)
    headers = {"ETag": f'"{kept.sha256[:32]}"', "Cache-Control": CACHED}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(caller.store.get(kept.key, sha256=kept.sha256), media_type=kept.media_type, headers=headers)


def _found(caller: Caller, output_id: str) -> tuple[Output, Artifact]:
    with caller.ledger.read() as session:
        return gallery.output(session, caller.owner, output_id)


def _source(output: Output, artifact: Artifact, which: Literal["before", "after"]) -> tuple[str, str, str]:
    """Return key, sha256 and media type: a restored photo has previews, since browsers do not show every format."""
    preview = ((output.scores or {}).get("previews") or {}).get(which)
    if preview:
        return preview["key"], preview["sha256"], "image/jpeg"
    if which == "before":
        raise NotFoundError("there is no picture of before", code="picture_not_found")
    return artifact.key, artifact.sha256, artifact.media_type
