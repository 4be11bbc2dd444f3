"""How long what is left will take, as a range from measured durations; says so when there is nothing to go by."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestrator.wording import duration

MIN_HISTORY = 3
RECENT = 200
Z90 = 1.2816
"""90 % point of the standard normal distribution."""
OUTLIER = 3.0
"""Durations beyond so many medians count as that much: a first item that waits for weights to load is not the rule."""


@dataclass(frozen=True, kw_only=True)
class StageLoad:
    """What one stage has left and how it has gone so far.

    `durations`: seconds that one item kept a worker busy, oldest first; waiting in the queue is no part of it.
    `workers`: how many serve the stage's queue now; stages of one `queue` share them.
    """

    name: str
    queue: str
    left: int
    durations: Sequence[float]
    workers: int


@dataclass(frozen=True, kw_only=True)
class Eta:
    """Seconds until everything is done: even odds by p50, nine in ten by p90; `samples` of the thinnest history."""

    p50: float
    p90: float
    samples: int


def estimate(stages: Iterable[StageLoad]) -> Eta | None:
    """Return when the last stage will be done, or None where a stage has no history or no worker.

    The time of a queue is the sum over its stages of items times mean, over its workers; its spread is that of the
    items plus the doubt about a mean of few. Queues run side by side, so the slowest one decides [ours].
    """
    queues: dict[str, list[StageLoad]] = {}
    for stage in stages:
        if stage.left > 0:
            queues.setdefault(stage.queue, []).append(stage)
    etas = [_queue(members) for members in queues.values()]
    known = [eta for eta in etas if eta is not None]
    if len(known) < len(etas):
        return None
    if not known:
        return Eta(p50=0.0, p90=0.0, samples=0)
    return Eta(p50=max(e.p50 for e in known), p90=max(e.p90 for e in known), samples=min(e.samples for e in known))


def describe(eta: Eta | None) -> str:
    """Say an estimate in a few words, such as `about 40 s, likely within 55 s`."""
    if eta is None:
        return "no history yet"
    if eta.p90 == 0:
        return "done"
    p50, p90 = duration(max(1, round(eta.p50))), duration(max(1, round(eta.p90)))
    return f"about {p50}" if p50 == p90 else f"about {p50}, likely within {p90}"


def _queue(stages: Sequence[StageLoad]) -> Eta | None:
    if any(len(stage.durations) < MIN_HISTORY or stage.workers < 1 for stage in stages):
        return None
    total = variance = 0.0
    for stage in stages:
        mean, spread, samples = _typical(stage.durations)
        total += stage.left * mean
        variance += spread * (stage.left + stage.left**2 / samples)
    workers = min(stage.workers for stage in stages)
    # the last item of a worker cannot be shared, so no more workers than items help
    workers = min(workers, max(stage.left for stage in stages))
    return Eta(
        p50=total / workers,
        p90=(total + Z90 * math.sqrt(variance)) / workers,
        samples=min(len(stage.durations) for stage in stages),
    )


def _typical(durations: Sequence[float]) -> tuple[float, float, int]:
    """Return mean, variance and number of the recent durations, outliers cut."""
    recent = durations[-RECENT:]
    limit = OUTLIER * statistics.median(recent)
    cut = [min(value, limit) for value in recent]
    return statistics.fmean(cut), statistics.variance(cut), len(cut)
