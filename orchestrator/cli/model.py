"""`fpga model`: which weights exist, where they come from, and which of them new batches use."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.common import (
    JsonOption,
    Services,
    moment,
    place,
    print_facts,
    print_json,
    print_table,
    say,
    services,
)

app = typer.Typer(name="model", help="Model versions and their aliases.", no_args_is_help=True)
Wanted = Annotated[str, typer.Argument(help="Id of a version, or preset@alias such as mini@champion.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the alias's history.")]
Alias = Annotated[str, typer.Option(help="Which alias to move.")]
LONG = ("thresholds", "files", "history", "made", "object", "evaluations", "decisions")


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """List the versions, newest first; weights installed here are registered first."""
    from orchestrator.models import registry

    with place() as s:
        if isinstance(s, Services):
            _register_installed(s)
            versions = registry.list_versions(s.ledger)
        else:
            versions = list(s.rows("/v1/models"))
    if as_json:
        print_json(versions)
        return
    print_table(
        ["id", "preset", "version", "aliases", "licence", "tensors", "tainted", "created"],
        [
            (
                v["id"],
                v["preset"],
                v["number"],
                ", ".join(v["aliases"]),
                v["licence"],
                v["tensor_sha256"][:12],
                "tainted" if v["tainted_at"] else "",
                moment(v["created_at"]),
            )
            for v in versions
        ],
    )


@app.command()
def pull(
    preset: Annotated[str, typer.Argument(help="sd15 or sdxl.")],
    yes: Annotated[bool, typer.Option("--yes", help="The licences that are shown are accepted.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch a published preset, check it and register it; a cut download goes on where it was."""
    from orchestrator.models import pull as pulling
    from orchestrator.models import registry
    from orchestrator.settings import get_settings

    folder = get_settings().catalog_dir
    catalog = pulling.read_catalog(preset, folder)
    say(f"{preset}: {catalog.title}")
    _ask([f"{source.component}: {source.licence} ({source.licence_url})" for source in catalog.sources], yes)
    with services() as s:
        with _bars() as report:
            made = pulling.pull(preset, s.settings.models_dir, report, folder=folder)
        version = registry.show_version(s.ledger, registry.ensure_registered(s.ledger, s.settings, preset))
    if as_json:
        print_json(version)
        return
    unpinned = sum(not file["pinned"] for source in made["sources"] for file in source["files"])
    say(f"{preset} is version {version['number']} ({version['id']})")
    if unpinned:
        say(f"{unpinned} files had no sha256 in the catalog; what they are now is recorded in weights.json")


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Of the new preset.")],
    source: Annotated[
        str,
        typer.Argument(
            help="A diffusers folder, a .safetensors file, or owner/name on a hub, with /FILE behind it for one file."
        ),
    ],
    like: Annotated[
        str | None, typer.Option(help="Installed preset that lends adapter, control and faces; sdxl or sd15 by class.")
    ] = None,
    lora: Annotated[list[str] | None, typer.Option(help="A LoRA, FILE or FILE=0.8; may be repeated.")] = None,
    licence: Annotated[str | None, typer.Option(help="Of what no hub states one for.")] = None,
    commercial: Annotated[bool, typer.Option("--commercial", help="Its licence allows commercial use.")] = False,
    revision: Annotated[str, typer.Option(help="Branch, tag or commit on the hub.")] = "main",
    sampler: Annotated[str | None, typer.Option(help="ddim, euler, dpm++2m or lcm.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps where a request says none.")] = None,
    guidance: Annotated[float | None, typer.Option(min=1.0, help="Guidance where a request says none.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="The licences that are shown are accepted.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a preset of a base of your own; what does not fit is refused by name before it is copied or fetched."""
    from orchestrator.models import adding, registry

    asked = adding.Asked(
        name=name, source=source, revision=revision, like=like, licence=licence, commercial=commercial,
        sampler=sampler, steps=steps, guidance=guidance, loras=tuple(adding.read_lora(text) for text in lora or ()),
    )  # fmt: skip
    with services() as s:
        plan = adding.look(asked, s.settings.models_dir)
        _ask([f"{part.said}: {part.licence}" for part in plan.parts], yes)
        with _bars() as report:
            adding.add(plan, s.settings.models_dir, report)
        version = registry.show_version(s.ledger, registry.ensure_registered(s.ledger, s.settings, name))
    if as_json:
        print_json(version)
    else:
        say(f"{name} is version {version['number']} ({version['id']}), otherwise as {plan.like.name}")


def _ask(licences: list[str], yes: bool) -> None:
    """Show licences and have them accepted."""
    from orchestrator.errors import UsageError

    for line in licences:
        say(f"  {line}")
    if not (yes or (sys.stdin.isatty() and typer.confirm("Take it under these licences?", err=True))):
        raise UsageError("the licences were not accepted: --yes accepts them", code="licence_not_accepted")


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None]]:
    """One bar per file on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bars: dict[str, Any] = {}

        def report(name: str, done: int, total: int) -> None:
            if name not in bars:
                bars[name] = progress.add_task(name)
            progress.update(bars[name], completed=done, total=total or None)

        yield report


@app.command()
def show(wanted: Wanted, as_json: JsonOption = False) -> None:
    """Show a version with its files, the gate's decisions and the history of its aliases."""
    from orchestrator.models import registry

    with place() as s:
        version = (
            registry.show_version(s.ledger, wanted) if isinstance(s, Services) else s.ask("GET", f"/v1/models/{wanted}")
        )
    if as_json:
        print_json(version)
        return
    print_facts({name: value for name, value in version.items() if name not in LONG})
    print_facts(dict(version["made"] or {}))
    print_facts({f"threshold {name}": value for name, value in (version["thresholds"] or {}).items()})
    print_table(
        ["file", "bytes", "sha256"],
        [(path, entry["bytes"], entry["sha256"][:16]) for path, entry in (version["files"] or {}).items()],
    )
    for decision in version["decisions"]:
        say_decision(decision)
    _say_moves(version["history"])


@app.command()
def calibrate(
    people: Annotated[Path, typer.Argument(help="A folder that holds one folder a person, with their pictures.")],
    model: Annotated[str, typer.Option(help="Id of a version, or preset@alias.")] = "",
    origin: Annotated[str | None, typer.Option(help="What the pictures are; kept with the thresholds.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure on your own pictures at which likeness faces are paired, accepted and shown to you."""
    from orchestrator.models import calibration

    with services() as s:
        _register_installed(s)
        wanted = model or f"{s.settings.preset}@champion"
        found = calibration.calibrate(s.ledger, s.settings, wanted, people, origin=origin)
    if as_json:
        print_json(found)
    else:
        print_facts(found)


@app.command()
def diff(
    left: Wanted,
    right: Annotated[str, typer.Argument(help="The other version.")],
    as_json: JsonOption = False,
) -> None:
    """Show in what two versions differ: facts, configuration, tensors."""
    from orchestrator.models import lineage as origins

    with services() as s:
        found = origins.diff(s.ledger, left, right)
    if as_json:
        print_json(found)
        return
    rows = [(kind, name, *pair) for kind in ("facts", "config", "files") for name, pair in found[kind].items()]
    print_table(["", "what", found["left"], found["right"]], rows)


@app.command()
def lineage(wanted: Wanted, as_json: JsonOption = False) -> None:
    """Show how a version came to be: data set, code, command and configuration, then its parent's, and so on."""
    from orchestrator.models import lineage as origins

    with services() as s:
        _register_installed(s)
        found = origins.lineage(s.ledger, wanted)
    if as_json:
        print_json(found)
        return
    for entry in found:
        config = origins.flatten(entry.pop("config") or {})
        dataset = entry.pop("dataset")
        print_facts({**entry, "dataset": dataset and dataset.get("id"), "source": dataset and dataset.get("source")})
        print_facts({f"  {name}": value for name, value in config.items()})


@app.command()
def history(
    preset: Annotated[str, typer.Argument(help="Which preset.")] = "mini",
    alias: Alias = "champion",
    as_json: JsonOption = False,
) -> None:
    """Show every move of an alias, oldest first."""
    from orchestrator.models import registry

    with services() as s:
        moves = registry.alias_history(s.ledger, preset, alias)
    if as_json:
        print_json(moves)
    else:
        _say_moves(moves)


@app.command()
def promote(
    wanted: Wanted,
    reason: Reason,
    alias: Alias = "champion",
    override: Annotated[bool, typer.Option("--override", help="Although the gate refused it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make an alias mean this version; new and open batches of the preset go on with the champion."""
    from orchestrator.models import registry

    with place() as s:
        if isinstance(s, Services):
            version = registry.promote(s.ledger, s.settings, wanted, alias=alias, reason=reason, override=override)
        else:
            asked = {"alias": alias, "reason": reason, "override": override}
            version = s.ask("POST", f"/v1/models/{wanted}/promote", json=asked)
    _say_now(version, alias, as_json=as_json)


@app.command()
def rollback(
    reason: Reason,
    preset: Annotated[str, typer.Option(help="Which preset.")] = "mini",
    alias: Alias = "champion",
    as_json: JsonOption = False,
) -> None:
    """Make an alias mean again what it meant before; a second rollback goes one further back."""
    from orchestrator.models import registry

    with place() as s:
        if isinstance(s, Services):
            version = registry.rollback(s.ledger, s.settings, preset, alias=alias, reason=reason)
        else:
            version = s.ask("POST", f"/v1/models/{preset}/rollback", json={"alias": alias, "reason": reason})
    _say_now(version, alias, as_json=as_json)


@app.command("taint-report")
def taint_report(as_json: JsonOption = False) -> None:
    """Show which data sets and versions hold a person who withdrew, and what must be retrained; live ones first."""
    from orchestrator.models import lineage as origins

    with services() as s:
        found = origins.taint_report(s.ledger)
    if as_json:
        print_json(found)
        return
    if not found["datasets"] and not found["models"]:
        say("nothing is tainted")
        return
    print_table(
        ["data set version", "preset", "tainted"], [(d["id"], d["preset"], d["tainted_at"]) for d in found["datasets"]]
    )
    print_table(
        ["retrain", "live as", "data set", "start from"],
        [
            (r["model_version_id"], ", ".join(r["live_as"]), r["dataset_id"], r["start_from"] or "nothing")
            for r in found["retrain"]
        ],
    )


def _register_installed(s: Services) -> None:
    from orchestrator.datasets import shipped
    from orchestrator.planning.presets import preset_names

    for name in preset_names(s.settings.models_dir):
        shipped.register(s.ledger, s.settings, name)


def say_decision(decision: dict[str, Any]) -> None:
    """Tell what the gate decided and why."""
    if decision["passed"]:
        say(f"{moment(decision['decided_at'])} the gate let it pass; {decision['alias']} moved")
        return
    say(f"{moment(decision['decided_at'])} the gate refused it:")
    for reason in decision["reasons"]:
        say(f"  {reason}")


def _say_now(version: dict[str, Any], alias: str, *, as_json: bool) -> None:
    if as_json:
        print_json(version)
    else:
        say(f"{version['preset']}@{alias} is now version {version['number']} ({version['id']})")


def _say_moves(moves: list[dict[str, Any]]) -> None:
    for step in moves:
        back = "rolled back, " if step["rollback"] else ""
        say(
            f"{moment(step['moved_at'])} {step['alias']}: {step['from'] or 'none'} -> {step['to']} "
            f"({back}{step['reason']}; {step['actor']})"
        )
