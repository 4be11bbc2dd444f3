"""Views for pages: where a person is used, what a version drew, what a run looked like; nothing of other owners."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest

from orchestrator.api.pages import people_view, training_view
from orchestrator.contracts.portraits import SubmitOptions
from orchestrator.errors import NotFoundError
from orchestrator.ledger import artifacts
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.tables.rows_training import TrainRecord
from orchestrator.models import registry
from orchestrator.portraits.submit import submit_portraits
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore
from tests.unit.orchestrator.played import AddPerson, Played, lines, picture
from tests.unit.orchestrator.trained import add_dataset, begin, finish, measure

ADA = {"custom_id": "a", "people": [{"identity": "ada"}], "seed": 7}


def draw(ledger: Ledger, settings: Settings, worker: Played, model: str | None = None, owner: str = "local") -> str:
    made = submit_portraits(
        ledger,
        settings,
        manifest=lines(ADA),
        format="jsonl",
        name="one",
        owner=owner,
        options=SubmitOptions(model=model),
    ).batch_id
    worker.work()
    return made


def test_a_person_is_shown_with_every_batch_data_set_and_model_they_are_in(
    ledger: Ledger, settings: Settings, person: AddPerson, worker: Played
) -> None:
    ada = person("ada", "generate", "train")
    batch_id = draw(ledger, settings, worker)
    dataset = add_dataset(ledger, people=[ada])
    version = finish(ledger, begin(ledger, settings, dataset), "c" * 64, 0.8)

    found = people_view.person(ledger, "local", "ada")

    assert [one["id"] for one in found["batches"]] == [batch_id]
    assert [(one["id"], one["name"], one["pictures"]) for one in found["data_sets"]] == [(dataset, "faces 1", 3)]
    assert [one["id"] for one in found["models"]] == [version]
    assert found["scopes"] == ["generate", "train"]
    with pytest.raises(NotFoundError):
        people_view.person(ledger, "eve", "ada")


def test_a_version_made_of_one_that_saw_a_person_is_shown_too(
    ledger: Ledger, settings: Settings, person: AddPerson
) -> None:
    ada = person("ada", "train")
    first = finish(ledger, begin(ledger, settings, add_dataset(ledger, people=[ada])), "c" * 64, 0.8)
    other = add_dataset(ledger, "others")
    second = finish(ledger, begin(ledger, settings, other, start=first), "d" * 64, 0.9)

    found = people_view.person(ledger, "local", "ada")

    assert {one["id"] for one in found["models"]} == {first, second}


def test_a_version_shows_its_run_its_ancestors_its_verdict_and_what_it_drew(
    ledger: Ledger, settings: Settings, person: AddPerson, worker: Played
) -> None:
    person("ada", "generate")
    live = registry.ensure_registered(ledger, settings)
    measure(ledger, live, 0.7)
    batch_id = draw(ledger, settings, worker)
    run = begin(ledger, settings, add_dataset(ledger))
    made = finish(ledger, run, "c" * 64, 0.8)

    first, second = (training_view.version(ledger, "local", one) for one in (live, made))

    assert [(one["id"], one["pictures"]) for one in first["batches"]] == [(batch_id, 1)]
    assert [one["id"] for one in second["runs"]] == [run.run_id]
    assert [one["id"] for one in second["ancestors"]] == [made, live]
    with pytest.raises(NotFoundError):
        training_view.version(ledger, "eve", made)  # trained on another owner's people
    assert "location" not in first


def test_versions_are_compared_by_figures_and_by_pictures_of_the_same_request(
    ledger: Ledger, settings: Settings, person: AddPerson, worker: Played
) -> None:
    person("ada", "generate")
    live = registry.ensure_registered(ledger, settings)
    made = finish(ledger, begin(ledger, settings, add_dataset(ledger)), "c" * 64, 0.8)
    assert training_view.compared(ledger, "local", [live, made], "identity")["figures"] is None
    measure(ledger, live, 0.7)
    draw(ledger, settings, worker)

    found = training_view.compared(ledger, "local", [live, live], "identity")

    assert found["sides"].groups == (), "a version does not differ from itself"
    assert [row.name for row in found["sides"].alike] == ["face_sim.mean"]
    assert [one["custom_id"] for one in found["pictures"]] == ["a"]
    assert len(found["pictures"][0]["sides"]) == 2
    assert training_view.compared(ledger, "local", [live, made], "identity")["pictures"] == []
    assert training_view.compared(ledger, "eve", [live, live], "identity")["pictures"] == []


def test_a_validation_picture_is_read_by_its_step_and_by_its_owner_alone(
    ledger: Ledger, settings: Settings, store: ByteStore
) -> None:
    run = begin(ledger, settings, add_dataset(ledger))
    data, key = picture(), "a/local/sample.png"
    sha256 = hashlib.sha256(data).hexdigest()
    artifact_id = artifacts.reserve(
        ledger, owner="local", sha256=sha256, key=key, size=len(data), media_type="image/png"
    )
    store.put(key, data, media_type="image/png", sha256=sha256)
    with ledger.write() as session:
        artifacts.confirm(session, artifact_id)
        kept = {"run_id": run.run_id, "owner": "local", "kind": "sample", "step": 6}
        session.add(TrainRecord(**kept, facts={}, artifact_id=artifact_id, at=datetime.now(UTC)))

    assert training_view.run(ledger, "local", run.run_id)["samples"] == [6]
    assert training_view.sample(ledger, store, "local", run.run_id, 6) == data
    for owner, step in (("eve", 6), ("local", 5), ("local", 7)):
        with pytest.raises(NotFoundError):
            training_view.sample(ledger, store, owner, run.run_id, step)


def test_a_run_is_shown_with_curves_of_what_it_recorded(ledger: Ledger, settings: Settings) -> None:
    run = begin(ledger, settings, add_dataset(ledger))
    with ledger.write() as session:
        for step in (1, 2):
            facts = {"stage": "mmf", "loss": 1 / step, "rate": 1e-3}
            for kind, told in (("step", facts), ("validation", {"own_id": 0.4, "no_id": 0.1, "wrong_id": 0.2})):
                session.add(
                    TrainRecord(
                        run_id=run.run_id, kind=kind, step=step, owner="local", facts=told, at=datetime.now(UTC)
                    )
                )

    found = training_view.run(ledger, "local", run.run_id)

    assert [one.title for one in found["charts"]] == [
        "Loss",
        "Loss on held-out people, by the reference given",
        "Learning rate",
    ]
    assert [curve.name for curve in found["charts"][1].curves] == list(training_view.VALIDATION.values())
    assert found["samples"] == []
    with pytest.raises(NotFoundError):
        training_view.run(ledger, "eve", run.run_id)
