"""Which code this process runs: the commit of a checkout, else the version of the installed package."""

from __future__ import annotations

import subprocess
from functools import lru_cache

from orchestrator.settings import PACKAGE_ROOT
from orchestrator.version import VERSION


@lru_cache(maxsize=1)
def code_version() -> str:
    """Return `0.1.0` or `0.1.0+g<commit>`, with `.dirty` where files were changed since that commit."""
    if not (PACKAGE_ROOT / ".git").exists():
        return VERSION
    command = ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=.dirty"]
    try:
        found = subprocess.run(command, cwd=PACKAGE_ROOT, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return VERSION
    return f"{VERSION}+g{found.stdout.strip()}" if found.returncode == 0 else VERSION
