"""Whatever a row says, the loops that meet it go on, and its neighbours have their turn."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, text, update

from orchestrator import logs
from orchestrator.contracts.portraits import SubmitOptions
from orchestrator.contracts.schedules import ScheduleObject
from orchestrator.errors import UsageError
from orchestrator.ledger.engine.base import new_id
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.privacy.register import Words
from orchestrator.ledger.queue import batches, sweeper
from orchestrator.ledger.queue import schedules as schedule_rows
from orchestrator.ledger.queue.batches import NewBatch, NewItem
from orchestrator.ledger.tables.rows import Artifact, Batch, Item, Outbox, Stage
from orchestrator.ledger.tables.rows_api import Delivery, Upload, Webhook, webhook_place
from orchestrator.ledger.tables.rows_schedules import Schedule
from orchestrator.people import manifests
from orchestrator.photos import uploads
from orchestrator.runtime import dispatch, schedules, webhooks
from orchestrator.runtime.sweeping import Sweeper, remove_expired
from orchestrator.secrets.vault import Vault
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore, content_key
from tests.unit.orchestrator.played import add_person

PAST = datetime.now(UTC) - timedelta(hours=2)
URLS = [
    "https://0177.0.0.1/",
    "https://[::1/",
    "https://a b/",
    "https://x:99999/",
    "",
    "\udc80",
    "https://" + "a" * 300,
]


def webhook(ledger: Ledger, settings: Settings, owner: str, url: str, **wrong: Any) -> str:
    vault = Vault.of(settings)
    webhook_id = new_id("whk")
    envelope = vault.new(webhook_place(webhook_id, url))
    facts = {"data_key": envelope.key, "secret": vault.seal(envelope, b"whsec_AAAA").decode(), **wrong}
    with ledger.write() as session:
        row = Webhook(id=webhook_id, owner=owner, url=url, events=["ping"], created_at=PAST, **facts)
        session.add(row)
        session.add(
            Delivery(
                id=new_id("msg"),
                owner=owner,
                webhook_id=row.id,
                event="ping",
                body={},
                state="due",
                created_at=PAST,
                next_at=PAST,
            )
        )
    return row.id


def tries(ledger: Ledger, webhook_id: str) -> int:
    with ledger.read() as session:
        return session.scalars(select(Delivery.tries).where(Delivery.webhook_id == webhook_id)).one()


@pytest.mark.parametrize(
    "wrong",
    [
        *({"url": url} for url in URLS if url.isascii()),
        {"url": "https://example.invalid/", "data_key": "none"},
        {"url": "https://example.invalid/", "secret": "none"},
    ],
)
def test_a_bad_webhook_is_put_off_and_the_next_one_told(
    ledger: Ledger, settings: Settings, wrong: dict[str, Any]
) -> None:
    bad = webhook(ledger, settings, "eve", **wrong)
    good = webhook(ledger, settings, "alice", "https://nowhere.invalid/")

    webhooks.deliver(ledger, settings)

    assert (tries(ledger, bad), tries(ledger, good)) == (1, 1)


@pytest.mark.parametrize("url", ["https://0177.0.0.1/", "https://0x7f.1/", "https://x:99999/", "https://[::1/"])
def test_an_address_that_the_sender_cannot_read_is_refused_at_entry(
    ledger: Ledger, settings: Settings, url: str
) -> None:
    with pytest.raises(UsageError):
        webhooks.add(ledger, settings, Vault.of(settings), "eve", url=url, events=["ping"])


@pytest.mark.parametrize(
    "address", ["64:ff9b:1::7f00:1", "::7f00:1", "::ffff:0:7f00:1", "fec0::1", "::ffff:127.0.0.1", "2002:7f00:1::"]
)
def test_no_spelling_of_a_private_address_is_let_through(address: str) -> None:
    with pytest.raises(UsageError):
        webhooks.check_url(f"https://[{address}]/", private=False)


def submitted(ledger: Ledger, kind: str = "generate") -> str:
    new = NewItem(custom_id="a", params={}, params_sha256="", seed=0)
    made = NewBatch(owner="local", kind=kind, name="n", preset="mini", items=[new])
    return batches.submit(ledger, made).batch_id


def test_a_bad_effect_keeps_no_other_from_its_turn(ledger: Ledger, settings: Settings) -> None:
    with ledger.write() as session:
        for ref, body in (("bat_gone", {"state": "x"}), (submitted_id := "bat_also", {})):
            session.add(
                Outbox(owner="local", kind="batch.ended", ref=ref, body=body, tries=0, created_at=PAST, next_at=PAST)
            )

    dispatch.deliver(ledger, settings)

    with ledger.read() as session:
        tried = dict(session.execute(select(Outbox.ref, Outbox.tries)).tuples().all())
    assert tried["bat_gone"] == tried[submitted_id] == 1


def test_a_bad_batch_keeps_no_other_from_being_closed(ledger: Ledger, settings: Settings) -> None:
    bad, good = submitted(ledger, kind="restore"), submitted(ledger)
    with ledger.write() as session:
        session.execute(text("UPDATE batch SET options = '\"none\"' WHERE id = :id"), {"id": bad})
        session.execute(update(Stage).where(Stage.batch_id == good).values(state="completed"))
        session.execute(update(Item).where(Item.batch_id == good).values(state="completed"))

    sweeper.sweep(ledger, settings)

    with ledger.read() as session:
        assert session.scalars(select(Batch.state).where(Batch.id == good)).one() == "completed"


WRONG = {"task": "'\"none\"'", "timezone": "'Mars/Olympus'", "cron": "'every now and then'"}


def test_a_bad_schedule_keeps_no_other_from_its_time(ledger: Ledger, settings: Settings, store: ByteStore) -> None:
    add_person(ledger, "ada", "generate")
    row = b'{"custom_id": "a", "people": [{"identity": "ada"}]}'
    for name in [*(f"a-{column.replace('_', '-')}" for column in WRONG), "z"]:
        schedules.add_portraits(
            ledger,
            store,
            owner="local",
            name=name,
            timing=schedules.Timing(cron="* * * * *"),
            manifest=row,
            format="jsonl",
            options=SubmitOptions(),
        )
    with ledger.write() as session:
        session.execute(update(Schedule).values(looked_at=PAST))
        for column, value in WRONG.items():
            name = f"a-{column.replace('_', '-')}"
            session.execute(text(f"UPDATE schedule SET {column} = {value} WHERE name = :name"), {"name": name})

    schedules.look(ledger, store, settings)

    (z,) = [one for one in listed(ledger) if one.name == "z"]
    assert z.last_run is not None
    assert z.last_run.outcome == "made"
    assert manifests.forget(ledger, store, "local", Words(identity_id="idn_0", handle="eve", name=None)) == 0


def listed(ledger: Ledger) -> list[ScheduleObject]:
    """Return what can be shown of schedules; a bad one is for a person to look at."""
    with ledger.read() as session:
        rows = [row for row in schedule_rows.listing(session, "local") if row.name == "z"]
        return [schedules.as_object(session, row, PAST) for row in rows]


def test_bytes_under_a_bad_key_keep_no_others_from_going(ledger: Ledger, store: ByteStore) -> None:
    good = content_key("local", "b" * 64, ".png")
    with ledger.write() as session:
        for number, key in enumerate(("../../etc/passwd", good)):
            session.add(
                Artifact(
                    id=f"art_{number}",
                    owner="local",
                    sha256=str(number) * 64,
                    key=key,
                    size=1,
                    media_type="image/png",
                    state="pending",
                    created_at=PAST,
                    expires_at=PAST,
                )
            )

    remove_expired(ledger, store)

    with ledger.read() as session:
        states = dict(session.execute(select(Artifact.id, Artifact.state)).tuples().all())
    assert states == {"art_0": "deleting", "art_1": "deleted"}


def test_a_bad_upload_keeps_no_other_from_being_swept(ledger: Ledger, store: ByteStore) -> None:
    with ledger.write() as session:
        for upload_id in ("../..", "upl_good"):
            session.add(
                Upload(
                    id=upload_id,
                    owner="local",
                    name="a",
                    media_type="",
                    size=1,
                    sha256="",
                    state="open",
                    created_at=PAST,
                    expires_at=PAST,
                )
            )

    uploads.remove_overdue(ledger, store)

    with ledger.read() as session:
        assert session.scalars(select(Upload.id)).all() == ["../.."]


@pytest.mark.parametrize("part", ["sweep", "ring", "deliver"])
def test_the_sweepers_threads_outlive_whatever_one_of_their_parts_raises(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    def broken(*_: object) -> None:
        raise KeyError(part)

    quick = settings.model_copy(update={"sweep_seconds": 0.02, "ring_seconds": 0.02})
    made, delivered, stop = Sweeper(quick), [], threading.Event()
    monkeypatch.setattr(sweeper if part == "sweep" else dispatch, part, broken)
    monkeypatch.setattr(webhooks, "deliver", lambda *_: delivered.append(1))
    thread = threading.Thread(target=made.run, args=(stop,))
    thread.start()
    try:
        wait_for(lambda: len(delivered) > 3)
        assert thread.is_alive()
        assert {one.name for one in threading.enumerate()} >= {"webhooks", "bell", "archives", "flows"}
    finally:
        stop.set()
        thread.join()


def wait_for(met: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not met():
        assert time.monotonic() < until, "it did not happen within a minute"
        time.sleep(0.05)


def test_what_is_survived_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), logs.surviving("row put off", row="r1"):
        raise KeyError("x")

    assert [record.message for record in caplog.records] == ["row put off"]
    assert caplog.records[0].exc_info is not None
