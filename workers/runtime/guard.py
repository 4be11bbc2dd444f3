"""Runs a module of ours on bytes of strangers, in a child process with bounded memory and time.

The child sees no environment and so no credentials; a crash or an endless loop of it is an answer like any other.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

from orchestrator.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


def run_guarded(module: str, arguments: list[str], given: bytes, *, wall_seconds: float) -> bytes:
    """Return what the module writes to its standard output.

    Raises:
        InputError: `image_undecodable`, where the child died or ran out of time.
    """
    command = [sys.executable, "-m", module, *arguments]
    environment = {
        "PYTHONPATH": str(ROOT),
        "PATH": os.defpath,
        "LC_ALL": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "VIPS_CONCURRENCY": "1",
    }
    try:
        child = subprocess.run(
            command, input=given, capture_output=True, timeout=wall_seconds, env=environment, cwd="/", check=False
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(f"the picture took over {wall_seconds:g} s to decode", code="image_undecodable") from error
    if child.returncode != 0 or not child.stdout:
        raise InputError(f"decoding ended with status {child.returncode}", code="image_undecodable")
    return child.stdout


def bound_this_process(*, memory: int, cpu_seconds: int) -> None:
    """Bound address space (bytes) and processor time of this process, and let it leave no core file."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
