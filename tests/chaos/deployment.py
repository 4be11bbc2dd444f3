"""A scaled-out deployment to be disturbed: real workers and sweepers as processes that are started again when they end.

What systemd or a container engine would do, `keep` does: whatever dies is back at once. Kills are noted with their
time, so that an audit can tell how long recovery took.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import probes
from orchestrator.ledger.engine.session import Ledger
from orchestrator.runtime.sweeping import remove_expired
from tests.integration.workers.rig import ROOT, Rig

QUICK = {
    "FPGA_PROBES": "true",
    "FPGA_LEASE_SECONDS": "3",
    "FPGA_HEARTBEAT_SECONDS": "0.5",
    "FPGA_SWEEP_SECONDS": "0.5",
    "FPGA_HINT_TTL_SECONDS": "5",
    "FPGA_MAX_CRASHES": "50",  # kills are aimed at workers on purpose here; the poison test has the default
    "FPGA_MAX_FAILURES": "50",
}
"""Settings of a disturbed deployment: times of seconds where production has minutes."""


@dataclass(eq=False)
class Kept:
    """A program that is started again whenever it ends."""

    command: list[str]
    environment: dict[str, str]
    log: Path
    folder: Path
    """Where it runs, and so whose code."""
    process: subprocess.Popen[bytes] | None = None
    wanted: bool = True


@dataclass(frozen=True)
class Kill:
    """A process that was killed, and when."""

    pid: int
    at: float


@dataclass
class Story:
    """What was done to a deployment, and when."""

    kills: list[Kill] = field(default_factory=list)
    freezes: int = 0
    broker_losses: int = 0
    database_faults: int = 0
    store_faults: int = 0


class Deployment(Rig):
    """Workers and sweepers that are kept running until the context is left."""

    def __init__(self, state_dir: Path, environment: dict[str, str], *, direct_url: str | None = None) -> None:
        state_dir.mkdir(mode=0o700, exist_ok=True)  # workers write their logs there, whatever else lies elsewhere
        super().__init__(state_dir, {**QUICK, **environment})
        if direct_url:  # we look at the ledger by a way that nobody spoils
            self.ledger.dispose()
            self.ledger = Ledger(direct_url)
        self.story = Story()
        self.kept: dict[str, Kept] = {}
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    def worker_command(self, number: int, *options: str, app: str = "workers") -> list[str]:
        """Return the command of a worker of the probes' queue."""
        celery = [sys.executable, "-m", "celery", "-A", app, "worker", "-Q", "cpu.io"]
        return [*celery, "-n", f"w{number}@chaos", *options]

    def add(self, name: str, command: list[str], *, folder: Path = ROOT) -> None:
        """Start a program and keep it running; it is of the code that lies in `folder`."""
        environment = {**os.environ, **self.environment, "PYTHONPATH": str(folder)}
        kept = Kept(command, environment, self.settings.state_dir / f"{name}.log", folder)
        self._start(kept)
        with self._lock:
            self.kept[name] = kept

    def add_sweeper(self, number: int, *, folder: Path = ROOT) -> None:
        """Start a sweeper and keep it running."""
        self.add(f"sweeper-{number}", [sys.executable, "-m", "orchestrator.runtime.sweeping"], folder=folder)

    def __enter__(self) -> Deployment:
        self._keeper.start()
        return self

    def wait_ready(self) -> None:
        """Wait until every worker that shall run has reported ready."""
        wanted = [kept for kept in self.named("worker") if kept.wanted]
        self.wait(lambda: len(self.ready()) >= len(wanted), "all workers are ready", 240)

    def __exit__(self, *_: object) -> None:
        self.end()
        self.ledger.dispose()

    def end(self) -> None:
        """Kill every program for good, so that nobody puts bytes behind the cleaner's back."""
        self._over.set()
        self._keeper.join()
        for kept in self.kept.values():
            if kept.process is not None:
                _end_group(kept.process)

    def named(self, kind: str) -> list[Kept]:
        """Return all programs whose name begins so."""
        return [kept for name, kept in self.kept.items() if name.startswith(kind)]

    def pids(self) -> list[int]:
        """Return the pids of all programs and of their children."""
        parents = [kept.process.pid for kept in self.kept.values() if kept.process is not None]
        return [pid for parent in parents for pid in (parent, *children(parent))]

    def ready(self) -> list[int]:
        """Return the pids of computing processes that have reported ready and live."""
        with self.ledger.read() as session:
            rows = session.connection().exec_driver_sql("SELECT pid FROM worker WHERE state = 'ready'").all()
        return [row.pid for row in rows if Path(f"/proc/{row.pid}").exists()]

    def kill_child(self, pid: int) -> None:
        """SIGKILL one computing process; its Celery parent spawns another."""
        self._note(pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def kill_program(self, kept: Kept) -> None:
        """SIGKILL a program with everything below it."""
        process = kept.process
        if process is None or process.poll() is not None:
            return
        for pid in [process.pid, *children(process.pid)]:
            self._note(pid)
        _end_group(process)

    def kill_all(self) -> None:
        """SIGKILL everything at the same time, as a power cut would."""
        with self._lock:
            for kept in self.kept.values():
                self.kill_program(kept)

    def freeze(self, pid: int) -> None:
        """SIGSTOP a computing process."""
        self.story.freezes += 1
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)

    def thaw(self, pid: int) -> None:
        """SIGCONT."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    def stop(self, kept: Kept) -> int:
        """SIGTERM a program for good and return its exit code."""
        kept.wanted = False
        assert kept.process is not None, "it was started"
        kept.process.terminate()
        return kept.process.wait(120)

    def probe(self, items: int, milliseconds: float, **more: object) -> str:
        """Submit probes and return the batch's id."""
        return probes.submit(self.ledger, self.settings, items=items, milliseconds=milliseconds, **more)  # type: ignore[arg-type]  # fields by name

    def done(self, batch_id: str) -> int:
        """Return how many items of a batch have ended well."""
        return self.counts(batch_id).get("completed", 0)

    def clean(self) -> None:
        """Let the cleaner find everything that was reserved and never recorded, as it would a day later."""
        with self.ledger.write() as session:
            session.connection().exec_driver_sql(
                "UPDATE artifact SET expires_at = '2000-01-01 00:00:00' WHERE state = 'pending'"
            )
        while remove_expired(self.ledger, self.store):
            pass
        self.store.sweep_stale(0)

    def logs(self) -> str:
        """Return what all programs wrote."""
        return "\n".join(kept.log.read_text(errors="replace") for kept in self.kept.values() if kept.log.exists())

    def _note(self, pid: int) -> None:
        self.story.kills.append(Kill(pid, time.time()))

    def _keep(self) -> None:
        while not self._over.wait(0.1):
            with self._lock:
                for kept in self.kept.values():
                    if kept.wanted and kept.process is not None and kept.process.poll() is not None:
                        self._start(kept)

    def _start(self, kept: Kept) -> None:
        with kept.log.open("ab") as log:
            kept.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *kept.command],
                cwd=kept.folder,
                env=kept.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def children(pid: int) -> list[int]:
    """Return the pids of a process's children."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def celery_changes(**changes: object) -> dict[str, str]:
    """Return the environment that makes `tests.chaos.changed_app` run with other Celery settings."""
    return {"FPGA_TEST_CELERY": json.dumps(changes)}
