"""Runs the product against random faults and then checks what must hold whatever happened; a seed is a replay.

python -m tests.chaos.simulation --seed 7          # one run with its trace
python -m tests.chaos.simulation --seeds 0 20000   # many; prints the seeds that failed
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn
from unittest import mock

from sqlalchemy import func, select, text

import orchestrator.ledger.engine.base
import orchestrator.ledger.queue.workers
from orchestrator.errors import ConflictError, FpgaError, TransientError
from orchestrator.ledger import models
from orchestrator.ledger.engine import schema
from orchestrator.ledger.engine.states import BATCH_ENDED, ENDED, LEASED
from orchestrator.ledger.queue import batches
from orchestrator.ledger.tables.rows import Artifact, Attempt, Batch, Item, Output, Stage
from orchestrator.runtime.sweeping import Sweeper
from tests.chaos import records
from tests.chaos.world import (
    Actor,
    Killed,
    SimulatedBell,
    SimulatedEngine,
    SimulatedLease,
    SimulatedLedger,
    SimulatedPublisher,
    SimulatedStore,
    World,
)
from workers.runtime.process import Process

OWNER = "studio"
WORKERS, SWEEPERS = 3, 2
QUEUES = ("gpu.generate", "cpu.io")
CALM_ROUNDS = 100
"""Of seven seconds each: the longest delay of a retry is ten minutes."""
DAY = 25 * 3600.0
WITNESS = """
CREATE TABLE witness (what TEXT);
CREATE TRIGGER an_attempt_ends_once AFTER UPDATE OF outcome ON attempt
WHEN old.outcome IS NOT NULL AND new.outcome IS NOT old.outcome
BEGIN
    INSERT INTO witness VALUES
    ('attempt ' || old.token || ' of stage ' || old.stage_id || ' ended ' || old.outcome || ', then ' || new.outcome);
END;
"""
"""Lets the database tell what went wrong in between, though all may look well at the end."""
SHARED_MEMORY = Path("/dev/shm")
Act = Callable[[], object]


class BrokenPromise(AssertionError):  # noqa: N818 (a finding, not a fault of the simulation)
    """Something that must hold whatever happens did not."""


@dataclass(eq=False)
class Machine(Actor):
    """A worker process: its main thread is the actor, its publishing one is another, and they share their fate."""

    process: Process | None = None
    publishing: Actor = field(default_factory=lambda: Actor("publisher"))


class Simulation:
    """One world, its actors, and the dice that choose who does what next."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ledger = SimulatedLedger(world, f"sqlite:///{world.folder / 'ledger.sqlite3'}")
        self.pids = 1000
        self.alive: dict[int, Machine] = {}
        self.keys: list[str] = []
        self.poison: set[str] = set()

    @contextmanager
    def patched(self) -> Iterator[None]:
        """What nobody hands in: time and dice of new ids, and which processes live; the rest everybody is given."""
        world = self.world

        made: dict[ModuleType, dict[str, Any]] = {
            orchestrator.ledger.engine.base: {
                "time": SimpleNamespace(time_ns=lambda: int(world.seconds * 1e9)),
                "secrets": SimpleNamespace(randbits=random.Random(world.seed).getrandbits),
            },
            orchestrator.ledger.queue.workers: {
                "os": SimpleNamespace(getpid=lambda: self.pids),
                "process_started": lambda pid: "then" if pid in self.alive else None,
            },
        }
        patches = [
            mock.patch.object(module, name, new) for module, names in made.items() for name, new in names.items()
        ]
        for patch in patches:
            patch.start()
        try:
            yield
        finally:
            for patch in patches:
                patch.stop()

    def run(self, steps: int) -> None:
        """Live through `steps` choices, then calm down and check.

        Raises:
            BrokenPromise: something did not hold; the world's trace tells the story.
        """
        self._register_model()
        machines = [self._boot(f"worker {i}") for i in range(WORKERS)]
        self.world.actors = [*machines, *[machine.publishing for machine in machines]]
        self.sweepers = {name: self._sweeper(name) for name in (f"sweeper {i}" for i in range(SWEEPERS))}
        self.world.actors += [Actor(name) for name in self.sweepers]
        self._submit()
        for _ in range(steps):
            self._choose()()
        self._calm()
        self._check()

    def _register_model(self) -> None:
        models.register(
            self.ledger,
            OWNER,
            preset="mini",
            tensor_sha256="0" * 64,
            location=str(self.world.settings.models_dir / "mini"),  # its preset.json is read
            licence="Apache-2.0",
            manifest={"verdict": {"accept": 0.5, "review": 0.3}},
        )

    def _sweeper(self, name: str) -> Sweeper:
        world = self.world
        return Sweeper(
            world.settings,
            holder=name,
            ledger=self.ledger,
            store=SimulatedStore(world),
            bell=SimulatedBell(world),
            clock=lambda: world.seconds,
        )

    def _boot(self, name: str) -> Machine:
        self.pids += 1
        machine = Machine(name, publishing=Actor(f"{name}'s publisher"))
        self.alive[self.pids] = machine
        with mock.patch.object(self.world, "faults", new=False):
            machine.process = Process(
                self.world.settings.model_copy(update={"worker_queues": ",".join(QUEUES)}),
                ledger=self.ledger,
                store=SimulatedStore(self.world),
                engine=SimulatedEngine(self.world),
                bell=SimulatedBell(self.world),
                clock=lambda: self.world.seconds,
                lease=type("LeaseHere", (SimulatedLease,), {"gives_up": staticmethod(self._gives_up)}),
                publisher=type("PublisherHere", (SimulatedPublisher,), {"world": self.world}),
            )
        return machine

    def _choose(self) -> Act:
        """One of the things that may happen now."""
        chance, world = self.world.chance, self.world
        self._let_publish()
        moving = [actor for actor in world.actors if actor.running is not None and not actor.frozen]
        machines = self._machines()
        idle = [actor for actor in self._employable() if not actor.frozen and not actor.dead]
        choices: list[tuple[float, Act]] = [
            (6, self._time_passes),
            (1.5, self._client),
            (0.3, self._jump),
        ]
        if moving:
            choices.append((60, lambda: self._step(chance.choice(moving))))
        if idle:
            choices.append((12, lambda: self._wake(chance.choice(idle))))
        if leases := [actor for actor in machines if self._holds(actor) and not actor.frozen]:
            choices.append((8, lambda: self._look(chance.choice(leases))))
        if alive := [actor for actor in machines if not actor.dead]:
            choices.append((0.8, lambda: self._kill(chance.choice(alive))))
        if busy := [actor for actor in machines if actor.running is not None and not actor.frozen]:
            choices.append((0.5, lambda: self._freeze(chance.choice(busy))))
            choices.append((0.8, lambda: self._outlast(chance.choice(busy))))
        if frozen := [actor for actor in machines if actor.frozen]:
            choices.append((2, lambda: self._thaw(chance.choice(frozen))))
        if dead := [actor for actor in machines if actor.dead]:
            choices.append((4, lambda: self._replace(chance.choice(dead))))
        weights, acts = zip(*choices, strict=True)
        act: Act = chance.choices(acts, weights)[0]
        return act

    def _machines(self) -> list[Machine]:
        return [actor for actor in self.world.actors if isinstance(actor, Machine)]

    def _employable(self) -> list[Actor]:
        """Actors with nothing to do, but publishers, who work when there is something to publish."""
        publishers = [machine.publishing for machine in self._machines()]
        return [actor for actor in self.world.actors if actor.running is None and actor not in publishers]

    def _holds(self, machine: Machine) -> bool:
        return not machine.dead and machine.process is not None and machine.process.lease.held

    def _let_publish(self) -> None:
        """Set publishers to work; what else is handed over before their first step goes into the same round."""
        for machine in self._machines():
            publisher = machine.process.publisher if machine.process else None
            assert isinstance(publisher, SimulatedPublisher)
            if publisher.waiting and machine.publishing.running is None and not machine.dead:
                self.world.spawn(machine.publishing, publisher.round)

    def _step(self, actor: Actor) -> None:
        self.world.seconds += self.world.chance.random() * 0.2
        self.world.step(actor)
        self._bury(actor)

    def _wake(self, actor: Actor) -> None:
        """Give an idle actor something to do: a message if there is one, a look by itself otherwise."""
        if isinstance(actor, Machine):
            number = None
            if self.world.messages and self.world.chance.random() < 0.8:
                number = self.world.messages.pop(self.world.chance.randrange(len(self.world.messages)))
            process = actor.process
            assert process is not None
            self.world.spawn(actor, lambda: process.run(number))
        elif actor.name in self.sweepers:
            self.world.spawn(actor, self.sweepers[actor.name].round)

    def _look(self, machine: Machine) -> None:
        """The lease's side thread looks; it is not interrupted in the middle of its one transaction."""
        assert machine.process is not None
        with suppress(TransientError, Killed):
            machine.process.lease.look()
        self._bury(machine)

    def _gives_up(self) -> NoReturn:
        """A stalled worker ends itself."""
        stalled = self.world.seconds - self.world.settings.stall_seconds
        machine = next(
            m for m in self.alive.values() if m.process and self._holds(m) and m.process.lease._moved < stalled
        )
        self.world.kill(machine)
        raise Killed

    def _kill(self, machine: Machine) -> None:
        self.world.kill(machine)
        self._bury(machine)

    def _bury(self, actor: Actor) -> None:
        if actor.dead and isinstance(actor, Machine):
            if not actor.publishing.dead:
                self.world.kill(actor.publishing)
            self.alive = {pid: machine for pid, machine in self.alive.items() if machine is not actor}

    def _replace(self, machine: Machine) -> None:
        other = self._boot(machine.name)
        for old, new in ((machine, other), (machine.publishing, other.publishing)):
            self.world.actors[self.world.actors.index(old)] = new

    def _freeze(self, machine: Machine) -> None:
        self.world.note(f"{machine.name}: SIGSTOP")
        machine.frozen = machine.publishing.frozen = True

    def _outlast(self, machine: Machine) -> None:
        """A process is paused for longer than its lease; whether others have its work by the time it wakes, is open."""
        self._freeze(machine)
        self.world.seconds += self.world.settings.lease_seconds + 1
        for actor in self._employable():
            if not actor.frozen and not actor.dead:
                self._wake(actor)

    def _thaw(self, machine: Machine) -> None:
        self.world.note(f"{machine.name}: SIGCONT")
        machine.frozen = machine.publishing.frozen = False

    def _time_passes(self) -> None:
        self.world.seconds += self.world.chance.choice((0.5, 2, 6, 20, 45))

    def _jump(self) -> None:
        jump = self.world.chance.choice((3600.0, -3600.0, DAY))
        self.world.note(f"the clock jumps by {jump:.0f} s")
        self.world.skew += jump

    def _client(self) -> None:
        """A client submits, repeats a submit, cancels, pauses or resumes; lost answers are asked for again."""
        act = self.world.chance.choice((self._submit, self._cancel, self._pause, self._resume))
        client = Actor("client")
        self.world.actors.append(client)
        self.world.spawn(client, act)
        while client.running is not None:
            self.world.step(client)
        self.world.actors.remove(client)

    def _submit(self) -> None:
        """Submit a small batch under a key of its own, again and again until there is an answer."""
        key = f"key-{len(self.keys)}"
        self.keys.append(key)
        count = self.world.chance.randint(1, 4)
        poisoned = self.world.chance.random() < 0.15
        if poisoned:
            self.poison.add(f"{key}-0")
        new = batches.NewBatch(
            owner=OWNER,
            kind="generate",
            name=key,
            preset="mini",
            items=[self._item(key, i, poisoned=poisoned and i == 0) for i in range(count)],
            idempotency_key=key,
            request_sha256=hashlib.sha256(key.encode()).hexdigest(),
            flow=False,
        )
        for _ in range(4):
            with suppress(TransientError):
                batches.submit(self.ledger, new)
                if self.world.chance.random() < 0.8:  # or the answer gets lost on its way
                    return

    def _item(self, key: str, number: int, *, poisoned: bool) -> batches.NewItem:
        params: dict[str, Any] = {
            "prompt": "poison" if poisoned else "portrait",
            "people": [],
            "width": 8,
            "height": 8,
            "steps": 3,
            "guidance": 1.0,
            "id_scale": 1.0,
            "control": "landmark",
            "preset": "mini",
        }
        custom_id = f"{key}-{number}"
        digest = hashlib.sha256(custom_id.encode()).hexdigest()
        return batches.NewItem(custom_id=custom_id, params=params, params_sha256=digest, seed=int(digest[:6], 16))

    def _some_batch(self) -> str:
        with self.ledger.read() as session:
            return self.world.chance.choice(sorted(session.scalars(select(Batch.id)).all()) or ["bat_none"])

    def _cancel(self) -> None:
        if self.world.chance.random() < 0.5:
            self._conflicts_are_fine(batches.cancel)

    def _pause(self) -> None:
        self._conflicts_are_fine(batches.pause)

    def _resume(self) -> None:
        self._conflicts_are_fine(batches.resume)

    def _conflicts_are_fine(self, act: Callable[..., object]) -> None:
        with suppress(ConflictError):
            act(self.ledger, OWNER, self._some_batch())

    def _calm(self) -> None:
        """No more faults: everything that was accepted must now come to its end within bounded time."""
        world = self.world
        world.faults = False
        world.note("calm")
        for actor in list(world.actors):
            actor.frozen = False
            if actor.dead and isinstance(actor, Machine):
                self._replace(actor)
        for _ in range(CALM_ROUNDS):
            self._finish_what_runs()
            if self._all_ended():
                break
            world.seconds += 7
            with self.ledger.read() as session:
                paused = session.scalars(select(Batch.id).where(Batch.state == "paused")).all()
            for batch_id in paused:
                batches.resume(self.ledger, OWNER, batch_id)
            for actor in self._employable():
                if actor.dead:
                    assert isinstance(actor, Machine)
                    self._replace(actor)
                else:
                    self._wake(actor)
        else:
            raise BrokenPromise(f"not at rest after {CALM_ROUNDS} rounds without faults")
        for _ in range(2):
            world.seconds += DAY
            for name, sweeper in self.sweepers.items():
                world.note(f"{name}: cleans up")
                sweeper.round()

    def _finish_what_runs(self) -> None:
        for _ in range(100_000):
            self._let_publish()
            moving = [actor for actor in self.world.actors if actor.running is not None]
            if not moving:
                return
            for actor in moving:
                if actor.running is not None:  # its process may have been killed a moment ago
                    self._step(actor)
                if isinstance(actor, Machine) and self._holds(actor):
                    self._look(actor)
        raise BrokenPromise("an actor never comes to an end")

    def _all_ended(self) -> bool:
        with self.ledger.read() as session:
            open_ = session.scalar(select(func.count()).select_from(Batch).where(Batch.state.not_in(BATCH_ENDED)))
        return not open_

    def _check(self) -> None:
        with self.ledger.read() as session:
            items = list(session.scalars(select(Item)))
            stages = list(session.scalars(select(Stage)))
            made = Counter(session.scalars(select(Batch.name)))
            outputs = session.execute(
                select(Output, Artifact).join(Artifact, Artifact.id == Output.artifact_id)
            ).tuples()
            shown = [(output.item_id, output.round, artifact) for output, artifact in outputs]
            live = set(session.scalars(select(Artifact.key).where(Artifact.state == "live")))
            completed = Counter(session.scalars(select(Attempt.stage_id).where(Attempt.outcome == "completed")))
            by_loser = session.scalars(
                select(Stage.id)
                .join(Attempt, Attempt.stage_id == Stage.id)
                .where(Attempt.outcome == "completed", Attempt.token != Stage.token)
            ).all()
            seen = session.scalars(text("SELECT what FROM witness")).all()
            alone_and_lost = Counter(
                session.scalars(
                    select(Attempt.stage_id).where(Attempt.outcome.in_(("lost", "stalled")), Attempt.group_size == 1)
                )
            )
        self._promise(all(count == 1 for count in made.values()), f"one submit, one batch: {made}")
        for item in items:
            self._promise(item.state in ENDED, f"item {item.custom_id} is {item.state} at rest")
            self._promise(item.error_code != FpgaError.code, f"item {item.custom_id}: {item.error_message}")
            if item.custom_id in self.poison:
                self._promise(item.state in ("held", "cancelled"), f"poison {item.custom_id} is {item.state}")
        for stage in stages:
            self._promise(stage.state not in LEASED, f"stage {stage.id} is {stage.state} at rest")
            self._promise(completed[stage.id] <= 1, f"stage {stage.id} completed {completed[stage.id]} times")
            self._promise(stage.crashes <= alone_and_lost[stage.id], f"stage {stage.id} has a strike it did not earn")
        self._promise(not by_loser, f"stages {by_loser} were completed by an attempt that had lost them")
        self._promise(not seen, f"{seen}")
        by_round = Counter((item_id, number) for item_id, number, _ in shown)
        self._promise(all(n == 1 for n in by_round.values()), "one output for each round of an item")
        finished = {item.id for item in items if item.state == "completed"}
        self._promise(finished <= {item_id for item_id, _, _ in shown}, "every completed item has an output")
        for item_id, _, artifact in shown:
            self._promise(artifact.state == "live", f"output of {item_id} refers to a {artifact.state} artifact")
            data = self.world.objects.get(artifact.key, b"")
            self._promise(hashlib.sha256(data).hexdigest() == artifact.sha256, f"bytes of {item_id} are not there")
        self._promise(set(self.world.objects) == live, f"orphans: {set(self.world.objects) - live}")

    def _promise(self, kept: bool, what: str) -> None:
        if not kept:
            raise BrokenPromise(what)


def empty_ledger(folder: Path) -> Path:
    """A migrated database to copy for every run."""
    path = folder / "empty.sqlite3"
    schema.upgrade(f"sqlite:///{path}")
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(WITNESS)
    return path


def simulate(seed: int, template: Path, *, steps: int = 200) -> World:
    """Run one seed; returns its world.

    Raises:
        BrokenPromise: with the seed and the end of the trace in its message.
    """
    base = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=base) as folder:
        shutil.copy(template, Path(folder) / "ledger.sqlite3")
        world = World(seed=seed, folder=Path(folder))
        simulation = Simulation(world)
        try:
            with simulation.patched():
                simulation.run(steps)
        except BrokenPromise as broken:
            raise BrokenPromise("\n".join([f"seed {seed}: {broken}", *world.trace[-40:]])) from broken
        finally:
            simulation.ledger.dispose()
    return world


def _deeds(trace: Sequence[str]) -> Iterator[str]:
    """Name the faults of a trace, to be counted."""
    kinds = {
        "killed": "kills",
        "SIGSTOP": "freezes",
        "answer to a commit": "lost commits",
        "clock jumps": "clock jumps",
    }
    for line in trace:
        yield from (name for words, name in kinds.items() if words in line)


def main() -> int:
    """Command line; exit code 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, help="one run, with its trace")
    parser.add_argument("--seeds", type=int, nargs=2, metavar=("FIRST", "LAST"), default=(0, 100))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--cpu-minutes", type=float, default=float("inf"), help="stop after so much processor time")
    parser.add_argument("--record", action="store_true", help="add what was found to docs/reliability.jsonl")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    failed, done, deeds = [], 0, Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        template = empty_ledger(Path(folder))
        seeds = [options.seed] if options.seed is not None else range(*options.seeds)
        for seed in seeds:
            if time.process_time() > 60 * options.cpu_minutes:
                break
            done += 1
            try:
                world = simulate(seed, template, steps=options.steps)
            except BrokenPromise as broken:
                failed.append(seed)
                sys.stdout.write(f"{broken}\n")
            else:
                deeds.update(_deeds(world.trace))
                if options.seed is not None:
                    sys.stdout.write("\n".join(world.trace) + "\n")
    counted = ", ".join(f"{count} {what}" for what, count in deeds.most_common())
    sentence = f"{done} runs of {options.steps} steps, {len(failed)} broken promises; {counted}"
    sys.stdout.write(f"{sentence} {failed[:20] or ''}\n")
    if options.record:
        minutes = time.process_time() / 60
        told = f"{sentence}; seeds {seeds[0]} to {seeds[done - 1]}, {minutes:.0f} min of one core"
        records.add({"rows": ["T01"], "sentence": told, "commit": records.commit()})
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
