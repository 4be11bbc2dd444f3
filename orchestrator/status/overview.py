"""Home at a glance: what runs with its honest time, what needs a look, the lanes, the workers, the room that is left.

The time of a batch is that of its whole way, waiting for others included.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from orchestrator.ledger.engine.session import Ledger, now
from orchestrator.ledger.engine.states import BAD, BATCH_ENDED, BATCH_STATES, ENDED
from orchestrator.ledger.queue import workers
from orchestrator.ledger.tables.rows import Batch, Worker
from orchestrator.ledger.views import gallery, latency, listings, overview
from orchestrator.ledger.views.gallery import Tile
from orchestrator.ledger.views.latency import Latency
from orchestrator.ledger.views.overview import Attention, Held, Line
from orchestrator.pipelines import PIPELINES
from orchestrator.settings import Settings
from orchestrator.status.progress import Outlook, Remaining, outlook, remaining

OPEN = tuple(state for state in BATCH_STATES if state not in BATCH_ENDED)
MOST = 12
"""So many open batches are looked at closely."""
PICTURED = tuple(kind for kind, pipeline in PIPELINES.items() if pipeline.pictured)
LATELY, LATELY_TILES = 4, 8


@dataclass(frozen=True, kw_only=True)
class Running:
    """An open batch: how far it is, and when it will be done."""

    batch: Batch
    done: int
    failed: int
    remaining: Remaining


@dataclass(frozen=True, kw_only=True)
class Lane:
    """A lane: stages that wait and run in it. `seconds` until all its batches are done, None where that is unknown."""

    name: str
    stages: tuple[Line, ...]
    seconds: float | None

    @property
    def waiting(self) -> int:
        """How many stages wait."""
        return sum(line.waiting for line in self.stages)

    @property
    def running(self) -> int:
        """How many stages run."""
        return sum(line.running for line in self.stages)


@dataclass(frozen=True, kw_only=True)
class Busy:
    """A worker that lives, and what it holds."""

    worker: Worker
    held: Sequence[Held]


@dataclass(frozen=True, kw_only=True)
class Lately:
    """A batch that has ended, and its first pictures."""

    batch: Batch
    tiles: list[Tile]


@dataclass(frozen=True, kw_only=True)
class Overview:
    """Everything that Home shows, true at `moment`."""

    moment: datetime
    running: list[Running]
    more: bool
    attention: list[Attention]
    lately: list[Lately]
    lanes: list[Lane]
    waited: list[Latency]
    workers: list[Busy]
    objects: int
    bytes: int
    disk_free: int
    disk_total: int
    empty: bool
    """Whether nothing was ever asked for: no batch, nobody in the library."""


def look(ledger: Ledger, settings: Settings, owner: str) -> Overview:
    """Look at everything of one owner, in one read of the ledger."""
    disk = shutil.disk_usage(settings.state_dir)
    with ledger.read() as session:
        moment = now(session)
        living = workers.living(session, moment)
        found = listings.batches(session, owner, states=OPEN, limit=MOST + 1)
        running = _running(session, found[:MOST], outlook(session, moment))
        held = overview.held(session, owner, [worker.id for worker in living])
        objects, size = overview.stored(session, owner)
        return Overview(
            moment=moment,
            running=running,
            more=len(found) > MOST,
            attention=overview.attention(session, owner),
            lately=_lately(session, owner),
            lanes=_lanes(overview.waiting(session, owner), running, whole=len(found) <= MOST),
            waited=latency.lately(session, owner),
            workers=[Busy(worker=worker, held=held.get(worker.id, ())) for worker in living],
            objects=objects,
            bytes=size,
            disk_free=disk.free,
            disk_total=disk.total,
            empty=not listings.batches(session, owner, limit=1),
        )


def _lately(session: Session, owner: str) -> list[Lately]:
    ended = listings.batches(session, owner, states=BATCH_ENDED, kinds=PICTURED, limit=LATELY)
    found = [Lately(batch=b, tiles=gallery.tiles(session, b.id, show="drawn", limit=LATELY_TILES)) for b in ended]
    return [one for one in found if one.tiles]


def _running(session: Session, found: Sequence[Batch], ahead: Outlook) -> list[Running]:
    counts = listings.counts_of(session, [batch.id for batch in found])
    return [
        Running(
            batch=batch,
            done=sum(counts[batch.id].get(state, 0) for state in ENDED),
            failed=sum(counts[batch.id].get(state, 0) for state in BAD),
            remaining=remaining(session, batch, ahead),
        )
        for batch in found
    ]


def _lanes(stages: Sequence[Line], running: Sequence[Running], *, whole: bool) -> list[Lane]:
    lanes = []
    for name in dict.fromkeys(line.lane for line in stages):
        etas = [one.remaining.eta for one in running if one.batch.lane == name and one.batch.state == "in_progress"]
        known = [eta.p50 for eta in etas if eta is not None]
        lanes.append(
            Lane(
                name=name,
                stages=tuple(line for line in stages if line.lane == name),
                seconds=max(known) if whole and known and len(known) == len(etas) else None,
            )
        )
    return lanes
