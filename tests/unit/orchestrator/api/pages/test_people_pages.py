"""Pages of the library: people are added, refused, allowed, revoked and erased; other owners see none of it."""

from __future__ import annotations

import base64
import json
import re

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from orchestrator.access import keys
from orchestrator.ledger.engine.session import Ledger
from tests.unit.orchestrator.api.conftest import Client
from tests.unit.orchestrator.api.pages.test_pages import browser
from tests.unit.orchestrator.played import AddPerson, Played, picture


@pytest.fixture
def page(app: FastAPI, ledger: Ledger) -> TestClient:
    return browser(app, ledger)


def hand_in(page: TestClient, data: bytes, **fields: object) -> str:
    """Send the form and return where it leads, or what it shows."""
    form = {"handle": "ada", "name": "<b>Ada</b>", "scopes": ["generate", "train"], **fields}
    answer = page.post("/people", data=form, files={"pictures": ("a.png", data)}, follow_redirects=False)
    return answer.headers.get("location") or answer.text


def test_a_person_is_added_shown_and_named_as_text(page: TestClient, worker: Played) -> None:
    added = hand_in(page, picture())
    assert "A worker looks for the face" in page.get(added).text
    worker.work()

    html = page.get(added).text

    assert "&lt;b&gt;Ada&lt;/b&gt;" in html
    assert "<b>Ada</b>" not in html
    assert "&lt;b&gt;Ada&lt;/b&gt;" in page.get("/people").text
    (source,) = re.findall(r'<img src="([^"]+)" alt="Reference', html)
    assert page.get(source).content.startswith(b"\x89PNG")
    (face,) = re.findall(r'<img src="(/people/[^"]+)"', page.get("/people").text)
    shown = page.get(face)
    assert shown.content.startswith(b"\x89PNG")
    assert shown.headers["cache-control"] == "private, no-store"


def test_a_reference_that_browsers_do_not_show_is_shown_by_its_face(page: TestClient, worker: Played) -> None:
    added = hand_in(page, picture(form="TIFF"))
    worker.work()

    (source,) = re.findall(r'<img src="([^"]+)" alt="Reference', page.get(added).text)

    assert page.get(source).content == picture()
    assert page.get(source.replace("ref_", "ref_no")).status_code == 404


@pytest.mark.parametrize(
    ("data", "fields", "code"),
    [
        (b"no picture", {}, "not_an_image"),
        (picture(), {"handle": "no good"}, "bad_handle"),
        (picture(), {"scopes": []}, "bad_scope"),
        (picture(), {"scopes": ["dance"]}, "bad_scope"),
        (picture(), {"expires": "2020-01-01"}, "consent_over"),
        (picture(), {"expires": "soon"}, "bad_date"),
    ],
)
def test_what_cannot_be_added_is_refused_with_its_code(
    page: TestClient, data: bytes, fields: dict[str, object], code: str
) -> None:
    assert f"<code>{code}</code>" in hand_in(page, data, **fields)


def test_a_refusal_by_the_worker_is_shown_with_its_code(page: TestClient, worker: Played) -> None:
    added = hand_in(page, picture())
    worker.work(failing=["person-1"])

    html = page.get(added).text

    assert "<code>pipe_broken</code>" in html
    assert "Nobody was added" in html


def test_references_are_added_without_touching_consents(page: TestClient, worker: Played) -> None:
    added = hand_in(page, picture())
    worker.work()
    person = page.get(added, follow_redirects=False).headers["location"]

    sent = page.post(f"{person}/references", files={"pictures": ("b.png", picture((1, 2, 3)))}, follow_redirects=False)
    worker.work()

    html = page.get(sent.headers["location"]).text
    assert html.count('alt="Reference') == 2
    assert html.count('aria-label="Revoke') == 2


def test_consents_are_granted_and_revoked(page: TestClient, person: AddPerson) -> None:
    ada = person("ada", "generate")

    granted = page.post(f"/people/{ada}/consents", data={"scopes": ["swap"], "granted_by": "form 7"})
    revoked = page.post(f"/people/{ada}/consents/generate/revoke")

    assert "form 7" in granted.text
    assert 'aria-label="Revoke swap"' in revoked.text
    assert 'aria-label="Revoke generate"' not in revoked.text
    again = page.post(f"/people/{ada}/consents/generate/revoke")
    assert (again.status_code, "consent_not_given" in again.text) == (409, True)


def test_an_erase_wants_the_handle_and_gives_a_receipt_to_keep(page: TestClient, person: AddPerson) -> None:
    ada = person("ada", "generate")
    assert "not_confirmed" in page.post(f"/people/{ada}/erase", data={"confirm": "bruno"}).text
    assert page.get(f"/people/{ada}").status_code == 200

    html = page.post(f"/people/{ada}/erase", data={"confirm": "ada"}).text

    (file,) = re.findall(r'href="data:application/json;base64,([^"]+)"', html)
    receipt = json.loads(base64.b64decode(file))
    assert receipt["identity_id"] == ada
    assert receipt["keys_sha256"] in html
    assert page.get(f"/people/{ada}").status_code == 404


def test_other_owners_and_keys_without_the_scope_see_nobody(
    app: FastAPI, ledger: Ledger, client: Client, person: AddPerson
) -> None:
    ada = person("ada", "generate")
    other = TestClient(app)
    other.get(keys.login_link(ledger, "eve", ""))

    assert "ada" not in other.get("/people").text
    assert [other.get(f"/people/{ada}{rest}").status_code for rest in ("", "/face")] == [404, 404]
    assert client(scopes=["read"]).get("/people").status_code == 403
