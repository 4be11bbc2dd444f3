"""API keys, browser sessions and login links: made here, shown once, kept as sha256.

A secret has 256 random bits, so a plain hash is enough: there is nothing to guess, and a check costs microseconds.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from orchestrator.errors import AccessError, UsageError
from orchestrator.ledger import keys
from orchestrator.ledger.engine.session import Ledger, now
from orchestrator.ledger.tables.rows_api import ApiKey
from orchestrator.runtime.running import write_private
from orchestrator.settings import Settings

SCOPES = ("read", "write", "people", "models", "admin", "override")
"""read: batches, models, results; write: make and stop work; people: the library; models: train and promote; admin:
metrics; override: promote past a gate that refused."""
USUAL = ("read", "write")
"""Of a key that says nothing else."""
PREFIXES = {"key": "fpga_", "session": "fpgas_", "login": "fpgal_"}
SESSION_SECONDS = 12 * 3600.0
LOGIN_SECONDS = 900.0


@dataclass(frozen=True, kw_only=True)
class Bearer:
    """Who is asking, and what they may do.

    Attributes:
        key_id: of the key or the session.
        rate_id: of the key that a session came from: what it asks is asked by that key.
    """

    key_id: str
    owner: str
    scopes: frozenset[str]
    rate_id: str


def create(
    ledger: Ledger,
    owner: str,
    *,
    name: str,
    scopes: Sequence[str] = USUAL,
    days: float | None = None,
) -> tuple[str, dict[str, Any]]:
    """Make a key and return (secret, object); the secret cannot be read again.

    Raises:
        UsageError: a scope is not known, or the name is empty or too long.
    """
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise UsageError(f"a scope is {', '.join(SCOPES)}; got {', '.join(unknown) or 'none'}", code="bad_scope")
    if not 1 <= len(name) <= 120:
        raise UsageError(f"a key's name has 1 to 120 characters, got {len(name)}", code="bad_name")
    if days is not None and not 0 < days <= 36_500:
        raise UsageError(f"a key lives more than 0 and at most 36500 days, got {days}", code="bad_days")
    secret, row = _make(ledger, owner, "key", name, scopes, days * 86_400 if days else None)
    return secret, as_object(row)


def list_keys(ledger: Ledger, owner: str, *, kind: str = "key") -> list[dict[str, Any]]:
    """Return the objects of an owner's keys, or of the `session`s that are open, newest first."""
    with ledger.read() as session:
        return [as_object(row) for row in keys.listing(session, owner, kind)]


def revoke(ledger: Ledger, owner: str, key_id: str) -> dict[str, Any]:
    """End a key and the sessions that it opened, or a session, at once and return it.

    Raises:
        NotFoundError: there is none.
    """
    return as_object(keys.revoke(ledger, owner, key_id))


def authenticate(ledger: Ledger, secret: str, *, kind: str = "key") -> Bearer:
    """Return who bears this key, or this `session` of a browser.

    Raises:
        AccessError: nobody, or not any more.
    """
    with ledger.read() as session:
        row = keys.find(session, _digest(secret), kind)
        if row is None:
            raise AccessError("the key is not known, has expired or was revoked")
        stale = row.used_at is None or row.used_at < now(session) - keys.USED_EVERY
    if stale:
        keys.touch(ledger, row.id)
    return Bearer(key_id=row.id, owner=row.owner, scopes=frozenset(row.scopes), rate_id=row.parent_id or row.id)


def check_alive(session: Session, key_id: str) -> None:
    """Check that a key that was accepted before is still valid.

    Raises:
        AccessError: it is not.
    """
    if not keys.alive(session, key_id):
        raise AccessError("the key has expired or was revoked")


def login_link(ledger: Ledger, owner: str, base: str) -> str:
    """Return a link that opens one browser session, once, within a quarter of an hour."""
    secret, _ = _make(ledger, owner, "login", "login link", SCOPES, LOGIN_SECONDS)
    return f"{base}/login?token={secret}"


def open_session(ledger: Ledger, token: str) -> str:
    """Return the secret of a new browser session for a login link or a key; a session opens no further one.

    Raises:
        AccessError: the link was used or has expired, or the key is wrong.
    """
    if token.startswith(PREFIXES["login"]):
        link = keys.take(ledger, _digest(token))
        if link is None:
            raise AccessError("this link was used before or has expired; `fpga key login` prints another")
        return _make(ledger, link.owner, "session", "browser", link.scopes, SESSION_SECONDS, link.id)[0]
    bearer = authenticate(ledger, token)
    scopes = sorted(bearer.scopes)
    return _make(ledger, bearer.owner, "session", "browser", scopes, SESSION_SECONDS, bearer.key_id)[0]


def end_session(ledger: Ledger, secret: str) -> None:
    """End a browser's session; one that is over already stays so."""
    with ledger.read() as session:
        row = keys.find(session, _digest(secret), "session")
    if row is not None:
        keys.revoke(ledger, row.owner, row.id)


def local_key(ledger: Ledger, settings: Settings) -> Path:
    """Return the file in the state directory with a key for programs on this machine, making both at the first call."""
    path = settings.state_dir / "api-key"
    try:
        authenticate(ledger, path.read_text().strip())
    except (OSError, AccessError):
        secret, _ = create(ledger, settings.owner, name="this machine", scopes=SCOPES)
        write_private(path, secret + "\n")
    return path


def as_object(row: ApiKey) -> dict[str, Any]:
    """Return the JSON object of a key; its secret is not in it."""
    times = {name: getattr(row, name) for name in ("created_at", "expires_at", "revoked_at", "used_at")}
    return {
        "id": row.id,
        "object": row.kind,
        "name": row.name,
        "owner": row.owner,
        "scopes": row.scopes,
        "parent_id": row.parent_id,
        **{name: moment.isoformat() if moment else None for name, moment in times.items()},
    }


def _make(
    ledger: Ledger,
    owner: str,
    kind: str,
    name: str,
    scopes: Sequence[str],
    seconds: float | None,
    parent_id: str | None = None,
) -> tuple[str, ApiKey]:
    secret = PREFIXES[kind] + secrets.token_urlsafe(32)
    row = keys.create(
        ledger,
        owner=owner,
        kind=kind,
        name=name,
        sha256=_digest(secret),
        scopes=scopes,
        seconds=seconds,
        parent_id=parent_id,
    )
    return secret, row


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
