"""One run of a scenario on one ground: what is submitted, and faults at moments drawn from the seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.chaos.deployment import Deployment
from tests.chaos.ground import Ground
from tests.services.rabbitmq import RabbitMQ
from tests.services.redis import Redis


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

    def forget(self) -> None:
        """Take away everything that the broker holds."""
        broker = self.ground.broker
        if isinstance(broker, Redis):
            broker.empty()
        elif isinstance(broker, RabbitMQ):
            broker.forget()
        else:
            for path in (self.deployment.settings.bell_dir / "messages").iterdir():
                path.unlink(missing_ok=True)
