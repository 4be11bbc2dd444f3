"""Uploads in parts, as tus 1.0 has them (core, creation, termination): any tus client can send files here.

The creation's metadata name the file and, if the client knows it, its sha256. A part that is cut off counts as far as
it arrived; `HEAD` says where to go on.
"""

from __future__ import annotations

import base64
import binascii
import tempfile
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from orchestrator.api.context import Reader, Sender, Writer
from orchestrator.api.paging import tagged
from orchestrator.api.requests import Strict, media_type, unsupported
from orchestrator.errors import UsageError
from orchestrator.ledger.tables.rows_api import Upload
from orchestrator.photos import uploads
from orchestrator.storage.base import MAX_URL_SECONDS
from orchestrator.storage.streams import SPOOL_LIMIT

router = APIRouter(prefix="/v1/uploads", tags=["uploads"])
PART = "application/offset+octet-stream"
TUS = {"Tus-Resumable": "1.0.0", "Cache-Control": "no-store"}
MAX_NAME = 1024
Length = Annotated[int, Header(ge=1, description="Bytes of the whole file.")]
Offset = Annotated[int, Header(ge=0, description="Byte at which this part begins.")]
Metadata = Annotated[
    str, Header(max_length=8192, description="`filename BASE64,sha256 BASE64`; the sha256 (in hex) may be left out.")
]
BODY = {"requestBody": {"required": True, "content": {PART: {"schema": {"type": "string", "format": "binary"}}}}}


@router.post("", status_code=201, operation_id="create_upload")
def create(caller: Sender, upload_length: Length, upload_metadata: Metadata = "") -> Response:
    """Begin an upload; send its bytes with PATCH to the address in `Location`."""
    said = _metadata(upload_metadata)
    made = uploads.begin(
        caller.ledger,
        caller.owner,
        name=said.get("filename") or "upload",
        size=upload_length,
        sha256=said.get("sha256"),
        most_bytes=caller.settings.max_upload_bytes,
    )
    return JSONResponse(made, 201, {**TUS, "Upload-Offset": "0", "Location": f"/v1/uploads/{made['id']}"})


@router.get("/{upload_id}", operation_id="get_upload")
def show(request: Request, caller: Reader, upload_id: str) -> Response:
    """Show an upload: how much of it is here, and its sha256 once it is whole."""
    return tagged(request, uploads.upload_object(uploads.look(caller.ledger, caller.owner, upload_id)))


@router.head("/{upload_id}", operation_id="get_upload_offset")
def where(caller: Reader, upload_id: str) -> Response:
    """Say where to go on, in `Upload-Offset`."""
    return Response(status_code=200, headers=_offset(uploads.look(caller.ledger, caller.owner, upload_id)))


@router.patch("/{upload_id}", status_code=204, operation_id="send_upload_part", openapi_extra=BODY)
async def send(request: Request, caller: Sender, upload_id: str, upload_offset: Offset) -> Response:
    """Send the next part, of any size up to the limit of a body; the last one makes the file whole."""
    if media_type(request) != PART:
        raise unsupported(request, PART)
    with tempfile.SpooledTemporaryFile(max_size=SPOOL_LIMIT) as part:
        try:
            async for piece in request.stream():
                part.write(piece)
        except ClientDisconnect:
            pass  # what arrived of a part that was cut off counts
        part.seek(0)
        upload = await run_in_threadpool(
            uploads.receive, caller.ledger, caller.store, caller.owner, upload_id, at=upload_offset, part=part
        )
    return Response(status_code=204, headers=_offset(upload))


class Parts(Strict):
    """For which parts links are wanted; without numbers for the first hundred that are missing."""

    numbers: Annotated[tuple[Annotated[int, Field(ge=1, le=uploads.MOST_PARTS)], ...], Field(max_length=100)] = ()
    seconds: Annotated[int, Field(ge=1, le=MAX_URL_SECONDS)] = MAX_URL_SECONDS


@router.post("/{upload_id}/parts", operation_id="get_upload_part_links")
def links(caller: Sender, upload_id: str, body: Parts | None = None) -> dict[str, Any]:
    """Return links by which an S3 store takes parts itself: PUT exactly `size` bytes to `url`, in any order.

    Ask again for what is missing after a cut, and for links that ran out; then `complete` it. Other stores, and an
    upload that was begun with PATCH, take parts here (409).
    """
    asked = body or Parts()
    return uploads.part_links(
        caller.ledger, caller.store, caller.owner, upload_id, numbers=asked.numbers, seconds=asked.seconds
    )


@router.post("/{upload_id}/complete", operation_id="complete_upload")
def complete(caller: Sender, upload_id: str) -> dict[str, Any]:
    """Make a file of the parts that the store was handed, and compare its sha256 with what was said, if any was."""
    return uploads.upload_object(uploads.finish(caller.ledger, caller.store, caller.owner, upload_id))


@router.delete("/{upload_id}", status_code=204, operation_id="delete_upload")
def remove(caller: Writer, upload_id: str) -> Response:
    """Give an upload up; a batch that uses its bytes keeps them."""
    uploads.give_up(caller.ledger, caller.store, caller.owner, upload_id)
    return Response(status_code=204, headers=TUS)


def _offset(upload: Upload) -> dict[str, str]:
    return {**TUS, "Upload-Offset": str(upload.received), "Upload-Length": str(upload.size)}


def _metadata(header: str) -> dict[str, str]:
    """Return what an Upload-Metadata header says.

    Raises:
        UsageError: it is not pairs of a name and base64 of UTF-8, or a value holds control characters.
    """
    found: dict[str, Any] = {}
    for pair in filter(None, (part.strip() for part in header.split(","))):
        name, _, value = pair.partition(" ")
        try:
            found[name] = base64.b64decode(value.encode("ascii"), validate=True).decode("utf-8")
        except (ValueError, binascii.Error) as error:
            raise UsageError(
                f"Upload-Metadata is pairs of a name and base64, got {pair[:80]!r}", code="bad_metadata"
            ) from error
        if not found[name].isprintable() or len(found[name]) > MAX_NAME:
            raise UsageError(
                f"Upload-Metadata {name[:40]!r} is one printable line of at most {MAX_NAME} characters",
                code="bad_metadata",
            )
    return found
