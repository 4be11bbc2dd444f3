"""What a download link may say: how long it lives, and the name the browser saves the file under."""

from __future__ import annotations

from urllib.parse import quote

from orchestrator.errors import UsageError
from orchestrator.storage.base import MAX_URL_SECONDS


def check_expiry(seconds: int) -> int:
    """Return the life of a link if it is 1 to 900 seconds.

    Raises:
        UsageError: `expiry_invalid`.
    """
    if not 1 <= seconds <= MAX_URL_SECONDS:
        raise UsageError(f"a link lives 1 to {MAX_URL_SECONDS} seconds, got {seconds}", code="expiry_invalid")
    return seconds


def content_disposition(filename: str | None) -> str:
    """Return the header value that makes a browser save instead of show; any file name is safe in it (RFC 6266)."""
    if not filename:
        return "attachment"
    plain = "".join(c if c.isascii() and (c.isalnum() or c in " ._-()") else "_" for c in filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"
