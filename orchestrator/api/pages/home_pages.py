"""The page that opens first: what runs now, what needs a look, who works."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from orchestrator.api.context import Reader
from orchestrator.api.pages.rendering import shown
from orchestrator.people import examples
from orchestrator.runtime import parts
from orchestrator.status import overview

router = APIRouter(include_in_schema=False)
SHOWN_REASONS = 4


@router.get("/")
def home(caller: Reader) -> Response:
    """Show everything of this owner at a glance; the queue's stream keeps it fresh."""
    seen = overview.look(caller.ledger, caller.settings, caller.owner)
    return shown(
        "home.html",
        "Home",
        seen=seen,
        down=parts.down(caller.ledger, caller.settings),
        most=SHOWN_REASONS,
        empty=seen.empty,
        examples=examples.available(),
        may_add="people" in caller.bearer.scopes,
        live="/v1/events",
    )


@router.get("/help")
def help_(caller: Reader) -> Response:
    """Show how everything works, in one page that needs no network."""
    return shown("help.html", "How it works")
