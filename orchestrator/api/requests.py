"""Bodies and options of requests, with the same field names as manifest columns and command line."""

from __future__ import annotations

import json
from typing import Annotated, TypeVar

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, ValidationError
from starlette.exceptions import HTTPException

from orchestrator.contracts.base import Line
from orchestrator.contracts.portraits import MAX_ROWS, SubmitOptions
from orchestrator.planning.manifest import Format

M = TypeVar("M", bound=BaseModel)
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
FORMATS: dict[str, Format] = {
    "text/csv": "csv",
    "application/jsonl": "jsonl",
    "application/x-ndjson": "jsonl",
    "application/x-jsonlines": "jsonl",
}
"""Media types of manifests."""


class Strict(BaseModel):
    """A body or query in which an unknown name is an error."""

    model_config = ConfigDict(extra="forbid")


class Why(Strict):
    """Why; kept in the audit log for good, so it must name nobody."""

    reason: Line


class BatchOptions(SubmitOptions):
    """What a whole batch says; rows of its manifest go before."""

    name: Line = "batch"

    def options(self) -> SubmitOptions:
        """Return them as every other door hands them on."""
        return SubmitOptions(**self.model_dump(include=set(SubmitOptions.model_fields)))


class BatchRequest(BatchOptions):
    """A batch as JSON: options, and rows as a manifest has them."""

    items: Annotated[list[dict[str, JsonValue]], Field(min_length=1, max_length=MAX_ROWS)]

    def manifest(self) -> bytes:
        """Return the rows as a JSONL manifest, so that row numbers count items from 1."""
        return "\n".join(json.dumps(row, ensure_ascii=False) for row in self.items).encode()


async def _raw(request: Request) -> bytes:
    return await request.body()


Raw = Annotated[bytes, Depends(_raw)]
"""The body as it came."""


def media_type(request: Request) -> str:
    """Return the body's media type without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def parsed(model: type[M], body: bytes) -> M:
    """Return a JSON body as this model.

    Raises:
        RequestValidationError: it is not JSON, or does not fit; each fault with its pointer.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in found]) from error


def unsupported(request: Request, *wanted: str) -> HTTPException:
    """Return the answer to a body of another media type."""
    return HTTPException(415, f"a body is {' or '.join(wanted)} here, got {media_type(request)[:80] or 'none'!r}")


def json_body(model: type[BaseModel]) -> dict[str, object]:
    """Return what OpenAPI shall say of a route that parses its JSON body itself."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": model.model_json_schema()}}}}
