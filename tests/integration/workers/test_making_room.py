"""What somebody waits for beside long work, by a real worker process whose networks are played by a twin that waits."""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import select

from orchestrator.ledger.engine import schema
from orchestrator.ledger.queue import batches
from orchestrator.ledger.queue.claims import Claim
from orchestrator.ledger.queue.outcomes import Outcome
from orchestrator.ledger.tables.rows import Attempt, Stage
from orchestrator.models import registry
from orchestrator.settings import Settings
from workers.runtime import process as running
from workers.runtime.lease import Lease
from workers.runtime.process import Process
from workers.runtime.stage import Ended, StageContext, load

ITEM_SECONDS = 0.02
LONG_SECONDS = 6.0


def waits(context: StageContext, held: Sequence[Claim], lease: Lease) -> Iterator[Ended]:
    """Play a stage of the networks: so long an item, one after the other."""
    for c in held:
        if c.stage_id not in lease.stopped:
            time.sleep(ITEM_SECONDS)
            yield c, Outcome()


def evaluates(context: StageContext, held: Sequence[Claim], lease: Lease) -> Iterator[Ended]:
    """Play long work that makes room in its middle."""
    for c in held:
        since = time.monotonic()
        for step in range(int(LONG_SECONDS / ITEM_SECONDS)):
            time.sleep(ITEM_SECONDS)
            lease.progress(c, step * ITEM_SECONDS / LONG_SECONDS)
            since = context.make_room(c, since)
        yield c, Outcome()


def trains(context: StageContext, held: Sequence[Claim], lease: Lease) -> Iterator[Ended]:
    """Play a training: it saves and gives its claim back when others wait."""
    began = time.monotonic()
    while time.monotonic() - began < LONG_SECONDS:
        time.sleep(ITEM_SECONDS)
        if context.crowded(began):
            return
    for c in held:
        yield c, Outcome(then="end")


class House:
    """One worker that serves every queue, and what is submitted to it."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(
            state_dir=folder, probes=True, worker_queues="gpu.generate,gpu.train,cpu.io", group_size=8
        )
        schema.upgrade(self.settings.database_url)
        self.process = Process(self.settings)
        self.ledger = self.process.ledger
        registry.ensure_registered(self.ledger, self.settings)
        self.turn = threading.Thread(target=self.process.run, daemon=True)

    def submit(self, kind: str, count: int = 1, lane: str = "bulk") -> str:
        items = [batches.NewItem(custom_id=f"c{n}", params={}, params_sha256=f"{n:064d}", seed=n) for n in range(count)]
        version = registry.champion(self.ledger, self.settings, "mini")
        new = batches.NewBatch(
            owner="local", kind=kind, name=lane, preset="mini", items=items, lane=lane, model_version_id=version,
            flow=False,
        )  # fmt: skip
        return batches.submit(self.ledger, new).batch_id

    def began(self, batch_id: str) -> list[float]:
        """Return when the groups of a batch were taken up, in order."""
        query = select(Attempt.started_at).join(Stage, Stage.id == Attempt.stage_id).where(Stage.batch_id == batch_id)
        with self.ledger.read() as session:
            return sorted(moment.timestamp() for moment in session.scalars(query.distinct()))

    def until(self, holds: Callable[[], bool]) -> float:
        began = time.monotonic()
        while not holds():
            assert time.monotonic() - began < 60
            time.sleep(0.01)
        return time.monotonic() - began

    def ended(self, batch_id: str) -> bool:
        with self.ledger.read() as session:
            return batches.get(session, "local", batch_id).state == "completed"


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    twins = dict.fromkeys(("generate", "score", "ingest"), waits) | {"evaluate": evaluates, "train": trains}
    monkeypatch.setattr(running, "load", lambda name: twins.get(name) or load(name))
    made = House(tmp_path / "state")
    yield made
    made.process.drain()
    made.turn.join(60)
    made.process.end()


def test_a_pair_and_an_enrolment_beside_a_thousand_items_end_within_two_groups(house: House) -> None:
    night = house.submit("generate", 1000)
    house.turn.start()
    house.until(lambda: len(house.began(night)) > 5)
    pair, person = house.submit("generate", 2, "interactive"), house.submit("enrol", 1, "interactive")

    waited = house.until(lambda: house.ended(pair)), house.until(lambda: house.ended(person))
    house.until(lambda: len(house.began(night)) > 20)

    batches.cancel(house.ledger, "local", night)
    # from group to group of the night, its drawings and scores in turn
    group = 2 * statistics.median(b - a for a, b in itertools.pairwise(house.began(night)))
    assert sum(waited) < 2 * group + 1.0, (waited, group)


@pytest.mark.parametrize("kind", ["evaluate", "train"])
def test_long_work_makes_room_for_what_somebody_waits_for_and_ends(house: House, kind: str) -> None:
    long = house.submit(kind, lane="training")
    house.turn.start()
    house.until(lambda: len(house.began(long)) > 0)
    time.sleep(running.ASK_SECONDS)

    urgent = house.submit("generate", 2, "interactive")
    waited = house.until(lambda: house.ended(urgent))

    assert waited < LONG_SECONDS / 2, "it entered in the middle"
    assert not house.ended(long)
    if kind == "evaluate":
        house.until(lambda: house.ended(long))
        with house.ledger.read() as session:
            query = select(Attempt).join(Stage, Stage.id == Attempt.stage_id).where(Stage.batch_id == long)
            (tried,) = session.scalars(query)
        assert tried.group_size == 1
        assert 0 < tried.aside < LONG_SECONDS
