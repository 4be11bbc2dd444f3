"""A small deployment for tests: a state directory, a sweeper in a thread, and real Celery workers as processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from orchestrator.contracts.portraits import SubmitOptions
from orchestrator.ledger.engine import schema
from orchestrator.ledger.engine.session import Ledger, now
from orchestrator.ledger.queue import batches, workers
from orchestrator.ledger.tables.rows import Item, Output
from orchestrator.models import registry
from orchestrator.people import identities
from orchestrator.people.identities import ConsentGiven, NewPerson, Picture
from orchestrator.portraits.submit import submit_portraits
from orchestrator.runtime.sweeping import Sweeper
from orchestrator.settings import load_settings
from orchestrator.storage import open_store

ROOT = Path(__file__).parents[3]
QUEUES = "gpu.generate,gpu.restore,cpu.io"
OWNER = "local"


class Rig:
    """The deployment; leave the context and everything is gone."""

    def __init__(self, state_dir: Path, environment: dict[str, str] | None = None, **changes: object) -> None:
        self.environment = {
            "FPGA_STATE_DIR": str(state_dir),
            "FPGA_LEASE_SECONDS": "6",
            "FPGA_HEARTBEAT_SECONDS": "1",
            "FPGA_SWEEP_SECONDS": "0.3",
            "FPGA_IDLE_LOOK_SECONDS": "1",
            "FPGA_HINT_TTL_SECONDS": "3",
            "FPGA_GROUP_SIZE": "4",
            "FPGA_TORCH_THREADS": "1",
            "FPGA_BACKOFF_BASE_SECONDS": "0.5",
            "FPGA_OWNER": OWNER,
            "FPGA_WORKER_QUEUES": QUEUES,  # for a worker inside the test's process; Celery's parent sets its child's
            "FPGA_DATA_KEYS": "b25seS1mb3ItdGVzdHMtb25seS1mb3ItdGVzdHMtMzI=",
            **{f"FPGA_{name.upper()}": str(value) for name, value in changes.items()},
            **(environment or {}),
        }
        self.processes: list[subprocess.Popen[bytes]] = []
        self._stop = threading.Event()
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment.items():
                patch.setenv(name, value)
            self.settings = load_settings()
            schema.upgrade(self.settings.database_url)
            self.ledger = Ledger(self.settings.database_url)
            self.store = open_store(self.settings)
            registry.ensure_registered(self.ledger, self.settings)
            sweeper = Sweeper(self.settings)
        self._sweeper = threading.Thread(target=sweeper.run, args=(self._stop,), daemon=True)

    def __enter__(self) -> Rig:
        self._sweeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        self._sweeper.join(10)
        self.ledger.dispose()

    def start_worker(self, *, ready: bool = True, queues: str = QUEUES, **changes: str) -> subprocess.Popen[bytes]:
        """Start `celery -A workers worker` in a process group of its own and wait until it reports ready."""
        log = (Path(self.settings.state_dir) / f"worker-{len(self.processes)}.log").open("wb")
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "celery",
                "-A",
                "workers",
                "worker",
                "-Q",
                queues,
                "-n",
                f"w{len(self.processes)}@test",
            ],
            cwd=ROOT,
            env={**os.environ, **self.environment, **changes},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.processes.append(process)
        if ready:
            before = time.time()
            self.wait(lambda: self._ready_since(before), "a worker is ready", 240)
        return process

    def _ready_since(self, moment: float) -> bool:
        with self.ledger.read() as session:
            return any(
                worker.state == "ready" and worker.started_at.timestamp() >= moment - 1
                for worker in workers.living(session, now(session))
            )

    def fpga(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command line against this deployment."""
        return subprocess.run(
            [sys.executable, "-m", "orchestrator.cli.app", *arguments],
            cwd=ROOT,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    def logs(self) -> str:
        """Return what all workers wrote."""
        paths = sorted(Path(self.settings.state_dir).glob("worker-*.log"))
        return "\n".join(path.read_text(errors="replace") for path in paths)

    def wait(self, until: Callable[[], bool], what: str, seconds: float) -> None:
        """Wait until something holds, or fail saying what did not."""
        deadline = time.monotonic() + seconds
        while not until():
            dead = [process.pid for process in self.processes if (process.poll() or 0) > 0]
            assert not dead, f"a worker ended by itself while waiting until {what}\n{self.logs()[-3000:]}"
            assert time.monotonic() < deadline, f"waited {seconds} s in vain until {what}\n{self.logs()[-3000:]}"
            time.sleep(0.1)

    def enrol(self, *handles: str) -> list[identities.Enrolled]:
        """Add people of the examples to the library, through a worker."""
        folder = ROOT / "examples" / "people"
        return self.add({h: [path.read_bytes() for path in sorted((folder / h).glob("*.png"))] for h in handles})

    def add(self, people: dict[str, list[bytes]], scopes: tuple[str, ...] = ("generate",)) -> list[identities.Enrolled]:
        """Add people by their reference pictures to the library, through a worker."""
        new = [
            NewPerson(
                handle=handle,
                pictures=tuple(Picture(name=f"{number}.png", data=data) for number, data in enumerate(pictures)),
                consent=ConsentGiven(scopes=scopes, granted_by="test"),
            )
            for handle, pictures in people.items()
        ]
        batch_id = identities.add(self.ledger, self.store, self.settings, new, owner=OWNER)
        return identities.wait_enrolled(self.ledger, OWNER, batch_id, timeout_seconds=240)

    def submit(self, rows: list[str], **options: Any) -> str:
        """Submit JSONL rows and return the batch's id."""
        return submit_portraits(
            self.ledger,
            self.settings,
            manifest="\n".join(rows).encode(),
            format="jsonl",
            name="test",
            owner=OWNER,
            options=SubmitOptions.asked(**options),
        ).batch_id

    def state(self, batch_id: str) -> str:
        """Return the state of a batch."""
        with self.ledger.read() as session:
            return batches.get(session, OWNER, batch_id).state

    def counts(self, batch_id: str) -> dict[str, int]:
        """Return the number of items in every state."""
        with self.ledger.read() as session:
            return batches.counts(session, batch_id)

    def ended(self, batch_id: str) -> bool:
        """Say whether a batch has ended."""
        return self.state(batch_id) in ("completed", "completed_with_errors", "failed", "cancelled")

    def wait_ended(self, batch_id: str, seconds: float = 240) -> str:
        """Wait until a batch has ended and return how."""
        self.wait(lambda: self.ended(batch_id), f"batch {batch_id} has ended", seconds)
        return self.state(batch_id)

    def items(self, batch_id: str) -> list[Item]:
        """Return the items of a batch."""
        with self.ledger.read() as session:
            return list(batches.items(session, batch_id))

    def outputs(self, batch_id: str) -> list[Output]:
        """Return every output that was recorded for a batch."""
        with self.ledger.read() as session:
            return list(session.scalars(select(Output).where(Output.batch_id == batch_id)))
