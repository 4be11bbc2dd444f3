"""Short ways to fill a ledger and to look into it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select, update

from orchestrator.ledger.engine.base import Row
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import batches, claims
from orchestrator.ledger.queue.claims import Claim
from orchestrator.ledger.queue.outcomes import Outcome
from orchestrator.ledger.tables.rows import Batch, Item, Stage

LEASE = 60.0


def submit(ledger: Ledger, count: int = 1, **changes: Any) -> str:
    """Submit a batch of `count` items of two stages and return its id."""
    settings: dict[str, Any] = {
        "owner": "ann",
        "kind": "generate",
        "name": "test",
        "preset": "mini",
        "items": [
            batches.NewItem(custom_id=f"c{i}", params={"n": i}, params_sha256=f"{i:064d}", seed=i) for i in range(count)
        ],
        "flow": False,
    }
    return batches.submit(ledger, batches.NewBatch(**(settings | changes))).batch_id


def claim(ledger: Ledger, *, worker: str = "w1", queue: str = "gpu.generate", limit: int = 1) -> list[Claim]:
    """Claim and start as a worker would."""
    held = claims.claim(ledger, worker_id=worker, queues=[queue], limit=limit, lease_seconds=LEASE)
    return claims.start(ledger, held)


end = Outcome(then="end")
"""A stage that ends its item and writes nothing."""
on = Outcome()
"""A stage that the next one of its pipeline follows."""


def row(ledger: Ledger, kind: type[Row], **where: Any) -> Any:
    """Return the one row that matches."""
    with ledger.read() as session:
        return session.scalars(select(kind).filter_by(**where)).one()


def stage_of(ledger: Ledger, c: Claim) -> Stage:
    """Return the stage of a claim as it is now."""
    found: Stage = row(ledger, Stage, id=c.stage_id)
    return found


def item_of(ledger: Ledger, c: Claim) -> Item:
    """Return the item of a claim as it is now."""
    found: Item = row(ledger, Item, id=c.item_id)
    return found


def batch(ledger: Ledger, batch_id: str) -> Batch:
    """Return a batch as it is now."""
    found: Batch = row(ledger, Batch, id=batch_id)
    return found


def let_time_pass(ledger: Ledger, seconds: float) -> None:
    """Move every time of stages and batches into the past, as if we had waited."""
    with ledger.write() as session:
        for stage in session.scalars(select(Stage)):
            for name in ("lease_until", "progress_at", "next_at", "hinted_at", "queued_at"):
                if (moment := getattr(stage, name)) is not None:
                    setattr(stage, name, moment - timedelta(seconds=seconds))
        for found in session.scalars(select(Batch)):
            for name in ("created_at", "served_at"):
                if (moment := getattr(found, name)) is not None:
                    setattr(found, name, moment - timedelta(seconds=seconds))


def expire(ledger: Ledger, c: Claim) -> None:
    """Let the lease of one claim lapse."""
    with ledger.write() as session:
        past = datetime(2020, 1, 1).astimezone()
        session.execute(update(Stage).where(Stage.id == c.stage_id).values(lease_until=past))
