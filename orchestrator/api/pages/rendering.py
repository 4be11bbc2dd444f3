"""Makes pages out of templates: navigation, words people read, and the same clothes for errors. Knows no route."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse

from orchestrator.wording import ago, capitalize_first, cosine, duration, number, size

HERE = Path(__file__).parent
NAVIGATION = (
    ("Home", "/"),
    ("New batch", "/new"),
    ("Restore", "/restore"),
    ("Batches", "/batches"),
    ("People", "/people"),
    ("Models", "/models"),
    ("Training", "/training"),
    ("Schedules", "/schedules"),
    ("Notices", "/notices"),
    ("Help", "/help"),
)
"""What stands at the head of every page, in this order."""
MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
WORDS = {
    "in_progress": "in progress",
    "needs_review": "needs review",
    "completed_with_errors": "completed with errors",
    "unchanged": "kept as it was",
    "turned_down": "rejected by you",
    "approved": "approved by you",
    "gpu.generate": "generate",
    "gpu.restore": "restore",
    "gpu.train": "train",
    "cpu.io": "read and write",
}


@lru_cache(maxsize=1)
def templates() -> Environment:
    """Return the templates; every text put into them is escaped."""
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    made.filters.update(words=words, duration=duration, moment=moment, cosine=cosine, capitalize_first=capitalize_first)
    made.filters.update(number=number, size=size, ago=ago)
    made.filters.update(clock=clock)
    made.globals.update(navigation=NAVIGATION, asset=asset)
    return made


def shown(name: str, title: str, status: int = 200, **facts: Any) -> HTMLResponse:
    """Return a page made of a template.

    Args:
        name: of the template.
        title: heading and title of the page.
        status: of the answer.
        facts: what the template wants; `live` is the stream that keeps its parts fresh, `script` one of `static/`.
    """
    given = {"signed_in": True, "live": None, "script": None, **facts}
    return HTMLResponse(templates().get_template(name).render(title=title, **given), status)


def error_page(
    title: str, status: int, code: str, detail: str, *, headers: Mapping[str, str], signed_in: bool
) -> HTMLResponse:
    """Return the page that tells a person of a problem."""
    page = shown("error.html", title, status, code=code, detail=detail, signed_in=signed_in)
    page.headers.update(headers)
    return page


@lru_cache(maxsize=1)
def static_files() -> dict[str, tuple[bytes, str, str]]:
    """Return what pages look and move like, by name: bytes, media type, ETag; read once in a process."""
    found = {}
    for path in sorted((HERE / "static").iterdir()):
        if path.suffix in MEDIA_TYPES:
            data = path.read_bytes()
            found[path.name] = data, MEDIA_TYPES[path.suffix], hashlib.sha256(data).hexdigest()[:16]
    return found


def asset(name: str) -> str:
    """Return the address of a file of `static/`; it changes with the content, so that browsers may keep it."""
    return f"/static/{name}?{static_files()[name][2][:8]}"


def words(text: str | None) -> str:
    """Return a state, verdict or queue as people say it."""
    return "" if text is None else WORDS.get(text, text.replace("_", " "))


def moment(when: datetime | str | None) -> Markup | str:
    """Return a moment to the minute, in UTC."""
    if when is None:
        return "–"
    written = when if isinstance(when, str) else when.isoformat()
    return Markup('<time datetime="{}">{} {} UTC</time>').format(written, written[:10], written[11:16])


def clock(when: str, zone: str) -> Markup:
    """Return a moment to the minute by the clock of a zone, which is named."""
    here = datetime.fromisoformat(when).astimezone(ZoneInfo(zone))
    return Markup('<time datetime="{}">{:%a %Y-%m-%d %H:%M} {}</time>').format(when, here, zone)
