"""Runs one scenario on one pair from one seed, audits what is left, and returns the record of it."""

from __future__ import annotations

import contextlib
import os
import random
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.chaos.deployment import Deployment
from tests.chaos.ground import ground
from tests.chaos.oracle import audit
from tests.chaos.records import Record, commit
from tests.chaos.run import Run, Size
from tests.chaos.scenarios import SCENARIOS, Scenario


def run(name: str, pair: str, *, seed: int, size: Size | None = None) -> Record:
    """Return the record of one run; `bad` is empty where everything held."""
    scenario = SCENARIOS[name]
    size = size or scenario.small
    began, load, at = time.monotonic(), os.getloadavg()[0], commit()
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(
            ground(pair, seed=seed, s3=scenario.s3, lines=scenario.lines, rabbitmq=scenario.rabbitmq)
        )
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fpga-chaos-")))
        environment = {**place.environment, **scenario.settings}
        if scenario.store_bytes:
            environment["FPGA_STORE_URL"] = stack.enter_context(
                small_disk(folder / "disk", scenario.store_bytes)
            ).as_uri()
        direct = None
        if place.postgres is not None and place.line is not None:
            direct = environment["DATABASE_URL"].replace(f":{place.line.port}/", f":{place.postgres.port}/")
        d = stack.enter_context(Deployment(folder / "state", environment, direct_url=direct))
        _start(d, scenario, size)
        this = Run(deployment=d, ground=place, dice=random.Random(seed), size=size)
        broken = []
        try:
            scenario.do(this)
            for batch_id in this.batches:
                d.wait_ended(batch_id, 120)
        except AssertionError as error:
            broken.append(str(error)[:2000])
        d.end()
        d.clean()
        found = audit(d.ledger.url, d.store, submitted=this.submitted, kills=d.story.kills)
        logs = d.logs()
        if kept := os.environ.get("FPGA_TEST_KEEP_LOGS"):
            Path(kept).write_text(logs)
    return {
        "scenario": name,
        "rows": list(scenario.rows),
        "pair": pair,
        "seed": seed,
        "commit": at,
        "items": found.items,
        "attempts": found.attempts,
        "kills": len(d.story.kills),
        "freezes": d.story.freezes,
        "broker_losses": d.story.broker_losses,
        "database_faults": d.story.database_faults,
        "store_faults": d.story.store_faults,
        "lost": found.lost,
        "doubled": found.doubled,
        "orphaned": found.orphaned,
        "held": found.held,
        "failed": found.failed,
        "fenced": len(re.findall(r"\bfenced\b", logs)),
        "lost_leases": found.lost_leases,
        "recovery_p50": found.recovery_at(50),
        "recovery_p99": found.recovery_at(99),
        "seconds": round(time.monotonic() - began, 1),
        "load": round(load, 1),
        "notes": this.notes,
        "bad": broken + found.bad,
    }


def _start(d: Deployment, scenario: Scenario, size: Size) -> None:
    for number in range(size.workers):
        command = d.worker_command(number, *scenario.options, app=scenario.worker_app)
        d.add(f"worker-{number}", [*scenario.prefix, *command])
    for number in range(scenario.sweepers):
        d.add_sweeper(number)
    d.wait_ready()


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """Lend a file system of so many bytes in memory; it takes root to mount one."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
