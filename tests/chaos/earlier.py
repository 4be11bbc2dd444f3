"""The code as it was before the newest migration, taken from this repository's history."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.integration.workers.rig import ROOT

SUBMIT = """
import sys
from benchmarks import probes
from orchestrator.ledger.engine.session import Ledger
from orchestrator.settings import load_settings
settings = load_settings()
items, milliseconds = map(int, sys.argv[1:])
print(probes.submit(Ledger(settings.database_url), settings, items=items, milliseconds=milliseconds))
"""


class HistoryMissingError(Exception):
    """There is no earlier code here: no clone, or a shallow one."""


def unpack(folder: Path) -> str:
    """Unpack the parent of the commit that brought the newest migration, and return that parent's short id.

    Raises:
        HistoryMissingError: the history does not reach back so far.
    """
    newest = max((ROOT / "migrations" / "versions").glob("*.py"))
    brought = _git("log", "--diff-filter=A", "--format=%H", "-1", "--", str(newest)).decode().strip()
    with tarfile.open(fileobj=io.BytesIO(_git("archive", "--format=tar", f"{brought}^"))) as archive:
        archive.extractall(folder)  # our own history: `filter` came with Python 3.11.4
    return _git("rev-parse", "--short", f"{brought}^").decode().strip()


def submit(folder: Path, environment: dict[str, str], *, items: int, milliseconds: float) -> str:
    """Submit probes by the code that lies in `folder`, and return the batch's id."""
    done = subprocess.run(
        [sys.executable, "-c", SUBMIT, str(items), f"{milliseconds:.0f}"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _git(*arguments: str) -> bytes:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)
    if done.returncode or not done.stdout:
        raise HistoryMissingError(
            f"git {arguments[0]} knows nothing of earlier code here: {done.stderr.decode().strip()}"
        )
    return done.stdout
