"""Makes docs/reliability.md of docs/reliability.jsonl: `python -m tests.chaos.table`.

`--tests` first runs the tests that rows name, all of them or those of some rows, and records how they ended.
"""

# ruff: noqa: E501  # the page's paragraphs are one line each
from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.chaos.records import Record, add, commit, records
from tests.chaos.rows import ROWS
from tests.chaos.scenarios import SCENARIOS
from tests.integration.workers.rig import ROOT

PAGE = ROOT / "docs" / "reliability.md"
HEAD = """# Reliability

What is done to the system while it works, and what was left afterwards. `make reliability` makes this page of the records in `reliability.jsonl`; `python -m tests.chaos --record NAME`, or `make torture` for everything at full size, adds to them. Each run prints its seed, and `--seed` replays its plan of faults. Afterwards every program is killed, the cleaner runs, and `tests/chaos/oracle.py` looks at ledger and store with queries of its own: every item ended, one output for each, its bytes there and right, every object referred to, no lease held, tokens rising, audit chain whole, batches ended as their items say.

Items are probes: real workers, ledger, store and broker, but the stage waits instead of computing and stores the item's mark with random bytes of the attempt, so that a result made twice would show. Leases last 3 s here and 60 s in production. **Recovery** is the time from a kill (or the end of a lease) until another attempt of the same item began; **fenced** counts late results that were refused. **Load** is the machine's load average on two cores when the run began: other work ran beside most of them, so times are upper bounds. A commit that is not in the history was rebased before it landed; kills count processes.
"""
RUNS = """
## Runs

| rows | scenario | on | seed | commit | items | faults | lost | doubled | orphaned | fenced | recovery p50 / p99 s | took s | load |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""
FAULTS = {
    "kills": "kills",
    "freezes": "freezes",
    "broker_losses": "broker losses",
    "database_faults": "database faults",
    "store_faults": "store requests",
}


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.table", description=__doc__)
    parser.add_argument("--tests", nargs="*", metavar="ROW", help="run the tests that rows name")
    asked = parser.parse_args().tests
    for row in ROWS:
        if asked is not None and row.tests and (not asked or row.id in asked):
            add(_tried(row.id, row.tests))
    PAGE.write_text(page(records()))
    return 0


def page(found: list[Record]) -> str:
    """Return the whole page."""
    runs = [record for record in found if "scenario" in record]
    newest = {(r["scenario"], r["pair"], r["items"]): r for r in runs}
    body = "".join(_run_line(record) for record in sorted(newest.values(), key=lambda r: (r["rows"], r["pair"])))
    notes = "".join(_notes(newest.values()))
    others = (
        "No record yet.\n"
        if not _newest(found, "sentence")
        else "".join(f"- {', '.join(r['rows'])}: {r['sentence']}\n" for r in _newest(found, "sentence"))
    )
    return "".join([HEAD, RUNS, body, notes, "\n## The simulation, the soak, fuzzing\n\n", others, _rows(found)])


def _run_line(r: Record) -> str:
    faults = ", ".join(f"{r[key]} {words}" for key, words in FAULTS.items() if r.get(key)) or "see below"
    recovery = "-" if r["recovery_p50"] is None else f"{r['recovery_p50']} / {r['recovery_p99']}"
    cells = [" ".join(r["rows"]), r["scenario"], r["pair"], r["seed"], r["commit"], r["items"], faults]
    cells += [r["lost"], r["doubled"], r["orphaned"], r["fenced"], recovery, r["seconds"], r["load"]]
    return f"| {' | '.join(str(cell) for cell in cells)} |\n"


def _notes(runs: Any) -> Iterator[str]:
    yield "\n"
    for r in runs:
        said = "; ".join(f"{name}: {value}" for name, value in r["notes"].items())
        if said or r["bad"]:
            broken = f" **Did not hold: {'; '.join(r['bad'][:3])}**" if r["bad"] else ""
            yield f"- {r['scenario']} on {r['pair']}, {r['items']} items: {said}{broken}\n"


def _newest(found: list[Record], key: str) -> list[Record]:
    return list({(tuple(r["rows"]), r.get("name")): r for r in found if key in r}.values())


def _rows(found: list[Record]) -> str:
    shown = {row_id for r in found if "tests" not in r for row_id in r["rows"]}
    tried = {r["rows"][0]: r for r in found if "tests" in r}
    lines = ["\n## Every row\n\n| row | hazard | shown by | not shown |\n| --- | --- | --- | --- |\n"]
    for row in ROWS:
        by = ["a record above"] if row.id in shown else []
        if row.tests:
            r = tried.get(row.id)
            names = ", ".join(f"`{test}`" for test in row.tests)
            by.append(f"{names}: {r['tests']} ({r['commit']}, {r['seconds']} s)" if r else f"{names}: no record")
        by += [f"scenario `{name}`: no record" for name in _waiting(row.id) if row.id not in shown]
        if not by:
            by = ["T01" if "T01" in row.note else "nothing"]
        lines.append(f"| {row.id} | {row.what} | {'; '.join(by)} | {row.note} |\n")
    return "".join(lines)


def _waiting(row_id: str) -> list[str]:
    return [name for name, scenario in SCENARIOS.items() if row_id in scenario.rows]


def _tried(row_id: str, tests: tuple[str, ...]) -> Record:
    """Run the quick ones of these tests, or all where all of them are slow."""
    for which in ("not slow", ""):
        began = time.monotonic()
        command = [sys.executable, "-m", "pytest", "-v", "-m", which, *tests]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if ran.returncode != pytest.ExitCode.NO_TESTS_COLLECTED:
            break
    last = ran.stdout.strip().splitlines()[-1].strip("= ").split(" in ")[0]
    sys.stdout.write(f"{row_id}: {last}\n")
    return {
        "rows": [row_id],
        "tests": last,
        "commit": commit(),
        "seconds": round(time.monotonic() - began, 1),
    }


if __name__ == "__main__":
    raise SystemExit(main())
