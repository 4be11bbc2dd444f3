"""A world in one process: a clock, a broker, a byte store and a database whose every fault is drawn from one seed.

The code under test is the product's own: worker processes, leases, stages, sweepers and the ledger run as they are,
each as a greenlet that gives way before and after every transaction and every touch of the store. Only one runs at a
time, so an interleaving is a list of choices, and a seed is a replay.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
from greenlet import getcurrent, greenlet  # type: ignore[import-untyped]  # it ships no types
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from orchestrator.errors import FpgaError, StoreUnavailableError, TransientError
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue.claims import Claim
from orchestrator.ledger.tables.rows import ModelVersion
from orchestrator.settings import Settings
from orchestrator.storage.base import Data, Stored
from orchestrator.testing import MemoryBell, MemoryStore
from workers.runtime.lease import Lease
from workers.runtime.publishing import Made, Publisher

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
Image = NDArray[np.uint8]


class Killed(BaseException):
    """Unwinds a process that was killed; whatever it touches on the way out kills it again."""


@dataclass(eq=False)
class Actor:
    """One process of the world: a name, and what it is doing now."""

    name: str
    running: greenlet | None = None
    frozen: bool = False
    dead: bool = False


@dataclass(eq=False)
class World:
    """Clock, dice, faults and the trace of one run."""

    seed: int
    folder: Path
    chance: random.Random = field(init=False)
    seconds: float = 0.0
    """Since the beginning, as a clock that nobody can set; the wall clock is off by `skew`."""
    skew: float = 0.0
    faults: bool = True
    trace: list[str] = field(default_factory=list)
    actors: list[Actor] = field(default_factory=list)
    messages: list[int] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)
    hub: greenlet = field(default_factory=getcurrent)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.settings = Settings(state_dir=self.folder, group_size=3, lease_seconds=30, heartbeat_seconds=5)

    def now(self) -> datetime:
        """The wall clock, which everybody reads."""
        return BEGAN + timedelta(seconds=self.seconds + self.skew)

    def note(self, what: str) -> None:
        """Add a line to the trace."""
        self.trace.append(f"{self.seconds:9.1f}  {what}")

    def me(self) -> Actor | None:
        """The actor that runs now; None in the hub."""
        here = getcurrent()
        return next((actor for actor in self.actors if actor.running is here), None)

    def point(self, what: str) -> None:
        """Give way. A killed actor goes no further than this, ever."""
        actor = self.me()
        if actor is None:
            return
        if not actor.dead:
            self.note(f"{actor.name}: {what}")
            self.hub.switch()
        if actor.dead:
            raise Killed

    def fault(self, share: float) -> bool:
        """Whether a fault strikes here, with this probability; never outside actors, never in the calm at the end."""
        return self.faults and self.me() is not None and self.chance.random() < share

    def spawn(self, actor: Actor, work: Callable[[], object]) -> None:
        """Let an idle actor do something; it runs when it is stepped."""

        def body() -> None:
            try:
                work()
            except (Killed, TransientError):
                pass
            finally:
                actor.running = None

        actor.running = greenlet(body, parent=self.hub)

    def step(self, actor: Actor) -> None:
        """Let an actor run to its next point."""
        assert actor.running is not None, "an idle actor cannot be stepped"
        actor.running.switch()

    def kill(self, actor: Actor) -> None:
        """SIGKILL: the actor does nothing any more."""
        self.note(f"{actor.name}: killed")
        actor.dead = True
        if actor.running is not None:
            actor.running.switch()  # unwinds through its context managers without touching anything


class SimulatedLedger(Ledger):
    """The ledger, giving way around every transaction; a commit's answer may get lost."""

    def __init__(self, world: World, url: str) -> None:
        super().__init__(url, clock=world.now)
        self._world = world

    def wait(self, seconds: float) -> None:
        """Give way instead."""
        self._world.point("waits")

    @contextmanager
    def read(self) -> Iterator[Session]:
        """As the ledger's, after a point."""
        self._world.point("reads")
        with super().read() as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """As the ledger's, between two points."""
        self._world.point("writes")
        if self._world.fault(0.02):
            raise TransientError("the connection was cut before the transaction", code="database_unavailable")
        with super().write() as session:
            yield session
        if self._world.fault(0.02):
            self._world.note("the answer to a commit was lost")
            raise TransientError("the connection was cut after the commit", code="database_unavailable")
        self._world.point("wrote")


class SimulatedStore(MemoryStore):
    """The world's bytes; puts and gets may fail before or after they happened."""

    def __init__(self, world: World) -> None:
        super().__init__(world.objects, clock=world.now)
        self._world = world

    def put(self, key: str, data: Data, *, media_type: str, sha256: str | None = None) -> Stored:
        """Store bytes; with bad luck the store does not answer, before or after it kept them."""
        self._world.point("puts bytes")
        self._may_be_away()
        stored = super().put(key, data, media_type=media_type, sha256=sha256)
        self._world.point("has put bytes")
        self._may_be_away()
        return stored

    def open(self, key: str, *, sha256: str | None = None) -> BinaryIO:
        """Return bytes."""
        self._world.point("gets bytes")
        self._may_be_away()
        return super().open(key, sha256=sha256)

    def delete(self, key: str) -> None:
        """Remove bytes."""
        self._world.point("deletes bytes")
        self._may_be_away()
        super().delete(key)

    def _may_be_away(self) -> None:
        if self._world.fault(0.03):
            raise StoreUnavailableError("the store does not answer")


class SimulatedBell(MemoryBell):
    """A broker that drops, doubles and delays."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def send(self, queue: str, body: dict[str, object]) -> None:
        """Take one hint, or lose it, or take it twice."""
        if self._world.fault(0.1):
            raise TransientError("the broker does not answer", code="broker_unavailable")
        copies = self._world.chance.choice((0, 1, 1, 2)) if self._world.faults else 1
        self._world.messages += [int(str(body["stage_id"]))] * copies


class SimulatedLease(Lease):
    """A lease whose side thread is the scheduler, and whose process does not end ours."""

    gives_up: Callable[[], NoReturn]

    def _give_up(self) -> None:
        self.gives_up()

    def begin(self) -> None:
        """No thread."""

    def _wind_up(self) -> None:
        """No timer either."""


class SimulatedPublisher(Publisher):
    """A publisher whose thread is an actor: while somebody waits for it, others may go on."""

    world: World

    def begin(self) -> None:
        """No thread."""

    @property
    def waiting(self) -> bool:
        """Whether there is something to record and nobody does."""
        return bool(self._waiting) and not self._under_way

    def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self.world.point("waits for its publisher")

    def _together(self, made: Sequence[Made]) -> list[Claim]:
        if len(made) > 1 and self.world.fault(0.1):
            raise TransientError("one of them cannot be recorded", code="artifact_gone")
        return super()._together(made)

    def _each(self, put: Callable[[Made], FpgaError | None], made: Sequence[Made]) -> list[FpgaError | None]:
        return [put(m) for m in made]


class SimulatedEngine:
    """Networks that paint noise in three steps; an item whose prompt is `poison` kills its process."""

    warm: str | None = None
    encoder_sha256 = "0" * 64
    width = 512

    def __init__(self, world: World) -> None:
        self._world = world

    def limit_threads(self) -> None:
        """No torch here."""

    def portraits(self, _: ModelVersion) -> SimulatedEngine:
        """These networks."""
        return self

    def faces(self, _: ModelVersion) -> SimulatedEngine:
        """These networks."""
        return self

    def largest_group(self, *_: object, **__: object) -> int:
        """Everything fits."""
        return 64

    def ran_out(self, *_: object) -> None:
        """Never."""

    def guard(self) -> SimulatedEngine:
        """Nobody is shown, so nobody is asked about."""
        return self

    def profile(self) -> dict[str, str]:
        """Nothing to say."""
        return {}

    def detect(self, _: Image) -> list[object]:
        """No faces: the simulated items ask for none."""
        return []

    def generate(self, requests: Sequence[Any], *, on_step: Callable[[int, int], Sequence[int]]) -> list[Image | None]:
        """Noise: in half of the worlds the same for the same seed, in the others new at each attempt."""
        images: list[Image | None] = [self._noise(request.seed) for request in requests]
        for step in range(1, 4):
            self._world.point(f"denoises, step {step}")
            if any(request.prompt == "poison" for request in requests):
                self._die()
            for index in on_step(step, 3):
                images[index] = None
        return images

    def _noise(self, seed: int) -> Image:
        dice = random.Random(seed) if self._world.seed % 2 else self._world.chance
        return np.frombuffer(dice.randbytes(48), np.uint8).reshape(4, 4, 3).copy()

    def _die(self) -> NoReturn:
        actor = self._world.me()
        assert actor is not None, "networks run in workers"
        self._world.note(f"{actor.name}: killed by poison")
        actor.dead = True
        raise Killed
