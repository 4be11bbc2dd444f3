"""Which code this process runs: the commit of a checkout, else the version of the installed package."""

from __future__ import annotations

import subprocess
from functools import lru_cache
from importlib import metadata

from orchestrator.settings import PACKAGE_ROOT

PACKAGE = "fpga-portraits"


@lru_cache(maxsize=1)
def code_version() -> str:
    """Return `0.1.0` or `0.1.0+g<commit>`, with `.dirty` where files were changed since that commit."""
    version = metadata.version(PACKAGE)
    if not (PACKAGE_ROOT / ".git").exists():
        return version
    command = ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=.dirty"]
    try:
        found = subprocess.run(command, cwd=PACKAGE_ROOT, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return version
    return f"{version}+g{found.stdout.strip()}" if found.returncode == 0 else version
