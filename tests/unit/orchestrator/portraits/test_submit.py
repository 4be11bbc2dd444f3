"""Submit and dry run: what is refused, what is left out, what a repeat gives, and how long ten thousand rows take."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select

from orchestrator.contracts.portraits import SubmitOptions
from orchestrator.errors import ConflictError, ConsentError, ManifestError, UsageError
from orchestrator.ledger import identities
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import batches, claims, workers
from orchestrator.ledger.tables.rows import Attempt, Batch, Item, ItemIdentity, Outbox, Stage
from orchestrator.ledger.views import standing
from orchestrator.portraits.submit import Submission, dry_run, submit_portraits
from orchestrator.results.results import errors_lines
from orchestrator.settings import Settings
from tests.unit.orchestrator.played import AddPerson, Played, lines


def submit(ledger: Ledger, settings: Settings, manifest: bytes, **changes: object) -> Submission:
    asked = {name: changes.pop(name) for name in set(changes) & SubmitOptions.model_fields.keys()}
    options = {"manifest": manifest, "format": "jsonl", "name": "test", "owner": "local"} | changes
    return submit_portraits(ledger, settings, options=SubmitOptions.asked(**asked), **options)  # type: ignore[arg-type]  # fields by name


def count(ledger: Ledger, kind: type) -> int:
    with ledger.read() as session:
        return session.scalar(select(func.count()).select_from(kind)) or 0


def row(custom_id: str = "a", people: object = "ada", **values: object) -> dict[str, object]:
    return {"custom_id": custom_id, "people": people, **values}


@pytest.fixture(autouse=True)
def library(person: AddPerson) -> None:
    for handle in ("ada", "bruno", "clara", "dario", "emeka"):
        person(handle, "generate")


def test_a_good_manifest_becomes_a_batch_with_items_stages_people_and_a_flow_run_to_start(
    ledger: Ledger, settings: Settings
) -> None:
    made = submit(ledger, settings, lines(row("a"), row("b", "ada@left;bruno@right")), redraws=2)

    with ledger.read() as session:
        batch = batches.get(session, "local", made.batch_id)
        items = batches.items(session, batch.id)
        effects = session.scalars(select(Outbox.kind)).all()
    assert (made.planned, made.repeated, made.errors) == (2, False, ())
    assert (batch.state, batch.total, batch.options["redraws"]) == ("in_progress", 2, 2)
    assert [item.custom_id for item in items] == ["a", "b"]
    assert items[0].stages == ["generate", "score"]
    assert batch.model_version_id is not None
    assert count(ledger, Stage) == 2
    assert count(ledger, ItemIdentity) == 3
    assert effects == ["flow.start"]


@pytest.mark.parametrize(
    ("bad", "code", "field"),
    [
        (row(colour="red"), "unknown_column", "colour"),
        (row(people="nobody"), "unknown_identity", "people[0].identity"),
        (row(people=[{"identity": "ada", "box": [90, 10, 20, 60]}]), "bad_box", "people[0].box"),
        (row(people="ada@left;bruno@left", layout="group_2"), "slot_taken", "people[1].slot"),
        (row(people="ada;bruno;clara", layout="group_2"), "too_many_people", "people"),
        (row(people="ada;bruno;clara;dario;emeka"), "too_many_people", "people"),
    ],
)
def test_a_wrong_row_is_named_by_number_and_nothing_is_queued(
    ledger: Ledger, settings: Settings, bad: dict[str, object], code: str, field: str
) -> None:
    with pytest.raises(ManifestError, match="row 2") as refused:
        submit(ledger, settings, lines(row("good"), {**bad, "custom_id": "bad"}))

    (error,) = refused.value.details["errors"]
    assert (error["row"], error["code"], error["field"]) == (2, code, field)
    assert count(ledger, Batch) == 0
    assert count(ledger, Item) == 0


def test_missing_consent_is_refused_naming_the_person_and_the_scope(
    ledger: Ledger, settings: Settings, person: AddPerson
) -> None:
    person("flora", "restore")

    with pytest.raises(ConsentError, match=r"'flora'.*'generate'.*never given"):
        submit(ledger, settings, lines(row(people="flora")))
    assert count(ledger, Batch) == 0


def test_consent_that_has_expired_is_refused_saying_so(ledger: Ledger, settings: Settings, person: AddPerson) -> None:
    person("flora", "generate", expires_at=datetime.now(UTC) - timedelta(days=1))

    with pytest.raises(ConsentError, match="lapsed"):
        submit(ledger, settings, lines(row(people="flora")))


def test_skip_invalid_leaves_wrong_rows_out_and_names_them_in_the_errors(
    ledger: Ledger, settings: Settings, worker: Played
) -> None:
    rows = [row(f"r{n}") for n in range(50)]
    for n in (3, 11, 19, 27, 42):
        rows[n]["layout"] = "no-such-layout"
    made = submit(ledger, settings, lines(*rows), skip_invalid=True)
    worker.work()

    with ledger.read() as session:
        batch = batches.get(session, "local", made.batch_id)
        errors = list(errors_lines(session, batch))
    assert made.planned == 45
    assert batch.state == "completed_with_errors"
    assert [error["custom_id"] for error in errors] == ["r3", "r11", "r19", "r27", "r42"]
    assert [error["row"] for error in errors] == [4, 12, 20, 28, 43]
    assert {error["error"]["code"] for error in errors} == {"unknown_layout"}


def test_the_custom_id_of_a_row_that_cannot_be_read_is_found_in_csv_too(ledger: Ledger, settings: Settings) -> None:
    manifest = b'custom_id,people,seed\n"first",ada,1\nsecond,bruno,minus\n'
    made = submit(ledger, settings, manifest, format="csv", skip_invalid=True)

    with ledger.read() as session:
        (rejected,) = batches.get(session, "local", made.batch_id).rejected_rows
    assert (rejected["row"], rejected["custom_id"], rejected["field"]) == (3, "second", "seed")


def test_skip_invalid_still_refuses_a_manifest_without_one_good_row(ledger: Ledger, settings: Settings) -> None:
    with pytest.raises(ManifestError):
        submit(ledger, settings, lines(row(people="nobody")), skip_invalid=True)
    assert count(ledger, Batch) == 0


def test_the_same_key_and_manifest_give_the_first_batch_even_after_consent_ended(
    ledger: Ledger, settings: Settings, person: AddPerson
) -> None:
    first = submit(ledger, settings, lines(row()), idempotency_key="night-1")
    with ledger.read() as session:
        identity = session.scalars(select(ItemIdentity.identity_id)).one()
    identities.revoke(ledger, "local", identity, "generate")
    again = submit(ledger, settings, lines(row()), idempotency_key="night-1")

    assert (again.batch_id, again.repeated) == (first.batch_id, True)
    assert count(ledger, Batch) == 1


def test_the_same_key_with_another_manifest_or_option_is_refused(ledger: Ledger, settings: Settings) -> None:
    submit(ledger, settings, lines(row()), idempotency_key="night-1")

    with pytest.raises(ConflictError, match="night-1"):
        submit(ledger, settings, lines(row("other")), idempotency_key="night-1")
    with pytest.raises(ConflictError, match="night-1"):
        submit(ledger, settings, lines(row()), idempotency_key="night-1", redraws=1)


@pytest.mark.parametrize("wrong", [{"lane": "fast"}, {"priority": 9}, {"redraws": -1}, {"stop_after": 0}])
def test_options_out_of_range_are_refused(ledger: Ledger, settings: Settings, wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        submit(ledger, settings, lines(row()), **wrong)


def test_a_paused_batch_is_not_handed_to_workers(ledger: Ledger, settings: Settings) -> None:
    submit(ledger, settings, lines(row()), paused=True)

    assert claims.claim(ledger, worker_id="w", queues=["gpu.generate"], limit=1, lease_seconds=9) == []


def test_a_dry_run_counts_errors_and_consents_and_changes_nothing(
    ledger: Ledger, settings: Settings, person: AddPerson
) -> None:
    person("flora")
    manifest = lines(row("a"), row("b", count=3), row("c", "flora"), row("d", layout="nowhere"))
    found = dry_run(ledger, settings, manifest=manifest, format="jsonl", owner="local")

    assert (found.items, found.people, found.eta) == (4, 1, None)
    assert [error.row for error in found.errors] == [3, 4]
    assert "'flora'" in found.missing_consents[0]
    assert count(ledger, Batch) == 0
    assert json.loads(json.dumps(found.as_json()))["errors"][0]["code"] == "consent_missing"


def test_a_dry_run_estimates_from_what_was_measured(ledger: Ledger, settings: Settings, worker: Played) -> None:
    submit(ledger, settings, lines(*(row(f"r{n}") for n in range(4))))
    workers.register(ledger, owner="local", device="cpu", queues=["gpu.generate", "cpu.io"])
    worker.work()
    found = dry_run(ledger, settings, manifest=lines(row(count=100)), format="jsonl", owner="local")

    assert found.eta is not None
    assert 0 < found.eta.p50 <= found.eta.p90
    assert (found.workers, found.ahead) == (1, 0)


def test_a_dry_run_estimates_from_portraits_that_asked_for_the_same(
    ledger: Ledger, settings: Settings, worker: Played
) -> None:
    submit(ledger, settings, lines(*(row(f"r{n}", small_faces="keep") for n in range(4))))
    workers.register(ledger, owner="local", device="cpu", queues=["gpu.generate", "cpu.io"])
    worker.work()

    def estimated(**values: object) -> bool:
        manifest = lines(row(count=100, **values))
        return dry_run(ledger, settings, manifest=manifest, format="jsonl", owner="local").eta is not None

    assert estimated(small_faces="keep")
    assert not estimated(), "nobody has drawn a small face again here"


def test_members_of_a_group_that_end_one_by_one_take_the_time_of_the_last(
    ledger: Ledger, settings: Settings, worker: Played
) -> None:
    submit(ledger, settings, lines(*(row(f"r{n}") for n in range(4))))
    worker.work()
    began = datetime(2026, 11, 29, tzinfo=UTC)
    with ledger.write() as session:
        drawn = session.scalars(select(Attempt).join(Stage).where(Stage.name == "generate")).all()
        for place, attempt in enumerate(drawn, start=1):
            attempt.started_at, attempt.ended_at = began, began + timedelta(seconds=2 * place)
            attempt.group_size = len(drawn)

    again = submit(ledger, settings, lines(row("again"))).batch_id
    with ledger.read() as session:
        queue = standing.look(session, began)

    (beside,) = [one for one in queue.batches if one.id == again]
    assert [(group.items, group.seconds) for group in beside.steps[0].groups] == [(4, 8.0)]


def test_ten_thousand_rows_are_accepted_in_two_seconds_of_work(ledger: Ledger, settings: Settings) -> None:
    handles = ("ada", "bruno", "clara", "dario")
    manifest = lines(*(row(f"r{n}", ";".join(handles[: n % 4 + 1]), prompt="portrait") for n in range(10_000)))
    began = time.process_time()
    made = submit(ledger, settings, manifest)
    seconds = time.process_time() - began

    assert made.planned == 10_000
    # of this process's own time: the wall clock of a shared machine measures its neighbours. Twice the goal, since
    # neighbours on the same core also slow that.
    assert seconds < 4.0
