"""One face for all systems that are compared: start, send, wait, and what it cost. Ours is the real thing: ledger,
sweeper and a Celery worker as processes of their own, items that store their bytes and are recorded once.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import func, select

from benchmarks import probes
from benchmarks.queue import rivals
from orchestrator.embedded.programs import environment
from orchestrator.errors import TransientError
from orchestrator.ledger.engine import schema
from orchestrator.ledger.engine.session import Ledger, now
from orchestrator.ledger.queue import batches, workers
from orchestrator.ledger.tables.rows import Output
from orchestrator.ledger.views import history
from orchestrator.settings import Settings

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class Mark:
    """When one job began and ended, in seconds of the system's monotonic clock."""

    began: float
    ended: float


def cpu_seconds(pids: Sequence[int]) -> float:
    """Return what these processes and all below them have used."""
    children, used = _processes()
    total, waiting = 0, list(pids)
    while waiting:
        pid = waiting.pop()
        total += used.get(pid, 0)
        waiting += children.get(pid, [])
    return total / TICKS


def _processes() -> tuple[dict[int, list[int]], dict[int, int]]:
    """Return the children of every process, and the ticks that it has used."""
    children: dict[int, list[int]] = {}
    used: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        pid = int(path.parent.name)
        children.setdefault(int(fields[1]), []).append(pid)
        used[pid] = int(fields[11]) + int(fields[12])
    return children, used


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What became of jobs whose worker was killed."""

    lost: int
    doubled: int


class Rival:
    """Another task queue with one worker process."""

    def __init__(self, name: str, url: str, folder: Path) -> None:
        self.name = name
        self._marks = folder / f"{name}.marks"
        self._send = rivals.sender(name, url)
        self._sent = 0
        self._program = [sys.executable, "-m", "benchmarks.queue.rivals", name, url, str(self._marks)]
        self.processes = [self._start()]

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ready(self, seconds: float) -> None:
        """Wait until a first job is done."""
        self.send(1, 0)
        self.wait(1, seconds)

    def send(self, count: int, milliseconds: float) -> float:
        """Send jobs and return how long that took."""
        began = time.monotonic()
        self._first = self._sent
        for _ in range(count):
            self._send(self._sent, milliseconds)
            self._sent += 1
        return time.monotonic() - began

    def wait(self, count: int, seconds: float) -> list[Mark]:
        """Wait for the jobs of the last `send` and return their marks.

        Raises:
            TransientError: they did not all come.
        """
        deadline = time.monotonic() + seconds
        while True:
            found = self._found()
            if len(found) == count:
                return [Mark(began=float(lines[0][1]), ended=float(lines[0][2])) for lines in found.values()]
            if time.monotonic() > deadline:
                raise TransientError(f"{self.name} did {len(found)} of {count} jobs in {seconds:.0f} s")
            time.sleep(0.005 if count < 10 else 0.1)

    def _found(self) -> dict[int, list[list[str]]]:
        """Return what the jobs of the last `send` noted, by number."""
        found: dict[int, list[list[str]]] = {}
        for line in self._marks.read_text().splitlines() if self._marks.exists() else []:
            fields = line.split()
            if int(fields[0]) >= self._first:
                found.setdefault(int(fields[0]), []).append(fields)
        return found

    def done(self) -> int:
        """Return how many jobs of the last `send` have ended."""
        return len(self._found())

    def tally(self, count: int) -> Tally:
        """Return how many of the jobs of the last `send` never ran to their end, and how often one ran again."""
        found = self._found()
        return Tally(lost=count - len(found), doubled=sum(len(lines) - 1 for lines in found.values()))

    def strike(self) -> None:
        """Kill what computes: the children if it has any, which it replaces, or else itself, and start it again."""
        if not _strike_children(self.processes[0].pid):
            self.processes[0].kill()
            self.processes[0].wait()
            self.processes[0] = self._start()

    def statements(self) -> float | None:
        """Return nothing: it has no ledger."""
        return None


def _strike_children(pid: int) -> bool:
    """SIGKILL the children of a process, and return whether it has any."""
    children = _processes()[0].get(pid, [])
    for child in children:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    return bool(children)


class Ours:
    """This system on one machine: a ledger, a sweeper, a worker with probes."""

    name = "fpga"

    def __init__(self, url: str, folder: Path, *, database_url: str | None = None) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._settings = Settings(
            state_dir=folder / "state",
            broker_url_=url,
            database_url_=database_url,
            store_url_=(folder / "state" / "store").absolute().as_uri(),
            probes=True,
            data_keys=SecretStr(Fernet.generate_key().decode()),
            metrics_port=port,
            owner="bench",
            log_level="warning",
        )
        schema.upgrade(self._settings.database_url)
        self._ledger = Ledger.of(self._settings)
        env = environment(self._settings)
        worker = ["celery", "-A", "workers", "worker", "-Q", "cpu.io", "-n", "bench@%h"]
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-m", *program], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            for program in (worker, ["orchestrator.runtime.sweeping"])
        ]

    def ready(self, seconds: float) -> None:
        """Wait until the worker has reported and a first item is done."""
        deadline = time.monotonic() + seconds
        while True:
            with self._ledger.read() as session:
                if any(worker.state == "ready" for worker in workers.living(session, now(session))):
                    break
            if time.monotonic() > deadline:
                raise TransientError(f"no worker was ready within {seconds:.0f} s")
            time.sleep(0.2)
        self.send(1, 0)
        self.wait(1, seconds)

    def send(self, count: int, milliseconds: float) -> float:
        """Submit one batch of so many items and return how long that took; the sweeper wakes the worker."""
        began = time.monotonic()
        self._batch = probes.submit(self._ledger, self._settings, items=count, milliseconds=milliseconds)
        return time.monotonic() - began

    def wait(self, count: int, seconds: float) -> list[Mark]:
        """Wait for the last batch; an item began when it was claimed and ended when its result was recorded."""
        deadline = time.monotonic() + seconds
        while True:
            with self._ledger.read() as session:
                done = batches.counts(session, self._batch)["completed"]
                if done == count:
                    spans = history.spans(session, self._batch)
                    break
            if time.monotonic() > deadline:
                raise TransientError(f"fpga did {done} of {count} items in {seconds:.0f} s")
            time.sleep(0.005 if count < 10 else 0.1)
        ahead = time.time() - time.monotonic()
        return [Mark(began=a.timestamp() - ahead, ended=b.timestamp() - ahead) for a, b in spans]

    def done(self) -> int:
        """Return how many items of the last batch have ended."""
        with self._ledger.read() as session:
            return batches.counts(session, self._batch)["completed"]

    def tally(self, count: int) -> Tally:
        """Return how many items of the last batch have no output, and how many outputs are one too many."""
        with self._ledger.read() as session:
            outputs, items = session.execute(
                select(func.count(), func.count(Output.item_id.distinct())).where(Output.batch_id == self._batch)
            ).one()
        return Tally(lost=count - items, doubled=outputs - items)

    def strike(self) -> None:
        """Kill the worker's computing process, if there is one now; Celery starts another."""
        with self._ledger.read() as session:
            pids = [worker.pid for worker in workers.living(session, now(session))]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def statements(self) -> float | None:
        """Return the statements that the worker has sent to its database so far, or nothing while it starts."""
        try:
            text = httpx.get(f"http://127.0.0.1:{self._settings.metrics_port}/metrics", trust_env=False).text
        except httpx.TransportError:
            return None
        return next(
            float(line.split()[1]) for line in text.splitlines() if line.startswith("fpga_ledger_statements_total")
        )


System = Ours | Rival


def stop(system: System) -> None:
    """End the processes of a system: gently, then at once."""
    for process in system.processes:
        process.terminate()
    for process in system.processes:
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
