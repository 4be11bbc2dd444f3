"""Runs the long fuzz tests and records how many inputs each reader was given: `python -m tests.fuzz`.

The record goes to docs/reliability.jsonl; `make reliability` makes the page of it.
"""

from __future__ import annotations

import re
import subprocess
import sys

from tests.chaos.runner import commit
from tests.chaos.table import add
from tests.integration.workers.rig import ROOT

TESTS = ("tests/fuzz", "tests/integration/archive/test_fuzz.py")
TRIED = re.compile(r"^\.?(?:test_)?(\w+): (\d+) inputs tried, 0 escapes", re.MULTILINE)


def main() -> int:
    """Run, sum up, record; the exit code is that of the tests."""
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-m", "slow", *TESTS]
    ran = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, errors="replace", check=False)
    counts: dict[str, int] = {}
    for name, tried in TRIED.findall(ran.stdout):
        counts[name] = counts.get(name, 0) + int(tried)
    told = ", ".join(f"{name.replace('_', ' ')} ({tried})" for name, tried in sorted(counts.items()))
    end = "0 escapes" if ran.returncode == 0 else "**escapes, see the tests**"
    sentence = f"{sum(counts.values())} damaged inputs, {end}: {told} ({commit()})"
    sys.stdout.write(f"{sentence}\n")
    add({"rows": ["T36", "T37", "T38"], "name": "fuzz", "sentence": sentence})
    return ran.returncode


if __name__ == "__main__":
    raise SystemExit(main())
