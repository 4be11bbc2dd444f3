"""On every transport: whatever waits and however long nobody listens, two messages for each live worker are out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery

from orchestrator.ledger.engine import schema
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import claims, outcomes, wakeups, workers
from orchestrator.runtime.broker import Bell, celery_config
from orchestrator.settings import Settings
from tests.integration.ledger.helpers import LEASE, end, submit

QUEUE = "gpu.generate"


@pytest.fixture(params=["filesystem", "redis", "rabbitmq"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    broker = None if request.param == "filesystem" else request.getfixturevalue(f"{request.param}_url")
    return Settings(state_dir=tmp_path / "state", broker_url_=broker)


@pytest.fixture
def broker(settings: Settings) -> Iterator[Celery]:
    app = Celery("test-bell", set_as_current=False)
    app.conf.update(celery_config(settings))
    purge(app)
    yield app
    purge(app)
    app.close()


def purge(app: Celery) -> None:
    with app.connection_for_write() as connection:
        for queue in app.conf.task_queues:
            queue(connection.default_channel).declare()
            connection.default_channel.queue_purge(queue.name)


def waiting(app: Celery) -> int:
    with app.connection_for_read() as connection:
        return int(connection.default_channel.queue_declare(QUEUE, passive=True).message_count)


def test_no_more_than_two_messages_a_worker_are_out_while_a_backlog_falls(broker: Celery, settings: Settings) -> None:
    schema.upgrade(settings.database_url)
    ledger, bell = Ledger(settings.database_url), Bell(settings)
    worker = workers.register(ledger, owner="o", device="cpu", queues=[QUEUE])
    submit(ledger, 60)
    sent = 0

    # the worker is busy with what a message began: it claims on and on, and takes no other message
    while held := claims.claim(ledger, worker_id=worker, queues=[QUEUE], limit=4, lease_seconds=LEASE, begin=True):
        sent += wakeups.ring(ledger, bell.send, ttl_seconds=900)
        assert waiting(broker) == sent <= 2
        assert outcomes.publish_all(ledger, [(c, end) for c in held]) == []
    assert sent == 2

    submit(ledger, 8)
    assert wakeups.ring(ledger, bell.send, ttl_seconds=900) == 0
    with broker.connection_for_read() as connection, connection.SimpleQueue(queue_of(broker)) as queue:
        message = queue.get(timeout=5)
        message.ack()
        wakeups.taken(ledger, message.payload[1]["stage_id"])  # as a worker does when its task begins
    assert wakeups.ring(ledger, bell.send, ttl_seconds=900) == 1
    assert waiting(broker) == 2
    ledger.dispose()


def queue_of(app: Celery) -> object:
    return next(queue for queue in app.conf.task_queues if queue.name == QUEUE)
