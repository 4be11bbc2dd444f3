"""Schedules in the ledger: each time becomes one batch, or what became of it is seen where schedules are seen."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from sqlalchemy import update

from orchestrator.contracts.portraits import SubmitOptions
from orchestrator.contracts.schedules import ScheduleObject
from orchestrator.errors import ConflictError, NotFoundError, UsageError
from orchestrator.ledger import identities
from orchestrator.ledger.engine.session import Ledger, now
from orchestrator.ledger.queue import batches
from orchestrator.ledger.queue import schedules as rows
from orchestrator.ledger.tables.rows_schedules import Schedule
from orchestrator.models import registry, training
from orchestrator.runtime import schedules
from orchestrator.runtime.schedules import Timing
from orchestrator.settings import Settings
from orchestrator.status.doctor import examine
from orchestrator.storage import ByteStore
from tests.unit.orchestrator.played import AddPerson, Played, lines
from tests.unit.orchestrator.trained import add_dataset

ADA = lines({"custom_id": "a", "people": "ada"})
NIGHTLY = Timing(cron="0 2 * * *", timezone="Europe/Berlin")
OWNER = "local"


@pytest.fixture(autouse=True)
def ada(person: AddPerson) -> str:
    return person("ada", "generate")


def add(ledger: Ledger, store: ByteStore, timing: Timing = NIGHTLY, **more: object) -> ScheduleObject:
    options = SubmitOptions.asked(**{"seed": 7, "redraws": 1} | more)
    return schedules.add_portraits(
        ledger, store, owner=OWNER, name="night", timing=timing, manifest=ADA, format="jsonl", options=options
    )


def away_for(ledger: Ledger, days: float) -> None:
    """Pretend that nobody looked for so long."""
    with ledger.write() as session:
        session.execute(update(Schedule).values(looked_at=now(session) - timedelta(days=days)))


def outcomes(ledger: Ledger) -> list[str]:
    with ledger.read() as session:
        (row,) = rows.listing(session, OWNER)
        return [run.outcome for run in rows.runs(session, row.id, limit=100)]


def listed(ledger: Ledger) -> ScheduleObject:
    (one,) = schedules.listing(ledger, OWNER)
    return one


def test_a_time_that_came_becomes_one_batch_with_every_option_of_a_submit(
    ledger: Ledger, settings: Settings, store: ByteStore
) -> None:
    made = add(ledger, store, steps=5, style=None, lane="interactive")
    away_for(ledger, 1.5)

    assert schedules.look(ledger, store, settings) == 1
    assert schedules.look(ledger, store, settings) == 0

    last = listed(ledger).last_run
    assert last is not None
    assert last.outcome == "made"
    with ledger.read() as session:
        batch = batches.one(session, last.batch_id or "")
        (item,) = batches.items(session, batch.id)
    assert (batch.name, batch.lane, item.params["steps"]) == ("night", "interactive", 5)
    assert len(made.next_runs) == 5
    assert datetime.fromisoformat(made.next_runs[0]).utcoffset() == timedelta()


@pytest.mark.parametrize(("catch_up", "made", "missed"), [("latest", 1, 6), ("none", 0, 7), ("all", 7, 0)])
def test_after_a_week_off_the_rule_says_how_many_nights_fire(
    ledger: Ledger, settings: Settings, store: ByteStore, catch_up: str, made: int, missed: int
) -> None:
    add(ledger, store, Timing(cron="30 * * * *", catch_up=catch_up, overlap="allow"))
    away_for(ledger, 7 / 24)

    fired = schedules.look(ledger, store, settings)

    # half of an hour may have passed since the last time: that one is on time for every rule
    assert fired in (made, made + 1)
    assert outcomes(ledger).count("missed") in (missed, missed - 1)


@pytest.mark.parametrize(("overlap", "outcome"), [("skip", "skipped"), ("queue", "waiting"), ("allow", "made")])
def test_a_run_that_meets_the_one_before_is_skipped_waits_or_is_made(
    ledger: Ledger, settings: Settings, store: ByteStore, worker: Played, overlap: str, outcome: str
) -> None:
    add(ledger, store, Timing(cron="* * * * *", overlap=overlap))
    schedules.run_now(ledger, store, settings, OWNER, "night")
    away_for(ledger, 90 / 86400)

    schedules.look(ledger, store, settings)

    assert outcomes(ledger).count(outcome) >= (2 if overlap == "allow" else 1)
    if overlap == "queue":
        worker.work()
        assert schedules.look(ledger, store, settings) >= 1
        assert "waiting" not in outcomes(ledger)


def test_a_run_that_makes_no_batch_is_seen_in_list_doctor_and_event(
    ledger: Ledger, settings: Settings, store: ByteStore, ada: str
) -> None:
    add(ledger, store)
    identities.revoke(ledger, OWNER, ada, "generate")
    away_for(ledger, 1.5)

    schedules.look(ledger, store, settings)

    last = listed(ledger).last_run
    assert last is not None
    assert (last.outcome, last.code) == ("failed", "consent_missing")
    assert "ada" in (last.message or "")
    told = [check for check in examine(settings, device=False) if check.name == "schedules"]
    assert [check.status for check in told] == ["warn"]
    assert "'night' failed" in told[0].sentence


def test_doctor_knows_the_manifest_that_a_schedule_stands_on_and_misses_one_that_is_gone(
    ledger: Ledger, settings: Settings, store: ByteStore
) -> None:
    made = add(ledger, store)
    objects = [check for check in examine(settings, device=False) if check.name == "objects"]
    assert [check.status for check in objects] == ["ok"]

    store.delete(str(made.task["key"]))
    objects = [check for check in examine(settings, device=False) if check.name == "objects"]
    assert objects[0].status == "fail"
    assert "'night'" in objects[0].sentence
    with pytest.raises(NotFoundError, match="add the schedule again"):
        schedules.run_now(ledger, store, settings, OWNER, "night")
    assert listed(ledger).last_run is not None


def test_one_that_nobody_looks_at_is_late(ledger: Ledger, store: ByteStore, settings: Settings) -> None:
    add(ledger, store)
    away_for(ledger, 2)

    told = [check for check in examine(settings, device=False) if check.name == "schedules"]

    assert "nobody looked" in told[0].sentence


def test_the_same_add_again_is_good_another_of_the_name_is_told(ledger: Ledger, store: ByteStore) -> None:
    assert add(ledger, store).created is True
    assert add(ledger, store).created is False
    with pytest.raises(ConflictError, match="--replace"):
        add(ledger, store, seed=8)
    with pytest.raises(UsageError, match="6 fields"):
        add(ledger, store, Timing(cron="0 0 2 * * *"))
    assert listed(ledger).cron == NIGHTLY.cron


def test_remove_and_run_say_what_is_under_way(ledger: Ledger, store: ByteStore, settings: Settings) -> None:
    made = add(ledger, store)
    ran = schedules.run_now(ledger, store, settings, OWNER, "night")

    assert schedules.remove(ledger, store, OWNER, "night") == ran["batch_id"]

    assert schedules.listing(ledger, OWNER) == []
    assert store.head(str(made.task["key"])) is None
    with pytest.raises(NotFoundError):
        schedules.remove(ledger, store, OWNER, "night")


def test_one_bad_schedule_stops_no_other(ledger: Ledger, store: ByteStore, settings: Settings) -> None:
    add(ledger, store)
    schedules.add_portraits(
        ledger, store, owner=OWNER, name="a", timing=NIGHTLY, manifest=ADA, format="jsonl", options=SubmitOptions()
    )
    with ledger.write() as session:
        session.execute(update(Schedule).where(Schedule.name == "a").values(task={"key": "x"}))
    away_for(ledger, 1.5)

    assert schedules.look(ledger, store, settings) == 1


def test_a_training_schedule_resolves_its_data_set_when_it_runs(
    ledger: Ledger, store: ByteStore, settings: Settings
) -> None:
    registry.ensure_registered(ledger, settings)
    dataset = add_dataset(ledger, "faces")
    recipe = training.read_recipe({"dataset": "faces", "steps": 12, "name": "weekly"})
    schedules.add_training(ledger, owner=OWNER, name="weekly", timing=Timing(cron="0 3 * * 6"), recipe=recipe)

    ran = schedules.run_now(ledger, store, settings, OWNER, "weekly", schedules.TRAINING)

    (run,) = training.list_runs(ledger, OWNER)
    assert (run["dataset_id"], run["batch_id"], run["name"]) == (dataset, ran["batch_id"], "weekly")
    assert schedules.listing(ledger, OWNER) == [], "portraits and training have names of their own"
    schedules.remove(ledger, store, OWNER, "weekly", schedules.TRAINING)
