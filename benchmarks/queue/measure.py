"""What is measured of every system, round by round, systems in turn so that a busy machine hits all alike."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.queue import rivals
from benchmarks.queue.systems import Mark, Ours, Rival, System, cpu_seconds, stop

PAUSE_SECONDS = 0.05
STILL_SECONDS = 90.0
"""Jobs that have not moved for so long after a kill count as lost; longer than a lease of ours (60 s)."""
KILLED_MILLISECONDS = 10.0
START_SECONDS = 300.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is measured: jobs in a round, jobs one at a time, the long backlog and the kills (0 leaves them out)."""

    rounds: int = 5
    jobs: int = 200
    singles: int = 20
    backlog: int = 10_000
    kills: int = 10
    milliseconds: tuple[float, ...] = (0, 10, 100)
    limit_seconds: float = 900.0


def run(
    redis_url: str,
    folder: Path,
    plan: Plan,
    *,
    names: Sequence[str] = rivals.NAMES,
    database_url: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure ours and the named rivals on one Redis server and return every figure of every round.

    Raises:
        TransientError: a system did not finish its jobs in the limit.
    """
    load = os.getloadavg()[0]
    with ExitStack() as stack:
        systems: list[System] = [Ours(f"{redis_url}/0", folder, database_url=database_url)]
        stack.callback(stop, systems[0])
        for number, name in enumerate(names, start=1):
            queued_in = (
                f"{redis_url}/{number}" if name in rivals.NAMES else (database_url or "").replace("+psycopg", "")
            )
            systems.append(Rival(name, queued_in, folder))
            stack.callback(stop, systems[-1])
        for system in systems:
            system.ready(START_SECONDS)
            say(f"{system.name} is ready")
        metrics: dict[str, dict[str, list[Any]]] = {system.name: {} for system in systems}
        for number in range(plan.rounds):
            for system in systems if number % 2 == 0 else reversed(systems):
                _round(system, plan, metrics[system.name])
                say(f"round {number + 1} of {plan.rounds}: {system.name}")
        if plan.backlog:
            for system in systems:
                metrics[system.name].update(_backlog(system, plan))
                say(f"backlog of {plan.backlog}: {system.name}")
        if plan.kills:
            for system in systems:
                metrics[system.name].update(_kills(system, plan))
                say(f"{plan.kills} kills: {system.name}")
    return {
        "object": "bench.queue",
        "cores": os.cpu_count(),
        "load_before": round(load, 1),
        "load_after": round(os.getloadavg()[0], 1),
        "database": "postgresql" if database_url else "sqlite",
        "plan": {name: getattr(plan, name) for name in ("rounds", "jobs", "singles", "backlog", "kills")},
        "systems": metrics,
        "summary": {name: _summary(found, metrics.get("celery")) for name, found in metrics.items()},
    }


def _round(system: System, plan: Plan, into: dict[str, list[Any]]) -> None:
    waits = [_single(system, plan) for _ in range(plan.singles)]
    into.setdefault("pickup_idle_seconds", []).extend(waits)
    for milliseconds in plan.milliseconds:
        jobs = max(8, int(plan.jobs / (1 + milliseconds / 10)))
        for name, value in _drain(system, jobs, milliseconds, plan.limit_seconds).items():
            into.setdefault(f"{name}_{milliseconds:g}ms", []).append(value)


def _single(system: System, plan: Plan) -> float:
    """Send one job to an idle worker; return how long it took to be taken, from before the send."""
    time.sleep(PAUSE_SECONDS)
    sent = time.monotonic()
    system.send(1, 0)
    return max(0.0, system.wait(1, plan.limit_seconds)[0].began - sent)


def _drain(system: System, jobs: int, milliseconds: float, limit: float) -> dict[str, float]:
    pids = [process.pid for process in system.processes]
    cpu, said, sent = cpu_seconds(pids), system.statements(), time.monotonic()
    took = system.send(jobs, milliseconds)
    marks = system.wait(jobs, limit)
    wall = _last(marks) - sent
    busy = jobs * milliseconds / 1000
    ends = sorted(mark.ended for mark in marks)
    found = {
        "submit_seconds": took,
        "between_p95_ms": 1000 * quantiles((b - a for a, b in pairwise(ends)), n=20)[18] - milliseconds,
        "overhead_ms": 1000 * (wall - busy) / jobs,
        "cpu_ms": 1000 * (cpu_seconds(pids) - cpu) / jobs,
        "busy": busy / wall,
        "per_second": jobs / wall,
    }
    after = system.statements()
    if said is not None and after is not None:
        found["statements"] = (after - said) / jobs
    return found


def _backlog(system: System, plan: Plan) -> dict[str, list[float]]:
    """Compare the rate with a hundred waiting jobs and with very many; jobs do nothing."""
    few = _drain(system, 100, 0, plan.limit_seconds)
    many = _drain(system, plan.backlog, 0, plan.limit_seconds)
    return {
        "backlog_submit_seconds": [many["submit_seconds"]],
        "backlog_few_per_second": [few["per_second"]],
        "backlog_per_second": [many["per_second"]],
        "backlog_ratio": [many["per_second"] / few["per_second"]],
    }


def _kills(system: System, plan: Plan) -> dict[str, list[float]]:
    """Kill what computes again and again while jobs run; compare the rate before and after, and count what was lost."""
    jobs = 100 * plan.kills
    before = _drain(system, jobs, 0, plan.limit_seconds)
    system.send(jobs, KILLED_MILLISECONDS)
    for kill in range(plan.kills):
        _until(system, jobs * (kill + 1) // (plan.kills + 1))
        system.strike()
    _until(system, jobs)
    tally = system.tally(jobs)
    after = _drain(system, jobs, 0, plan.limit_seconds)
    return {
        "kills_lost": [tally.lost],
        "kills_doubled": [tally.doubled],
        "kills_rate_after": [after["per_second"] / before["per_second"]],
    }


def _until(system: System, count: int) -> None:
    """Wait until so many jobs have ended, or none has for a long time."""
    done, moved = system.done(), time.monotonic()
    while done < count and time.monotonic() - moved < STILL_SECONDS:
        time.sleep(0.05)
        if (found := system.done()) > done:
            done, moved = found, time.monotonic()


def _last(marks: Sequence[Mark]) -> float:
    return max(mark.ended for mark in marks)


def _summary(found: dict[str, list[float]], celery: dict[str, list[float]] | None) -> dict[str, Any]:
    """Return median and range of every figure, and ours against Celery round by round."""
    shown: dict[str, Any] = {}
    for name, values in found.items():
        if name == "pickup_idle_seconds":
            cut = quantiles(values, n=20) if len(values) > 1 else [values[0]] * 19
            shown["pickup_idle_ms"] = {"p50": 1000 * median(values), "p95": 1000 * cut[18]}
        else:
            shown[name] = {"median": median(values), "low": min(values), "high": max(values)}
    if celery:
        both = zip(found["per_second_0ms"], celery["per_second_0ms"], strict=True)
        shown["rate_to_celery"] = median(one / other for one, other in both)
    return shown


def table(report: dict[str, Any]) -> str:
    """Return the report as a Markdown table, one row a system."""
    columns = [
        ("overhead ms wall", "overhead_ms_0ms"),
        ("ms CPU", "cpu_ms_0ms"),
        ("statements", "statements_0ms"),
        ("busy at 10 ms", "busy_10ms"),
        ("busy at 100 ms", "busy_100ms"),
        ("p95 ms between two of 100 ms", "between_p95_ms_100ms"),
        ("submit of the backlog s", "backlog_submit_seconds"),
        ("rate at backlog / at 100", "backlog_ratio"),
        ("lost by kills", "kills_lost"),
        ("doubled", "kills_doubled"),
        ("rate after / before", "kills_rate_after"),
    ]
    head = ["system", "idle pick-up p50 / p95 ms", *(title for title, _ in columns), "rate / Celery"]
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join('---' for _ in head)} |"]
    for name, found in report["summary"].items():
        waits = found["pickup_idle_ms"]
        cells = [name, f"{waits['p50']:.1f} / {waits['p95']:.1f}"]
        cells += [f"{found[key]['median']:.2f}" if key in found else "" for _, key in columns]
        cells.append(f"{found['rate_to_celery']:.2f}" if "rate_to_celery" in found else "")
        lines.append(f"| {' | '.join(cells)} |")
    plan = report["plan"]
    lines += [
        "",
        f"{plan['rounds']} rounds of {plan['jobs']} jobs (fewer of the longer ones), {plan['singles']} single ones, a "
        f"backlog of {plan['backlog']}, {plan.get('kills', 0)} kills; {report['cores']} cores, load "
        f"{report['load_before']} before and {report['load_after']} after; ledger on {report['database']}, Redis as "
        "broker for all but Procrastinate.",
    ]
    return "\n".join(lines) + "\n"
