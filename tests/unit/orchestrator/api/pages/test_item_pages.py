"""The page of an item: who is who, the story of its stages, its neighbours, and making it again."""

from __future__ import annotations

import re

from fastapi import FastAPI
from starlette.testclient import TestClient

from orchestrator.ledger.engine.session import Ledger
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore
from tests.unit.orchestrator.api.conftest import Client
from tests.unit.orchestrator.api.pages.test_pages import browser
from tests.unit.orchestrator.played import AddPerson, Played, picture, restored_photo


def items_of(client: Client, *names: str, prompt: str = "a portrait") -> str:
    """Submit portraits of ada with these custom_ids and return the batch's id."""
    rows = [{"custom_id": name, "people": [{"identity": "ada"}], "prompt": prompt} for name in names]
    return str(client().post("/v1/batches", json={"items": rows}).json()["id"])


def links(page: TestClient, address: str) -> list[str]:
    return re.findall(r'href="(/items/[^"?]+)', page.get(address).text)


def test_an_item_tells_who_is_who_and_escapes_what_people_wrote(
    app: FastAPI, ledger: Ledger, client: Client, person: AddPerson, worker: Played
) -> None:
    ada = person("ada", "generate")
    page = browser(app, ledger)
    batch = items_of(client, "a", prompt="<i>a portrait</i>")
    worker.work(similarity=0.73)

    told = page.get(links(page, f"/batches/{batch}")[0]).text

    assert '<span class="own">0.73' in told
    assert f"/people/{ada}/face" in told
    assert "&lt;i&gt;a portrait" in told
    assert "<i>a portrait" not in told
    assert page.get(re.findall(r'src="(/pictures/[^"]+/full)"', told)[0]).content.startswith(b"\x89PNG")


def test_an_item_tells_which_small_faces_were_drawn_again(
    app: FastAPI, ledger: Ledger, client: Client, person: AddPerson, worker: Played
) -> None:
    people = [{"identity": person(handle, "generate")} for handle in ("ada", "bruno")]
    made = client().post("/v1/batches", json={"items": [{"custom_id": "a", "people": people}]}).json()
    worker.work()
    page = browser(app, ledger)

    told = page.get(links(page, f"/batches/{made['id']}")[0]).text

    assert "1 of 2 small faces drawn again" in told
    assert "small face kept: similarity did not rise" in told
    assert "small face drawn again, likeness 0.41 before" in told


def test_a_failed_item_says_where_and_why(
    app: FastAPI, ledger: Ledger, client: Client, person: AddPerson, worker: Played
) -> None:
    person("ada", "generate")
    page = browser(app, ledger)
    batch = items_of(client, "a")
    worker.work(failing=["a"])

    told = page.get(links(page, f"/batches/{batch}")[0]).text

    assert "the pipe broke" in told
    assert "pipe_broken, stage generate, attempt 1" in told
    assert "wrk_test" in told


def test_neighbours_are_those_of_the_gallery_one_came_from(
    app: FastAPI, ledger: Ledger, client: Client, person: AddPerson, worker: Played
) -> None:
    person("ada", "generate")
    page = browser(app, ledger)
    batch = items_of(client, "a", "b", "c")
    worker.work(failing=["a", "c"])
    a, b, c = links(page, f"/batches/{batch}")

    among_all, among_failed = page.get(a).text, page.get(f"{a}?show=failed").text

    assert re.findall(r'rel="next" href="([^"]+)"', among_all) == [b]
    assert re.findall(r'rel="next" href="([^"]+)"', among_failed) == [f"{c}?show=failed"]
    assert 'rel="prev"' not in among_all


def test_a_portrait_is_made_again_and_compared(
    app: FastAPI, ledger: Ledger, client: Client, person: AddPerson, worker: Played
) -> None:
    person("ada", "generate")
    page = browser(app, ledger)
    batch = items_of(client, "a")
    worker.work()
    (item,) = links(page, f"/batches/{batch}")

    again = page.post(f"{item}/reproduce").url.path
    worker.work()

    told = page.get(again).text
    assert "Made again: <b>different</b>" in told  # the played worker colours by stage
    assert f'href="{item}"' in told


def test_a_photo_shows_before_and_after_and_is_restored_again_with_other_settings(
    app: FastAPI, ledger: Ledger, store: ByteStore, settings: Settings, person: AddPerson
) -> None:
    ada = person("ada", "restore")
    item_id = restored_photo(ledger, store, settings, "1950/a.png", picture((90, 90, 90)), picture(), ada)
    page = browser(app, ledger)

    told = page.get(f"/items/{item_id}").text
    before, after = re.findall(r'src="(/pictures/[^"]+/(?:full|before))"', told)[::-1]
    redone = page.post(f"/items/{item_id}/redo", data={"fidelity": "0.2", "candidates": "2", "seed": "9"})
    refused = page.post(f"/items/{item_id}/redo", data={"fidelity": "7"}, headers={"Accept": "text/html"})

    assert page.get(before).content == picture((90, 90, 90))
    assert page.get(after).content == picture()
    assert "positions were kept" in told
    assert "0.31" in told
    assert "queued" in redone.text
    assert "seed 9" in redone.text
    assert refused.status_code == 422


def test_an_item_of_somebody_else_is_unknown(
    app: FastAPI, ledger: Ledger, client: Client, person: AddPerson, worker: Played
) -> None:
    person("ada", "generate")
    page = browser(app, ledger)
    batch = items_of(client, "a")
    worker.work()
    (item,) = links(page, f"/batches/{batch}")

    assert client(owner="eve").get(item).status_code == 404
    assert client(owner="eve").post(f"{item}/reproduce").status_code == 404
    reader = client(scopes=["read"]).get(item).text
    assert "Reproduce" not in reader
    assert "/face" not in reader


def test_a_contact_sheet_is_one_page_that_loads_nothing(
    app: FastAPI, ledger: Ledger, client: Client, person: AddPerson, worker: Played
) -> None:
    person("ada", "generate")
    page = browser(app, ledger)
    batch = items_of(client, "a")
    worker.work()

    sheet = page.get(f"/batches/{batch}/sheet")

    assert sheet.status_code == 200
    assert "default-src 'none'; img-src data:" in sheet.headers["content-security-policy"]
    assert re.findall(r'(?:src|href)="(?!data:|#)([^"]+)"', sheet.text) == []
