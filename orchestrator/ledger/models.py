"""Model versions and their aliases; an alias moves in one transaction and never without a line in its history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from orchestrator.errors import ConflictError, NotFoundError
from orchestrator.ledger import audit
from orchestrator.ledger.base import new_id
from orchestrator.ledger.rows import ModelAlias, ModelAliasMove, ModelVersion
from orchestrator.ledger.session import Ledger, now, retrying

CHAMPION = "champion"


@retrying
def register(
    ledger: Ledger,
    owner: str,
    *,
    preset: str,
    tensor_sha256: str,
    location: str,
    licence: str,
    manifest: dict[str, Any],
    parent_id: str | None = None,
) -> str:
    """Enter a set of weights and return the id of its version; the same tensors are entered once.

    The first version of a preset becomes its champion.
    """
    with ledger.write() as session:
        moment = now(session)
        known = session.scalars(
            select(ModelVersion).where(ModelVersion.preset == preset, ModelVersion.tensor_sha256 == tensor_sha256)
        ).first()
        if known is not None:
            known.location, known.manifest = location, manifest
            return known.id
        number = (session.scalar(select(func.max(ModelVersion.number)).where(ModelVersion.preset == preset)) or 0) + 1
        version = ModelVersion(
            id=new_id("mdl"),
            owner=owner,
            preset=preset,
            number=number,
            tensor_sha256=tensor_sha256,
            location=location,
            licence=licence,
            manifest=manifest,
            parent_id=parent_id,
            created_at=moment,
        )
        session.add(version)
        session.flush()
        audit.write(session, owner, "model.register", version.id, {"preset": preset, "number": number}, moment)
        if session.get(ModelAlias, (preset, CHAMPION)) is None:
            _move(session, owner, version, CHAMPION, "first version of the preset")
        return version.id


@retrying
def promote(ledger: Ledger, owner: str, version_id: str, *, alias: str = CHAMPION, reason: str) -> None:
    """Make an alias mean this version.

    Raises:
        NotFoundError: no such version.
        ConflictError: it was trained on pictures of a person who withdrew.
    """
    with ledger.write() as session:
        version = session.get(ModelVersion, version_id)
        if version is None:
            raise NotFoundError(f"there is no model version {version_id!r}", code="model_not_found")
        if version.tainted_at is not None:
            raise ConflictError(f"model version {version_id} is tainted by withdrawn data", code="model_tainted")
        _move(session, owner, version, alias, reason)


def resolve(session: Session, preset: str, alias: str = CHAMPION) -> ModelVersion:
    """Return the version that an alias means now.

    Raises:
        NotFoundError: the preset has no such alias.
    """
    found = session.scalars(
        select(ModelVersion)
        .join(ModelAlias, ModelAlias.model_version_id == ModelVersion.id)
        .where(ModelAlias.preset == preset, ModelAlias.alias == alias)
    ).first()
    if found is None:
        raise NotFoundError(
            f"preset {preset!r} has no model version called {alias!r}; see `fpga model list`", code="model_not_found"
        )
    return found


def get(session: Session, version_id: str) -> ModelVersion:
    """Return a version by id.

    Raises:
        NotFoundError: there is none.
    """
    version = session.get(ModelVersion, version_id)
    if version is None:
        raise NotFoundError(f"there is no model version {version_id!r}", code="model_not_found")
    return version


def listing(session: Session) -> Sequence[tuple[ModelVersion, list[str]]]:
    """Return all versions with the aliases that mean them, newest first."""
    aliases: dict[str, list[str]] = {}
    for alias in session.scalars(select(ModelAlias).order_by(ModelAlias.alias)):
        aliases.setdefault(alias.model_version_id, []).append(alias.alias)
    versions = session.scalars(select(ModelVersion).order_by(ModelVersion.preset, ModelVersion.number.desc()))
    return [(version, aliases.get(version.id, [])) for version in versions]


def history(session: Session, preset: str) -> Sequence[ModelAliasMove]:
    """Return every move of the preset's aliases, oldest first."""
    return session.scalars(
        select(ModelAliasMove).where(ModelAliasMove.preset == preset).order_by(ModelAliasMove.id)
    ).all()


def _move(session: Session, owner: str, version: ModelVersion, alias: str, reason: str) -> None:
    moment = now(session)
    row = session.get(ModelAlias, (version.preset, alias))
    before = row.model_version_id if row else None
    if row is None:
        session.add(
            ModelAlias(preset=version.preset, alias=alias, owner=owner, model_version_id=version.id, moved_at=moment)
        )
    else:
        row.model_version_id, row.moved_at = version.id, moment
    session.add(
        ModelAliasMove(
            owner=owner,
            preset=version.preset,
            alias=alias,
            from_id=before,
            to_id=version.id,
            actor=owner,
            reason=reason,
            moved_at=moment,
        )
    )
    audit.write(session, owner, "model.promote", version.id, {"alias": alias}, moment)
