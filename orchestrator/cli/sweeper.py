"""`fpga sweeper` and `fpga migrate`: what a deployment runs beside its servers and workers; `fpga up` does both."""

from __future__ import annotations

import typer

from orchestrator.cli.common import say, services

app = typer.Typer(
    name="sweeper", help="Repairs lost leases, removes expired bytes, wakes workers.", no_args_is_help=True
)


@app.callback()
def sweeper() -> None:
    """Repairs lost leases, removes expired bytes, wakes workers."""


@app.command()
def run() -> None:
    """Sweep until SIGTERM or Ctrl-C; any number may run, one leads."""
    from orchestrator.runtime import sweeping

    with services():
        pass  # the database must be there and up to date
    sweeping.main()


def migrate() -> None:
    """Bring the database to the revision of this version; workers of the version before may go on beside it."""
    from orchestrator.ledger.engine import schema
    from orchestrator.runtime.running import open_state_dir
    from orchestrator.settings import get_settings

    settings = get_settings()
    if settings.database_url_ is None:
        open_state_dir(settings)
    say(schema.upgrade(settings.database_url) or "the database is at the revision of this version already")
