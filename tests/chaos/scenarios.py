"""What is done to a deployment while it works, row by row of docs/reliability.md. Every choice is drawn from the seed.

A scenario submits probes, disturbs, and returns when all of them have ended; the runner audits what is left.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from alembic import command
from sqlalchemy import func, select, update

from orchestrator.broker import Bell
from orchestrator.ledger import batches, schema
from orchestrator.ledger.rows import Attempt, Batch, Item, Stage, Worker
from orchestrator.ledger.session import now
from tests.chaos import earlier
from tests.chaos.deployment import Deployment, celery_changes, children
from tests.chaos.ground import PAIRS, Ground
from tests.chaos.sizes import Sizes
from tests.integration.workers.rig import OWNER
from tests.services.rabbitmq import RabbitMQ
from tests.services.redis import Redis
from tests.services.tcp_proxy import CALM, Weather

MOST_GROWTH_MB, MOST_FILES_GAINED = 6.0, 6.0
"""In the last quarter of a soak; one MB a minute where that is more."""

NEWER = "probe_of_tomorrow"
"""The stage that tests.chaos.tomorrow_app knows and today's code does not."""
ITEMS_A_SECOND, AT_ONCE = 1.0, 5
"""Pace of submits over a bad network."""
MOST_IDLE_SECONDS = 90.0


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much work, and how many faults."""

    items: int
    milliseconds: float
    faults: int
    workers: int = 3


@dataclass(kw_only=True)
class Run:
    """One scenario on one ground."""

    deployment: Deployment
    ground: Ground
    dice: random.Random
    size: Size
    submitted: int = 0
    batches: list[str] = field(default_factory=list)
    notes: dict[str, object] = field(default_factory=dict)
    """Figures that only this scenario has."""

    def submit(self, items: int | None = None, milliseconds: float | None = None, **more: object) -> str:
        """Submit probes."""
        count = items or self.size.items
        self.submitted += count
        wait = self.size.milliseconds if milliseconds is None else milliseconds
        self.batches.append(self.deployment.probe(count, wait, name=f"probe-{self.submitted}", **more))
        return self.batches[-1]

    def disturb(self, fault: Callable[[], None], batch_id: str | None = None) -> None:
        """Let faults strike at moments drawn over the whole batch, and wait for its end."""
        d = self.deployment
        batch_id = batch_id or self.submit()
        moments = sorted(self.dice.sample(range(1, self.size.items * 9 // 10), self.size.faults))
        for moment in moments:
            d.wait(lambda: d.done(batch_id) >= moment, f"{moment} items are done", 300)  # noqa: B023 waited for in this turn
            fault()
        d.wait_ended(batch_id, 600)

    def some_child(self) -> int:
        """Return the pid of a computing process."""
        d = self.deployment
        d.wait(lambda: bool(d.ready()), "a worker is ready", 120)
        return self.dice.choice(sorted(d.ready()))


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


def wiped(run: Run) -> None:
    """The broker forgets everything it holds, while children are killed too."""
    d = run.deployment

    def wipe() -> None:
        d.story.broker_losses += 1
        d.kill_child(run.some_child())
        forget(run)

    run.disturb(wipe)


def forget(run: Run) -> None:
    """Take away everything that the broker holds."""
    broker = run.ground.broker
    if isinstance(broker, Redis):
        broker.empty()
    elif isinstance(broker, RabbitMQ):
        broker.forget()
    else:
        for path in (run.deployment.settings.bell_dir / "messages").iterdir():
            path.unlink(missing_ok=True)


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


def database_restarts(run: Run) -> None:
    """PostgreSQL restarted the immediate way, sessions ended by an administrator, connections cut inside commits."""
    d, server, line = run.deployment, run.ground.postgres, run.ground.line
    assert server is not None, "SQLite has no server"
    assert line is not None, "PostgreSQL is reached through a proxy"
    line.cut_commits = 0.02
    terminate = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid != pg_backend_pid() AND usename = 'postgres'"
    )

    def spoil() -> None:
        d.story.database_faults += 1
        if run.dice.random() < 0.4:
            server.kill()
            server.start()
        else:
            server.execute(terminate)

    run.disturb(spoil)
    line.cut_commits = 0.0
    run.notes["connections cut in commits"] = line.cuts


def store_faults(run: Run) -> None:
    """A fifth of all requests to the byte store fail: 500, 503, cut, spoiled, or the answer is lost after success.

    Nothing is spoiled on the way up: unlike a real store, moto keeps what does not have the digest sent along.
    """
    proxy = run.ground.store
    assert proxy is not None, "the store is behind a proxy"
    kinds = (500, 503, "cut", "flip", "lose")
    proxy.rule = lambda _: run.dice.choice(kinds) if run.dice.random() < 0.2 else "pass"  # type: ignore[return-value,arg-type]
    run.deployment.wait_ended(run.submit(), 600)
    proxy.rule = lambda _: "pass"
    run.deployment.story.store_faults = len(proxy.seen)


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
        forget(run)

    run.disturb(ring)
    for _ in range(10):
        bell.send("cpu.io", {"v": 1, "queue": "cpu.io", "stage_id": 1})


def full_disk(run: Run) -> None:
    """The byte store's file system runs full; the batch pauses saying so, and goes on when there is room again."""
    d = run.deployment
    ballast = Path(d.settings.store_url.removeprefix("file://")) / "ballast"
    batch_id = run.submit()
    d.wait(lambda: d.done(batch_id) >= run.size.items // 4, "some are done", 120)
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    d.wait(lambda: d.state(batch_id) == "paused", "the batch is paused", 60)
    with d.ledger.read() as session:
        run.notes["reason"] = batches.get(session, OWNER, batch_id).reason
    ballast.unlink()
    batches.resume(d.ledger, OWNER, batch_id)
    d.wait_ended(batch_id, 300)


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
        if "orchestrator.sweeping" in leaving.command:
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
            forget(run)
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


def bad_network(run: Run) -> None:
    """Database, broker and store answer late or not at all, and connections end, while items come in at a pace.

    A round trip takes 200 ms +- 100; a transaction is ten to thirty pieces of data, so that about one in ten is cut.
    """
    d, lines = run.deployment, run.ground.lines
    longest = 30.0 if run.size.items > 100 else 6.0
    storm = Weather(
        delay=(0.05, 0.15),
        stalls=0.01,
        stall=(0.5, 3.0),
        resets=0.005,
        silences=0.001,
        silence=(1.0, longest),
    )
    for line in lines:
        line.weather = storm
    began, idle = time.monotonic(), Idle()
    while run.submitted < run.size.items or not all(map(d.ended, run.batches)):
        if time.monotonic() - began > run.submitted / ITEMS_A_SECOND and run.submitted < run.size.items:
            run.submit(AT_ONCE)
        idle.look(d)
        assert time.monotonic() - began < 120 + 4 * run.size.items / ITEMS_A_SECOND, "it does not get anywhere"
        time.sleep(0.25)
    for line in lines:
        line.weather = CALM
    run.notes |= {
        "seconds of it": round(time.monotonic() - began),
        "connections reset": sum(line.resets for line in lines),
        "fallen silent": sum(line.silences for line in lines),
        "stalls": sum(line.stalls for line in lines),
        "a worker idle beside waiting work at most, s": round(idle.longest, 1),
    }
    assert idle.longest < MOST_IDLE_SECONDS, f"a worker idled for {idle.longest:.0f} s while work waited"


@dataclass
class Idle:
    """For how long a living worker held nothing while work waited."""

    longest: float = 0.0
    _since: dict[str, float] = field(default_factory=dict)

    def look(self, d: Deployment) -> None:
        """Look at the ledger now."""
        moment, pids = time.monotonic(), set(d.pids())
        with d.ledger.read() as session:
            due = select(Stage.id).join(Batch, Batch.id == Stage.batch_id)
            due = due.where(Stage.state == "queued", Stage.next_at <= now(session), Batch.state == "in_progress")
            waits = session.scalar(due.limit(1)) is not None
            busy = set(session.scalars(select(Stage.worker_id).where(Stage.worker_id.is_not(None))))
            living = {
                row.id for row in session.scalars(select(Worker).where(Worker.state == "ready", Worker.pid.in_(pids)))
            }
        self._since = {one: self._since.get(one, moment) for one in living - busy} if waits else {}
        self.longest = max([self.longest, *(moment - since for since in self._since.values())])


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What is done, which rows it shows, where, and how much of it CI does."""

    do: Callable[[Run], None]
    rows: tuple[str, ...]
    pairs: tuple[str, ...] = PAIRS
    small: Size = Size(items=120, milliseconds=100, faults=4)
    full: Size = Size(items=1000, milliseconds=400, faults=10, workers=4)
    sweepers: int = 1
    s3: bool = False
    lines: bool = False
    """All ways to servers go through proxies, not only the one to PostgreSQL."""
    rabbitmq: dict[str, int] = field(default_factory=dict)
    """Limits of RabbitMQ that are lower than usual, in milliseconds."""
    worker_app: str = "workers"
    options: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()
    """A command that runs the workers."""
    store_bytes: int = 0
    """Size of a file system for the byte store alone."""
    settings: dict[str, str] = field(default_factory=dict)


SCENARIOS = {
    "kills": Scenario(do=kills, rows=("T04", "T05")),
    "frozen": Scenario(
        do=frozen,
        rows=("T07",),
        pairs=PAIRS[:2],
        small=Size(items=100, milliseconds=200, faults=2),
        full=Size(items=300, milliseconds=400, faults=9),
    ),
    "power cuts": Scenario(
        do=power_cuts,
        rows=("T06",),
        small=Size(items=100, milliseconds=100, faults=2),
        full=Size(items=300, milliseconds=200, faults=10),
        pairs=PAIRS[:2],
    ),
    "sweepers": Scenario(
        do=sweepers, rows=("T08", "T09"), pairs=PAIRS[:2], sweepers=2, full=Size(items=500, milliseconds=100, faults=25)
    ),
    "wiped broker": Scenario(
        do=wiped,
        rows=("T12",),
        small=Size(items=100, milliseconds=100, faults=2),
        full=Size(items=1000, milliseconds=200, faults=2, workers=4),
    ),
    "broker restarts": Scenario(
        do=broker_restarts,
        rows=("T11", "T13", "T15"),
        pairs=PAIRS[1:],
        small=Size(items=100, milliseconds=100, faults=1),
        full=Size(items=300, milliseconds=200, faults=4),
    ),
    "database restarts": Scenario(
        do=database_restarts,
        rows=("T23",),
        pairs=PAIRS[1:2],
        small=Size(items=100, milliseconds=100, faults=3),
        full=Size(items=300, milliseconds=200, faults=12),
    ),
    "store faults": Scenario(
        do=store_faults, rows=("T29",), pairs=PAIRS[1:2], s3=True, full=Size(items=500, milliseconds=20, faults=0)
    ),
    "rolling update": Scenario(
        do=rolling_update,
        rows=("T26",),
        pairs=PAIRS[1:],
        sweepers=0,
        small=Size(items=120, milliseconds=200, faults=2, workers=0),
        full=Size(items=400, milliseconds=400, faults=3, workers=0),
    ),
    "newer stage": Scenario(
        do=newer_stage,
        rows=("T26",),
        pairs=PAIRS[:2],
        small=Size(items=40, milliseconds=50, faults=0, workers=0),
        full=Size(items=200, milliseconds=50, faults=0, workers=0),
        settings={"FPGA_TEST_STAGE": NEWER},
    ),
    "bad network": Scenario(
        do=bad_network,
        rows=("T35",),
        pairs=PAIRS[1:],
        s3=True,
        lines=True,
        small=Size(items=10, milliseconds=50, faults=0),
        full=Size(items=240, milliseconds=50, faults=0, workers=6),
        settings={"FPGA_LEASE_SECONDS": "10", "FPGA_HEARTBEAT_SECONDS": "1"},
    ),
    "poison": Scenario(
        do=poison,
        rows=("T18", "T19"),
        pairs=PAIRS[:2],
        small=Size(items=60, milliseconds=20, faults=1),
        full=Size(items=215, milliseconds=50, faults=3, workers=4),
        prefix=("prlimit", "--as=1073741824"),
        settings={"FPGA_MAX_CRASHES": "3", "FPGA_STALL_SECONDS": "8"},
    ),
    "wedge": Scenario(
        do=wedge,
        rows=("T14",),
        pairs=PAIRS[1:2],
        small=Size(items=20, milliseconds=500, faults=0, workers=2),
        full=Size(items=20, milliseconds=2000, faults=0, workers=2),
        worker_app="tests.chaos.changed_app",
        options=("--without-gossip", "--without-mingle"),
        settings=celery_changes(worker_enable_remote_control=False),
    ),
    "redelivered": Scenario(
        do=redelivered,
        rows=("T17",),
        pairs=PAIRS[1:2],
        small=Size(items=4, milliseconds=9000, faults=0, workers=2),
        full=Size(items=8, milliseconds=14000, faults=0, workers=2),
        worker_app="tests.chaos.changed_app",
        settings={"FPGA_GROUP_SIZE": "1"}
        | celery_changes(
            broker_transport_options={
                "visibility_timeout": 4,
                "unacked_restore_interval": 1,
                "unacked_restore_throttle": 1,
            }
        ),
    ),
    "consumer timeout": Scenario(
        do=consumer_timeout,
        rows=("T16",),
        pairs=PAIRS[2:],
        rabbitmq={"consumer_timeout": 30_000, "channel_tick_interval": 5_000},
        small=Size(items=4, milliseconds=40_000, faults=0, workers=2),
        full=Size(items=8, milliseconds=40_000, faults=0, workers=2),
        settings={"FPGA_GROUP_SIZE": "1"},
    ),
    "messages": Scenario(
        do=messages,
        rows=("T12",),
        small=Size(items=100, milliseconds=50, faults=2),
        full=Size(items=500, milliseconds=100, faults=10),
    ),
    "full disk": Scenario(
        do=full_disk,
        rows=("T27",),
        pairs=PAIRS[:1],
        store_bytes=4 << 20,
        full=Size(items=300, milliseconds=50, faults=0),
    ),
    "drained": Scenario(
        do=drained,
        rows=("T32",),
        pairs=PAIRS[:2],
        small=Size(items=100, milliseconds=150, faults=2),
        full=Size(items=200, milliseconds=500, faults=6),
        settings={"FPGA_DRAIN_SECONDS": "2"},
    ),
    "soak": Scenario(
        do=soak,
        rows=("T47",),
        pairs=PAIRS[1:2],
        small=Size(items=400, milliseconds=20, faults=3),
        full=Size(items=20_000, milliseconds=20, faults=40, workers=4),
    ),
}
