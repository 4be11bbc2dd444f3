"""`fpga model`: which weights exist, where they come from, and which of them new batches use."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.common import JsonOption, moment, print_facts, print_json, print_table, say, services

app = typer.Typer(name="model", help="Model versions and their aliases.", no_args_is_help=True)
Wanted = Annotated[str, typer.Argument(help="Id of a version, or preset@alias such as mini@champion.")]


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """List the versions, newest first; weights installed here are registered first."""
    from orchestrator import registry
    from orchestrator.planning.presets import preset_names

    with services() as s:
        for name in preset_names(s.settings.models_dir):
            registry.ensure_registered(s.ledger, s.settings, name)
        versions = registry.list_versions(s.ledger)
    if as_json:
        print_json(versions)
        return
    print_table(
        ["id", "preset", "version", "aliases", "licence", "tensors", "created"],
        [
            (
                v["id"],
                v["preset"],
                v["number"],
                ", ".join(v["aliases"]),
                v["licence"],
                v["tensor_sha256"][:12],
                moment(v["created_at"]),
            )
            for v in versions
        ],
    )


@app.command()
def show(wanted: Wanted, as_json: JsonOption = False) -> None:
    """Show a version with its files and the history of its aliases."""
    from orchestrator import registry

    with services() as s:
        version = registry.show_version(s.ledger, wanted)
    if as_json:
        print_json(version)
        return
    print_facts({name: value for name, value in version.items() if name not in ("files", "history", "made", "object")})
    print_facts(dict(version["made"] or {}))
    print_table(
        ["file", "bytes", "sha256"],
        [(path, entry["bytes"], entry["sha256"][:16]) for path, entry in (version["files"] or {}).items()],
    )
    for move in version["history"]:
        say(f"{moment(move['moved_at'])} {move['alias']}: {move['from'] or 'none'} -> {move['to']} ({move['reason']})")


@app.command()
def promote(
    wanted: Wanted,
    reason: Annotated[str, typer.Option(help="Why; kept in the alias's history.")],
    alias: Annotated[str, typer.Option(help="Which alias to move.")] = "champion",
    as_json: JsonOption = False,
) -> None:
    """Make an alias mean this version; new batches of the preset use the champion."""
    from orchestrator import registry

    with services() as s:
        version = registry.promote(s.ledger, s.settings, wanted, alias=alias, reason=reason)
    if as_json:
        print_json(version)
    else:
        say(f"{version['preset']}@{alias} is now version {version['number']} ({version['id']})")
