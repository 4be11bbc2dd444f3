"""`fpga schedule`: manifests that run by the clock, as deployments of a Prefect server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.common import (
    MANIFEST_HELP,
    JsonOption,
    moment,
    print_json,
    print_table,
    read_input,
    say,
    services,
)
from orchestrator.cli.options import takes

if TYPE_CHECKING:
    from orchestrator.contracts.portraits import SubmitOptions

app = typer.Typer(name="schedule", help="Manifests that run by the clock.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="Name of the schedule.")]


@takes(app, "portraits:SubmitOptions", without={"growing"})
def add(
    name: Name,
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help=MANIFEST_HELP)],
    cron: Annotated[str, typer.Option(help="When, such as '0 2 * * *' for every night at two.")],
    timezone: Annotated[str, typer.Option(help="By the clock of which place, such as Europe/Berlin.")] = "UTC",
    format: Annotated[str | None, typer.Option("--format", help="jsonl or csv (default: by the ending).")] = None,
    as_json: JsonOption = False,
    *,
    options: SubmitOptions,
) -> None:
    """Keep a manifest and make a batch of it whenever the clock says; two runs for one moment make one batch."""
    from orchestrator.cli.printing import manifest_format
    from orchestrator.errors import ManifestError
    from orchestrator.portraits import submit
    from orchestrator.runtime.prefect import deployments

    data, form = read_input(manifest), manifest_format(manifest, format)
    with services() as s:
        found = submit.dry_run(s.ledger, s.settings, manifest=data, format=form, owner=s.owner, options=options)
        if found.errors and not (options.skip_invalid and found.items):
            raise ManifestError(
                "the manifest is wrong, nothing was scheduled", errors=[error.as_json() for error in found.errors]
            )
        made = deployments.add_schedule(
            s.settings,
            s.store,
            name,
            cron=cron,
            timezone=timezone,
            manifest=data,
            stored={"format": form, "name": name, "owner": s.owner, "options": options.dump()},
        )
    if as_json:
        print_json(made.as_json())
    else:
        say(f"{name} runs {found.items} items at {cron} ({timezone}), next {moment(made.next_run) or 'not known yet'}")


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """List the schedules."""
    from orchestrator.runtime.prefect import deployments

    with services() as s:
        found = [schedule.as_json() for schedule in deployments.list_schedules(s.settings, s.owner)]
    if as_json:
        print_json(found)
        return
    rows = [(f["name"], f["cron"], f["timezone"], "yes" if f["active"] else "no", moment(f["next_run"])) for f in found]
    print_table(["name", "cron", "zone", "active", "next"], rows)


@app.command()
def remove(name: Name, as_json: JsonOption = False) -> None:
    """Remove a schedule; batches that it made stay."""
    from orchestrator.runtime.prefect import deployments

    with services() as s:
        deployments.remove_schedule(s.settings, s.store, s.owner, name)
    if as_json:
        print_json({"object": "schedule.removed", "name": name})
    else:
        say(f"{name} is removed")


@app.command()
def run(name: Name, as_json: JsonOption = False) -> None:
    """Run a schedule once, now."""
    from orchestrator.runtime.prefect import deployments

    with services() as s:
        flow_run_id = deployments.run_now(s.settings, s.owner, name)
    if as_json:
        print_json({"object": "schedule.run", "name": name, "flow_run_id": flow_run_id})
    else:
        say(f"flow run {flow_run_id} is on its way; see `fpga batch list`")
