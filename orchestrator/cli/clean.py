"""`fpga clean`: lets go of what was kept as long as the settings say; the sweeper does the same every hour."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.common import JsonOption, YesOption, confirm, print_json, print_table, services


def clean(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and change nothing.")] = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Erase people nobody uses and remove old outputs and originals, after FPGA_KEEP_..._DAYS. Cannot be undone."""
    from orchestrator.people.retention import clean as let_go

    with services() as s:
        found = let_go(s.ledger, s.store, s.settings, dry_run=True)
        if not dry_run and any(one.count for one in found):
            said = ", ".join(f"{one.count} {one.name}" for one in found if one.count)
            confirm(f"Let go of {said}?", yes=yes)
            found = let_go(s.ledger, s.store, s.settings)
    if as_json:
        print_json({"object": "clean", "dry_run": dry_run, "classes": [one.as_json() for one in found]})
        return
    rows = [(one.name, one.days or "for ever", one.count, f"{one.size / 2**20:.1f} MiB") for one in found]
    print_table(["class", "days kept", "due", "size"], rows)
