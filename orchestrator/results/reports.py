"""What the self-contained HTML reports share: one environment of templates, one base with palette and policy."""

from __future__ import annotations

import base64
from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from orchestrator.pictures import check_picture
from orchestrator.wording import cosine, duration

PIXELATED_BELOW = 256


@lru_cache(maxsize=1)
def environment() -> Environment:
    """Return the templates of the reports, which extend `report.html`; every text put into them is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(inline=_inline, pixelated=_pixelated, cosine=cosine, duration=duration)
    return environment


def _inline(picture: bytes) -> str:
    """Return a picture as a data URI, its bytes untouched."""
    facts = check_picture(picture)
    return f"data:{facts.media_type};base64,{base64.b64encode(picture).decode()}"


def _pixelated(picture: bytes) -> bool:
    size = check_picture(picture).size
    return size is not None and max(size) < PIXELATED_BELOW
