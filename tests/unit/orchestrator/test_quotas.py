"""One owner's quota holds at every door, and two that enter at once do not both get the last place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from orchestrator.contracts.photos import RestoreOptions
from orchestrator.contracts.portraits import SubmitOptions
from orchestrator.datasets import datasets
from orchestrator.datasets.datasets import BuildRequest
from orchestrator.errors import ConflictError, LimitError
from orchestrator.ledger import uploads as rows
from orchestrator.ledger.engine.session import Ledger, Quota
from orchestrator.ledger.queue import batches, quotas
from orchestrator.photos import feeding, restore, uploads
from orchestrator.portraits import submit
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore
from tests.unit.orchestrator.played import AddPerson, Played, lines

ADA = [{"custom_id": name, "people": "ada"} for name in ("a", "b", "c")]
OWNER = "local"


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    opened = Ledger(settings.database_url, Quota(items=2, upload_bytes=100))
    yield opened
    opened.dispose()


@pytest.fixture(autouse=True)
def library(person: AddPerson) -> None:
    person("ada", "generate", "restore")


def portraits(ledger: Ledger, settings: Settings, count: int, **options: object) -> str:
    return submit.submit_portraits(
        ledger,
        settings,
        manifest=lines(*ADA[:count]),
        format="jsonl",
        name="x",
        owner=OWNER,
        options=SubmitOptions.asked(**options),
    ).batch_id


def waiting(ledger: Ledger) -> int:
    with ledger.read() as session:
        return quotas.open_items(session, OWNER)


def refused(act: Callable[[], object], code: str = "quota_items") -> None:
    with pytest.raises(LimitError) as caught:
        act()
    assert caught.value.code == code


def test_submit_append_retry_and_data_sets_are_refused(ledger: Ledger, settings: Settings, store: ByteStore) -> None:
    refused(lambda: portraits(ledger, settings, 3))
    growing = portraits(ledger, settings, 2, growing=True)
    refused(
        lambda: submit.add_portraits(
            ledger, settings, manifest=lines(ADA[2]), format="jsonl", owner=OWNER, batch_id=growing
        )
    )
    refused(lambda: portraits(ledger, settings, 1))
    request = BuildRequest(source="render:1:4", name="n", preset="mini", licence="Apache-2.0")
    refused(lambda: datasets.build(ledger, store, settings, request, owner=OWNER))
    assert waiting(ledger) == 2


def test_a_retry_counts_like_a_submit(ledger: Ledger, settings: Settings, worker: Played) -> None:
    failed = portraits(ledger, settings, 1)
    worker.work(failing=["a"])
    portraits(ledger, settings, 2)

    refused(lambda: batches.retry(ledger, OWNER, failed))


def test_photos_enter_as_far_as_there_is_room_and_the_rest_waits(
    ledger: Ledger, settings: Settings, store: ByteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "album"
    source.mkdir()
    for shade in range(4):
        Image.new("RGB", (8, 8), (shade, 0, 0)).save(source / f"{shade}.png")
    monkeypatch.setattr(feeding, "WAIT_SECONDS", 0.01)
    batch_id = restore.submit(
        ledger,
        settings,
        source=str(source),
        options=RestoreOptions(only=("ada",)),
        owner=OWNER,
        operator=True,
        fed=False,
    ).batch_id

    def tick(fed: feeding.Fed) -> None:
        if fed.waiting:
            assert "over the limit of 2" in fed.waiting
            assert waiting(ledger) == 2
            batches.cancel(ledger, OWNER, batch_id)

    feeding.feed(ledger, store, settings, OWNER, batch_id, tick)

    with ledger.read() as session:
        assert batches.one(session, batch_id).total == 2


def test_uploads_are_counted_in_bytes(ledger: Ledger, store: ByteStore) -> None:
    first = uploads.begin(ledger, OWNER, name="a", size=60, sha256=None, most_bytes=1000)

    refused(lambda: uploads.begin(ledger, OWNER, name="b", size=41, sha256=None, most_bytes=1000), "quota_upload_bytes")
    rows.abort(ledger, str(first["id"]))
    uploads.begin(ledger, OWNER, name="b", size=41, sha256=None, most_bytes=1000)


def test_of_ten_that_enter_at_once_two_get_in(ledger: Ledger, settings: Settings) -> None:
    def enter(_: int) -> bool:
        try:
            portraits(ledger, settings, 1)
        except LimitError:
            return False
        return True

    with ThreadPoolExecutor(10) as pool:
        entered = list(pool.map(enter, range(10)))

    assert sum(entered) == waiting(ledger) == 2


def test_an_empty_key_is_no_key(ledger: Ledger, settings: Settings) -> None:
    with pytest.raises(Exception, match="not empty") as caught:
        submit.submit_portraits(
            ledger, settings, manifest=lines(ADA[0]), format="jsonl", name="x", owner=OWNER, idempotency_key=""
        )
    assert getattr(caught.value, "code", "") == "bad_key"


def test_a_second_retry_takes_what_the_first_has_not_or_failed_at(
    ledger: Ledger, settings: Settings, worker: Played
) -> None:
    batch_id = portraits(ledger, settings, 2)
    worker.work(failing=["a", "b"])

    child = batches.retry(ledger, OWNER, batch_id).batch_id
    with pytest.raises(ConflictError, match=child):
        batches.retry(ledger, OWNER, batch_id)
    worker.work(failing=["b"])

    again = batches.retry(ledger, OWNER, batch_id).batch_id
    with ledger.read() as session:
        assert [item.custom_id for item in batches.items(session, again)] == ["b"]
    worker.work()
    with pytest.raises(ConflictError) as caught:
        batches.retry(ledger, OWNER, batch_id)
    assert caught.value.code == "already_retried"
    assert batches.retry(ledger, OWNER, batch_id, again=True).batch_id
