"""Gate, promotion and rollback after a training run; what an erase does to data sets, runs and versions."""

from __future__ import annotations

import pytest

from orchestrator.errors import ConflictError, ConsentError, NotFoundError, UsageError
from orchestrator.ledger import identities
from orchestrator.ledger import training as runs
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.privacy import erasure
from orchestrator.ledger.queue import batches, claims, outcomes
from orchestrator.ledger.tables.rows import Batch
from orchestrator.models import lineage, registry, retraining, training
from orchestrator.portraits.submit import submit_portraits
from orchestrator.settings import Settings
from tests.unit.orchestrator.played import AddPerson, Played, lines
from tests.unit.orchestrator.trained import add_dataset, begin, finish, measure


@pytest.fixture
def live(ledger: Ledger, settings: Settings) -> str:
    version = registry.ensure_registered(ledger, settings)
    measure(ledger, version, 0.74)
    return version


def train(ledger: Ledger, settings: Settings, dataset: str, sha256: str, mean: float, **more: object) -> str:
    run = begin(ledger, settings, dataset, **more)
    version = finish(ledger, run, sha256 * 64, mean)
    retraining.conclude(ledger, run.batch_id)
    return version


def test_a_worse_version_is_refused_a_better_one_promoted_and_rolled_back(
    ledger: Ledger, settings: Settings, live: str
) -> None:
    dataset = add_dataset(ledger)

    worse = train(ledger, settings, dataset, "b", 0.55)
    refused = registry.show_version(ledger, worse)
    assert refused["aliases"] == []
    assert refused["decisions"][0]["reasons"] == [
        "identity.face_sim.mean 0.5500 is below 0.7100, the lower end of the live version's interval"
    ]
    with pytest.raises(ConflictError, match=r"0\.5500 is below"):
        registry.promote(ledger, settings, worse, alias="champion", reason="I like it")

    better = train(ledger, settings, dataset, "c", 0.78)
    assert registry.champion(ledger, settings, "mini") == better

    back = registry.rollback(ledger, settings, "mini", alias="champion", reason="odd colours")
    assert (back["id"], back["tensor_sha256"]) == (live, "a" * 64)
    history = registry.alias_history(ledger, "mini")
    assert [(step["to"], step["rollback"]) for step in history] == [(live, False), (better, False), (live, True)]
    with pytest.raises(ConflictError, match="no earlier version"):
        registry.rollback(ledger, settings, "mini", alias="champion", reason="again")


def test_the_gate_decides_once_whoever_asks(ledger: Ledger, settings: Settings, live: str) -> None:
    run = begin(ledger, settings, add_dataset(ledger))
    assert retraining.conclude(ledger, run.batch_id) is None
    finish(ledger, run, "c" * 64, 0.78)

    first, second = (retraining.conclude(ledger, run.batch_id) for _ in range(2))

    assert first == second
    assert first is not None
    assert first["passed"]
    assert len(registry.alias_history(ledger, "mini")) == 2


def test_without_promotion_a_good_version_becomes_candidate(ledger: Ledger, settings: Settings, live: str) -> None:
    version = train(ledger, settings, add_dataset(ledger), "c", 0.78, promote=False)

    assert registry.champion(ledger, settings, "mini") == live
    assert registry.show_version(ledger, "mini@candidate")["id"] == version


def test_an_open_batch_goes_on_with_the_new_champion_and_back_unless_it_is_pinned(
    ledger: Ledger, settings: Settings, live: str, person: AddPerson
) -> None:
    person("ada", "generate")
    manifest = lines({"custom_id": "a", "people": "ada"})

    def submit(name: str) -> str:
        return submit_portraits(ledger, settings, manifest=manifest, format="jsonl", name=name, owner="local").batch_id

    following, pinned = submit("following"), submit("pinned")
    with ledger.write() as session:
        session.get_one(Batch, pinned).options = {"pinned": True}

    def versions() -> tuple[str | None, str | None]:
        with ledger.read() as session:
            found = [session.get_one(Batch, batch_id).model_version_id for batch_id in (following, pinned)]
            return found[0], found[1]

    better = train(ledger, settings, add_dataset(ledger), "c", 0.78)
    assert versions() == (better, live)
    registry.rollback(ledger, settings, "mini", alias="champion", reason="odd colours")
    assert versions() == (live, live)


def test_lineage_and_diff_lead_to_data_set_configuration_and_parent(
    ledger: Ledger, settings: Settings, live: str
) -> None:
    dataset = add_dataset(ledger)
    version = train(ledger, settings, dataset, "c", 0.78)

    origin, parent = lineage.lineage(ledger, version)
    difference = lineage.diff(ledger, live, version)

    assert (origin["id"], origin["dataset"]["id"], origin["config"], parent["id"]) == (
        version,
        dataset,
        {"steps": 10},
        live,
    )
    assert difference["facts"]["dataset_id"] == [None, dataset]
    assert difference["config"] == {"steps": [None, 10]}


@pytest.mark.parametrize("way", ["erase", "revoke"])
def test_who_withdraws_taints_the_data_set_its_versions_and_what_began_from_them(
    ledger: Ledger, settings: Settings, live: str, person: AddPerson, way: str
) -> None:
    ada = person("ada", "train")
    dataset = add_dataset(ledger, people=[ada])
    first = train(ledger, settings, dataset, "b", 0.75)
    second = train(ledger, settings, add_dataset(ledger, "others"), "c", 0.78)  # began from the first
    waiting = begin(ledger, settings, dataset)

    if way == "erase":
        erased = erasure.erase(ledger, "local", ada)
        assert (erased.data_sets, set(erased.models)) == ([dataset], {first, second})
    else:
        identities.revoke(ledger, "local", ada, "train")

    report = lineage.taint_report(ledger)
    assert {found["id"] for found in report["datasets"]} == {dataset}
    assert [(r["model_version_id"], r["live_as"], r["start_from"]) for r in report["retrain"]] == [
        (second, ["mini@champion"], live),
        (first, [], live),
    ]
    with ledger.read() as session:
        assert session.get_one(Batch, waiting.batch_id).state == "cancelled"
    with pytest.raises(ConflictError, match="tainted"):
        registry.promote(ledger, settings, first, alias="champion", reason="no")
    with pytest.raises(ConflictError, match="withdrawn"):
        begin(ledger, settings, dataset)
    assert registry.rollback(ledger, settings, "mini", alias="champion", reason="withdrawn")["id"] == live


def test_a_run_that_was_trained_while_somebody_withdrew_does_not_pass(
    ledger: Ledger, settings: Settings, live: str, person: AddPerson
) -> None:
    ada = person("ada", "train")
    run = begin(ledger, settings, add_dataset(ledger, people=[ada]))
    version = finish(ledger, run, "c" * 64, 0.9)
    erasure.erase(ledger, "local", ada)

    decision = retraining.conclude(ledger, run.batch_id)

    assert decision is not None
    assert not decision["passed"]
    assert f"version {version} is tainted" in decision["reasons"][0]
    assert registry.champion(ledger, settings, "mini") == live


def test_a_run_that_cannot_be_is_refused_before_anything_is_queued(
    ledger: Ledger, settings: Settings, live: str, person: AddPerson
) -> None:
    ada = person("ada", "generate")  # allows no training
    with pytest.raises(ConsentError, match="do not allow 'train'"):
        begin(ledger, settings, add_dataset(ledger, people=[ada]))
    with pytest.raises(ConflictError, match="preset 'sdxl'"):
        begin(ledger, settings, add_dataset(ledger, "large", preset="sdxl"))
    with pytest.raises(NotFoundError):
        begin(ledger, settings, "nothing")
    with pytest.raises(UsageError, match="steps"):
        begin(ledger, settings, "nothing", steps=0)
    with ledger.read() as session:
        assert batches.listing(session, "local") == []


def test_only_the_live_token_saves_checkpoints_and_the_newest_two_stay(
    ledger: Ledger, settings: Settings, live: str, worker: Played
) -> None:
    run = begin(ledger, settings, add_dataset(ledger))
    (c,) = claims.start(
        ledger, claims.claim(ledger, worker_id="wrk_a", queues=["gpu.train"], limit=1, lease_seconds=60)
    )
    for step in (10, 20, 30):
        runs.save_checkpoint(ledger, c, run.run_id, step, {})
    outcomes.release(ledger, [c])
    claims.start(ledger, claims.claim(ledger, worker_id="wrk_b", queues=["gpu.train"], limit=1, lease_seconds=60))

    with pytest.raises(Exception, match="no longer held"):
        runs.save_checkpoint(ledger, c, run.run_id, 40, {})
    with ledger.read() as session:
        kept = session.scalars(runs.select(runs.TrainCheckpoint.step).order_by(runs.TrainCheckpoint.step)).all()
    assert kept == [20, 30]


def test_a_paused_run_goes_on_and_a_cancelled_one_with_a_new_batch(
    ledger: Ledger, settings: Settings, live: str
) -> None:
    run = begin(ledger, settings, add_dataset(ledger))

    assert training.pause(ledger, "local", run.run_id)["state"] == "paused"
    assert training.resume(ledger, "local", run.run_id)["batch_id"] == run.batch_id
    with pytest.raises(ConflictError, match="in_progress"):
        training.resume(ledger, "local", run.run_id)
    assert training.cancel(ledger, "local", run.run_id)["state"] == "cancelled"
    again = training.resume(ledger, "local", run.run_id)

    assert again["state"] == "in_progress"
    assert again["batch_id"] != run.batch_id
    assert [found["id"] for found in training.list_runs(ledger, "local")] == [run.run_id]
