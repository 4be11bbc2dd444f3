"""Worker processes as the ledger sees them: register, beat, drain, and find the dead of this host at once."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from orchestrator.ledger.engine.base import new_id
from orchestrator.ledger.engine.session import Ledger, now, retrying
from orchestrator.ledger.tables.rows import Worker

OFFLINE_SECONDS = 120.0


def boot_id() -> str:
    """Return the kernel's name for this boot, so that a pid is never mistaken for one of an earlier boot."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else "unknown"


def process_started(pid: int) -> str | None:
    """Return when a process of this host began, in kernel ticks, or None when there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


@retrying
def register(ledger: Ledger, *, owner: str, device: str, queues: Sequence[str]) -> str:
    """Enter this process as a worker and return its id."""
    with ledger.write() as session:
        moment = now(session)
        row = Worker(
            id=new_id("wrk"),
            owner=owner,
            host=socket.gethostname(),
            boot_id=boot_id(),
            pid=os.getpid(),
            pid_started=process_started(os.getpid()) or "unknown",
            device=device,
            queues=list(queues),
            state="starting",
            drain=False,
            started_at=moment,
            heartbeat_at=moment,
        )
        session.add(row)
    return row.id


@retrying
def beat(ledger: Ledger, worker_id: str, *, state: str, warm: str | None = None) -> bool:
    """Say that the worker lives; return whether somebody asked it to drain."""
    with ledger.write() as session:
        row = session.execute(
            update(Worker)
            .where(Worker.id == worker_id)
            .values(heartbeat_at=now(session), state=state, warm=warm)
            .returning(Worker.drain)
        ).first()
        return bool(row and row.drain)


@retrying
def drain(ledger: Ledger, worker_ids: Sequence[str]) -> int:
    """Ask workers to stop after what they hold; return how many heard it."""
    with ledger.write() as session:
        return len(
            session.scalars(
                update(Worker)
                .where(Worker.id.in_(worker_ids), Worker.state != "gone")
                .values(drain=True)
                .returning(Worker.id)
            ).all()
        )


def living(session: Session, moment: datetime) -> Sequence[Worker]:
    """Return the workers that reported lately."""
    return session.scalars(
        select(Worker)
        .where(Worker.state != "gone", Worker.heartbeat_at > moment - timedelta(seconds=OFFLINE_SECONDS))
        .order_by(Worker.started_at)
    ).all()


def dead_of_this_host(session: Session) -> Sequence[str]:
    """Return ids of workers of this host and boot whose process is gone, or was replaced by another of the same pid."""
    rows = session.scalars(
        select(Worker).where(Worker.state != "gone", Worker.host == socket.gethostname(), Worker.boot_id == boot_id())
    ).all()
    return [row.id for row in rows if process_started(row.pid) != row.pid_started]


def mark_gone(session: Session, worker_ids: Sequence[str], moment: datetime) -> None:
    """Note that these workers are no more, and those that have been silent for too long."""
    silent = Worker.heartbeat_at < moment - timedelta(seconds=OFFLINE_SECONDS)
    session.execute(
        update(Worker).where(Worker.state != "gone", Worker.id.in_(worker_ids) | silent).values(state="gone")
    )
