"""`fpga train`: retrain a preset on a data set, follow it, stop and go on, and do it by the clock."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.common import (
    FinishError,
    JsonOption,
    Place,
    Services,
    WaitOption,
    YesOption,
    confirm,
    moment,
    place,
    print_facts,
    print_json,
    print_lines,
    print_table,
    say,
    services,
)
from orchestrator.cli.model import say_decision

if TYPE_CHECKING:
    from orchestrator.models.training import Recipe

app = typer.Typer(name="train", help="Retrain a preset on a data set, tracked to the gate.", no_args_is_help=True)
RunId = Annotated[str, typer.Argument(metavar="RUN", help="Id of a run; a unique beginning is enough.")]
DatasetOption = Annotated[str, typer.Option(help="Data set: a name for its newest version, NAME@3, or a version's id.")]
StepsOption = Annotated[int, typer.Option(min=1, help="Training steps of both stages together.")]
PresetOption = Annotated[str, typer.Option(help="Which preset.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Decides every random choice.")]
StartOption = Annotated[str, typer.Option("--from", help="Alias or id of the version whose weights it begins from.")]
BatchOption = Annotated[int, typer.Option(min=1, help="Samples of an update.")]
SaveOption = Annotated[int, typer.Option(min=1, help="A checkpoint every so many steps.")]
SampleOption = Annotated[int, typer.Option(min=1, help="Measure and draw every so many steps.")]
GateOption = Annotated[Path | None, typer.Option(help="Rule file of the gate (default: the one that comes along).")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="FIELD=JSON", help="A further field of the trainer's plan.")
]
PromoteOption = Annotated[
    bool,
    typer.Option(
        "--promote/--no-promote",
        help="Passing the gate makes it champion; else it is candidate until somebody promotes it.",
    ),
]
INTERRUPTED = 130
RUNS = "/v1/training-runs"
DECIDED_SECONDS = 30.0
"""So long a server's sweeper may take to ask the gate."""
ENDED = ("completed", "completed_with_errors", "failed", "cancelled")


@app.command()
def run(
    dataset: DatasetOption,
    steps: StepsOption,
    preset: PresetOption = "mini",
    name: Annotated[str, typer.Option(help="What to call it.")] = "",
    seed: SeedOption = 0,
    start: StartOption = "champion",
    batch_size: BatchOption = 48,
    save_every: SaveOption = 200,
    validate_every: SampleOption = 200,
    gate: GateOption = None,
    promote: PromoteOption = False,
    settings: SetOption = None,
    idempotency_key: Annotated[str | None, typer.Option(help="The same key makes one run only.")] = None,
    paused: Annotated[bool, typer.Option("--paused", help="Do not start it yet; see resume.")] = False,
    wait: WaitOption = False,
    as_json: JsonOption = False,
) -> None:
    """Queue a run: train, measure, gate, promote; a worker on the queue gpu.train does it."""
    from orchestrator.models import training

    recipe = _recipe(
        dataset, steps, preset, name, seed, start, batch_size, save_every, validate_every, gate, promote, settings
    )
    with place() as s:
        if isinstance(s, Services):
            made = training.submit(
                s.ledger, s.settings, recipe, owner=s.owner, idempotency_key=idempotency_key, paused=paused
            )
            run_id = made.run_id
            say(f"{run_id} {'had been made by an earlier request' if made.repeated else 'is queued'}")
        else:
            headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
            asked = {"recipe": recipe.model_dump(mode="json"), "paused": paused}
            run_id = s.ask("POST", RUNS, json=asked, headers=headers)["id"]
            say(f"{run_id} is queued")
        if wait:
            _follow(s, run_id, as_json=as_json)
            return
        _tell(_shown(s, run_id), as_json=as_json)


@app.command()
def schedule(
    name: Annotated[str, typer.Argument(help="Name of the schedule.")],
    dataset: DatasetOption,
    steps: StepsOption,
    cron: Annotated[str, typer.Option(help="When, such as '0 3 * * 6' for every Saturday at three.")],
    timezone: Annotated[str, typer.Option(help="By the clock of which place, such as Europe/Berlin.")] = "UTC",
    preset: PresetOption = "mini",
    seed: SeedOption = 0,
    start: StartOption = "champion",
    batch_size: BatchOption = 48,
    save_every: SaveOption = 200,
    validate_every: SampleOption = 200,
    gate: GateOption = None,
    promote: PromoteOption = False,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Retrain by the clock on whatever is the newest version of the data set then."""
    from orchestrator.runtime import schedules as service

    recipe = _recipe(
        dataset, steps, preset, name, seed, start, batch_size, save_every, validate_every, gate, promote, settings
    )
    with services() as s:
        timing = service.Timing(cron=cron, timezone=timezone)
        made = service.add_training(s.ledger, owner=s.owner, name=name, timing=timing, recipe=recipe)
    if as_json:
        print_json(made.dump())
    else:
        say(f"{made.name} retrains {recipe.preset} on {recipe.dataset}: {made.cron} ({made.timezone})")


@app.command()
def schedules(as_json: JsonOption = False) -> None:
    """List what retrains by the clock."""
    from orchestrator.contracts.schedules import ScheduledTraining
    from orchestrator.runtime import schedules as service

    with services() as s:
        found = service.listing(s.ledger, s.owner, service.TRAINING)
    if as_json:
        print_json([one.dump() for one in found])
        return
    print_table(
        ["name", "cron", "zone", "data set", "steps", "next", "last"],
        [
            (
                *(one.name, one.cron, one.timezone),
                *(ScheduledTraining.load(one.task).recipe.get(name) for name in ("dataset", "steps")),
                *(moment(one.next_run), one.last_run.message or one.last_run.outcome if one.last_run else "not yet"),
            )
            for one in found
        ],
    )


@app.command()
def unschedule(name: Annotated[str, typer.Argument(help="Name of the schedule.")], yes: YesOption = False) -> None:
    """Remove a schedule; runs it began stay."""
    from orchestrator.runtime import schedules as service

    confirm(f"Remove the training schedule {name}?", yes=yes)
    with services() as s:
        service.remove(s.ledger, s.store, s.owner, name, service.TRAINING)
    say(f"{name} is removed")


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many of the newest.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List the newest runs."""
    from orchestrator.models import training

    with place() as s:
        found = (
            training.list_runs(s.ledger, s.owner, limit=limit)
            if isinstance(s, Services)
            else list(s.rows(RUNS, most=limit))
        )
    if as_json:
        print_json(found)
        return
    print_table(
        ["id", "name", "state", "step", "loss", "version", "begun"],
        [
            (
                r["id"],
                r["name"],
                r["state"],
                f"{r['step']}/{r['steps']}",
                r["loss"],
                r["model_version_id"],
                moment(r["created_at"]),
            )
            for r in found
        ],
    )


@app.command()
def show(run_id: RunId, as_json: JsonOption = False) -> None:
    """Show a run: plan, every attempt with how it ended, checkpoints, figures, and what the gate decided."""
    with place() as s:
        _tell(_shown(s, run_id), as_json=as_json)


@app.command()
def watch(run_id: RunId, as_json: JsonOption = False) -> None:
    """Follow a run until it has ended; exit 2 if it failed or the gate refused it. Ctrl-C leaves it running."""
    with place() as s:
        _follow(s, run_id, as_json=as_json)


@app.command()
def pause(run_id: RunId, as_json: JsonOption = False) -> None:
    """Stop a run at its next step, which it saves."""
    from orchestrator.models import training

    with place() as s:
        found = (
            training.pause(s.ledger, s.owner, run_id)
            if isinstance(s, Services)
            else s.ask("POST", f"{RUNS}/{run_id}/pause")
        )
        _tell(found, as_json=as_json)


@app.command()
def resume(run_id: RunId, as_json: JsonOption = False) -> None:
    """Let a paused, failed or cancelled run go on from its last checkpoint."""
    from orchestrator.models import training

    with place() as s:
        found = (
            training.resume(s.ledger, s.owner, run_id)
            if isinstance(s, Services)
            else s.ask("POST", f"{RUNS}/{run_id}/resume")
        )
        _tell(found, as_json=as_json)


@app.command()
def cancel(run_id: RunId, yes: YesOption = False, as_json: JsonOption = False) -> None:
    """Cancel a run; its last checkpoint stays."""
    from orchestrator.models import training

    confirm(f"Cancel {run_id}?", yes=yes)
    with place() as s:
        found = (
            training.cancel(s.ledger, s.owner, run_id)
            if isinstance(s, Services)
            else s.ask("POST", f"{RUNS}/{run_id}/cancel")
        )
        _tell(found, as_json=as_json)


def _recipe(
    dataset: str,
    steps: int,
    preset: str,
    name: str,
    seed: int,
    start: str,
    batch_size: int,
    save_every: int,
    validate_every: int,
    gate: Path | None,
    promote: bool,
    settings: list[str] | None,
) -> Recipe:
    from orchestrator.models.gate import read_rules
    from orchestrator.models.training import read_recipe

    rules = read_rules(gate).model_dump(mode="json") if gate else {}
    return read_recipe(
        {
            "dataset": dataset,
            "steps": steps,
            "preset": preset,
            "name": name,
            "seed": seed,
            "start": start,
            "batch_size": batch_size,
            "save_every": save_every,
            "validate_every": validate_every,
            "promote": promote,
            "gate": rules,
            "settings": _settings(settings or []),
        }
    )


def _settings(changes: list[str]) -> dict[str, Any]:
    """Read `field=value` pairs whose values are JSON; a value that is none is a word."""
    import json

    from orchestrator.errors import UsageError

    found: dict[str, Any] = {}
    for change in changes:
        field, equals, value = change.partition("=")
        if not equals:
            raise UsageError(f"--set wants FIELD=VALUE, got {change!r}")
        try:
            found[field] = json.loads(value)
        except json.JSONDecodeError:
            found[field] = value
    return found


def _follow(s: Place, run_id: str, *, as_json: bool) -> None:
    """Show a run until it and its gate are done.

    Raises:
        FinishError: 2 where it failed or was refused, 130 where interrupted.
    """
    from orchestrator.models import training
    from orchestrator.status.watching import until

    seen, told = -1, ""

    def look() -> dict[str, Any]:
        nonlocal seen
        found = (
            training.watch(s.ledger, s.store, s.owner, run_id, after=seen)
            if isinstance(s, Services)
            else {**s.ask("GET", f"{RUNS}/{run_id}/records", params={"after": seen}), "samples": []}
        )
        seen = max([seen, *(record["step"] for record in found["records"])])
        return found

    def tell(found: dict[str, Any]) -> None:
        nonlocal told
        if as_json:
            print_lines(found["records"])
        elif (line := _line(found)) != told:
            say(line)
            told = line

    try:
        until(look, lambda found: found["state"] in ENDED, tell)
        found = _decided(s, run_id)
    except KeyboardInterrupt:
        say(f"\nThe run goes on. Come back with: fpga train watch {run_id}")
        raise FinishError(INTERRUPTED) from None
    if as_json:
        print_lines([found])
    else:
        _tell(found, as_json=False)
    if found["state"] != "completed" or not (found["gate"] or {}).get("passed"):
        raise FinishError(2)


def _shown(s: Place, run_id: str) -> dict[str, Any]:
    from orchestrator.models import training

    if isinstance(s, Services):
        return training.show(s.ledger, s.owner, run_id)
    found: dict[str, Any] = s.ask("GET", f"{RUNS}/{run_id}")
    return found


def _decided(s: Place, run_id: str) -> dict[str, Any]:
    """Return the run with the gate's decision, which is made here if the sweeper has not been there yet."""
    from orchestrator.models import retraining, training

    if not isinstance(s, Services):
        until = time.monotonic() + DECIDED_SECONDS
        while (found := _shown(s, run_id))["state"] == "completed" and not found["gate"] and time.monotonic() < until:
            time.sleep(0.5)
        return found
    found = training.show(s.ledger, s.owner, run_id)
    if found["state"] == "completed" and found["gate"] is None:
        retraining.conclude(s.ledger, found["batch_id"])
        found = training.show(s.ledger, s.owner, run_id)
    return found


def _line(found: dict[str, Any]) -> str:
    left = found["seconds_left"]
    parts = [
        f"{found['state']} {found['stage'] or 'waiting'}",
        found["reason"] or "",
        f"step {found['step']}/{found['steps']}",
        f"loss {found['loss']:.4f}" if found["loss"] is not None else "",
        f"rate {found['rate']:.2e}" if found["rate"] is not None else "",
        f"{found['samples_per_s']} samples/s" if found["samples_per_s"] is not None else "",
        f"{found['memory_gib']} GiB" if found["memory_gib"] is not None else "",
        f"{left:.0f} s left" if left is not None else "",
        f"picture {found['samples'][-1]['url']}" if found["samples"] else "",
    ]
    return " · ".join(part for part in parts if part)


def _tell(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    lists = ("attempts", "checkpoints", "evaluations", "gate", "plan", "error")
    print_facts({name: value for name, value in found.items() if name not in lists})
    if found["error"]:
        say(f"{found['error']['code']}: {found['error']['message']}")
    print_table(
        ["stage", "attempt", "worker", "outcome", "from", "to", "why"],
        [
            (
                a["stage"],
                a["attempt"],
                a["worker"],
                a["outcome"],
                moment(a["started_at"]),
                moment(a["ended_at"]),
                a["code"],
            )
            for a in found["attempts"]
        ],
    )
    if found["gate"]:
        say_decision(found["gate"])
