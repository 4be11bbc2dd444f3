"""Webhooks against a real receiver: signed, repeated under one id, in order, and never in the way."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

import pytest
from sqlalchemy import update

from orchestrator.errors import UsageError
from orchestrator.ledger import webhooks as rows
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import claims, sweeper
from orchestrator.ledger.queue.batches import NewBatch, NewItem, submit
from orchestrator.ledger.tables.rows_api import Delivery
from orchestrator.runtime import webhooks
from orchestrator.runtime.sweeping import Sweeper
from orchestrator.secrets.vault import Vault
from orchestrator.settings import Settings

Mood = int | Literal["drop", "drip"]


class Receiver:
    """Takes events, or does what `mood` says: answers with a status, drops the line when it has read, or drips."""

    def __init__(self) -> None:
        self.mood: Mood = 204
        self.got: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
                if receiver.mood == "drop":
                    self.close_connection = True
                elif receiver.mood == "drip":
                    self._drip()
                else:
                    self.send_response(receiver.mood)
                    self.send_header("Location", "http://127.0.0.1:1/")
                    self.end_headers()

            def _drip(self) -> None:
                """Send a header that never ends, a letter at a time."""
                with contextlib.suppress(OSError):
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nx-slow: ")
                    while not receiver.away.wait(0.1):
                        self.wfile.write(b"x")

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._handler = Handler
        self._port = 0
        self.away = threading.Event()
        self.open()
        self.url = f"http://127.0.0.1:{self._port}/hook?a=1"

    def open(self) -> None:
        """Listen, at the same address as before."""
        self.away.clear()
        self.server = ThreadingHTTPServer(("127.0.0.1", self._port), self._handler)
        self.server.daemon_threads = True
        self._port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Be away: nobody listens at the address any more."""
        self.away.set()
        self.server.shutdown()
        self.server.server_close()

    def told(self, secret: str) -> list[tuple[str, str, str]]:
        """Return (event id, time of the event, batch) of all that arrived, each signature checked."""
        for headers, body in self.got:
            stamp = int(headers["webhook-timestamp"])
            assert headers["webhook-signature"] == webhooks.sign(secret, headers["webhook-id"], stamp, body)
        bodies = [(headers["webhook-id"], json.loads(body)) for headers, body in self.got]
        return [(event, body["timestamp"], body["data"]["batch_id"]) for event, body in bodies]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def open_settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"webhook_private": True})


def add(ledger: Ledger, settings: Settings, url: str) -> tuple[str, str]:
    made = webhooks.add(ledger, settings, Vault.of(settings), "local", url=url, events=["batch.ended"])
    return made["id"], made["secret"]


def end_a_batch(ledger: Ledger) -> str:
    new = NewBatch(owner="local", kind="generate", name="n", preset="mini", items=[])
    return submit(ledger, new).batch_id


def make_due(ledger: Ledger) -> None:
    with ledger.write() as session:
        session.execute(update(Delivery).values(next_at=datetime.now(UTC) - timedelta(seconds=1)))


def fail_once(ledger: Ledger, settings: Settings, webhook_id: str) -> float:
    """Let a delivery fail, move the clock past its back-off, and return how many seconds that is."""
    before = datetime.now(UTC)
    assert webhooks.deliver(ledger, settings) == 0
    after = datetime.now(UTC)
    with ledger.read() as session:
        failed = max(rows.deliveries(session, webhook_id), key=lambda one: one.tries)
    seconds = min(rows.LONGEST_SECONDS, 5 * 2 ** (failed.tries - 1))
    assert before <= failed.next_at - timedelta(seconds=seconds) <= after
    make_due(ledger)
    return seconds


def wait_for(met: Callable[[], bool]) -> None:
    """Return when it is so, within a minute."""
    until = time.monotonic() + 60
    while not met():
        assert time.monotonic() < until, "it did not happen within a minute"
        time.sleep(0.05)


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
    receiver.mood = 500

    assert webhooks.deliver(ledger, open_settings) == 0
    assert webhooks.deliver(ledger, open_settings) == 0  # not due yet
    receiver.mood = 200
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


def test_every_event_arrives_in_order_through_an_outage_errors_and_lost_answers(
    ledger: Ledger, open_settings: Settings, receiver: Receiver
) -> None:
    """The clock is moved on instead of waited for: ten minutes away, then 500s, then taken without an answer."""
    webhook, secret = add(ledger, open_settings, receiver.url)
    receiver.close()
    ended: list[str] = []
    waited: list[float] = []
    while sum(waited) < 600:
        ended.append(end_a_batch(ledger))
        waited.append(fail_once(ledger, open_settings, webhook))
    receiver.open()
    moods: list[Mood] = [500, 503, "drop", "drop"]
    for mood in moods:
        receiver.mood = mood
        ended.append(end_a_batch(ledger))
        fail_once(ledger, open_settings, webhook)
    receiver.mood = 200

    while webhooks.deliver(ledger, open_settings):
        pass

    told = receiver.told(secret)
    assert list(dict.fromkeys(batch for _, _, batch in told)) == ended, "each at least once, in order"
    assert len({event for event, _, _ in told}) == len(ended), "under one id at every try"
    assert [batch for _, _, batch in told].count(ended[0]) == 5
    assert [moment for _, moment, _ in told] == sorted(moment for _, moment, _ in told)


def test_an_event_that_nobody_takes_is_given_up_after_a_day_and_can_be_sent_again(
    ledger: Ledger, open_settings: Settings, receiver: Receiver
) -> None:
    webhook, _ = add(ledger, open_settings, receiver.url)
    end_a_batch(ledger)
    receiver.mood = 500

    waited = [fail_once(ledger, open_settings, webhook) for _ in range(rows.MOST_TRIES)]
    receiver.mood = 200

    assert webhooks.deliver(ledger, open_settings) == 0
    assert 20 * 3600 < sum(waited[:-1]) < 28 * 3600
    assert rows.replay(ledger, "local", webhook) == 1
    assert webhooks.deliver(ledger, open_settings) == 1
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1


def test_events_follow_a_clock_that_is_turned_back(ledger: Ledger, open_settings: Settings, receiver: Receiver) -> None:
    add(ledger, open_settings, receiver.url)
    end_a_batch(ledger)
    for ahead, taken in ((timedelta(hours=5), 0), (timedelta(days=1), 1)):
        with ledger.write() as session:
            session.execute(update(Delivery).values(next_at=datetime.now(UTC) + ahead))
        sweeper.sweep(ledger, open_settings)
        webhooks.deliver(ledger, open_settings)
        assert len(receiver.got) == taken


def test_a_receiver_that_drips_has_a_moment_and_no_more(
    ledger: Ledger, open_settings: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "WHOLE_SECONDS", 1.0)
    webhook, _ = add(ledger, open_settings, receiver.url)
    end_a_batch(ledger)
    receiver.mood = "drip"

    fail_once(ledger, open_settings, webhook)

    with ledger.read() as session:
        assert "took longer than 1 s" in str(rows.deliveries(session, webhook)[0].error)


def test_a_receiver_that_hangs_delays_no_other_and_no_job(
    ledger: Ledger, open_settings: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "WHOLE_SECONDS", 600.0)
    hanging = Receiver()
    hanging.mood = "drip"
    webhook, _ = add(ledger, open_settings, hanging.url)
    add(ledger, open_settings, receiver.url)
    end_a_batch(ledger)
    stop = threading.Event()
    sweeper = threading.Thread(
        target=Sweeper(open_settings.model_copy(update={"sweep_seconds": 0.1})).run, args=(stop,)
    )
    sweeper.start()
    try:
        wait_for(lambda: len(receiver.got) == 1 and len(hanging.got) == 1)
        item = NewItem(custom_id="a", params={}, params_sha256="a" * 64, seed=0)
        submit(
            ledger,
            NewBatch(owner="local", kind="generate", name="n", preset="mini", first="score", items=[item]),
        )
        claimed = claims.claim(ledger, worker_id="wrk_lost", queues=["cpu.io"], limit=1, lease_seconds=0.1)
        wait_for(lambda: bool(claims.claim(ledger, worker_id="wrk_2", queues=["cpu.io"], limit=1, lease_seconds=60)))
        with ledger.read() as session:
            still = rows.deliveries(session, webhook)[0].tries
    finally:
        stop.set()
        hanging.close()
        sweeper.join()

    assert len(claimed) == 1
    assert still == 0, "it hung all the time"


def test_a_redirect_is_not_followed(ledger: Ledger, open_settings: Settings, receiver: Receiver) -> None:
    add(ledger, open_settings, receiver.url)
    end_a_batch(ledger)
    receiver.mood = 302

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
