"""Measured figures of model versions, and what the gate decided on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.ledger.engine.base import new_id
from orchestrator.ledger.tables.rows import ModelVersion
from orchestrator.ledger.tables.rows_training import Evaluation, GateDecision

ON_DATA_SET = "held_out"
"""The suite that looks at the held-out people of a data set; all others look at people that the renderer draws."""


THRESHOLDS = "thresholds"
"""The suite that `fpga model calibrate` measures: kept beside a version's sealed files, never in them."""


class Wanted(Protocol):
    """A measurement by what makes two of them comparable, besides the data set."""

    @property
    def suite(self) -> str:
        """Which figures, such as `identity`."""

    @property
    def seed(self) -> int:
        """Chooses people and noise."""

    @property
    def count(self) -> int:
        """How many pictures."""


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """What decides verdicts and pairs, cosines of the version's own recogniser.

    Attributes:
        accept: a finished face at least so like its person is accepted.
        review: below this it is rejected; between the two a person looks at it.
        pair: a face of a photo at least so like somebody may be theirs.
        eyes: a face whose eyes differ more is for a person to look at; None where the preset does not say.
        origin: where the numbers come from.
    """

    accept: float
    review: float
    pair: float
    origin: str
    eyes: float | None = None


@dataclass(frozen=True, kw_only=True)
class ThresholdMeasurement:
    """A measurement of thresholds, as `evaluations.store` takes it."""

    count: int
    suite: str = THRESHOLDS
    seed: int = 0


def store(
    session: Session,
    owner: str,
    version_id: str,
    wanted: Wanted,
    figures: dict[str, Any],
    *,
    dataset_id: str | None,
    batch_id: str | None,
    moment: datetime,
) -> str:
    """Write the figures of one measurement and return the row's id."""
    row = Evaluation(
        id=new_id("evl"),
        owner=owner,
        model_version_id=version_id,
        dataset_id=dataset_id if wanted.suite == ON_DATA_SET else None,
        batch_id=batch_id,
        suite=wanted.suite,
        seed=wanted.seed,
        count=wanted.count,
        figures=figures,
        created_at=moment,
    )
    session.add(row)
    session.flush()
    return row.id


def find(session: Session, version_id: str, wanted: Wanted, dataset_id: str | None) -> Evaluation | None:
    """Return the newest measurement of a version with this suite, seed, count and, if it has one, data set, or None."""
    dataset_id = dataset_id if wanted.suite == ON_DATA_SET else None
    query = select(Evaluation).where(
        Evaluation.model_version_id == version_id,
        Evaluation.suite == wanted.suite,
        Evaluation.seed == wanted.seed,
        Evaluation.count == wanted.count,
        Evaluation.dataset_id == dataset_id if dataset_id else Evaluation.dataset_id.is_(None),
    )
    return session.scalars(query.order_by(Evaluation.created_at.desc(), Evaluation.id.desc()).limit(1)).first()


def metrics(
    session: Session, version_id: str, wanted: Iterable[Wanted], dataset_id: str | None
) -> dict[str, dict[str, Any]]:
    """Return the newest metrics of a version by suite, as far as they were measured."""
    found = {one.suite: find(session, version_id, one, dataset_id) for one in wanted}
    return {suite: row.figures for suite, row in found.items() if row is not None}


def listing(session: Session, version_ids: Sequence[str] = (), *, limit: int = 200) -> Sequence[Evaluation]:
    """Return the newest measurements, of these versions only where some are given."""
    query = select(Evaluation).order_by(Evaluation.created_at.desc(), Evaluation.id.desc()).limit(limit)
    if version_ids:
        query = query.where(Evaluation.model_version_id.in_(version_ids))
    return session.scalars(query).all()


def of_batch(session: Session, batch_id: str) -> Sequence[Evaluation]:
    """Return the measurements that a batch made, oldest first."""
    return session.scalars(select(Evaluation).where(Evaluation.batch_id == batch_id).order_by(Evaluation.id)).all()


def decision_of(session: Session, batch_id: str) -> GateDecision | None:
    """Return what the gate decided when a batch had ended, or None."""
    return session.scalars(select(GateDecision).where(GateDecision.batch_id == batch_id)).first()


def decisions(session: Session, version_id: str) -> Sequence[GateDecision]:
    """Return every decision about a version, oldest first."""
    query = select(GateDecision).where(GateDecision.model_version_id == version_id)
    return session.scalars(query.order_by(GateDecision.decided_at, GateDecision.id)).all()


def as_object(row: Evaluation) -> dict[str, Any]:
    """Return the JSON object of a measurement."""
    return {
        "id": row.id,
        "object": "evaluation",
        "model_version_id": row.model_version_id,
        "dataset_id": row.dataset_id,
        "batch_id": row.batch_id,
        "suite": row.suite,
        "seed": row.seed,
        "count": row.count,
        "figures": row.figures,
        "created_at": row.created_at.isoformat(),
    }


def thresholds(session: Session, version: ModelVersion) -> Thresholds:
    """Return the thresholds of a version: the newest that were measured for it, else its preset's."""
    query = select(Evaluation).where(Evaluation.model_version_id == version.id, Evaluation.suite == THRESHOLDS)
    newest = session.scalars(query.order_by(Evaluation.created_at.desc(), Evaluation.id.desc()).limit(1)).first()
    shipped: dict[str, Any] = version.manifest["verdict"]
    eyes = shipped.get("eyes")  # of the pictures the preset draws, whoever they show
    if newest is not None:
        return Thresholds(eyes=eyes, **{name: newest.figures[name] for name in ("accept", "review", "pair", "origin")})
    return Thresholds(
        eyes=eyes,
        accept=float(shipped["accept"]),
        review=float(shipped["review"]),
        pair=float(shipped.get("pair", shipped["accept"])),
        origin=str(shipped.get("origin", "the preset's own")),
    )


def store_thresholds(
    session: Session, owner: str, version_id: str, found: Thresholds, rates: dict[str, Any], moment: datetime
) -> None:
    """Keep measured thresholds, with the rates of error that they have on what they were measured on."""
    figures = {**rates, **asdict(found)}
    count = int(rates.get("faces", 0))
    store(
        session,
        owner,
        version_id,
        ThresholdMeasurement(count=count),
        figures,
        dataset_id=None,
        batch_id=None,
        moment=moment,
    )
