"""Webhooks against a real receiver: signed, repeated under one id, in order, and never in the way."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from sqlalchemy import update

from orchestrator import webhooks
from orchestrator.errors import UsageError
from orchestrator.ledger import webhooks as rows
from orchestrator.ledger.batches import NewBatch, submit
from orchestrator.ledger.rows_api import Delivery
from orchestrator.ledger.session import Ledger
from orchestrator.settings import Settings
from orchestrator.vault import Vault


class Receiver:
    """Takes events, or answers what `status` says."""

    def __init__(self) -> None:
        self.status = 204
        self.got: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(receiver.status)
                self.send_header("Location", "http://127.0.0.1:1/")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?a=1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def open_settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"webhook_private": True})


def add(ledger: Ledger, settings: Settings, url: str) -> tuple[str, str]:
    made = webhooks.add(ledger, settings, Vault.of(settings), "local", url=url, events=["batch.ended"])
    return made["id"], made["secret"]


def end_a_batch(ledger: Ledger) -> str:
    new = NewBatch(owner="local", kind="generate", name="n", preset="mini", stages=("generate",), items=[])
    return submit(ledger, new).batch_id


def make_due(ledger: Ledger) -> None:
    with ledger.write() as session:
        session.execute(update(Delivery).values(next_at=datetime.now(UTC) - timedelta(seconds=1)))


def test_the_end_of_a_batch_arrives_signed(ledger: Ledger, open_settings: Settings, receiver: Receiver) -> None:
    _, secret = add(ledger, open_settings, receiver.url)
    batch = end_a_batch(ledger)

    assert webhooks.deliver(ledger, open_settings) == 1

    ((headers, body),) = receiver.got
    assert json.loads(body)["data"]["batch_id"] == batch
    stamp = int(headers["webhook-timestamp"])
    assert headers["webhook-signature"] == webhooks.sign(secret, headers["webhook-id"], stamp, body)
    assert abs(stamp - datetime.now(UTC).timestamp()) < 60
    assert webhooks.deliver(ledger, open_settings) == 0


def test_the_signature_is_that_of_the_specification() -> None:
    # the example of the Standard Webhooks reference libraries
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'

    signature = webhooks.sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)

    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_an_event_is_tried_again_under_its_id_and_those_behind_it_wait(
    ledger: Ledger, open_settings: Settings, receiver: Receiver
) -> None:
    add(ledger, open_settings, receiver.url)
    first, second = end_a_batch(ledger), end_a_batch(ledger)
    receiver.status = 500

    assert webhooks.deliver(ledger, open_settings) == 0
    assert webhooks.deliver(ledger, open_settings) == 0  # not due yet
    receiver.status = 200
    make_due(ledger)
    while webhooks.deliver(ledger, open_settings):
        pass

    told = [(headers["webhook-id"], json.loads(body)["data"]["batch_id"]) for headers, body in receiver.got]
    assert [batch for _, batch in told] == [first, first, second]
    assert told[0][0] == told[1][0]


def test_a_dead_receiver_holds_up_no_other(ledger: Ledger, open_settings: Settings, receiver: Receiver) -> None:
    dead, _ = add(ledger, open_settings, "http://127.0.0.1:9/")
    add(ledger, open_settings, receiver.url)
    end_a_batch(ledger)

    webhooks.deliver(ledger, open_settings)

    assert len(receiver.got) == 1
    with ledger.read() as session:
        (waiting,) = rows.deliveries(session, dead)
    assert (waiting.state, waiting.tries) == ("due", 1)
    assert waiting.next_at > datetime.now(UTC)


def test_a_redirect_is_not_followed(ledger: Ledger, open_settings: Settings, receiver: Receiver) -> None:
    add(ledger, open_settings, receiver.url)
    end_a_batch(ledger)
    receiver.status = 302

    assert webhooks.deliver(ledger, open_settings) == 0
    assert len(receiver.got) == 1


def test_what_was_taken_can_be_replayed(ledger: Ledger, open_settings: Settings, receiver: Receiver) -> None:
    webhook, _ = add(ledger, open_settings, receiver.url)
    end_a_batch(ledger)
    webhooks.deliver(ledger, open_settings)

    assert rows.replay(ledger, "local", webhook, receiver.got[0][0]["webhook-id"]) == 1
    webhooks.deliver(ledger, open_settings)

    assert receiver.got[0][0]["webhook-id"] == receiver.got[1][0]["webhook-id"]


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "https://127.0.0.1/",
        "https://10.0.0.8/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[64:ff9b::7f00:1]/",
        "https://169.254.169.254/latest",
        "https://localhost/",
        "https://db.internal/",
        "https://user:word@example.com/",
        "https://0.0.0.0/",
        "ftp://example.com/",
        "https://",
        "https://[/",
    ],
)
def test_an_address_that_is_not_public_https_is_refused(ledger: Ledger, settings: Settings, url: str) -> None:
    with pytest.raises(UsageError):
        add(ledger, settings, url)


def test_a_name_that_leads_to_a_private_address_is_never_connected_to(
    ledger: Ledger, settings: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(ledger, settings, f"https://rebound.example.com:{receiver.server.server_port}/")
    end_a_batch(ledger)
    answers = [(2, 1, 6, "", ("93.184.216.34", 443)), (2, 1, 6, "", ("127.0.0.1", 443))]
    monkeypatch.setattr(webhooks.socket, "getaddrinfo", lambda *_, **__: answers)

    assert webhooks.deliver(ledger, settings) == 0

    assert receiver.got == []
    with ledger.read() as session:
        (webhook,) = rows.listing(session, "local")
        assert "not a public address" in str(rows.deliveries(session, webhook.id)[0].error)


def test_the_secret_of_signatures_is_sealed_in_the_database(ledger: Ledger, settings: Settings) -> None:
    _, secret = add(ledger, settings, "https://example.com/")

    with ledger.read() as session:
        (row,) = rows.listing(session, "local")
    assert secret not in row.secret
