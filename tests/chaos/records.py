"""What was measured, one JSON object a line in docs/reliability.jsonl; `python -m tests.chaos.table` makes the page."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from tests.integration.workers.rig import ROOT

RECORDS = ROOT / "docs" / "reliability.jsonl"
Record = dict[str, Any]


def add(record: Record) -> None:
    """Append a record."""
    with RECORDS.open("a") as file:
        file.write(f"{json.dumps(record)}\n")


def records() -> list[Record]:
    """Return all records, oldest first."""
    return [json.loads(line) for line in RECORDS.read_text().splitlines()] if RECORDS.exists() else []


def commit() -> str:
    """Return the short id of the commit that runs."""
    asked = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or "unknown"
