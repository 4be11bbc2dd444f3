"""Keys, sessions, limits, and bodies that are none; who may do what is tried in test_tenants.py."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient

from orchestrator.access import keys
from orchestrator.api.app import create_app
from orchestrator.errors import AccessError
from orchestrator.ledger.engine.session import Ledger
from orchestrator.settings import Settings
from tests.unit.orchestrator.api.conftest import Client
from tests.unit.orchestrator.played import AddPerson, Played, picture


def test_a_key_without_scope_opens_no_stream(client: Client) -> None:
    assert client(scopes=["people"]).get("/v1/events").status_code == 403


def test_half_an_id_is_no_id_over_http(client: Client, person: AddPerson) -> None:
    person("ada", "generate")
    api = client()
    batch = api.post("/v1/batches", json={"items": [{"custom_id": "a", "people": [{"identity": "ada"}]}]}).json()["id"]

    assert api.get(f"/v1/batches/{batch[:-1]}").status_code == 404
    assert api.post(f"/v1/batches/{batch[:-1]}/cancel").status_code == 404


def test_a_flood_is_answered_with_429_and_a_time_to_wait(settings: Settings, ledger: Ledger) -> None:
    app = create_app(settings.model_copy(update={"api_rate_per_minute": 20}))
    secret, _ = keys.create(ledger, "local", name="test")
    other, _ = keys.create(ledger, "eve", name="test")
    api = TestClient(app, headers={"Authorization": f"Bearer {secret}"})

    answers = [api.get("/v1/batches") for _ in range(12)]

    assert answers[0].status_code == 200
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert TestClient(app, headers={"Authorization": f"Bearer {other}"}).get("/v1/batches").status_code == 200


def test_sending_files_keeps_nobody_out_of_the_pages(settings: Settings, ledger: Ledger) -> None:
    app = create_app(settings.model_copy(update={"api_rate_per_minute": 20}))
    secret, _ = keys.create(ledger, "local", name="test")
    api = TestClient(app, headers={"Authorization": f"Bearer {secret}"})

    begun = [api.post("/v1/uploads", headers={"Upload-Length": "5"}).status_code for _ in range(60)]

    assert set(begun[:40]) == {201}, "a file takes a tenth of a request"
    assert begun[-1] == 429, "and yet not every flood of them is let in"
    assert [api.get("/v1/batches").status_code for _ in range(4)] == [200] * 4


def test_a_revoked_key_opens_nothing_from_that_moment(app: FastAPI, ledger: Ledger) -> None:
    secret, made = keys.create(ledger, "local", name="test")
    api = TestClient(app, headers={"Authorization": f"Bearer {secret}"})
    assert api.get("/v1/batches").status_code == 200

    keys.revoke(ledger, "local", made["id"])

    assert api.get("/v1/batches").status_code == 401


def test_the_secret_of_a_key_is_nowhere_in_the_database(settings: Settings, ledger: Ledger) -> None:
    secret, _ = keys.create(ledger, "local", name="test")
    ledger.dispose()

    kept = b"".join(path.read_bytes() for path in settings.state_dir.glob("ledger.sqlite3*"))
    assert secret.encode() not in kept


def test_a_login_link_opens_one_session_once(ledger: Ledger) -> None:
    token = keys.login_link(ledger, "local", "http://x").partition("token=")[2]

    session = keys.open_session(ledger, token)

    assert keys.authenticate(ledger, session, kind="session").owner == "local"
    with pytest.raises(AccessError):
        keys.open_session(ledger, token)
    with pytest.raises(AccessError):
        keys.authenticate(ledger, token)


def test_the_key_of_this_machine_is_kept_for_its_owner_alone(settings: Settings, ledger: Ledger) -> None:
    path = keys.local_key(ledger, settings)

    assert path.stat().st_mode & 0o777 == 0o600
    assert keys.authenticate(ledger, path.read_text().strip()).owner == "local"
    text = path.read_text()
    assert keys.local_key(ledger, settings).read_text() == text


def test_a_session_acts_only_for_pages_of_this_site(app: FastAPI, ledger: Ledger) -> None:
    token = keys.login_link(ledger, "local", "http://x").partition("token=")[2]
    cookies = {"fpga_session": keys.open_session(ledger, token)}
    api = TestClient(app, cookies=cookies, raise_server_exceptions=False)

    assert api.post("/v1/batches/bat_0/cancel", headers={"Origin": "http://evil.test"}).status_code == 403
    assert api.post("/v1/batches/bat_0/cancel", headers={"Origin": "http://[evil"}).status_code == 403
    assert api.post("/v1/batches/bat_0/cancel", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert api.post("/v1/batches/bat_0/cancel", headers={"Origin": "http://testserver"}).status_code == 404


@pytest.mark.parametrize(
    ("content", "media_type", "status"),
    [
        (b"{" * 200_000, "application/json", 422),
        (b'{"items":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "application/json", 422),
        (b"\xff\xfe{}", "application/json", 422),
        (b'{"items":[{"custom_id":"\\ud800"}]}', "application/json", 422),
        (b'{"items":[{"custom_id":"\\u0000","people":[]}]}', "application/json", 422),
        (b"{}", "application/json; charset=utf-16", 415),
        (b"<batch/>", "application/xml", 415),
        (b"", "application/json", 422),
        (b"\x00\x01\x02", "text/csv", 422),
    ],
)
def test_a_body_that_is_no_batch_is_told_so(client: Client, content: bytes, media_type: str, status: int) -> None:
    refused = client().post("/v1/batches", content=content, headers={"Content-Type": media_type})

    assert refused.status_code == status, refused.text
    assert refused.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/v1/batches/bat_0/pause", "/v1/identities/ada/consents", "/v1/batches/bat_0/retry"])
def test_a_small_body_nested_too_deep_is_refused(client: Client, path: str) -> None:
    refused = client().post(path, content=b"[" * 100_000, headers={"Content-Type": "application/json"})

    assert refused.status_code in (400, 422), refused.text


def test_a_body_over_its_limit_is_refused_whether_its_length_is_told_or_not(client: Client) -> None:
    api = client()
    large = b" " * (2**20 + 1)

    told = api.post("/v1/batches/bat_0/pause", content=large, headers={"Content-Type": "application/json"})
    untold = api.post(
        "/v1/batches/bat_0/pause", content=iter([large[:1000]] * 2000), headers={"Content-Type": "application/json"}
    )

    assert (told.status_code, untold.status_code) == (413, 413)
    assert told.json()["code"] == untold.json()["code"] == "body_too_large"


def test_people_are_added_with_pictures_and_erased_with_a_receipt(client: Client, worker: Played) -> None:
    api = client()
    given = {"handle": "ada", "name": "<b>Ada</b>", "scopes": ["generate", "swap"]}

    made = api.post("/v1/identities", data=given, files={"pictures": ("<script>.png", picture(), "image/png")})
    assert made.status_code == 202, made.text
    worker.work()
    person = api.get("/v1/identities/ada").json()
    reference = f"/v1/identities/ada/references/{person['references'][0]['id']}/picture"
    assert api.get(reference).content == picture()
    receipt = api.delete(f"/v1/identities/{person['id']}").json()

    assert (receipt["object"], receipt["references"]) == ("identity.erase_receipt", 1)
    assert "Ada" not in str(receipt)
    assert api.get("/v1/identities/ada").status_code == 404
    assert api.get(reference).status_code == 404


def test_a_file_that_is_no_picture_is_refused_before_it_is_stored(client: Client) -> None:
    refused = client().post(
        "/v1/identities",
        data={"handle": "ada", "scopes": ["generate"]},
        files={"pictures": ("a.png", b"not a picture", "image/png")},
    )

    assert (refused.status_code, refused.json()["code"]) == (422, "not_an_image")


def test_consents_are_granted_and_revoked(client: Client, person: AddPerson) -> None:
    person("ada", "generate")
    api = client()

    granted = api.post("/v1/identities/ada/consents", json={"scopes": ["train"], "text": "yes"})
    revoked = api.delete("/v1/identities/ada/consents/train")
    over = api.post("/v1/identities/ada/consents", json={"scopes": ["train"], "expires_at": "2020-01-01T00:00:00Z"})

    assert granted.status_code == 201
    assert revoked.status_code == 200, revoked.text
    assert [c["state"] for c in revoked.json()["consents"] if c["scope"] == "train"] == ["revoked"]
    assert (over.status_code, over.json()["code"]) == (422, "consent_over")


def test_figures_hold_no_ids_and_count_by_route(client: Client, person: AddPerson) -> None:
    person("ada", "generate")
    api = client()
    batch = api.post("/v1/batches", json={"items": [{"custom_id": "a", "people": [{"identity": "ada"}]}]}).json()["id"]
    api.get(f"/v1/batches/{batch}")

    text = api.get("/metrics").text

    assert 'route="/v1/batches/{batch_id}",status="200"' in text
    assert 'fpga_open_stages{queue="gpu.generate",state="queued"} 1.0' in text
    assert batch not in text


def test_an_unknown_address_is_a_problem_too(client: Client) -> None:
    found = client().get("/v1/nothing")

    assert (found.status_code, found.json()["code"]) == (404, "not_found")
    assert "default-src 'none'" in found.headers["content-security-policy"]


@pytest.mark.parametrize(
    "path", ["/", "/people", "/v1/batches", "/v1/identities", "/v1/models", "/v1/nothing", "/health/live", "/login"]
)
def test_no_answer_is_kept_by_a_browser(client: Client, path: str) -> None:
    assert "no-store" in client().get(path).headers["cache-control"]


def knock(app: FastAPI, host: str) -> int:
    return TestClient(app, base_url="http://testserver").get("/health/live", headers={"Host": host}).status_code


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:7861", "127.0.0.1:7861", "[::1]:7861", "10.0.0.7", "STUDIO.example.org.", "testserver"],
)
def test_a_server_answers_to_its_own_names_and_to_addresses(settings: Settings, host: str) -> None:
    app = create_app(settings.model_copy(update={"allowed_hosts": "studio.example.org, testserver"}))

    assert knock(app, host) == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "evil.example:7861", "127.0.0.1.evil.example", "[evil]", "", "@"]
)
def test_a_server_answers_to_no_name_of_others_and_copies_it_into_no_link(app: FastAPI, host: str) -> None:
    assert knock(app, host) == 400


def test_every_name_is_let_in_where_an_operator_says_so(settings: Settings) -> None:
    assert knock(create_app(settings.model_copy(update={"allowed_hosts": "*"})), "anything.example") == 200


def test_browsers_are_told_to_stay_with_tls_where_it_is_spoken(app: FastAPI) -> None:
    plain = TestClient(app, base_url="http://testserver").get("/login")
    secure = TestClient(app, base_url="https://testserver").get("/login")

    assert "strict-transport-security" not in plain.headers
    assert secure.headers["strict-transport-security"].startswith("max-age=")
    for name in ("permissions-policy", "cross-origin-opener-policy", "cross-origin-resource-policy", "referrer-policy"):
        assert name in secure.headers


@pytest.mark.parametrize(("peer", "secure"), [("127.0.0.1", True), ("127.0.0.2", False)])
def test_only_a_trusted_proxy_says_that_tls_was_spoken(
    settings: Settings, ledger: Ledger, peer: str, secure: bool
) -> None:
    """A real server and a real connection from each address: cookies and links follow what the trusted one says."""
    with serving(settings) as port:
        token = keys.login_link(ledger, "local", "http://x").partition("token=")[2]
        with socket.create_connection(("127.0.0.1", port), 5, source_address=(peer, 0)) as line:
            asked = f"GET /login?token={token} HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-Proto: https\r\n"
            line.sendall(f"{asked}Connection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: line.recv(65536), b"")).decode()

    cookie = next(one for one in answer.splitlines() if one.lower().startswith("set-cookie"))
    assert ("Secure" in cookie, "strict-transport-security" in answer.lower()) == (secure, secure)


@contextmanager
def serving(settings: Settings) -> Iterator[int]:
    """Run the server as `fpga serve` does, in a thread, on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = uvicorn.Config(
        create_app(settings), host="127.0.0.1", port=port, log_config=None, lifespan="off", ws="none"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield port
    server.should_exit = True
    thread.join(10)
