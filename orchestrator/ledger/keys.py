"""Rows of keys, sessions and login links. Knows hashes only; access/keys.py makes and checks secrets."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from orchestrator.errors import NotFoundError
from orchestrator.ledger import audit
from orchestrator.ledger.engine.base import new_id
from orchestrator.ledger.engine.session import Ledger, now, retrying
from orchestrator.ledger.tables.rows_api import ApiKey

USED_EVERY = timedelta(minutes=1)
"""`used_at` is renewed at most so often: a request that only reads shall not wait for the writer's lock."""


@retrying
def create(
    ledger: Ledger,
    *,
    owner: str,
    kind: str,
    name: str,
    sha256: str,
    scopes: Sequence[str],
    seconds: float | None,
    parent_id: str | None = None,
) -> ApiKey:
    """Enter a key by the hash of its secret; `seconds` is how long it lives, None for ever.

    Args:
        parent_id: of a session: what opened it.
    """
    with ledger.write() as session:
        moment = now(session)
        row = ApiKey(
            id=new_id("key"),
            owner=owner,
            kind=kind,
            name=name,
            sha256=sha256,
            scopes=list(scopes),
            parent_id=parent_id,
            created_at=moment,
            expires_at=moment + timedelta(seconds=seconds) if seconds else None,
        )
        session.add(row)
        session.flush()
        audit.write(session, owner, f"{kind}.create", row.id, {"scopes": list(scopes)}, moment)
        return row


def find(session: Session, sha256: str, *kinds: str) -> ApiKey | None:
    """Return the key of this hash that is valid now, or None."""
    row = session.scalars(select(ApiKey).where(ApiKey.sha256 == sha256, ApiKey.kind.in_(kinds))).first()
    return row if row is not None and _valid(session, row) else None


def alive(session: Session, key_id: str) -> bool:
    """Say whether a key is valid now."""
    row = session.get(ApiKey, key_id)
    return row is not None and _valid(session, row)


def _valid(session: Session, row: ApiKey) -> bool:
    """Say whether a row opens anything now; a session dies with the key that opened it, a link was used up by that."""
    if row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now(session)):
        return False
    if row.kind != "session":
        return True
    parent = session.get(ApiKey, row.parent_id) if row.parent_id else None
    return parent is not None and (parent.kind == "login" or _valid(session, parent))


@retrying
def touch(ledger: Ledger, key_id: str) -> None:
    """Remember that a key was used."""
    with ledger.write() as session:
        session.execute(update(ApiKey).where(ApiKey.id == key_id).values(used_at=now(session)))


@retrying
def take(ledger: Ledger, sha256: str) -> ApiKey | None:
    """Use up a login link and return its row; None where there is none, or it was used before."""
    with ledger.read() as session:
        if find(session, sha256, "login") is None:
            return None  # who guesses does not take the writer's lock
    with ledger.write() as session:
        row = find(session, sha256, "login")
        if row is not None:
            row.revoked_at = now(session)
        return row


def listing(session: Session, owner: str, kind: str) -> Sequence[ApiKey]:
    """Return the keys, sessions or links of an owner, newest first; of sessions those that open something now."""
    query = select(ApiKey).where(ApiKey.owner == owner, ApiKey.kind == kind)
    found = session.scalars(query.order_by(ApiKey.created_at.desc(), ApiKey.id.desc())).all()
    return found if kind == "key" else [row for row in found if _valid(session, row)]


@retrying
def revoke(ledger: Ledger, owner: str, key_id: str) -> ApiKey:
    """End a key or session at once; ending it again changes nothing.

    Raises:
        NotFoundError: this owner has none of this id.
    """
    with ledger.write() as session:
        row = session.scalars(select(ApiKey).where(ApiKey.owner == owner, ApiKey.id == key_id)).first()
        if row is None:
            raise NotFoundError(f"there is no key {key_id!r}", code="key_not_found")
        if row.revoked_at is None:
            row.revoked_at = now(session)
            session.flush()
            audit.write(session, owner, f"{row.kind}.revoke", row.id, {}, now(session))
        return row
