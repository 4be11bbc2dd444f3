"""Replays every attack of docs/security.md against this code and prints what each got.

    python -m tests.attacks              all of them, some minutes
    python -m tests.attacks bucket erase only those whose name holds a word

Each attack is a test that fails where it succeeds. Exit status 1 says that one did.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
API = "tests/unit/orchestrator/api"
ATTACKS: dict[str, tuple[str, ...]] = {
    "bucket: read and plant in another owner's": ("tests/integration/archive/test_reach_over_http.py",),
    "bucket: spell a prefix that was not granted": ("tests/unit/orchestrator/archive/test_reach.py",),
    "erase: look for a canary afterwards": ("tests/unit/orchestrator/people/test_canary.py",),
    "session: outlive, renew, pass for a key": (f"{API}/test_sessions.py",),
    "scope: read the library with a key that reads": (f"{API}/test_views_by_scope.py",),
    "scope: every route with every other scope": (f"{API}/test_every_route.py",),
    "owner: every operation with another owner's ids": (f"{API}/test_tenants.py",),
    "models: take and promote another owner's": (f"{API}/test_models_owners.py",),
    "key: lose data by a new master key": ("tests/unit/orchestrator/secrets/test_vault.py",),
    "rows: end a loop by a bad one": ("tests/unit/orchestrator/runtime/test_bad_rows.py",),
    "webhook: reach private addresses": ("tests/unit/orchestrator/runtime/test_webhooks.py",),
    "uploads: put refused bytes into a file": (f"{API}/test_uploads.py",),
    "files: read what another user wrote": ("tests/unit/orchestrator/results/test_results_folder.py",),
    "consent: fail others by a withdrawal": ("tests/unit/workers/test_people_of_a_photo.py",),
    "audit: change what happened": ("tests/integration/ledger/test_audit.py",),
    "clients: stop the rest": ("tests/hostile",),
}


def replay(tests: tuple[str, ...]) -> tuple[bool, list[str]]:
    """Run the tests of one attack; return whether all held, and what they said of it."""
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", *tests]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = [line.lstrip(".sF") for line in ran.stdout.splitlines()]
    return ran.returncode == 0, [line for line in lines if " p95 " in line or line.startswith(("FAILED", "ERROR"))]


def main(words: list[str]) -> int:
    """Replay the attacks whose name holds one of the words, or all; return the exit status."""
    chosen = {name: tests for name, tests in ATTACKS.items() if not words or any(word in name for word in words)}
    held = True
    for name, tests in chosen.items():
        began = time.monotonic()
        good, said = replay(tests)
        held &= good
        seconds = time.monotonic() - began
        sys.stdout.write(f"{'refused' if good else 'GOT THROUGH':12} {name} ({seconds:.0f} s)\n")
        sys.stdout.writelines(f"{'':12} {line}\n" for line in said)
        sys.stdout.flush()
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
