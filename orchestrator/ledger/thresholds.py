"""Cosines at which a model version takes a face for its person's: those that its preset ships, or measured since.

What `fpga model calibrate` measures is kept as a measurement of the version, beside its sealed files, never in them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.ledger import evaluations
from orchestrator.ledger.tables.rows import ModelVersion
from orchestrator.ledger.tables.rows_training import Evaluation

SUITE = "thresholds"


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """What decides verdicts and pairs, cosines of the version's own recogniser.

    Attributes:
        accept: a finished face at least so like its person is accepted.
        review: below this it is rejected; between the two a person looks at it.
        pair: a face of a photo at least so like somebody may be theirs.
        origin: where the numbers come from.
    """

    accept: float
    review: float
    pair: float
    origin: str


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A measurement of thresholds, as `evaluations.store` takes it."""

    count: int
    suite: str = SUITE
    seed: int = 0


def of(session: Session, version: ModelVersion) -> Thresholds:
    """Return the thresholds of a version: the newest that were measured for it, else its preset's."""
    query = select(Evaluation).where(Evaluation.model_version_id == version.id, Evaluation.suite == SUITE)
    newest = session.scalars(query.order_by(Evaluation.created_at.desc(), Evaluation.id.desc()).limit(1)).first()
    if newest is not None:
        return Thresholds(**{name: newest.figures[name] for name in ("accept", "review", "pair", "origin")})
    shipped: dict[str, Any] = version.manifest["verdict"]
    return Thresholds(
        accept=float(shipped["accept"]),
        review=float(shipped["review"]),
        pair=float(shipped.get("pair", shipped["accept"])),
        origin=str(shipped.get("origin", "the preset's own")),
    )


def store(
    session: Session, owner: str, version_id: str, found: Thresholds, rates: dict[str, Any], moment: datetime
) -> None:
    """Keep measured thresholds, with the rates of error that they have on what they were measured on."""
    figures = {**rates, **asdict(found)}
    count = int(rates.get("faces", 0))
    evaluations.store(
        session, owner, version_id, Measured(count=count), figures, dataset_id=None, batch_id=None, moment=moment
    )
