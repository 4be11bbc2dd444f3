"""Sessions of browsers live no longer than what opened them, make no others, and nobody is logged in unasked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from fastapi import FastAPI
from sqlalchemy import update
from starlette.testclient import TestClient

from orchestrator.access import keys
from orchestrator.api.app import create_app
from orchestrator.errors import AccessError
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.tables.rows_api import ApiKey
from orchestrator.settings import Settings

COOKIE = "fpga_session"


def logged_in(app: FastAPI, secret: str) -> TestClient:
    made = TestClient(app, follow_redirects=False, raise_server_exceptions=False)
    assert made.post("/login", data={"key": secret}).status_code == 303
    return made


def ends(ledger: Ledger, key_id: str) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    with ledger.write() as session:
        session.execute(update(ApiKey).where(ApiKey.id == key_id).values(expires_at=past))


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_a_session_dies_with_the_key_that_opened_it(app: FastAPI, ledger: Ledger, how: str) -> None:
    secret, made = keys.create(ledger, "local", name="test", days=1)
    browser = logged_in(app, secret)
    assert browser.get("/v1/batches").status_code == 200

    if how == "revoked":
        keys.revoke(ledger, "local", made["id"])
    else:
        ends(ledger, made["id"])

    assert browser.get("/v1/batches").status_code == 401
    assert keys.list_keys(ledger, "local", kind="session") == []


def test_a_session_makes_no_session(app: FastAPI, ledger: Ledger) -> None:
    secret, _ = keys.create(ledger, "local", name="test")
    session = logged_in(app, secret).cookies[COOKIE]

    again = TestClient(app, follow_redirects=False).post("/login", data={"key": session})

    assert again.status_code == 401
    assert "set-cookie" not in again.headers


def test_a_session_is_no_key_and_a_key_no_session(app: FastAPI, ledger: Ledger) -> None:
    secret, _ = keys.create(ledger, "local", name="test")
    session = logged_in(app, secret).cookies[COOKIE]

    as_key = TestClient(app, headers={"Authorization": f"Bearer {session}"}).get("/v1/batches")
    as_session = TestClient(app, cookies={COOKIE: secret}).get("/v1/batches")

    assert (as_key.status_code, as_session.status_code) == (401, 401)


def test_sessions_are_listed_and_ended_one_by_one(app: FastAPI, ledger: Ledger) -> None:
    secret, made = keys.create(ledger, "local", name="test")
    one, other = logged_in(app, secret), logged_in(app, secret)

    listed = keys.list_keys(ledger, "local", kind="session")
    keys.revoke(ledger, "local", listed[0]["id"])

    assert [session["parent_id"] for session in listed] == [made["id"]] * 2
    assert sorted(browser.get("/v1/batches").status_code for browser in (one, other)) == [200, 401]


def test_logging_out_with_a_key_does_not_revoke_it(app: FastAPI, ledger: Ledger) -> None:
    secret, _ = keys.create(ledger, "local", name="test", scopes=["read"])
    program = TestClient(app, headers={"Authorization": f"Bearer {secret}"}, follow_redirects=False)

    program.post("/logout")

    assert program.get("/v1/batches").status_code == 200


def test_sessions_ask_at_the_rate_of_their_key(settings: Settings, ledger: Ledger) -> None:
    app = create_app(settings.model_copy(update={"api_rate_per_minute": 20}))
    secret, _ = keys.create(ledger, "local", name="test")
    browsers = [logged_in(app, secret) for _ in range(3)]

    answers = [browser.get("/v1/batches").status_code for browser in browsers for _ in range(4)]

    assert answers.count(200) == 5


def test_who_guesses_links_is_slowed_and_writes_nothing(app: FastAPI, ledger: Ledger) -> None:
    stranger = TestClient(app, follow_redirects=False)

    with ledger.write():  # the writer's lock is taken: a guess that wanted it would wait for it
        answers = [stranger.get("/login?token=fpgal_guess").status_code for _ in range(40)]

    assert set(answers) == {401, 429}


@pytest.mark.parametrize("site", ["cross-site", "same-site", "same-origin"])
def test_a_link_on_another_page_logs_nobody_in_unasked(app: FastAPI, ledger: Ledger, site: str) -> None:
    link = keys.login_link(ledger, "eve", "")
    page = TestClient(app, follow_redirects=False)

    asked = page.get(link, headers={"Sec-Fetch-Site": site})

    assert (asked.status_code, asked.headers.get("set-cookie")) == (200, None)
    token = link.partition("token=")[2]
    assert token in asked.text, "a person may still say yes"
    with pytest.raises(AssertionError):
        logged_in(app, "fpga_wrong")
    assert page.post("/login", data={"key": token}, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert page.post("/login", data={"key": token}).status_code == 303


def test_a_link_does_not_replace_a_session_unasked(app: FastAPI, ledger: Ledger) -> None:
    secret, _ = keys.create(ledger, "local", name="test")
    browser = logged_in(app, secret)
    before = browser.cookies[COOKIE]

    browser.get(keys.login_link(ledger, "eve", ""))

    assert browser.cookies[COOKIE] == before


def test_a_session_of_a_link_ends_by_itself(ledger: Ledger) -> None:
    session = keys.open_session(ledger, keys.login_link(ledger, "local", "").partition("token=")[2])
    (listed,) = keys.list_keys(ledger, "local", kind="session")

    ends(ledger, listed["id"])

    with pytest.raises(AccessError):
        keys.authenticate(ledger, session, kind="session")
