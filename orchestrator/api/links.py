"""Short-lived links to bytes of a local store, signed with a secret that lives as long as this process."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time

from orchestrator.errors import NotFoundError

_SECRET = secrets.token_bytes(32)


def signed(owner: str, artifact_id: str, seconds: int) -> str:
    """Return a token that names these bytes until `seconds` from now."""
    said = json.dumps([owner, artifact_id, int(time.time()) + seconds], separators=(",", ":")).encode()
    return f"{base64.urlsafe_b64encode(said).decode().rstrip('=')}.{_mac(said)}"


def opened(token: str) -> tuple[str, str]:
    """Return (owner, artifact id) of a token.

    Raises:
        NotFoundError: it was not signed here, was altered, or is over.
    """
    encoded, _, mac = token.partition(".")
    try:
        said = base64.urlsafe_b64decode(encoded.encode("ascii") + b"==")
    except (ValueError, binascii.Error):
        said = b""
    if not said or not hmac.compare_digest(mac.encode(), _mac(said).encode()):
        raise NotFoundError("there is no such link", code="link_invalid")
    owner, artifact_id, until = json.loads(said)
    if time.time() > until:
        raise NotFoundError("this link is over; ask for another", code="link_expired")
    return owner, artifact_id


def _mac(said: bytes) -> str:
    return hmac.new(_SECRET, said, hashlib.sha256).hexdigest()
