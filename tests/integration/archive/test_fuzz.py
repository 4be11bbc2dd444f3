"""Mutated archives and photos give results or typed errors, never anything else, and never without end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("which", ["reader", "photos"])
@pytest.mark.parametrize(
    ("count", "first"), [(150, 1), pytest.param(4000, 1000, marks=[pytest.mark.slow, pytest.mark.timeout(1500)])]
)
def test_nothing_escapes_and_nothing_hangs(which: str, count: int, first: int) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.integration.archive.fuzz", which, str(count), str(first)],
        capture_output=True,
        text=True,
        errors="replace",
        cwd=ROOT,
        check=False,
    )

    assert ran.returncode == 0, f"input {ran.stdout.splitlines()[-1:]}: {ran.stderr[-2000:]}"
    assert ran.stdout.splitlines()[-1].startswith("done")
    sys.stdout.write(f"test_a_damaged_{'archive' if which == 'reader' else 'photo'}: {count} inputs tried, 0 escapes\n")
