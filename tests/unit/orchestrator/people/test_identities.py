"""The library of people: pictures checked at the door, consent, and an erase that can be proved."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import pytest
from PIL import Image
from sqlalchemy import func, select

from orchestrator.errors import (
    ConflictError,
    InputError,
    ManifestError,
    NotFoundError,
    StoreUnavailableError,
    UsageError,
)
from orchestrator.ledger import audit
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import batches
from orchestrator.ledger.tables.rows import Artifact, Batch, Item
from orchestrator.people import identities
from orchestrator.people.identities import ConsentGiven, NewPerson, Picture
from orchestrator.portraits.submit import submit_portraits
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore, Stored
from orchestrator.storage.local import LocalStore
from tests.unit.orchestrator.played import Played, lines, picture

YES = ConsentGiven(scopes=("generate",), granted_by="studio", text=b"I agree.")


def new(handle: str, *data: bytes, consent: ConsentGiven = YES, name: str | None = None) -> NewPerson:
    pictures = tuple(Picture(name=f"{n}.png", data=d) for n, d in enumerate(data or (picture(),)))
    return NewPerson(handle=handle, name=name, pictures=pictures, consent=consent)


def enrol(worker: Played, *people: NewPerson) -> list[identities.Enrolled]:
    batch_id = identities.add(worker.ledger, worker.store, worker.settings, people, owner="local")
    worker.work()
    return identities.outcomes(worker.ledger, "local", batch_id)


def huge_png() -> bytes:
    """Return a picture of 100 megapixels in a few kilobytes."""
    file = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(file, "PNG")
    return file.getvalue()


def test_a_person_is_in_the_library_once_a_worker_has_found_the_face(worker: Played) -> None:
    (ended,) = enrol(worker, new("ada", picture((1, 2, 3)), picture((4, 5, 6)), name="Ada L."))

    shown = identities.show(worker.ledger, "local", "ada")
    assert ended.identity_id == shown["id"]
    assert shown["name"] == "Ada L."
    assert len(shown["references"]) == 2
    (consent,) = shown["consents"]
    assert (consent["scope"], consent["state"], consent["granted_by"]) == ("generate", "valid", "studio")
    assert consent["text_sha256"] == hashlib.sha256(b"I agree.").hexdigest()


def test_the_same_picture_twice_is_one_reference(worker: Played) -> None:
    enrol(worker, new("ada", picture(), picture()))

    assert len(identities.show(worker.ledger, "local", "ada")["references"]) == 1


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"#!/bin/sh\necho hello\n", "not_an_image"),
        (b"", "image_empty"),
        (b"GIF89a" + bytes(64), "image_corrupt"),
        (picture()[:20], "image_corrupt"),
        (huge_png(), "image_too_large"),
    ],
)
def test_a_file_that_is_no_usable_picture_is_refused_and_nothing_is_stored(
    worker: Played, data: bytes, code: str
) -> None:
    with pytest.raises(InputError, match=r"1\.png") as refused:
        identities.add(worker.ledger, worker.store, worker.settings, [new("ada", picture(), data)], owner="local")

    assert refused.value.code == code
    assert list(worker.store.list()) == []
    with worker.ledger.read() as session:
        assert session.scalar(select(func.count(Artifact.id))) == 0
        assert session.scalar(select(func.count(Batch.id))) == 0


def test_a_person_whose_item_failed_is_reported_with_code_and_sentence(worker: Played) -> None:
    batch_id = identities.add(worker.ledger, worker.store, worker.settings, [new("ada")], owner="local")
    worker.work(failing=["person-1"])
    (ended,) = identities.wait_enrolled(worker.ledger, "local", batch_id, timeout_seconds=5)

    assert ended.identity_id is None
    assert ended.error == {"code": "pipe_broken", "message": "the pipe broke"}


def test_waiting_ends_when_the_time_is_over(worker: Played) -> None:
    batch_id = identities.add(worker.ledger, worker.store, worker.settings, [new("ada")], owner="local")
    (waiting,) = identities.wait_enrolled(worker.ledger, "local", batch_id, timeout_seconds=0)

    assert (waiting.identity_id, waiting.error) == (None, None)


@pytest.mark.parametrize("handle", ["", "ada lovelace", "../ada", "idn_1", "x" * 65])
def test_a_handle_that_manifests_could_not_say_is_refused(worker: Played, handle: str) -> None:
    with pytest.raises(UsageError, match="handle"):
        identities.add(worker.ledger, worker.store, worker.settings, [new(handle)], owner="local")


def test_a_handle_is_given_once_unless_more_pictures_are_meant(worker: Played) -> None:
    enrol(worker, new("ada"))

    with pytest.raises(ConflictError, match="ada"):
        enrol(worker, new("ada", picture((9, 9, 9))))
    with pytest.raises(ConflictError, match="twice"):
        enrol(worker, new("bruno"), new("bruno"))
    identities.add(
        worker.ledger, worker.store, worker.settings, [new("ada", picture((9, 9, 9)))], owner="local", more=True
    )
    worker.work()
    assert len(identities.show(worker.ledger, "local", "ada")["references"]) == 2


def test_consent_is_granted_revoked_and_kept_in_history(worker: Played) -> None:
    enrol(worker, new("ada"))
    identities.grant(worker.ledger, "local", "ada", ConsentGiven(scopes=("train",), granted_by="ada"))
    shown = identities.revoke(worker.ledger, "local", "ada", ["generate"])

    assert {c["scope"]: c["state"] for c in shown["consents"]} == {"generate": "revoked", "train": "valid"}
    assert identities.list_people(worker.ledger, "local")[0]["scopes"] == ["train"]
    with pytest.raises(ConflictError, match="none of generate"):
        identities.revoke(worker.ledger, "local", "ada", ["generate"])
    with pytest.raises(UsageError, match="scope"):
        identities.grant(worker.ledger, "local", "ada", ConsentGiven(scopes=("sell",), granted_by="ada"))
    with pytest.raises(NotFoundError):
        identities.show(worker.ledger, "local", "nobody")


def test_erase_takes_rows_and_bytes_of_a_person_and_leaves_the_others(worker: Played) -> None:
    enrol(
        worker,
        new("ada", picture((1, 1, 1)), picture((2, 2, 2)), name="Ada Lovelace"),
        new("bruno", picture((3, 3, 3))),
    )
    manifest = lines({"custom_id": "one", "people": "ada"}, {"custom_id": "two", "people": "bruno"})
    submit_portraits(worker.ledger, worker.settings, manifest=manifest, format="jsonl", name="x", owner="local")
    worker.work()
    before = {found.key for found in worker.store.list()}
    person = identities.show(worker.ledger, "local", "ada")

    receipt = identities.erase(worker.ledger, worker.store, worker.settings, "local", "ada")

    after = {found.key for found in worker.store.list()}
    assert (receipt["references"], receipt["outputs"], receipt["items"], receipt["objects"]) == (2, 1, 1, 3)
    assert len(before) == 5
    assert len(before - after) == 3
    for key in before - after:
        assert worker.store.head(key) is None
        with pytest.raises(NotFoundError):
            worker.store.get(key)
    with worker.ledger.read() as session:
        entry = audit.last(session, person["id"], "identity.erase")
        assert entry is not None
        assert receipt["audit"]["hash"] == entry.hash
        assert audit.verify(session).broken is None
        states = session.execute(select(Artifact.state, func.count()).group_by(Artifact.state)).tuples().all()
        params = [item.params for item in session.scalars(select(Item))]
    assert dict(states) == {"live": 2, "deleted": 3}
    assert "Ada" not in json.dumps(params)
    assert '"ada"' not in json.dumps(params)
    with pytest.raises(NotFoundError):
        identities.show(worker.ledger, "local", person["id"])
    with pytest.raises(ManifestError, match="ada"):
        submit_portraits(
            worker.ledger,
            worker.settings,
            manifest=lines({"custom_id": "again", "people": "ada"}),
            format="jsonl",
            name="x",
            owner="local",
        )


def test_the_raw_files_hold_nothing_of_an_erased_person(worker: Played) -> None:
    enrol(worker, new("zenobia", picture((1, 1, 1)), name="Zenobia Quillfeather"))
    identities.erase(worker.ledger, worker.store, worker.settings, "local", "zenobia")
    with worker.ledger.engine.connect() as connection:
        dump = "\n".join(connection.connection.driver_connection.iterdump())  # type: ignore[union-attr]  # SQLAlchemy types the driver's connection as object

    assert "Quillfeather" not in dump
    assert "zenobia" not in dump


class StuckStore(LocalStore):
    """A store that cannot delete."""

    def delete(self, key: str) -> None:
        raise StoreUnavailableError("the disk is read-only")

    def put(self, key: str, data: object, **more: object) -> Stored:
        raise AssertionError("an erase stores nothing")


def test_no_receipt_is_given_while_bytes_are_left(worker: Played, settings: Settings) -> None:
    enrol(worker, new("ada"))

    with pytest.raises(StoreUnavailableError, match="1 of 1 objects"):
        identities.erase(worker.ledger, StuckStore(settings.state_dir / "store"), settings, "local", "ada")
    with worker.ledger.read() as session:
        assert session.scalars(select(Artifact.state)).all() == ["deleting"]
    with pytest.raises(NotFoundError):
        identities.show(worker.ledger, "local", "ada")


def test_a_receipt_is_private_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "receipts" / "one.json"
    identities.check_receipt_path(path)
    identities.write_receipt({"identity_id": "idn_1"}, path)

    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConflictError, match="overwritten"):
        identities.check_receipt_path(path)
    with pytest.raises(ConflictError, match="overwritten"):
        identities.write_receipt({"identity_id": "idn_2"}, path)


def test_people_of_one_owner_are_nothing_to_another(worker: Played, ledger: Ledger, store: ByteStore) -> None:
    enrol(worker, new("ada"))

    assert identities.list_people(ledger, "somebody else") == []
    with pytest.raises(NotFoundError):
        identities.erase(ledger, store, worker.settings, "somebody else", "ada")
    with ledger.read() as session:
        assert len(batches.listing(session, "somebody else")) == 0
