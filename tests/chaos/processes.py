"""What is done to the processes of a deployment: killed, frozen, told to go, replaced by others."""

from __future__ import annotations

import os
import sys
import time

from alembic import command
from sqlalchemy import func, select, update

from orchestrator.ledger.engine import schema
from orchestrator.ledger.tables.rows import Attempt, Item, Stage, Worker
from tests.chaos import earlier
from tests.chaos.deployment import children
from tests.chaos.run import Run
from tests.chaos.sizes import Sizes

MOST_GROWTH_MB, MOST_FILES_GAINED = 6.0, 6.0
"""In the last quarter of a soak; one MB a minute where that is more."""
NEWER = "probe_of_tomorrow"
"""The stage that tests.chaos.tomorrow_app knows and today's code does not."""


def kills(run: Run) -> None:
    """SIGKILL of a computing child or of a whole worker, drawn each time, while the batch runs."""
    d = run.deployment
    shares = []
    batch_ids = [run.submit(run.size.items // 2)]
    began = time.monotonic()
    d.wait_ended(batch_ids[0], 600)
    shares.append(run.size.items // 2 / (time.monotonic() - began))

    def kill() -> None:
        if run.dice.random() < 0.5:
            d.kill_child(run.some_child())
        else:
            d.kill_program(run.dice.choice(d.named("worker")))

    began = time.monotonic()
    run.disturb(kill)
    disturbed = run.size.items / (time.monotonic() - began)
    batch_id = run.submit(run.size.items // 2)
    began = time.monotonic()
    d.wait_ended(batch_id, 600)
    shares.append(run.size.items // 2 / (time.monotonic() - began))
    run.notes["throughput against undisturbed"] = round(disturbed / (sum(shares) / 2), 3)


def frozen(run: Run) -> None:
    """SIGSTOP of a computing child for longer than its lease; it wakes up and tries to publish."""
    d = run.deployment

    def freeze() -> None:
        pid = run.some_child()
        d.freeze(pid)
        time.sleep(2 * d.settings.lease_seconds)
        d.thaw(pid)
        time.sleep(1)  # it tries to publish, and is refused

    run.disturb(freeze)


def power_cuts(run: Run) -> None:
    """SIGKILL of every process at the same time; all of them come back."""
    run.disturb(run.deployment.kill_all)


def sweepers(run: Run) -> None:
    """SIGKILL of sweepers at random beside killed children, while a second one whose clock is wrong sweeps too."""
    d = run.deployment
    if run.ground.postgres is not None:  # with SQLite all processes read one clock
        d.add("sweeper-skewed", [sys.executable, "-m", "tests.chaos.skewed", "120"])

    def kill() -> None:
        d.kill_program(run.dice.choice(d.named("sweeper")))
        d.kill_child(run.some_child())

    run.disturb(kill)


def poison(run: Run) -> None:
    """Items that kill, crash, hang or swell their worker, among good ones."""
    kinds = ("kill", "segfault", "memory", "hang", "hang_in_c")
    places = run.dice.sample(range(run.size.items), run.size.faults * len(kinds))
    disasters = {place: kinds[n % len(kinds)] for n, place in enumerate(places)}
    batch_id = run.submit(disasters=disasters)
    run.deployment.wait_ended(batch_id, 600)
    ends: dict[str, set[str]] = {}
    for item in run.deployment.items(batch_id):
        kind = disasters.get(item.position, "good")
        ends.setdefault(kind, set()).add(f"{item.state} {item.error_code or ''}".strip())
    run.notes["ends"] = {kind: sorted(states) for kind, states in ends.items()}
    assert ends.pop("good") == {"completed"}, ends
    assert ends.pop("memory") == {"failed out_of_memory"}, ends
    assert all(end <= {"held worker_lost", "held worker_stalled"} for end in ends.values()), ends


def drained(run: Run) -> None:
    """SIGTERM to busy workers, one after the other, while others go on."""
    d = run.deployment
    codes = []
    fresh = iter(range(100, 200))

    def replace() -> None:
        kept = run.dice.choice([k for k in d.named("worker") if k.wanted])
        number = next(fresh)
        d.add(f"worker-{number}", d.worker_command(number))
        codes.append(d.stop(kept))

    run.disturb(replace)
    run.notes["exit codes"] = sorted(set(codes))
    assert set(codes) == {0}, f"a drained worker ended with {codes}"


def rolling_update(run: Run) -> None:
    """Earlier programs on their own schema; the migration under them; today's programs beside them, then instead."""
    d, items, tree = run.deployment, run.size.items // 2, run.deployment.settings.state_dir / "earlier"
    run.notes["earlier code"] = earlier.unpack(tree)
    command.downgrade(schema.config(d.ledger.url), "-1")
    for number in range(run.size.faults):
        d.add(f"worker-{number}", d.worker_command(number), folder=tree)
    d.add_sweeper(0, folder=tree)
    d.wait_ready()
    with d.ledger.read() as session:
        old = set(session.scalars(select(Worker.id)))
    begun = earlier.submit(tree, {**os.environ, **d.environment}, items=items, milliseconds=run.size.milliseconds)
    run.batches.append(begun)
    run.submitted += items
    d.wait(lambda: d.done(begun) > 0, "the first items are done", 120)
    schema.upgrade(d.ledger.url)
    run.submit(items)
    codes = set()
    for number, leaving in enumerate([*d.named("worker"), *d.named("sweeper")]):
        if "orchestrator.runtime.sweeping" in leaving.command:
            d.add_sweeper(10)
        else:
            d.add(f"worker-{10 + number}", d.worker_command(10 + number))
        d.wait_ready()
        codes.add(d.stop(leaving))
    for batch_id in run.batches:
        d.wait_ended(batch_id, 300)
    assert codes == {0}, f"a program that was told to go ended with {codes}"
    with d.ledger.read() as session:
        by = list(session.scalars(select(Attempt.worker_id)))
    run.notes["attempts by earlier code"] = sum(worker_id in old for worker_id in by)
    run.notes["attempts by today's"] = sum(worker_id not in old for worker_id in by)
    assert len(by) == run.submitted, f"{run.submitted} items took {len(by)} attempts"


def newer_stage(run: Run) -> None:
    """Half of the items wait for a stage that only a later version knows: today's workers leave them to its own."""
    d = run.deployment
    batch_id = run.submit()
    with d.ledger.write() as session:
        odd = select(Item.id).where(Item.position % 2 == 1)
        session.execute(update(Stage).where(Stage.item_id.in_(odd)).values(name=NEWER))
    for number in range(2):
        d.add(f"worker-{number}", d.worker_command(number))
    d.wait_ready()
    d.wait(lambda: d.done(batch_id) >= run.size.items // 2, "what today's workers know is done", 120)
    time.sleep(3 * d.settings.idle_look_seconds)
    with d.ledger.read() as session:
        touched = session.scalar(select(func.count(Stage.id)).where(Stage.name == NEWER, Stage.token > 0))
    assert not touched, f"{touched} items of a later version were taken by workers that do not know their stage"
    d.add("worker-later", d.worker_command(9, app="tests.chaos.tomorrow_app"))
    d.wait_ended(batch_id, 300)


def soak(run: Run) -> None:
    """Faults of several kinds while many short items pass; what lives through it all must keep its size."""
    d = run.deployment
    spared, *others = d.named("worker")

    def child() -> int | None:
        program = run.dice.choice(others).process
        assert program is not None, "it was started"
        return next((pid for pid in children(program.pid) if pid in d.ready()), None)

    def disturb() -> None:
        kind = run.dice.choice(("child", "worker", "freeze", "wipe"))
        if kind == "worker":
            d.kill_program(run.dice.choice(others))
        elif kind == "wipe":
            d.story.broker_losses += 1
            run.forget()
        elif (pid := child()) is None:  # it is being started again
            pass
        elif kind == "child":
            d.kill_child(pid)
        else:
            d.freeze(pid)
            time.sleep(1.5 * d.settings.lease_seconds)
            d.thaw(pid)

    sizes = Sizes()
    began = time.monotonic()
    with sizes.watched(d.pids, 0.1 if run.size.items < 1000 else 2):
        run.disturb(disturb)
    seconds = time.monotonic() - began
    assert spared.process is not None, "it was started"
    assert spared.process.pid in sizes.seen, "the worker that was spared lives"
    growths = sizes.growths()
    assert growths, "no process was watched for long enough"
    worst, files = max(growth.megabytes for growth in growths), max(growth.files for growth in growths)
    run.notes |= {
        "items a second": round(run.size.items / seconds, 1),
        "processes watched": len(growths),
        "most growth in the last quarter, MB": round(worst, 1),
        "most open files gained in it": files,
    }
    assert worst < max(MOST_GROWTH_MB, seconds / 4 / 60), f"a process grew by {worst:.1f} MB"
    assert files < MOST_FILES_GAINED, f"a process gained {files} open files"
