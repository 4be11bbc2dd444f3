"""What is done to the broker and its messages: lost, doubled, late, wrong, given out again."""

from __future__ import annotations

import time

from sqlalchemy import func, select

from orchestrator.ledger.tables.rows import Attempt, Stage
from orchestrator.runtime.broker import Bell
from tests.chaos.run import Run


def wiped(run: Run) -> None:
    """The broker forgets everything it holds, while children are killed too."""
    d = run.deployment

    def wipe() -> None:
        d.story.broker_losses += 1
        d.kill_child(run.some_child())
        run.forget()

    run.disturb(wipe)


def broker_restarts(run: Run) -> None:
    """SIGKILL of the broker, a pause, and a start on the same data; items are submitted while it is away."""
    d, broker = run.deployment, run.ground.broker
    assert broker is not None, "a folder cannot be restarted"

    def restart() -> None:
        d.story.broker_losses += 1
        broker.kill()
        began = time.monotonic()
        run.submit(5, 10)
        run.notes["submit while away, s"] = round(time.monotonic() - began, 2)
        time.sleep(run.dice.uniform(0.5, 3))
        broker.start()

    run.disturb(restart)


def messages(run: Run) -> None:
    """Messages that come twice, late, of another version, for work that is done, or never."""
    d = run.deployment
    bell = Bell(d.settings)

    def ring() -> None:
        with d.ledger.read() as session:
            ids = list(session.scalars(select(Stage.id)))
        for stage_id in run.dice.choices(ids, k=20):
            body = {"v": run.dice.choice((1, 1, 1, 99)), "queue": "cpu.io", "stage_id": stage_id}
            bell.send("cpu.io", body)
        run.forget()

    run.disturb(ring)
    for _ in range(10):
        bell.send("cpu.io", {"v": 1, "queue": "cpu.io", "stage_id": 1})


def wedge(run: Run) -> None:
    """One Redis restart with the flags that make a Celery worker deaf afterwards; the ledger is looked at by itself."""
    d, broker = run.deployment, run.ground.broker
    assert broker is not None, "the wedge is one of Redis"
    batch_id = run.submit()
    d.wait(lambda: d.done(batch_id) >= 2, "some are done", 120)
    broker.kill()
    time.sleep(2)
    broker.start()
    began = time.monotonic()
    d.wait_ended(batch_id, 150)
    run.notes["seconds after the restart"] = round(time.monotonic() - began, 1)


def redelivered(run: Run) -> None:
    """The broker gives a message out again while its first taker still works."""
    d = run.deployment
    d.wait_ended(run.submit(), 600)
    with d.ledger.read() as session:
        tries = session.scalar(select(func.count()).select_from(Attempt))
    assert tries == run.submitted, f"{run.submitted} items took {tries} attempts"


def consumer_timeout(run: Run) -> None:
    """Work that takes longer than RabbitMQ lets a consumer sit on a message: it closes the channel meanwhile.

    Celery then ends the worker as soon as its child has finished, and whoever keeps it running starts it again.
    """
    d = run.deployment
    d.wait_ended(run.submit(), 600)
    run.notes["workers ended by it"] = d.logs().count("Unrecoverable error: PreconditionFailed")
    assert run.notes["workers ended by it"], "the broker closed no channel"
    with d.ledger.read() as session:
        tries = session.scalar(select(func.count()).select_from(Attempt))
    assert tries == run.submitted, f"{run.submitted} items took {tries} attempts"
    began = time.monotonic()
    d.wait_ended(run.submit(5, 10), 120)
    run.notes["the next five, s"] = round(time.monotonic() - began, 1)
