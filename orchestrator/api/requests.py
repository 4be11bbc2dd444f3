"""Bodies and options of requests, with the same field names as manifest columns and command line."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.exceptions import HTTPException

from orchestrator.planning.manifest import MAX_ROWS, Format
from orchestrator.planning.plan import BatchDefaults
from orchestrator.planning.presets import SmallFaces
from orchestrator.planning.rows import MAX_SEED

M = TypeVar("M", bound=BaseModel)
PLAIN = r"^[^\x00-\x1f\x7f]*$"
Line = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=PLAIN)]
"""One line of text."""
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
FORMATS: dict[str, Format] = {
    "text/csv": "csv",
    "application/jsonl": "jsonl",
    "application/x-ndjson": "jsonl",
    "application/x-jsonlines": "jsonl",
}
"""Media types of manifests."""


DEFAULTS = {"seed", "style", "layout", "steps", "small_faces"}
"""Options of a batch that rows may say for themselves."""


class Strict(BaseModel):
    """A body or query in which an unknown name is an error."""

    model_config = ConfigDict(extra="forbid")


class Why(Strict):
    """Why; kept in the audit log for good, so it must name nobody."""

    reason: Line


class BatchOptions(Strict):
    """What a whole batch says; rows of its manifest go before."""

    name: Line = "batch"
    preset: Line | None = None
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    style: Line | None = None
    layout: Line | None = None
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    small_faces: SmallFaces | None = None
    lane: Literal["interactive", "bulk"] = "bulk"
    priority: Annotated[int, Field(ge=-3, le=3)] = 0
    redraws: Annotated[int, Field(ge=0, le=10)] = 0
    stop_after: Annotated[int, Field(ge=1, le=MAX_ROWS)] | None = None
    skip_invalid: bool = False
    paused: bool = False
    growing: bool = False
    model: Line | None = None
    candidate_share: Annotated[float, Field(ge=0, le=1)] = 0.0

    def defaults(self) -> BatchDefaults:
        """Return what rows that say nothing take."""
        return BatchDefaults(**self.model_dump(include=DEFAULTS))


class BatchRequest(BatchOptions):
    """A batch as JSON: options, and rows as a manifest has them."""

    items: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MAX_ROWS)]

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


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """Return what OpenAPI shall say of a route that parses its JSON body itself."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": model.model_json_schema()}}}}
