"""`fpga evaluate run|list|compare`: measurements that a worker makes and the ledger keeps, version by version."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.common import FinishError, JsonOption, WaitOption, moment, print_json, print_table, say, services

Model = Annotated[str, typer.Argument(help="Id of a version, or preset@alias such as mini@champion.")]
Suite = Annotated[list[str] | None, typer.Option("--suite", help="identity, restore, swap ...; may be repeated.")]


def run(
    model: Model,
    suite: Suite = None,
    seed: Annotated[int, typer.Option(help="Chooses the held-out people.")] = 0,
    count: Annotated[int, typer.Option(min=1, help="How many scenes.")] = 48,
    dataset: Annotated[str | None, typer.Option(help="Look at the held-out people of this data set.")] = None,
    wait: WaitOption = False,
    as_json: JsonOption = False,
) -> None:
    """Queue a measurement of a version; a worker makes it and the figures are kept."""
    from orchestrator.cli.watch import follow
    from orchestrator.ledger import evaluations as rows
    from orchestrator.models import evaluations

    with services() as s:
        batch_id = evaluations.submit(
            s.ledger,
            owner=s.owner,
            model=model,
            suites=suite or ["held_out" if dataset else "identity"],
            seed=seed,
            count=count,
            dataset=dataset,
        )
        say(f"{batch_id} is queued")
        if not wait:
            return
        ended = follow(s, batch_id, title="evaluation")
        with s.ledger.read() as session:
            found = [rows.as_object(row) for row in rows.of_batch(session, batch_id)]
    if as_json:
        print_json(found)
    else:
        for row in found:
            say(f"{row['id']}: {row['suite']} of {row['model_version_id']}")
    if ended.state != "completed":
        raise FinishError(2)


def list_(
    model: Annotated[str | None, typer.Argument(help="Only of this version.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many of the newest.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List the measurements that were kept, newest first."""
    from orchestrator.models import evaluations

    with services() as s:
        found = evaluations.list_evaluations(s.ledger, model, limit=limit)
    if as_json:
        print_json(found)
        return
    print_table(
        ["id", "version", "suite", "seed", "count", "data set", "measured"],
        [
            (
                e["id"],
                e["model_version_id"],
                e["suite"],
                e["seed"],
                e["count"],
                e["dataset_id"],
                moment(e["created_at"]),
            )
            for e in found
        ],
    )


def compare(
    models: Annotated[list[str], typer.Argument(metavar="MODEL MODEL...", help="Two versions or more.")],
    suite: Annotated[str, typer.Option(help="Which measurement.")] = "identity",
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write table and plots, one HTML file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Put versions side by side on the newest measurement made of all of them alike."""
    from orchestrator.models import evaluations
    from orchestrator.results.comparison import write_comparison

    with services() as s:
        found = evaluations.compare(s.ledger, models, suite=suite)
    if html is not None:
        say(f"written: {write_comparison(html, found)}")
    if as_json:
        print_json(found.as_json())
        return
    if html is None:
        print_table(
            ["figure", *(f"{v['preset']} {v['number']}" for v in found.versions)],
            [(name, *(_cell(cell.value, cell.low, cell.high) for cell in cells)) for name, cells in found.rows.items()],
        )


def _cell(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" + (f" [{low:.3g}, {high:.3g}]" if low is not None and high is not None else "")
