"""`fpga worker`: start one in this terminal, list those that report, and ask them to stop after what they hold."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from orchestrator.cli.common import JsonOption, moment, print_json, print_table, say, services

app = typer.Typer(name="worker", help="Processes that compute.", no_args_is_help=True)
DEFAULT_QUEUES = "gpu.generate,cpu.io"


@app.command()
def run(
    queues: Annotated[str, typer.Option("--queues", "-Q", help="Which queues to serve.")] = DEFAULT_QUEUES,
    name: Annotated[str, typer.Option(help="Celery's name of this worker.")] = "fpga@%h",
) -> None:
    """Become a worker, as `celery -A workers worker -Q QUEUES` does; SIGTERM or Ctrl-C drains it."""
    import os
    import sys

    from orchestrator.errors import UsageError
    from orchestrator.pipelines import QUEUES
    from orchestrator.runtime.running import check_computes_here

    check_computes_here()
    wanted = [queue.strip() for queue in queues.split(",")]
    known = sorted(QUEUES)
    if unknown := [queue for queue in wanted if queue not in known]:
        raise UsageError(f"no queue {unknown[0]!r}; there are {', '.join(known)}", code="bad_queue")
    with services():
        pass  # the database must be there and up to date before a worker looks at it
    command = [sys.executable, "-m", "celery", "-A", "workers", "worker", "-Q", ",".join(wanted), "-n", name]
    os.execv(sys.executable, command)


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """List the workers that reported lately."""
    from orchestrator.ledger.engine.session import now
    from orchestrator.ledger.queue import workers

    with services() as s, s.ledger.read() as session:
        time = now(session)
        found: list[dict[str, Any]] = [
            {
                "id": worker.id,
                "object": "worker",
                "state": worker.state,
                "drain": worker.drain,
                "host": worker.host,
                "pid": worker.pid,
                "device": worker.device,
                "queues": worker.queues,
                "warm": worker.warm,
                "started_at": worker.started_at.isoformat(),
                "heartbeat_seconds": round((time - worker.heartbeat_at).total_seconds(), 1),
            }
            for worker in workers.living(session, time)
        ]
    if as_json:
        print_json(found)
        return
    rows = [
        (
            w["id"],
            f"{w['state']}{' (asked to stop)' if w['drain'] else ''}",
            f"{w['host']}:{w['pid']}",
            w["device"],
            ",".join(w["queues"]),
            f"{w['heartbeat_seconds']:g} s ago",
            moment(w["started_at"]),
        )
        for w in found
    ]
    print_table(["id", "state", "process", "device", "queues", "last sign", "since"], rows)


@app.command()
def drain(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Which workers.")] = None,
    everyone: Annotated[bool, typer.Option("--all", help="All that report.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Ask workers to finish or give back what they hold, and to stop."""
    from orchestrator.errors import NotFoundError, UsageError
    from orchestrator.ledger.engine.session import now
    from orchestrator.ledger.queue import workers

    if bool(ids) == everyone:
        raise UsageError("name workers, or say --all", code="bad_workers")
    with services() as s:
        with s.ledger.read() as session:
            living = [worker.id for worker in workers.living(session, now(session))]
        chosen = living if everyone else [found for found in living if found.startswith(tuple(ids or ()))]
        if not chosen:
            raise NotFoundError("no such worker reports; see `fpga worker list`", code="worker_not_found")
        heard = workers.drain(s.ledger, chosen)
    if as_json:
        print_json({"object": "worker.drain", "workers": chosen, "asked": heard})
    else:
        say(f"{heard} asked to stop after what they hold")
