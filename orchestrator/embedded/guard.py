"""Runs one command and lets nothing of it live longer than the process that asked for it.

`python guard.py FD COMMAND...`, where FD is the reading end of a pipe whose other end the parent alone holds: when the
parent is gone, however it went, the pipe closes and every descendant is killed. SIGTERM is passed on to the command,
SIGQUIT kills it with all its descendants at once. Standard library only, because one of these runs beside each child.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType

PR_SET_CHILD_SUBREAPER = 36
LOOK_SECONDS = 0.05
"""A signal that arrives just before a blocking wait would be handled only after it, so there is none."""


def main() -> None:
    """Run the command and end with its code."""
    pipe, command = int(sys.argv[1]), sys.argv[2:]
    # orphaned grandchildren become ours, so that they can be found and killed whatever session they moved to
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to hear
    signal.signal(signal.SIGQUIT, lambda _number, _frame: _end(1))
    child = subprocess.Popen(command, start_new_session=True)

    def pass_on(_number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGTERM)

    signal.signal(signal.SIGTERM, pass_on)
    threading.Thread(target=_watch, args=(pipe,), daemon=True).start()
    _end(_wait_for(child.pid))


def _watch(pipe: int) -> None:
    while os.read(pipe, 1):
        pass
    _end(1)


def _wait_for(pid: int) -> int:
    """Reap whatever ends until the command itself does; return its code, 128 + signal if it was killed."""
    while True:
        try:
            ended, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            threading.Event().wait()  # another thread is ending everything, this process included
        if not ended:
            time.sleep(LOOK_SECONDS)
        elif ended == pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _end(code: int) -> None:
    """Kill what is left below us, generation by generation, and leave when there is nothing to wait for any more.

    Only that is proof: a dying process may look like a zombie while a thread of it still has the children.
    """
    while True:
        for pid in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            os._exit(code)
        time.sleep(0.01)


def _children() -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.append(int(stat.parent.name))
    return found


if __name__ == "__main__":
    main()
