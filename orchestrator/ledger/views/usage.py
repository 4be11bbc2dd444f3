"""What is used where: people in data sets and models made of these; model versions in runs, batches and pictures."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from orchestrator.ledger.tables.rows import Batch, Item, ModelVersion, Output
from orchestrator.ledger.tables.rows_datasets import DataSet, DataSetIdentity, DataSetVersion
from orchestrator.ledger.tables.rows_training import TrainingRun


def data_sets(session: Session, identity_id: str) -> Sequence[tuple[DataSetVersion, str, int]]:
    """Return the data set versions that hold a person, newest first: version, name, pictures of them."""
    query = (
        select(DataSetVersion, DataSet.name, DataSetIdentity.pictures)
        .join(DataSetIdentity, DataSetIdentity.data_set_version_id == DataSetVersion.id)
        .join(DataSet, DataSet.id == DataSetVersion.data_set_id)
        .where(DataSetIdentity.identity_id == identity_id)
        .order_by(DataSetVersion.created_at.desc(), DataSetVersion.id)
    )
    return list(session.execute(query).tuples())


def versions(session: Session, dataset_ids: Sequence[str]) -> Sequence[ModelVersion]:
    """Return the model versions trained on these data sets, and all that began from the weights of such."""
    found: dict[str, ModelVersion] = {}
    wanted = select(ModelVersion).where(ModelVersion.dataset_id.in_(dataset_ids))
    while fresh := [one for one in session.scalars(wanted) if one.id not in found]:
        found |= {one.id: one for one in fresh}
        wanted = select(ModelVersion).where(ModelVersion.parent_id.in_([one.id for one in fresh]))
    return sorted(found.values(), key=lambda one: (one.preset, -one.number))


def runs_of(session: Session, owner: str, version_id: str) -> Sequence[TrainingRun]:
    """Return this owner's training runs that made a version, oldest first."""
    query = select(TrainingRun).where(TrainingRun.owner == owner, TrainingRun.model_version_id == version_id)
    return session.scalars(query.order_by(TrainingRun.created_at)).all()


def batches_of(session: Session, owner: str, version_id: str, limit: int = 20) -> Sequence[tuple[Batch, int]]:
    """Return this owner's newest batches in which a version made pictures, each with how many."""
    query = (
        select(Batch, func.count(Output.id))
        .join(Output, Output.batch_id == Batch.id)
        .where(Batch.owner == owner, Output.model_version_id == version_id)
        .group_by(Batch.id)
        .order_by(Batch.created_at.desc(), Batch.id)
        .limit(limit)
    )
    return list(session.execute(query).tuples())


def drawn_alike(
    session: Session, owner: str, version_ids: Sequence[str], limit: int = 24
) -> Sequence[tuple[tuple[Item, Output], ...]]:
    """Return pictures that every one of these versions made of the same request with the same seed, newest first.

    Looks at the newest batches of each version only, so that it costs the same however many pictures there are.
    """
    sides = [_newest_by_request(session, owner, version_id) for version_id in version_ids]
    alike = [key for key in sides[0] if all(key in side for side in sides[1:])]
    return [tuple(side[key] for side in sides) for key in alike[:limit]]


def _newest_by_request(
    session: Session, owner: str, version_id: str, batches: int = 20, most: int = 1000
) -> dict[tuple[str, int], tuple[Item, Output]]:
    ids = [batch.id for batch, _ in batches_of(session, owner, version_id, batches)]
    query = (
        select(Item, Output)
        .join(Output, Output.id == Item.output_id)
        .where(Item.batch_id.in_(ids), Output.model_version_id == version_id)
        .order_by(Item.created_at.desc(), Item.position)
        .limit(most)
    )
    found: dict[tuple[str, int], tuple[Item, Output]] = {}
    for item, output in session.execute(query).tuples():
        found.setdefault((item.params_sha256, output.seed), (item, output))
    return found
