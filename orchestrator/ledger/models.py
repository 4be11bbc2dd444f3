"""Model versions and their aliases; an alias moves in one transaction and never without a line in its history.

Batches that were not pinned to a version follow the champion: a move gives open ones the new version with the alias,
so that running workers take it up at their next claim.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from orchestrator.contracts.batches import BatchOptions
from orchestrator.errors import ConflictError, NotFoundError
from orchestrator.ledger import artifacts, audit
from orchestrator.ledger.engine.base import new_id
from orchestrator.ledger.engine.session import Ledger, now, retrying
from orchestrator.ledger.engine.states import BATCH_ENDED
from orchestrator.ledger.tables.rows import Artifact, Batch, ModelAlias, ModelAliasMove, ModelVersion
from orchestrator.ledger.tables.rows_datasets import DataSetVersion
from orchestrator.ledger.tables.rows_training import GateDecision, ModelFile

CHAMPION = "champion"
CANDIDATE = "candidate"
STORED = "store:"
"""Location of a version whose files lie in the byte store, listed by `ModelFile`."""
FOLLOWING = ("generate", "restore")
"""Kinds of batches that go on with a new champion, unless their options say `pinned`."""


@dataclass(frozen=True, kw_only=True)
class NewVersion:
    """A set of weights as it is registered; `files` maps paths to artifacts, for those in the byte store."""

    owner: str
    preset: str
    tensor_sha256: str
    licence: str
    manifest: dict[str, Any]
    location: str = STORED
    parent_id: str | None = None
    dataset_id: str | None = None
    code_version: str | None = None
    seed: int | None = None
    files: Mapping[str, str] = field(default_factory=dict)


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
    dataset_id: str | None = None,
    seed: int | None = None,
) -> str:
    """Enter a set of weights that lies in a folder and return the id of its version."""
    new = NewVersion(
        owner=owner,
        preset=preset,
        tensor_sha256=tensor_sha256,
        location=location,
        licence=licence,
        manifest=manifest,
        parent_id=parent_id,
        dataset_id=dataset_id,
        seed=seed,
    )
    with ledger.write() as session:
        return add(session, new, now(session))


def add(session: Session, new: NewVersion, moment: datetime) -> str:
    """Enter a set of weights inside the caller's transaction; the same tensors are entered once.

    The first version of a preset becomes its champion.
    """
    known = session.scalars(
        select(ModelVersion).where(ModelVersion.preset == new.preset, ModelVersion.tensor_sha256 == new.tensor_sha256)
    ).first()
    if known is not None:
        if new.location != STORED:
            known.location, known.manifest = new.location, new.manifest
            known.dataset_id = new.dataset_id or known.dataset_id
            known.seed = new.seed if new.seed is not None else known.seed
        return known.id
    number = (session.scalar(select(func.max(ModelVersion.number)).where(ModelVersion.preset == new.preset)) or 0) + 1
    version = ModelVersion(
        id=new_id("mdl"),
        owner=new.owner,
        preset=new.preset,
        number=number,
        tensor_sha256=new.tensor_sha256,
        location=new.location,
        licence=new.licence,
        manifest=new.manifest,
        parent_id=new.parent_id,
        dataset_id=new.dataset_id,
        code_version=new.code_version,
        seed=new.seed,
        tainted_at=moment if _made_of_tainted(session, new) else None,
        created_at=moment,
    )
    session.add(version)
    session.flush()
    for path, artifact_id in new.files.items():
        artifacts.confirm(session, artifact_id)
        session.add(ModelFile(model_version_id=version.id, path=path, owner=new.owner, artifact_id=artifact_id))
    audit.write(session, new.owner, "model.register", version.id, {"preset": new.preset, "number": number}, moment)
    if session.get(ModelAlias, (new.preset, CHAMPION)) is None:
        move(session, new.owner, version, CHAMPION, "first version of the preset")
    return version.id


@retrying
def set_origin(ledger: Ledger, version_id: str, dataset_id: str, *, seed: int) -> None:
    """Say on which data set and with which seed a version was trained, where its files do not."""
    with ledger.write() as session:
        version = get(session, version_id)
        version.dataset_id, version.seed = dataset_id, seed


@retrying
def promote(
    ledger: Ledger, owner: str, version_id: str, *, alias: str = CHAMPION, reason: str, override: bool = False
) -> None:
    """Make an alias mean this version.

    Args:
        override: promote although the gate has refused it; the history says so.

    Raises:
        NotFoundError: no such version.
        ConflictError: it was trained on pictures of a person who withdrew, or the gate refused it.
    """
    with ledger.write() as session:
        version = get(session, version_id)
        check_untainted(version)
        refused = _refusal(session, version_id)
        if refused and not override:
            raise ConflictError(
                f"the gate refused model version {version_id}: {'; '.join(refused)}; --override promotes it anyway",
                code="gate_refused",
            )
        move(session, owner, version, alias, f"{reason} (against the gate)" if refused else reason)
        if refused:
            audit.write(
                session, owner, "model.override", version.id, {"alias": alias, "refused": refused}, now(session)
            )


@retrying
def rollback(ledger: Ledger, owner: str, preset: str, *, alias: str = CHAMPION, reason: str) -> str:
    """Make an alias mean again what it meant before its newest move, and return that version's id.

    A second rollback goes one further back; versions that were tainted since are passed over.

    Raises:
        NotFoundError: the preset has no such alias.
        ConflictError: there is no earlier version.
    """
    with ledger.write() as session:
        resolve(session, preset, alias)
        for version_id in reversed(_meanings(history(session, preset), alias)[:-1]):
            version = get(session, version_id)
            if version.tainted_at is None:
                move(session, owner, version, alias, reason, rollback=True)
                return version.id
        raise ConflictError(f"{preset}@{alias} has no earlier version to go back to", code="nothing_to_roll_back")


def _made_of_tainted(session: Session, new: NewVersion) -> bool:
    """Tell whether data set or parent were withdrawn while the version was being made."""
    parent = session.get(ModelVersion, new.parent_id) if new.parent_id else None
    dataset = session.get(DataSetVersion, new.dataset_id) if new.dataset_id else None
    return any(source is not None and source.tainted_at is not None for source in (parent, dataset))


def check_untainted(version: ModelVersion) -> None:
    """Check that nobody whom this version was trained on has withdrawn.

    Raises:
        ConflictError: somebody has.
    """
    if version.tainted_at is not None:
        raise ConflictError(f"model version {version.id} is tainted by withdrawn data", code="model_tainted")


def _refusal(session: Session, version_id: str) -> list[str]:
    """Return why the newest decision of the gate refused a version; nothing where it passed or was never asked."""
    newest = session.scalars(
        select(GateDecision)
        .where(GateDecision.model_version_id == version_id)
        .order_by(GateDecision.decided_at.desc(), GateDecision.id.desc())
        .limit(1)
    ).first()
    if newest is None or newest.passed:
        return []
    return [check["reason"] for check in newest.checks if not check["passed"]]


def _meanings(moves: Iterable[ModelAliasMove], alias: str) -> list[str]:
    """Return what the alias has meant, oldest first, as if moves that were rolled back had not been."""
    meant: list[str] = []
    for step in moves:
        if step.alias != alias:
            continue
        if step.rollback and step.to_id in meant:
            while meant[-1] != step.to_id:
                meant.pop()
        else:
            meant.append(step.to_id)
    return meant


def taint(session: Session, dataset_ids: Sequence[str], moment: datetime) -> list[str]:
    """Mark versions trained on these data sets, and all that began from the weights of such; return their ids."""
    tainted: list[str] = []
    found = session.scalars(select(ModelVersion).where(ModelVersion.dataset_id.in_(dataset_ids))).all()
    while found:
        for version in found:
            version.tainted_at = version.tainted_at or moment
        tainted += [version.id for version in found]
        below = select(ModelVersion).where(
            ModelVersion.parent_id.in_([version.id for version in found]), ModelVersion.id.not_in(tainted)
        )
        found = session.scalars(below).all()
    return tainted


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


def listing(session: Session, owner: str | None = None) -> Sequence[tuple[ModelVersion, list[str]]]:
    """Return versions with the aliases that mean them, newest first.

    An owner sees their own, those that were made of nobody's data set, and those that an alias has ever meant; None is
    the operator, who sees all.
    """
    aliases: dict[str, list[str]] = {}
    for alias in session.scalars(select(ModelAlias).order_by(ModelAlias.alias)):
        aliases.setdefault(alias.model_version_id, []).append(alias.alias)
    query = select(ModelVersion).order_by(ModelVersion.preset, ModelVersion.number.desc())
    if owner is not None:
        public = ModelVersion.dataset_id.is_(None) | ModelVersion.id.in_(select(ModelAliasMove.to_id))
        query = query.where(public | (ModelVersion.owner == owner))
    return [(version, aliases.get(version.id, [])) for version in session.scalars(query)]


def history(session: Session, preset: str) -> Sequence[ModelAliasMove]:
    """Return every move of the preset's aliases, oldest first."""
    return session.scalars(
        select(ModelAliasMove).where(ModelAliasMove.preset == preset).order_by(ModelAliasMove.id)
    ).all()


def files(session: Session, version_id: str) -> dict[str, Artifact]:
    """Return the files of a version that lie in the byte store, by path."""
    query = (
        select(ModelFile.path, Artifact)
        .join(Artifact, Artifact.id == ModelFile.artifact_id)
        .where(ModelFile.model_version_id == version_id)
        .order_by(ModelFile.path)
    )
    return dict(session.execute(query).tuples().all())


def move(
    session: Session, owner: str, version: ModelVersion, alias: str, reason: str, *, rollback: bool | None = None
) -> None:
    """Move an alias with its line of history and the open batches that follow it, inside the caller's transaction."""
    moment = now(session)
    row = session.get(ModelAlias, (version.preset, alias), with_for_update=True)
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
            rollback=rollback,
            moved_at=moment,
        )
    )
    if alias == CHAMPION and before is not None:
        session.execute(
            update(Batch)
            .where(
                Batch.preset == version.preset,
                Batch.model_version_id == before,
                Batch.kind.in_(FOLLOWING),
                Batch.state.not_in(BATCH_ENDED),
                Batch.options[BatchOptions.column_key("pinned")].as_boolean().is_not(True),
            )
            .values(model_version_id=version.id)
            .execution_options(synchronize_session=False)
        )
    action = "model.rollback" if rollback else "model.promote"
    audit.write(session, owner, action, version.id, {"alias": alias}, moment)
