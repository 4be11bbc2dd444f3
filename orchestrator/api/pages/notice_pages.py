"""Page of notices: who is told of events, by mail or by a request; test it, see what came of it, end it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Query
from starlette.responses import RedirectResponse, Response

from orchestrator.api.context import Caller, Writer
from orchestrator.api.pages.pages import shown
from orchestrator.contracts.base import Line
from orchestrator.errors import FpgaError
from orchestrator.ledger import webhooks as rows
from orchestrator.ledger.engine.session import now
from orchestrator.runtime import webhooks
from orchestrator.runtime.mail import SCHEME

router = APIRouter(prefix="/notices", include_in_schema=False)
WORDS = {
    "batch.ended": "a batch ends",
    "schedule.failed": "a schedule fails",
    "part.down": "a part of the system is down",
    "part.up": "it is back",
}
"""Events that a person chooses from."""
SAID = {
    "test": "A test is on its way. What came of it stands here when this page is loaded again.",
    "removed": "It is removed.",
}


@router.get("")
def notices(caller: Writer, said: Annotated[str, Query(max_length=20)] = "") -> Response:
    """Show who is told of what."""
    return _page(caller, said=SAID.get(said))


@router.post("")
def add(
    caller: Writer,
    address: Annotated[Line, Form()],
    events: Annotated[list[Line], Form()] = [],  # noqa: B006 fastapi copies it
) -> Response:
    """Tell somebody: a mail address, or an https address, whose secret is shown this once."""
    url = f"{SCHEME}{address}" if "@" in address and "/" not in address and not address.startswith(SCHEME) else address
    try:
        made = webhooks.add(caller.ledger, caller.settings, caller.context.vault, caller.owner, url=url, events=events)
    except FpgaError as error:
        return _page(caller, error, address=address, events=events)
    return _page(caller, secret=None if url.startswith(SCHEME) else made["secret"], said="It is added: send it a test.")


@router.post("/{webhook_id}/test")
def test(caller: Writer, webhook_id: str) -> Response:
    """Send a test."""
    with caller.ledger.write() as session:
        rows.put(session, rows.get(session, caller.owner, webhook_id), "ping", {}, now(session))
    return RedirectResponse("/notices?said=test", 303)


@router.post("/{webhook_id}/remove")
def remove(caller: Writer, webhook_id: str) -> Response:
    """Tell them no more."""
    rows.remove(caller.ledger, caller.owner, webhook_id)
    return RedirectResponse("/notices?said=removed", 303)


def _page(
    caller: Caller,
    wrong: FpgaError | None = None,
    *,
    said: str | None = None,
    secret: str | None = None,
    address: str = "",
    events: list[str] | None = None,
) -> Response:
    with caller.ledger.read() as session:
        receivers = [
            {**webhooks.as_object(row), "last": next(iter(rows.deliveries(session, row.id, limit=1)), None)}
            for row in rows.listing(session, caller.owner)
        ]
    return shown(
        "notices.html",
        "Notices",
        wrong.http_status if wrong else 200,
        receivers=receivers,
        scheme=SCHEME,
        words=WORDS,
        mail=caller.settings.smtp_url is not None,
        said=said,
        secret=secret,
        address=address,
        events=list(WORDS) if events is None else events,
        wrong=wrong,
        script="notices.js",
    )
