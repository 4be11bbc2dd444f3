"""`fpga bench`: what things cost, as ratios that hold on any machine. Networks run in a process of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.common import JsonOption, print_json, read_input, say
from orchestrator.cli.evaluate import PresetOption, measure_in_process

app = typer.Typer(name="bench", help="Measure what things cost.", no_args_is_help=True)
PROGRAM = "fpga_models.lab.speed"


@app.callback()
def bench() -> None:
    """Measure what things cost."""


@app.command()
def model(
    preset: PresetOption = "mini",
    rounds: Annotated[int, typer.Option(min=2, help="Rounds of each comparison.")] = 20,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the networks on a CPU.")] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1")] = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Merged and branch form, identities, DIIR and batching against their alternatives; exit 1 if the run is void."""
    arguments = ["--rounds", str(rounds), "--threads", str(threads), "--device", device]
    measure_in_process(PROGRAM, preset, [*arguments, *(["--json"] if as_json else [])])


@app.command()
def queue(
    redis_url: Annotated[
        str, typer.Option("--redis", help="A Redis server for all systems, such as redis://127.0.0.1:6379.")
    ],
    database: Annotated[
        str | None, typer.Option(help="DATABASE_URL of an empty ledger (default: an SQLite file).")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, systems in turn.")] = 20,
    jobs: Annotated[int, typer.Option(min=8, help="Jobs of a round that do nothing; fewer of the longer ones.")] = 200,
    singles: Annotated[int, typer.Option(min=2, help="Jobs of a round that are sent one at a time.")] = 20,
    backlog: Annotated[int, typer.Option(min=0, help="Jobs of the long backlog; 0 leaves it out.")] = 10_000,
    kills: Annotated[int, typer.Option(min=0, help="SIGKILLs of what computes; 0 leaves them out.")] = 10,
    against: Annotated[str | None, typer.Option(help="Rivals, comma-separated (default: all there are).")] = None,
    as_json: JsonOption = False,
) -> None:
    """What an item costs beside its own work, against other queues on the same Redis (its databases from 0 on).

    With --database, `procrastinate` can be one of them: it queues in PostgreSQL.
    """
    import tempfile

    _needs_a_checkout()
    from benchmarks.queue.measure import Plan, run, table
    from benchmarks.queue.rivals import NAMES

    plan = Plan(rounds=rounds, jobs=jobs, singles=singles, backlog=backlog, kills=kills)
    names = list(NAMES) if against is None else [name for name in against.split(",") if name]
    with tempfile.TemporaryDirectory(prefix="fpga-bench-") as folder:
        report = run(redis_url.rstrip("/"), Path(folder), plan, names=names, database_url=database, say=say)
    print_json(report) if as_json else typer.echo(table(report))


@app.command()
def page(
    report: Annotated[Path, typer.Argument(metavar="FILE", help="What `fpga bench queue --json` printed.")],
) -> None:
    """Print the table of docs/performance.md from a report."""
    import json

    _needs_a_checkout()
    from benchmarks.queue.measure import table

    typer.echo(table(json.loads(read_input(report))))


def _needs_a_checkout() -> None:
    from importlib.util import find_spec

    from orchestrator.errors import UsageError

    if find_spec("benchmarks") is None:
        raise UsageError("rival queues are measured from a checkout of the project, this is an installed package")
