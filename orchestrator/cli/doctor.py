"""`fpga doctor`: how the deployment is, and what to do where it is not well."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.common import FinishError, JsonOption, print_json

MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}
COLOURS = {"ok": typer.colors.GREEN, "warn": typer.colors.YELLOW, "fail": typer.colors.RED}


def doctor(
    repairing: Annotated[
        bool, typer.Option("--repair", help="First do at once what a sweeper does: lost leases, open ends, old bytes.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check everything a deployment stands on; exit 1 when a check fails."""
    from orchestrator.runtime.repair import repair
    from orchestrator.settings import get_settings
    from orchestrator.status.doctor import examine

    done = repair(get_settings()) if repairing else []
    checks = examine(get_settings())
    if as_json:
        print_json([check.as_json() for check in checks])
    else:
        for sentence in done:
            typer.echo(f"done  {sentence}")
        for check in checks:
            mark = typer.style(MARKS[check.status], fg=COLOURS[check.status])
            typer.echo(f"{mark}  {check.name}: {check.sentence}")
            if check.fix:
                typer.echo(f"      {check.fix}")
    if any(check.status == "fail" for check in checks):
        raise FinishError(1)
