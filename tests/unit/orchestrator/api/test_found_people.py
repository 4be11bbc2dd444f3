"""People whom scans found, over HTTP and on their pages: shown, named, corrected, forgotten, and nobody else's."""

from __future__ import annotations

from datetime import UTC, datetime
from io import BytesIO

import pytest
from PIL import Image

from orchestrator.contracts.photos import PhotoParams, SeenFace
from orchestrator.ledger.engine.base import new_id
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.faces.scanned import place_of
from orchestrator.ledger.queue import batches
from orchestrator.ledger.queue.batches import NewBatch, NewItem
from orchestrator.ledger.tables.rows_people import FoundFace, FoundPerson, ScannedPhoto, found_face_place
from orchestrator.secrets.vault import Vault
from orchestrator.settings import Settings
from tests.unit.orchestrator.api.conftest import Client

NAME = "Anna <b>& Co</b>"


@pytest.fixture
def faces(ledger: Ledger, settings: Settings) -> list[str]:
    """Two people in two photos each, and a face that is nobody's, as a scan writes them."""
    vault, moment, out = Vault.of(settings), datetime.now(UTC), BytesIO()
    Image.new("RGB", (40, 40), (90, 60, 30)).save(out, "JPEG")
    scan = NewBatch(owner="local", kind="scan", name="album", preset="faces", items=(), flow=False)
    batch_id = batches.submit(ledger, scan).batch_id
    ids = []
    with ledger.write() as session:
        people = [
            FoundPerson(id=new_id("fnd"), owner="local", encoder="e", number=n, created_at=moment) for n in (1, 2)
        ]
        session.add_all(people)
        session.flush()
        for number, person in enumerate([people[0], people[0], people[1], people[1], None]):
            picture = f"{number:064x}"
            session.add(
                ScannedPhoto(
                    id=new_id("pho"), owner="local", place_sha256=place_of("/album", f"{number}.jpg"), archive="/album",
                    path=f"{number}.jpg", size=1, modified=None, file_sha256=picture, pixels_sha256=picture,
                    phash=f"{1 << 7 * number | 0xFF00FF:016x}", width=400, height=300, orientation=1, faces_key="",
                    batch_id=batch_id, created_at=moment,
                )
            )  # fmt: skip
            envelope = vault.new(found_face_place("local", picture, "e", 0))
            ids.append(new_id("fac"))
            seen = SeenFace(box=(10, 10, 60, 70), kps5=(), score=0.9, small=number == 4)
            session.add(
                FoundFace(
                    id=ids[-1], owner="local", pixels_sha256=picture, encoder="e", number=0, refused=[], decided=False,
                    person_id=person.id if person else None, quality=5.0 - number, face=seen.dump(),
                    data_key=envelope.key, embedding=vault.seal(envelope, b"0" * 16),
                    crop=vault.seal(envelope, out.getvalue()), created_at=moment,
                )
            )  # fmt: skip
    return ids


def test_people_are_listed_named_merged_and_corrected(client: Client, faces: list[str]) -> None:
    api = client()
    listed = api.get("/v1/people").json()["data"]
    assert [(one["number"], one["photos"], one["scopes"]) for one in listed] == [(1, 2, []), (2, 2, [])]
    assert api.patch("/v1/people/1", json={"name": NAME}).json()["name"] == NAME
    assert api.patch("/v1/people/9", json={"name": "x"}).status_code == 404
    assert api.get(f"/v1/people/faces/{faces[0]}/picture").content[:3] == b"\xff\xd8\xff"
    assert api.get("/v1/people/unsorted").json()["data"][0]["faults"] == ["small"]
    assert api.post("/v1/people/1/faces", json={"faces": [faces[4]]}).json()["photos"] == 3
    assert api.post("/v1/people/refuse", json={"faces": [faces[1]]}).json()["faces"] == 1
    assert api.post("/v1/people/split", json={"faces": [faces[3]]}).json()["number"] == 3
    assert api.post("/v1/people/1/merge", json={"others": ["2", "3"]}).json()["photos"] == 4
    said = api.get("/v1/people/report", params={"archive": "/album"}).json()
    assert (said["photos"], said["faces"], said["people"], said["unsorted"], said["small"]) == (5, 5, 1, 1, 1)
    refused = api.post("/v1/people/2/consents", json={"scopes": ["restore"], "handle": "not good"})
    assert refused.status_code in (400, 422)
    assert api.delete("/v1/people/1").json()["faces"] == 4
    assert api.get("/v1/people").json()["data"] == []
    assert api.post("/v1/people/scans", json={}).status_code in (400, 422)


def test_pages_show_and_change_the_same(client: Client, faces: list[str]) -> None:
    api = client()
    first = api.get("/v1/people/1").json()["id"]
    assert api.post(f"/faces/{first}/name", data={"name": NAME}).status_code == 303
    page = api.get("/faces").text
    assert "Anna &lt;b&gt;&amp; Co&lt;/b&gt;" in page
    assert "Person 2" in page
    assert "1 faces are nobody" in page
    one = api.get(f"/faces/{first}").text
    assert faces[0] in one
    assert "0.jpg" in one
    assert api.get(f"/faces/{faces[0]}/picture").headers["Cache-Control"] == "private, no-store"
    assert faces[4] in api.get("/faces/unsorted").text
    assert api.post("/faces/unsorted", data={"faces": faces[4], "who": "1"}).status_code == 303
    assert api.post(f"/faces/{first}/faces", data={"faces": faces[1], "action": "refuse"}).status_code == 303
    assert api.post(f"/faces/{first}/faces", data={"faces": faces[0], "action": "split"}).status_code == 303
    assert "which faces, by their ids" in api.post(f"/faces/{first}/faces", data={"action": "split"}).text
    assert api.post(f"/faces/{first}/merge", data={"others": "2"}).status_code == 303
    assert "nothing was removed" in api.post(f"/faces/{first}/forget", data={"confirm": "7"}).text
    assert api.post(f"/faces/{first}/forget", data={"confirm": "1"}).status_code == 303


def test_another_owner_sees_nothing(client: Client, faces: list[str]) -> None:
    other = client(owner="eve")
    assert other.get("/v1/people").json()["data"] == []
    assert "No archive was looked at" in other.get("/faces").text
    for path in ("/v1/people/1", f"/v1/people/faces/{faces[0]}/picture", "/faces/1", f"/faces/{faces[0]}/picture"):
        assert other.get(path).status_code == 404, path
    assert other.post("/v1/people/refuse", json={"faces": [faces[0]]}).status_code == 404


def test_a_scan_is_a_batch_like_any_other(client: Client, ledger: Ledger) -> None:
    item = NewItem(custom_id="a.jpg", params=PhotoParams(path="a.jpg").dump(), params_sha256="", seed=0)
    scan = NewBatch(owner="local", kind="scan", name="album", preset="faces", items=[item], flow=False)
    batch_id = batches.submit(ledger, scan).batch_id
    api = client()
    (made,) = api.get(f"/v1/batches/{batch_id}/items").json()["data"]
    views = ("", "/items", "/results", "/errors", "/results.csv", "/progress")
    paths = [f"/v1/batches/{batch_id}{view}" for view in views] + [f"/batches/{batch_id}", f"/batches/{batch_id}/sheet"]
    for path in (*paths, f"/v1/items/{made['id']}", f"/items/{made['id']}", "/batches", "/"):
        assert api.get(path).status_code == 200, path
