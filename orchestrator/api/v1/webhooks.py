"""Receivers of events: add, test, look at what they were sent, replay."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from orchestrator.api.context import Writer
from orchestrator.api.paging import Answer, IdempotencyKey, once
from orchestrator.api.requests import Strict
from orchestrator.contracts.base import Line
from orchestrator.ledger import webhooks as rows
from orchestrator.ledger.engine.session import now
from orchestrator.runtime import webhooks

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])


class Receiver(Strict):
    """Where events go: an https address of a public host."""

    url: Annotated[str, Field(min_length=1, max_length=2000)]
    events: Annotated[tuple[Line, ...], Field(min_length=1, max_length=10)] = webhooks.EVENTS


@router.get("", operation_id="list_webhooks")
def list_(caller: Writer) -> dict[str, Any]:
    """List the receivers."""
    with caller.ledger.read() as session:
        found = [webhooks.as_object(row) for row in rows.listing(session, caller.owner)]
    return {"object": "list", "data": found, "next": None}


@router.post("", status_code=201, operation_id="create_webhook")
def create(request: Request, caller: Writer, body: Receiver, key: IdempotencyKey = None) -> Response:
    """Add a receiver; the answer holds the secret of its signatures, shown this once (a repeat shows it not)."""

    def make() -> Answer:
        made = webhooks.add(
            caller.ledger, caller.settings, caller.context.vault, caller.owner, url=body.url, events=list(body.events)
        )
        return Answer(body=made, location=f"/v1/webhooks/{made['id']}", unkept=("secret",))

    return once(caller, request, key, body.model_dump_json().encode(), make)


@router.get("/{webhook_id}", operation_id="get_webhook")
def show(caller: Writer, webhook_id: str) -> dict[str, Any]:
    """Show a receiver and the newest events it was sent."""
    with caller.ledger.read() as session:
        row = rows.get(session, caller.owner, webhook_id)
        sent = [webhooks.delivery_object(one) for one in rows.deliveries(session, row.id)]
    return {**webhooks.as_object(row), "deliveries": sent}


@router.delete("/{webhook_id}", status_code=204, operation_id="delete_webhook")
def remove(caller: Writer, webhook_id: str) -> None:
    """Take a receiver away."""
    rows.remove(caller.ledger, caller.owner, webhook_id)


@router.post("/{webhook_id}/ping", status_code=202, operation_id="ping_webhook")
def ping(caller: Writer, webhook_id: str) -> dict[str, Any]:
    """Send a test event."""
    with caller.ledger.write() as session:
        moment = now(session)
        row = rows.put(session, rows.get(session, caller.owner, webhook_id), "ping", {}, moment)
        return webhooks.delivery_object(row)


class Replay(Strict):
    """Which event: one by its id, or all that were not taken."""

    delivery_id: Line | None = None


@router.post("/{webhook_id}/replay", status_code=202, operation_id="replay_webhook")
def replay(caller: Writer, webhook_id: str, body: Replay | None = None) -> dict[str, Any]:
    """Send events again under their old ids."""
    count = rows.replay(caller.ledger, caller.owner, webhook_id, body.delivery_id if body else None)
    return {"object": "webhook.replay", "deliveries": count}
