"""`fpga schedule`: manifests that run by the clock."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from orchestrator.cli.common import (
    MANIFEST_HELP,
    JsonOption,
    Services,
    moment,
    place,
    print_json,
    print_table,
    read_input,
    say,
)
from orchestrator.cli.options import takes

if TYPE_CHECKING:
    from orchestrator.contracts.portraits import SubmitOptions
    from orchestrator.contracts.schedules import ScheduleObject

app = typer.Typer(name="schedule", help="Manifests that run by the clock.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="Name of the schedule.")]
CatchUpOption = Annotated[
    Literal["latest", "all", "none"], typer.Option(help="Times that were missed: run the latest, all, or none of them.")
]
OverlapOption = Annotated[
    Literal["skip", "queue", "allow"],
    typer.Option(help="While the run before is under way: skip this one, run it afterwards, or run both."),
]


@takes(app, "portraits:SubmitOptions", without={"growing"})
def add(
    name: Name,
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help=MANIFEST_HELP)],
    cron: Annotated[str, typer.Option(help="When, in five fields, such as '0 2 * * *' for every night at two.")],
    timezone: Annotated[str, typer.Option(help="By the clock of which place, such as Europe/Berlin.")] = "UTC",
    catch_up: CatchUpOption = "latest",
    overlap: OverlapOption = "skip",
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of another of this name.")] = False,
    format: Annotated[str | None, typer.Option("--format", help="jsonl or csv (default: by the ending).")] = None,
    as_json: JsonOption = False,
    *,
    options: SubmitOptions,
) -> None:
    """Keep a manifest and make a batch of it whenever the clock says; the same again changes nothing."""
    from orchestrator.cli.printing import manifest_format
    from orchestrator.contracts.schedules import ScheduleObject
    from orchestrator.errors import ManifestError
    from orchestrator.portraits import submit
    from orchestrator.runtime import schedules

    data, form = read_input(manifest), manifest_format(manifest, format)
    with place() as s:
        if not isinstance(s, Services):
            asked: dict[str, Any] = {"name": name, "cron": cron, "timezone": timezone, "catch_up": catch_up}
            asked |= {"overlap": overlap, "replace": replace, "manifest": data.decode("utf-8-sig"), "format": form}
            asked |= options.model_dump(mode="json", exclude_defaults=True)
            _added(ScheduleObject.load(s.ask("POST", "/v1/schedules", json=asked)), as_json=as_json)
            return
        found = submit.dry_run(s.ledger, s.settings, manifest=data, format=form, owner=s.owner, options=options)
        if found.errors and not (options.skip_invalid and found.items):
            raise ManifestError(
                "the manifest is wrong, nothing was scheduled", errors=[error.as_json() for error in found.errors]
            )
        for note in found.notes:
            say(f"note: {note}")
        made = schedules.add_portraits(
            s.ledger,
            s.store,
            owner=s.owner,
            name=name,
            timing=schedules.Timing(cron=cron, timezone=timezone, catch_up=catch_up, overlap=overlap),
            manifest=data,
            format=form,
            options=options,
            replace=replace,
        )
    _added(made, as_json=as_json, counted=f" {found.items} items")


def _added(made: ScheduleObject, *, as_json: bool, counted: str = "") -> None:
    if as_json:
        print_json(made.dump())
        return
    runs = "runs" if made.created else "is there already and runs"
    say(f"{made.name} {runs}{counted} at {made.cron} ({made.timezone})")
    for time in made.next_runs:
        say(f"  {moment(time)}")
    if made.under_way:
        say(f"its batch {made.under_way} goes on as it was begun")


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """List the schedules: when each runs next, and what became of the last time."""
    from orchestrator.contracts.schedules import ScheduleObject
    from orchestrator.runtime import parts, schedules

    with place() as s:
        if isinstance(s, Services):
            found = schedules.listing(s.ledger, s.owner)
            for part in parts.down(s.ledger, s.settings):
                say(f"{part.part}: {part.sentence}; {part.fix}")
        else:
            found = [ScheduleObject.load(one) for one in s.ask("GET", "/v1/schedules")["data"]]
    if as_json:
        print_json([one.dump() for one in found])
        return
    print_table(["name", "cron", "zone", "active", "next", "last", "outcome"], [_row(one) for one in found])


def _row(one: ScheduleObject) -> tuple[str, ...]:
    last, active = one.last_run, "yes" if one.active else "no"
    outcome = f"{last.outcome}: {last.message or last.batch_id or ''}" if last else "not yet"
    came = moment(last.due_at) if last else ""
    return one.name, one.cron, one.timezone, active, moment(one.next_run), came, outcome


@app.command()
def remove(name: Name, as_json: JsonOption = False) -> None:
    """Remove a schedule; batches that it made stay, one that is under way goes on."""
    from orchestrator.runtime import schedules

    with place() as s:
        if isinstance(s, Services):
            under_way = schedules.remove(s.ledger, s.store, s.owner, name)
        else:
            kept = [one["last_run"] for one in s.ask("GET", "/v1/schedules")["data"] if one["name"] == name]
            s.ask("DELETE", f"/v1/schedules/{name}")
            made = kept[0]["batch_id"] if kept and kept[0] else None
            under_way = made if made and s.batch(made)["finished_at"] is None else None
    if as_json:
        print_json({"object": "schedule.removed", "name": name, "under_way": under_way})
    else:
        say(f"{name} is removed" + (f"; its batch {under_way} goes on" if under_way else ""))


@app.command()
def run(name: Name, as_json: JsonOption = False) -> None:
    """Make the batch of a schedule once, now, whatever it has under way."""
    from orchestrator.runtime import schedules

    with place() as s:
        if isinstance(s, Services):
            made = schedules.run_now(s.ledger, s.store, s.settings, s.owner, name)
        else:
            made = s.ask("POST", f"/v1/schedules/{name}/run")
    if as_json:
        print_json(made)
    else:
        say(f"{made['batch_id']} is made")
