"""The cleaner lets go of what is older than the settings say, and of nothing else."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from orchestrator.ledger.engine.session import Ledger, now
from orchestrator.ledger.tables.rows import Artifact, Consent, Identity, Item, Output, Reference
from orchestrator.people import identities, receipts, retention
from orchestrator.people.identities import ConsentGiven, NewPerson, Picture
from orchestrator.people.receipts import Signer
from orchestrator.portraits.submit import submit_portraits
from orchestrator.runtime.sweeping import remove_expired
from tests.unit.orchestrator.played import Played, lines, picture


@pytest.fixture
def filled(worker: Played) -> Played:
    """Two people with a portrait each; everything about the first is 100 days old."""
    consent = ConsentGiven(scopes=("generate",), granted_by="test")
    people = [
        NewPerson(handle=handle, pictures=(Picture(name="1.png", data=picture((n, n, n))),), consent=consent)
        for n, handle in enumerate(("ada", "bruno"))
    ]
    identities.add(worker.ledger, worker.store, worker.settings, people, owner="local")
    worker.work()
    for handle in ("ada", "bruno"):
        rows = lines({"custom_id": handle, "people": handle, "seed": len(handle)})
        submit_portraits(worker.ledger, worker.settings, manifest=rows, format="jsonl", name=handle, owner="local")
    worker.work()
    with worker.ledger.write() as session:
        old = now(session) - timedelta(days=100)
        ada = identities.identities.get(session, "local", "ada").id
        item = session.scalars(select(Item).where(Item.custom_id == "ada")).one()
        for row, column, of in (
            (Identity, Identity.id, ada),
            (Reference, Reference.identity_id, ada),
            (Item, Item.id, item.id),
            (Output, Output.item_id, item.id),
        ):
            session.execute(update(row).where(column == of).values(created_at=old))
        session.execute(update(Consent).where(Consent.identity_id == ada).values(granted_at=old))
    return worker


def clean(worker: Played, *, dry_run: bool = False, **days: int) -> dict[str, int]:
    settings = worker.settings.model_copy(update=days)
    found = retention.clean(worker.ledger, worker.store, settings, dry_run=dry_run)
    remove_expired(worker.ledger, worker.store)
    return {one.name: one.count for one in found}


def live(ledger: Ledger) -> int:
    with ledger.read() as session:
        return len(session.scalars(select(Artifact.id).where(Artifact.state == "live")).all())


def test_without_days_in_the_settings_everything_is_kept(filled: Played) -> None:
    assert clean(filled) == {"people": 0, "outputs": 0, "originals": 0}
    assert live(filled.ledger) == 4


def test_a_dry_run_counts_and_changes_nothing(filled: Played) -> None:
    assert clean(filled, dry_run=True, keep_people_days=30, keep_outputs_days=30) == {
        "people": 1,
        "outputs": 1,
        "originals": 0,
    }
    assert live(filled.ledger) == 4


def test_somebody_unused_for_longer_is_erased_with_a_receipt_and_others_stay(filled: Played) -> None:
    assert clean(filled, keep_people_days=30)["people"] == 1

    assert [person["handle"] for person in identities.list_people(filled.ledger, "local")] == ["bruno"]
    (path,) = (filled.settings.state_dir / "receipts").glob("*.json")
    receipts.verify(json.loads(path.read_text()), Signer.of(filled.settings).public_keys)
    assert clean(filled, keep_people_days=30)["people"] == 0


@pytest.mark.parametrize("days", [101, 3650])
def test_somebody_used_within_the_time_stays(filled: Played, days: int) -> None:
    assert clean(filled, keep_people_days=days)["people"] == 0


def test_old_outputs_lose_their_bytes_and_keep_their_rows(filled: Played) -> None:
    before = {listed.key for listed in filled.store.list()}
    assert clean(filled, keep_outputs_days=30)["outputs"] == 1

    gone = before - {listed.key for listed in filled.store.list()}
    with filled.ledger.read() as session:
        rows = (
            session.execute(select(Output, Artifact).join(Artifact, Artifact.id == Output.artifact_id)).tuples().all()
        )
    assert {artifact.key for _, artifact in rows if artifact.state == "deleted"} == gone
    assert len(rows) == 2
    assert clean(filled, keep_outputs_days=30)["outputs"] == 0


def test_old_originals_go_unless_a_younger_item_needs_them(filled: Played) -> None:
    with filled.ledger.write() as session:
        artifacts = list(session.scalars(select(Reference.artifact_id)))
        # two photos of the same bytes, of which one has not ended, and one of its own
        session.execute(update(Item).values(params={}, finished_at=None))
        ada, bruno = session.scalars(select(Item).where(Item.custom_id.in_(["ada", "bruno"])).order_by(Item.id))
        ada.params = {"original": {"artifact_id": artifacts[0]}}
        ada.finished_at = now(session) - timedelta(days=100)
        bruno.params = {"original": {"artifact_id": artifacts[0]}}
    assert clean(filled, keep_originals_days=30)["originals"] == 0

    with filled.ledger.write() as session:
        session.execute(update(Item).where(Item.id == bruno.id).values(finished_at=now(session) - timedelta(days=99)))
    assert clean(filled, keep_originals_days=30)["originals"] == 1


@pytest.mark.parametrize("dry_run", [True, False])
def test_everything_that_is_due_goes_at_once_however_little_one_look_sees(
    filled: Played, monkeypatch: pytest.MonkeyPatch, dry_run: bool
) -> None:
    monkeypatch.setattr("orchestrator.ledger.privacy.retention.AT_ONCE", 1)
    rows = lines(*({"custom_id": f"b{n}", "people": "bruno", "seed": n} for n in range(4)))
    submit_portraits(filled.ledger, filled.settings, manifest=rows, format="jsonl", name="more", owner="local")
    filled.work()
    with filled.ledger.write() as session:
        old = now(session) - timedelta(days=100)
        for row in (Identity, Reference, Item, Output):
            session.execute(update(row).values(created_at=old))
        session.execute(update(Consent).values(granted_at=old))

    found = clean(filled, dry_run=dry_run, keep_outputs_days=30)
    assert found["outputs"] == 6
    assert live(filled.ledger) == (8 if dry_run else 2)
    # who is erased takes along what shows them
    assert clean(filled, keep_people_days=30, keep_outputs_days=30) == {"people": 2, "outputs": 0, "originals": 0}
    assert live(filled.ledger) == 0
