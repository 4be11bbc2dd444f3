"""`fpga audit`: whether the history of who did what is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.common import FinishError, JsonOption, print_json, say, services

app = typer.Typer(name="audit", help="The append-only log of who did what.", no_args_is_help=True)


@app.callback()
def audit() -> None:
    """The append-only log of who did what."""


@app.command()
def verify(
    receipt: Annotated[
        Path | None, typer.Option(help="Compare with the row that this receipt of an erase holds.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Read the whole chain; exit 1 and the first bad row where it was changed."""
    from orchestrator.cli.receipt import read_receipt
    from orchestrator.ledger import audit as log

    anchor = None
    if receipt is not None:
        kept = read_receipt(receipt)["audit"]
        anchor = (int(kept["id"]), str(kept["hash"]))
    with services() as s, s.ledger.read() as session:
        found = log.verify(session, anchor=anchor)
    if as_json:
        print_json({"object": "audit.check", "rows": found.rows, "head": found.head, "broken": found.broken})
    elif found.broken is None:
        say(f"{found.rows} rows, each follows from the one before it; the last has the hash {found.head}")
    else:
        say(f"row {found.broken} does not follow from the row before it: the history was changed")
    if found.broken is not None:
        raise FinishError(1)
