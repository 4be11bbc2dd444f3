"""Batches over HTTP: the same answers as the command line, safe to repeat, wrong rows with their place."""

from __future__ import annotations

import io
import json
import threading
import time
import zipfile
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from orchestrator.ledger.engine.session import Ledger, Quota
from orchestrator.ledger.tables.rows import Audit, Batch, Item
from orchestrator.results import export
from orchestrator.secrets.vault import Vault
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore
from tests.unit.orchestrator.api.conftest import Client
from tests.unit.orchestrator.played import AddPerson, Played, lines

ROW = {"custom_id": "a", "people": [{"identity": "ada"}]}
JSON = {"name": "night", "items": [ROW, {**ROW, "custom_id": "b"}]}


@pytest.fixture(autouse=True)
def ada(person: AddPerson) -> str:
    return person("ada", "generate")


def test_a_batch_is_accepted_with_its_place_and_can_be_read_there(client: Client) -> None:
    api = client()

    made = api.post("/v1/batches", json=JSON)

    assert made.status_code == 202, made.text
    assert made.headers["location"] == f"/v1/batches/{made.json()['id']}"
    shown = api.get(made.headers["location"]).json()
    assert (shown["state"], shown["name"], shown["request_counts"]["total"]) == ("in_progress", "night", 2)


@pytest.mark.parametrize(
    ("media_type", "manifest"),
    [
        ("application/x-ndjson", lines(ROW, {**ROW, "custom_id": "b"})),
        ("text/csv; charset=utf-8", b"custom_id,people\na,ada\nb,ada\n"),
    ],
)
def test_a_manifest_is_taken_with_its_options_in_the_query(client: Client, media_type: str, manifest: bytes) -> None:
    made = client().post(
        "/v1/batches?name=night&seed=7&priority=2", content=manifest, headers={"Content-Type": media_type}
    )

    assert made.status_code == 202, made.text
    assert (made.json()["request_counts"]["total"], made.json()["priority"]) == (2, 2)


def test_small_faces_are_chosen_for_the_batch_and_for_a_row(client: Client) -> None:
    rows = [ROW, {**ROW, "custom_id": "b", "small_faces": "restore"}]
    batch = client().post("/v1/batches", json={"items": rows, "small_faces": "keep"}).json()["id"]

    items = client().get(f"/v1/batches/{batch}/items").json()["data"]
    shown = [client().get(f"/v1/items/{item['id']}").json()["params"]["small_faces"] for item in items]

    assert shown == ["keep", "restore"]
    assert client().post("/v1/batches", json={**JSON, "small_faces": "enlarge"}).status_code == 422


def test_wrong_rows_are_named_by_number_and_pointer_and_nothing_is_queued(client: Client, ledger: Ledger) -> None:
    wrong = {"custom_id": "b", "people": [{"identity": "nobody"}]}

    refused = client().post("/v1/batches", json={"items": [ROW, wrong]})

    assert refused.status_code == 422
    assert refused.headers["content-type"] == "application/problem+json"
    problem = refused.json()
    assert problem["code"] == "manifest_invalid"
    assert problem["errors"][0]["row"] == 2
    assert problem["errors"][0]["pointer"].startswith("/items/1/people")
    with ledger.read() as session:
        assert session.scalar(select(func.count()).select_from(Batch)) == 0


def test_a_person_who_did_not_consent_refuses_the_batch_as_forbidden(client: Client, person: AddPerson) -> None:
    person("bruno")

    refused = client().post("/v1/batches", json={"items": [{"custom_id": "x", "people": [{"identity": "bruno"}]}]})

    assert (refused.status_code, refused.json()["code"]) == (403, "consent_missing")


def test_a_field_of_the_wrong_type_is_told_by_pointer(client: Client) -> None:
    refused = client().post("/v1/batches", json={**JSON, "redraws": "often"})

    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/redraws"


def test_the_same_idempotency_key_and_body_make_one_batch(client: Client, ledger: Ledger) -> None:
    api, headers = client(), {"Idempotency-Key": "night-1"}

    first = api.post("/v1/batches", json=JSON, headers=headers)
    again = api.post("/v1/batches", json=JSON, headers=headers)

    assert (again.status_code, again.json(), again.headers["location"]) == (
        first.status_code,
        first.json(),
        first.headers["location"],
    )
    assert again.headers["idempotent-replayed"] == "true"
    with ledger.read() as session:
        assert session.scalar(select(func.count()).select_from(Batch)) == 1


def test_the_same_idempotency_key_with_another_body_is_refused(client: Client) -> None:
    api, headers = client(), {"Idempotency-Key": "night-1"}
    api.post("/v1/batches", json=JSON, headers=headers)

    other = api.post("/v1/batches", json={**JSON, "name": "day"}, headers=headers)

    assert (other.status_code, other.json()["code"]) == (422, "idempotency_conflict")


def test_idempotency_keys_of_two_owners_do_not_meet(client: Client) -> None:
    headers = {"Idempotency-Key": "night-1"}
    mine = client().post("/v1/batches", json=JSON, headers=headers)

    theirs = client("eve").post("/v1/batches", json=JSON, headers=headers)

    assert mine.status_code == 202
    assert theirs.status_code == 422  # eve has no ada: her own request, not an answer meant for another
    assert theirs.json()["code"] == "manifest_invalid"


def test_a_refused_request_frees_its_idempotency_key(client: Client, person: AddPerson) -> None:
    api, headers = client(), {"Idempotency-Key": "k"}
    asked = {"items": [{"custom_id": "x", "people": [{"identity": "bruno"}]}]}
    assert api.post("/v1/batches", json=asked, headers=headers).status_code == 422
    person("bruno", "generate")

    assert api.post("/v1/batches", json=asked, headers=headers).status_code == 202


def test_items_come_in_pages_that_meet_without_gap_or_overlap(client: Client) -> None:
    api = client()
    rows = [{**ROW, "custom_id": f"i{n}"} for n in range(7)]
    batch = api.post("/v1/batches", json={"items": rows}).json()["id"]

    seen, cursor = [], ""
    while cursor is not None:
        page = api.get(f"/v1/batches/{batch}/items?limit=3" + (f"&cursor={cursor}" if cursor else "")).json()
        seen += [item["custom_id"] for item in page["data"]]
        cursor = page["next"]

    assert seen == [f"i{n}" for n in range(7)]


@pytest.mark.parametrize("order", ["similarity", "-similarity"])
def test_pages_sorted_by_similarity_hold_every_item_once(client: Client, worker: Played, order: str) -> None:
    api = client()
    rows = [{**ROW, "custom_id": f"i{n}"} for n in range(9)]
    batch = api.post("/v1/batches", json={"items": rows}).json()["id"]
    worker.work(failing=["i4"])

    seen, cursor = [], ""
    while cursor is not None:
        page = api.get(f"/v1/batches/{batch}/items?limit=2&sort={order}" + (f"&cursor={cursor}" if cursor else ""))
        seen += [(item["similarity"], item["custom_id"]) for item in page.json()["data"]]
        cursor = page.json()["next"]

    assert sorted(name for _, name in seen) == [f"i{n}" for n in range(9)]
    assert seen[-1] == (None, "i4")


def test_batches_are_listed_newest_first_over_pages(client: Client) -> None:
    api = client()
    made = [api.post("/v1/batches", json={**JSON, "name": f"n{n}"}).json()["id"] for n in range(5)]

    first = api.get("/v1/batches?limit=3").json()
    rest = api.get(f"/v1/batches?limit=3&cursor={first['next']}").json()

    assert [batch["id"] for batch in first["data"] + rest["data"]] == made[::-1]
    assert rest["next"] is None


def test_an_unchanged_batch_is_not_sent_again(client: Client) -> None:
    api = client()
    place = api.post("/v1/batches", json=JSON).headers["location"]
    tag = api.get(place).headers["etag"]

    assert api.get(place, headers={"If-None-Match": tag}).status_code == 304
    api.post(f"{place}/pause")
    assert api.get(place, headers={"If-None-Match": tag}).status_code == 200


def test_prefer_wait_answers_when_the_batch_has_ended(client: Client, worker: Played) -> None:
    def work_once_there_is_some() -> None:
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            with worker.ledger.read() as session:
                if session.scalar(select(func.count()).select_from(Batch)):
                    break
            time.sleep(0.05)
        worker.work()

    helper = threading.Thread(target=work_once_there_is_some)
    helper.start()

    made = client().post("/v1/batches", json=JSON, headers={"Prefer": "wait=20"})
    helper.join()

    assert (made.status_code, made.json()["state"]) == (200, "completed")


def test_cancel_can_be_repeated_until_the_batch_has_ended(client: Client) -> None:
    api = client()
    place = api.post("/v1/batches", json=JSON).headers["location"]

    cancelled = api.post(f"{place}/cancel")
    again = api.post(f"{place}/cancel")

    assert (cancelled.status_code, cancelled.json()["state"]) == (202, "cancelled")
    assert (again.status_code, again.json()["code"]) == (409, "batch_ended")


def test_results_and_errors_stream_one_object_a_line(client: Client, worker: Played) -> None:
    api = client()
    place = api.post("/v1/batches", json=JSON).headers["location"]
    worker.work(failing=["b"])

    results, errors = api.get(f"{place}/results"), api.get(f"{place}/errors")

    assert results.headers["content-type"].startswith("application/x-ndjson")
    assert '"custom_id": "a"' in results.text
    assert "pipe_broken" in errors.text
    assert len(results.text.splitlines()) == len(errors.text.splitlines()) == 1


def test_all_finished_pictures_come_as_one_zip_with_the_lists(client: Client, worker: Played, store: ByteStore) -> None:
    api = client()
    place = api.post("/v1/batches", json=JSON).headers["location"]
    worker.work(failing=["b"])

    answer = api.get(f"{place}/pictures")

    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["results.jsonl", "errors.jsonl", "a.png"]
        assert b"pipe_broken" in archive.read("errors.jsonl")
        key = json.loads(archive.read("results.jsonl"))["output"]["key"]
        assert archive.read("a.png") == store.get(key)


def test_every_door_gives_a_picture_one_name_that_every_system_keeps(
    client: Client, worker: Played, ledger: Ledger, store: ByteStore, settings: Settings, tmp_path: Path
) -> None:
    api = client()
    rows = [{**ROW, "custom_id": name} for name in ("Cover", "other", "CON", "end.", "com1.x")]
    place = api.post("/v1/batches", json={"name": "n", "items": rows}).headers["location"]
    batch_id = place.rpartition("/")[2]
    worker.work()
    with ledger.write() as session:  # as a version before could have taken it
        session.execute(update(Item).where(Item.custom_id == "other").values(custom_id="cover"))

    with zipfile.ZipFile(io.BytesIO(api.get(f"{place}/pictures").content)) as archive:
        zipped = [name for name in archive.namelist() if name.endswith(".png")]
    export.download(ledger, store, "local", batch_id, tmp_path / "out")
    page = export.write_contact_sheet(ledger, store, Vault.of(settings), "local", batch_id, tmp_path / "sheet.html")

    assert zipped == ["Cover.png", "cover.2.png", "CON_.png", "end..png", "com1_.x.png"]
    assert sorted(zipped) == sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert all(row["custom_id"] in page.read_text() for row in rows if row["custom_id"] != "other")


def test_rows_that_are_added_do_not_name_the_files_of_rows_that_are_there(client: Client) -> None:
    api = client()
    place = api.post("/v1/batches", json={**JSON, "growing": True}).headers["location"]

    refused = api.post(f"{place}/items", json={"items": [{**ROW, "custom_id": "A"}]})

    assert refused.status_code == 422, refused.text
    assert refused.json()["errors"][0]["code"] == "duplicate_custom_id"
    assert api.post(f"{place}/items", json={"items": [{**ROW, "custom_id": "a"}]}).is_success, "it has that already"


def test_what_failed_is_retried_in_a_batch_of_its_own(client: Client, worker: Played) -> None:
    api = client()
    place = api.post("/v1/batches", json=JSON).headers["location"]
    worker.work(failing=["b"])

    made = api.post(f"{place}/retry", json={"codes": ["pipe_broken"]})

    assert made.status_code == 202
    assert made.json()["parent_id"] == place.rpartition("/")[2]
    assert made.json()["request_counts"]["total"] == 1


def test_what_is_held_is_released_and_rejected_with_a_reason_in_the_audit_log(
    client: Client, worker: Played, ledger: Ledger
) -> None:
    api = client()
    batch = api.post("/v1/batches", json=JSON).json()["id"]
    worker.hold()
    first, second = (one["id"] for one in api.get(f"/v1/batches/{batch}/items").json()["data"])
    assert api.get(f"/v1/batches/{batch}").json()["state"] == "completed_with_errors"

    silent = api.post(f"/v1/items/{first}/release", json={})
    released = api.post(f"/v1/items/{first}/release", json={"reason": "more memory"})
    going_on = api.get(f"/v1/batches/{batch}").json()
    rejected = api.post(f"/v1/batches/{batch}/reject", json={"reason": "too large"})
    none = api.post(f"/v1/batches/{batch}/release", json={"reason": "again"})
    worker.work()

    assert silent.status_code == 422
    assert (released.status_code, released.json()["status"]) == (200, "queued"), released.text
    assert (going_on["state"], going_on["finished_at"]) == ("in_progress", None)
    assert (rejected.status_code, none.status_code, none.json()["code"]) == (200, 409, "nothing_held")
    shown = api.get(f"/v1/batches/{batch}").json()
    assert (shown["state"], shown["counts"]["completed"], shown["counts"]["cancelled"]) == (
        "completed_with_errors",
        1,
        1,
    )
    with ledger.read() as session:
        said = session.scalars(select(Audit).where(Audit.action.startswith("item."))).all()
    assert [(one.action, one.ref, one.detail["reason"]) for one in said] == [
        ("item.release", first, "more memory"),
        ("item.reject", second, "too large"),
    ]


def test_a_released_item_that_kills_its_worker_again_is_held_again(client: Client, worker: Played) -> None:
    api = client()
    batch = api.post("/v1/batches", json=JSON).json()["id"]
    worker.hold()

    assert api.post(f"/v1/batches/{batch}/release", json={"reason": "more memory"}).json()["counts"]["queued"] == 2
    worker.hold()

    shown = api.get(f"/v1/batches/{batch}").json()
    assert (shown["state"], shown["counts"]["held"]) == ("completed_with_errors", 2)


def test_an_item_leads_to_its_bytes_by_a_link_that_needs_no_key(
    client: Client, nobody: Client, worker: Played, tmp_path: Path
) -> None:
    api = client()
    place = api.post("/v1/batches", json=JSON).headers["location"]
    worker.work()
    item = api.get("/v1/items/" + api.get(f"{place}/items").json()["data"][0]["id"]).json()

    link = api.get(f"/v1/artifacts/{item['output']['artifact_id']}/link").json()
    got = nobody.get(link["url"])

    assert got.content.startswith(b"\x89PNG")
    assert got.headers["content-disposition"].startswith("attachment")
    assert nobody.get(link["url"][:-3] + "000").status_code == 404


def test_a_quota_of_waiting_items_answers_429_with_a_time(client: Client, app: object) -> None:
    from fastapi import FastAPI

    from orchestrator.api.context import Context

    assert isinstance(app, FastAPI)
    context: Context = app.state.context
    app.state.context = Context(
        settings=context.settings,
        ledger=Ledger(context.ledger.url, Quota(items=3)),
        store=context.store,
        rate=context.rate,
    )
    api = client()

    assert api.post("/v1/batches", json=JSON).status_code == 202
    over = api.post("/v1/batches", json=JSON)

    assert (over.status_code, over.json()["code"]) == (429, "quota_items")
    assert int(over.headers["retry-after"]) > 0


def test_ten_thousand_items_answer_within_a_tenth_of_a_second_anywhere_in_the_list(client: Client) -> None:
    import time

    api = client()
    rows = [{**ROW, "custom_id": f"i{n}"} for n in range(10_000)]
    batch = api.post("/v1/batches", json={"items": rows}).json()["id"]
    page = api.get(f"/v1/batches/{batch}/items?limit=50").json()

    spent = []
    for _ in range(20):
        began = time.process_time()
        page = api.get(f"/v1/batches/{batch}/items?limit=50&cursor={page['next']}").json()
        spent.append(time.process_time() - began)

    assert len(page["data"]) == 50
    assert sorted(spent)[10] < 0.1, spent


def test_a_batch_grows_until_it_is_closed(client: Client) -> None:
    me = client()
    made = me.post("/v1/batches", json={"items": [ROW], "growing": True})
    place = made.headers["location"]

    more = me.post(f"{place}/items", json={"items": [{**ROW, "custom_id": "second"}, ROW]})
    wrong = me.post(f"{place}/items", json={"items": [{"custom_id": "c", "people": [{"identity": "nobody"}]}]})
    closed = me.post(f"{place}/close")
    late = me.post(f"{place}/items", json={"items": [{**ROW, "custom_id": "third"}]})

    assert made.json()["open"]
    assert (more.status_code, more.json()["added"], more.json()["request_counts"]["total"]) == (200, 1, 2)
    assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "/items/0/people[0].identity")
    assert not closed.json()["open"]
    assert (late.status_code, late.json()["code"]) == (409, "batch_closed")


def test_a_batch_put_twice_under_a_name_is_one_batch(client: Client) -> None:
    me = client()
    first, again = (me.put("/v1/batches/by-key/tonight-7", json={"items": [ROW]}) for _ in range(2))
    other = me.put("/v1/batches/by-key/tonight-7", json={"items": [{**ROW, "seed": 99}]})

    assert first.status_code == again.status_code == 202
    assert first.json()["id"] == again.json()["id"]
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_conflict")


def test_a_batch_says_after_how_many_wrong_items_it_pauses(client: Client, ledger: Ledger) -> None:
    made = client().post("/v1/batches", json={**JSON, "stop_after": 3})
    with ledger.read() as session:
        kept = session.get_one(Batch, made.json()["id"])
    refused = client().post("/v1/batches", json={**JSON, "stop_after": 0})

    assert kept.options["stop_after"] == 3
    assert refused.status_code == 422
