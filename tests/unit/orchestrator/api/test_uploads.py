"""Files come in parts, in order, whole or not at all; then archives and photos are restored from them."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update
from starlette.testclient import TestClient

from orchestrator.ledger import uploads as rows
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import batches
from orchestrator.ledger.tables.rows import Artifact, Batch
from orchestrator.ledger.tables.rows_api import Upload
from orchestrator.photos import feeding, uploads
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore
from tests.unit.orchestrator.api.conftest import Client
from tests.unit.orchestrator.played import picture

PART = {"Content-Type": "application/offset+octet-stream"}
JPEG = picture(form="JPEG")


def metadata(**facts: str) -> dict[str, str]:
    pairs = (f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in facts.items())
    return {"Upload-Metadata": ",".join(pairs)}


def begin(client: TestClient, data: bytes, name: str = "photo.jpg", **facts: str) -> str:
    made = client.post("/v1/uploads", headers={"Upload-Length": str(len(data)), **metadata(filename=name, **facts)})
    assert made.status_code == 201, made.text
    return str(made.headers["location"])


def send(client: TestClient, place: str, at: int, part: bytes) -> tuple[int, str | None]:
    answer = client.patch(place, content=part, headers={**PART, "Upload-Offset": str(at)})
    return answer.status_code, answer.headers.get("upload-offset") or answer.json().get("code")


def uploaded(client: TestClient, data: bytes, name: str = "photo.jpg") -> str:
    place = begin(client, data, name)
    assert send(client, place, 0, data) == (204, str(len(data)))
    return place.rpartition("/")[2]


def zipped(**files: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(f"{name}.jpg", data)
    return out.getvalue()


def test_parts_in_order_make_the_file_that_was_sent(client: Client, store: ByteStore, ledger: Ledger) -> None:
    me, data = client(), bytes(range(256)) * 40
    place = begin(me, data, "scans.bin", sha256=hashlib.sha256(data).hexdigest())

    assert send(me, place, 0, data[:4000]) == (204, "4000")
    assert me.head(place).headers["upload-offset"] == "4000"
    assert send(me, place, 4000, data[4000:]) == (204, str(len(data)))

    shown = me.get(place).json()
    assert (shown["state"], shown["sha256"]) == ("complete", hashlib.sha256(data).hexdigest())
    _, artifact = uploads.whole(ledger, "local", shown["id"])
    assert store.get(artifact.key) == data
    assert list(store.list("uploads/")) == [], "the parts are gone"
    assert "scans" not in artifact.key


def test_a_part_at_another_place_is_refused_and_a_repeated_one_does_no_harm(client: Client) -> None:
    me, data = client(), b"x" * 100
    place = begin(me, data)

    assert send(me, place, 50, data[50:]) == (409, "upload_offset")
    assert send(me, place, 0, data[:60]) == (204, "60")
    assert send(me, place, 0, data[:60]) == (409, "upload_offset")
    assert send(me, place, 60, data[:60]) == (422, "part_too_long")
    assert send(me, place, 60, data[60:]) == (204, "100")


def test_a_part_whose_server_died_before_it_was_counted_is_sent_again(
    client: Client, store: ByteStore, ledger: Ledger
) -> None:
    me, data = client(), bytes(range(200))
    place = begin(me, data)
    store.put(f"uploads/{place.rpartition('/')[2]}/{0:016d}-70-{'0' * 16}", data[:70], media_type="text/plain")

    send(me, place, 0, data[:120])
    send(me, place, 120, data[120:])

    assert me.get(place).json()["sha256"] == hashlib.sha256(data).hexdigest()


def test_a_file_that_is_not_what_was_said_is_given_up(client: Client, store: ByteStore) -> None:
    me, data = client(), b"y" * 10
    place = begin(me, data, sha256="0" * 64)

    assert send(me, place, 0, data) == (422, "checksum_mismatch")
    assert me.head(place).status_code == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Upload-Length": "0"}, 422),
        ({"Upload-Length": "-5"}, 422),
        ({"Upload-Length": "many"}, 422),
        ({}, 422),
        ({"Upload-Length": str(2**60)}, 422),
        ({"Upload-Length": "5", "Upload-Metadata": "filename !!!"}, 422),
        ({"Upload-Length": "5", **metadata(filename="a\x00b")}, 422),
        ({"Upload-Length": "5", **metadata(sha256="short")}, 422),
    ],
)
def test_a_wrong_beginning_is_refused(client: Client, headers: dict[str, str], status: int) -> None:
    assert client().post("/v1/uploads", headers=headers).status_code == status


def test_parts_of_another_type_and_uploads_of_others_are_refused(client: Client) -> None:
    me, eve = client(), client(owner="eve")
    place = begin(me, b"12345")

    assert me.patch(place, content=b"12345", headers={"Upload-Offset": "0"}).status_code == 415
    for answer in (eve.get(place), eve.delete(place), eve.get("/v1/uploads/upl_none")):
        assert (answer.status_code, answer.json()["code"]) == (404, "upload_not_found")
    assert send(eve, place, 0, b"12345") == (404, "upload_not_found")
    assert client(scopes=["read"]).post("/v1/uploads", headers={"Upload-Length": "5"}).status_code == 403


def test_what_nobody_finishes_is_swept_away_with_its_parts(client: Client, store: ByteStore, ledger: Ledger) -> None:
    me = client()
    place = begin(me, b"12345")
    send(me, place, 0, b"123")
    with ledger.write() as session:
        session.execute(update(Upload).values(expires_at=datetime.now(UTC) - timedelta(seconds=1)))

    assert uploads.remove_overdue(ledger, store) == 1

    assert list(store.list("uploads/")) == []
    assert me.head(place).status_code == 404


def test_an_uploaded_archive_becomes_a_batch_that_is_read_from_the_store(
    client: Client, ledger: Ledger, store: ByteStore, settings: Settings
) -> None:
    me = client()
    upload = uploaded(me, zipped(one=JPEG, two=picture(form="PNG"), three=b"no picture"), "family.zip")

    made = me.post("/v1/restorations", json={"upload": upload, "attested": "our own photos"})
    feeding.feed(ledger, store, settings, "local", made.json()["id"], lambda fed: None)

    assert (made.status_code, made.json()["name"]) == (202, "family.zip")
    shown = me.get(made.headers["location"]).json()
    assert shown["request_counts"] == {"total": 3, "completed": 0, "failed": 1}
    assert shown["error_counts"] == {"not_an_image": 1}
    with ledger.read() as session:
        artifact = session.get_one(Artifact, uploads.whole(ledger, "local", upload)[1].id)
        assert artifact.expires_at is not None
        assert artifact.expires_at > datetime.now(UTC) + timedelta(days=6), "kept for whoever reads it"


def test_photos_are_handed_over_one_by_one_until_the_batch_is_closed(client: Client, ledger: Ledger) -> None:
    me = client()
    batch_id = me.post("/v1/restorations", json={"attested": "our own photos"}).json()["id"]
    photos = f"/v1/batches/{batch_id}/photos"

    first = me.post(photos, json={"upload": uploaded(me, JPEG), "path": "1950/a.jpg"})
    again = me.post(photos, json={"upload": uploaded(me, JPEG), "path": "1950/a.jpg"})
    text = me.post(photos, json={"upload": uploaded(me, b"hello"), "path": "1950/notes.txt"})
    broken = me.post(photos, json={"upload": uploaded(me, b"hello"), "path": "1950/b.jpg"})
    closed = me.post(f"/v1/batches/{batch_id}/close")
    late = me.post(photos, json={"upload": uploaded(me, JPEG), "path": "c.jpg"})

    assert (first.status_code, first.json()["items"]) == (201, ["1950/a.jpg"])
    assert again.status_code == 201
    assert (text.status_code, text.json()["skipped"]) == (200, "no picture")
    assert broken.status_code == 201
    assert closed.status_code == 202
    assert (late.status_code, late.json()["code"]) == (409, "batch_closed")
    with ledger.read() as session:
        found = {item.custom_id: item.error_code for item in batches.items(session, batch_id)}
        assert session.get_one(Batch, batch_id).options["source"] is None
    assert found == {"1950/a.jpg": None, "1950/b.jpg": "not_an_image"}


@pytest.mark.parametrize("path", ["../etc/passwd", "/etc/passwd", "C:\\a.jpg", "a/../../b.jpg"])
def test_a_path_that_leads_out_of_the_tree_is_refused(client: Client, path: str) -> None:
    me = client()
    batch_id = me.post("/v1/restorations", json={"attested": "our own photos"}).json()["id"]

    answer = me.post(f"/v1/batches/{batch_id}/photos", json={"upload": uploaded(me, JPEG), "path": path})

    assert (answer.status_code, answer.json()["code"]) == (422, "path_unsafe")


def test_no_path_of_the_server_can_be_restored_over_http(client: Client) -> None:
    me = client()
    for body in ({"source": "/etc"}, {"source": "file:///etc"}, {"source": "s3://b/x", "upload": "upl_1"}):
        assert me.post("/v1/restorations", json={**body, "attested": "x"}).status_code == 422


def test_an_unfinished_upload_is_no_source(client: Client) -> None:
    me = client()
    upload = begin(me, b"12345").rpartition("/")[2]

    answer = me.post("/v1/restorations", json={"upload": upload, "attested": "our own photos"})

    assert (answer.status_code, answer.json()["code"]) == (409, "upload_unfinished")


def test_unknown_people_need_somebody_who_answers_for_them(client: Client) -> None:
    answer = client().post("/v1/restorations", json={})

    assert answer.status_code == 403, answer.text


def test_a_table_for_spreadsheets_holds_no_formula(client: Client) -> None:
    me = client()
    batch_id = me.post("/v1/restorations", json={"attested": "our own photos"}).json()["id"]
    me.post(f"/v1/batches/{batch_id}/photos", json={"upload": uploaded(me, JPEG), "path": "=cmd|x.jpg"})

    table = me.get(f"/v1/batches/{batch_id}/results.csv")

    head, line = table.text.splitlines()
    assert head.startswith("custom_id,status,verdict")
    assert line.startswith("'=cmd|x.jpg,queued")


def test_of_two_parts_at_one_place_the_one_that_was_taken_is_in_the_file(
    client: Client, store: ByteStore, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    me, taken, refused = client(), b"a" * 64, b"b" * 64
    advance, between = rows.advance, [True]

    def slowly(*args: Any, **more: Any) -> None:
        """Let the other part in between storing this one and counting it."""
        if between and between.pop():
            assert send(me, place, 0, taken)[0] == 204
        advance(*args, **more)

    place = begin(me, taken + b"end")
    monkeypatch.setattr(rows, "advance", slowly)

    assert send(me, place, 0, refused) == (409, "upload_offset")
    assert send(me, place, 64, b"end")[0] == 204

    whole = me.get(place).json()
    assert whole["sha256"] == hashlib.sha256(taken + b"end").hexdigest()
    assert list(store.list(uploads.PREFIX)) == [], "no part is left, the refused one neither"
