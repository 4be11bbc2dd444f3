"""Peaks of resident memory: of a command with every process it started and waited for, and of this process.

Linux counts the memory of the process that forked into `ru_maxrss` of a child, up to its exec: under pytest, which may
hold gibibytes, the figure says nothing about the child. So the command is started by a small process of its own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

SMALL_PARENT = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
with open(sys.argv[1], "w") as out:
    out.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024))
sys.exit(code)
"""


def run_measured(
    command: Sequence[str], *, seconds: float, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> tuple[subprocess.CompletedProcess[str], int]:
    """Run a command to its end and return what it said, and its peak of resident memory in bytes.

    Raises:
        subprocess.TimeoutExpired: it took longer than `seconds`; nothing of it is left.
    """
    with tempfile.NamedTemporaryFile() as peak:
        parent = [sys.executable, "-I", "-S", "-c", SMALL_PARENT, peak.name, *command]
        process = subprocess.Popen(
            parent,
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            said, complained = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
        done = subprocess.CompletedProcess(list(command), process.returncode, said, complained)
        return done, int(Path(peak.name).read_text())


def forget_peak() -> None:
    """Let the peak of this process begin anew at what it holds now."""
    Path("/proc/self/clear_refs").write_text("5")


def own_peak() -> int:
    """The most memory that this process has held since `forget_peak`, in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])
