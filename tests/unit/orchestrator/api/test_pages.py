"""Pages: a link logs in once, names are escaped, nothing comes from elsewhere."""

from __future__ import annotations

import re
import time

from fastapi import FastAPI
from starlette.testclient import TestClient

from orchestrator import keys
from orchestrator.ledger.session import Ledger
from tests.unit.orchestrator.api.conftest import Client
from tests.unit.orchestrator.played import AddPerson, Played


def browser(app: FastAPI, ledger: Ledger) -> TestClient:
    """Return a client that followed a login link."""
    made = TestClient(app, raise_server_exceptions=False)
    assert made.get(keys.login_link(ledger, "local", "")).status_code == 200
    return made


def test_a_link_logs_a_browser_in_with_a_cookie_that_scripts_cannot_read(app: FastAPI, ledger: Ledger) -> None:
    link = keys.login_link(ledger, "local", "")
    page = TestClient(app, follow_redirects=False)

    opened = page.get(link)

    assert (opened.status_code, opened.headers["location"]) == (303, "/")
    assert re.search("HttpOnly.*SameSite=strict", opened.headers["set-cookie"])
    assert TestClient(app, follow_redirects=False).get(link).status_code == 401


def test_names_with_markup_are_shown_as_text(
    app: FastAPI, ledger: Ledger, client: Client, person: AddPerson, worker: Played
) -> None:
    person("ada", "generate")
    rows = [{"custom_id": "a", "people": [{"identity": "ada"}]}]
    made = client().post("/v1/batches", json={"name": "<script>alert(1)</script>", "items": rows}).json()["id"]
    worker.work()
    page = browser(app, ledger)

    for address in ("/", f"/batches/{made}"):
        html = page.get(address).text
        assert "<script>alert" not in html
        assert "&lt;script&gt;alert" in html
        assert re.findall(r'(?:src|href)="(?:https?:)?//', html) == []


def test_a_batch_shows_its_pictures(
    app: FastAPI, ledger: Ledger, client: Client, person: AddPerson, worker: Played
) -> None:
    person("ada", "generate")
    rows = [{"custom_id": "a", "people": [{"identity": "ada"}]}]
    made = client().post("/v1/batches", json={"items": rows}).json()["id"]
    worker.work(verdict="needs_review")
    page = browser(app, ledger)

    html = page.get(f"/batches/{made}?verdict=needs_review").text
    (source,) = re.findall(r'<img src="([^"]+)"', html)

    assert page.get(source).content.startswith(b"\x89PNG")
    assert "<img" not in page.get(f"/batches/{made}?verdict=accepted").text


def test_logging_out_ends_the_session(app: FastAPI, ledger: Ledger) -> None:
    page = browser(app, ledger)
    cookie = dict(page.cookies)

    page.post("/logout")

    assert TestClient(app, cookies=cookie).get("/").status_code == 401


def test_a_page_of_ten_thousand_items_takes_less_than_a_tenth_of_a_second_and_200_kb(
    app: FastAPI, ledger: Ledger, client: Client, person: AddPerson
) -> None:
    person("ada", "generate")
    rows = [{"custom_id": f"i{n}", "people": [{"identity": "ada"}]} for n in range(10_000)]
    made = client().post("/v1/batches", json={"items": rows}).json()["id"]
    page = browser(app, ledger)
    page.get(f"/batches/{made}")

    spent = []
    for _ in range(9):
        began = time.process_time()
        html = page.get(f"/batches/{made}").text
        spent.append(time.process_time() - began)

    assert sorted(spent)[4] < 0.1, spent
    assert len(html) < 200_000
