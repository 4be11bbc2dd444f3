"""`fpga sweeper`: the loop that repairs, delivers and rings; `fpga up` has its own."""

from __future__ import annotations

import typer

from orchestrator.cli.common import services

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
