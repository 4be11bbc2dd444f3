"""The zip of a batch: names as in the archive, what was erased left out, never whole in memory."""

from __future__ import annotations

import io
import struct
import time
import zipfile

import pytest
from sqlalchemy import update

from orchestrator.errors import NotFoundError
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.tables.rows import Batch, Item
from orchestrator.portraits import submit
from orchestrator.results import bundle
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore
from tests.unit.orchestrator.played import AddPerson, Played, lines


@pytest.fixture
def batch(ledger: Ledger, settings: Settings, person: AddPerson, worker: Played) -> str:
    """Three finished portraits."""
    person("ada", "generate")
    rows = [{"custom_id": name, "people": [{"identity": "ada"}]} for name in "abc"]
    made = submit.submit_portraits(ledger, settings, manifest=lines(*rows), format="jsonl", owner="local", name="three")
    worker.work()
    return made.batch_id


def test_photos_keep_the_tree_and_the_times_of_their_archive(ledger: Ledger, store: ByteStore, batch: str) -> None:
    with ledger.write() as session:
        session.execute(update(Batch).where(Batch.id == batch).values(kind="restore"))
        for position, path in enumerate(("1950/anna.png", "1950/jörg.png", "anna.png")):
            params = {
                "path": path,
                "modified": "1950-06-01T12:00:00+00:00" if position == 0 else "2001-02-03T04:05:06Z",
            }
            where = (Item.batch_id == batch, Item.position == position)
            session.execute(update(Item).where(*where).values(params=params))

    found = bundle.entries(ledger, "local", batch)
    data = b"".join(bundle.written(ledger, store, "local", batch, found))

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        times = {one.filename: one.date_time for one in archive.infolist()[3:]}
    assert times == {
        "1950/anna.png": (1980, 1, 1, 0, 0, 0),
        "1950/jörg.png": (2001, 2, 3, 4, 5, 6),
        "anna.png": (2001, 2, 3, 4, 5, 6),
    }


def test_a_picture_that_was_erased_on_the_way_is_left_out(ledger: Ledger, store: ByteStore, batch: str) -> None:
    found = bundle.entries(ledger, "local", batch)
    store.delete(found[1].key)

    data = b"".join(bundle.written(ledger, store, "local", batch, found))

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist() == ["results.jsonl", "errors.jsonl", "a.png", "c.png"]


def test_pictures_are_handed_on_one_at_a_time(ledger: Ledger, store: ByteStore, batch: str) -> None:
    found = bundle.entries(ledger, "local", batch)
    largest = max(len(store.get(one.key)) for one in found)

    pieces = [len(piece) for piece in bundle.written(ledger, store, "local", batch, found)]

    assert len(pieces) >= len(found)
    assert max(pieces[3:-1]) < largest + 1000


def test_the_zip_of_somebody_else_is_not_there(ledger: Ledger, batch: str) -> None:
    with pytest.raises(NotFoundError):
        bundle.entries(ledger, "eve", batch)


def test_a_zip_names_the_time_of_this_machine_and_that_of_the_world_beside_it(
    ledger: Ledger, store: ByteStore, batch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ledger.write() as session:
        session.execute(update(Batch).where(Batch.id == batch).values(kind="restore"))
        params = {"path": "a.png", "modified": "1998-07-15T03:30:00+00:00"}
        session.execute(update(Item).where(Item.batch_id == batch, Item.position == 0).values(params=params))
        rest = (Item.batch_id == batch, Item.position > 0)
        session.execute(update(Item).where(*rest).values(state="failed", params={"path": "b.png"}))
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        found = bundle.entries(ledger, "local", batch)
        data = b"".join(bundle.written(ledger, store, "local", batch, found))
    finally:
        monkeypatch.undo()
        time.tzset()

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        photo = archive.getinfo("a.png")
    assert photo.date_time == (1998, 7, 14, 23, 30, 0)
    assert photo.extra == struct.pack("<HHBl", 0x5455, 5, 1, 900_473_400)
