"""Keeps child processes running: starts, restarts after 1, 2, 4 ... 30 s, gives up on what dies all the time, stops.

Knows commands and exit codes, not what the children are for.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.embedded import guard

log = logging.getLogger(__name__)
LONGEST_PAUSE_SECONDS = 30.0
CRASHES, CRASH_WINDOW_SECONDS = 5, 60.0
"""So many ends within so long, and the child is given up."""
KEPT_LOG_BYTES = 10_000_000


@dataclass(frozen=True, kw_only=True)
class Program:
    """What is to be kept running; without an `essential` one the whole stack has no purpose."""

    name: str
    command: list[str]
    env: dict[str, str]
    essential: bool = False


@dataclass(kw_only=True)
class _Child:
    program: Program
    log: Path
    process: subprocess.Popen[bytes] | None = None
    due: float = 0.0
    ends: deque[float] = field(default_factory=lambda: deque(maxlen=CRASHES))
    given_up: bool = False


class Supervisor:
    """The children of this process; none of them outlives it."""

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self._children: dict[str, _Child] = {}
        self._lock = threading.RLock()
        self._pipe, self._kept = os.pipe()  # nobody ever writes: its end is the message

    def add(self, program: Program) -> None:
        """Start a program now and keep it running."""
        self._log_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._lock:
            child = _Child(program=program, log=self._log_dir / f"{program.name}.log")
            self._children[program.name] = child
            self._start(child)

    def check(self) -> list[str]:
        """Restart what ended and is due; return a plain sentence for every essential child that is given up."""
        moment = time.monotonic()
        with self._lock:
            for child in self._children.values():
                if child.process is not None and child.process.poll() is not None:
                    self._note_end(child, child.process.returncode, moment)
                if child.process is None and not child.given_up and moment >= child.due:
                    self._start(child)
            lost = [child for child in self._children.values() if child.given_up and child.program.essential]
        return [_lost(child) for child in lost]

    def given_up(self) -> dict[str, str]:
        """Return a plain sentence for every child that is given up."""
        with self._lock:
            return {name: _lost(child) for name, child in self._children.items() if child.given_up}

    def pids(self) -> dict[str, int]:
        """Return the process id of every running child's guard."""
        with self._lock:
            return {name: child.process.pid for name, child in self._children.items() if child.process is not None}

    def stop(self, grace: dict[str, float]) -> bool:
        """End the named children, all at the same time, each within its seconds of grace (0 kills it at once).

        Returns whether all of them ended by themselves in time.
        """
        with self._lock:
            leaving = {name: self._children.pop(name) for name in grace if name in self._children}
        orderly = True
        for name, child in leaving.items():
            _signal(child, signal.SIGTERM if grace[name] else signal.SIGQUIT)
        began = time.monotonic()
        for name, child in sorted(leaving.items(), key=lambda pair: grace[pair[0]]):
            if child.process is None:
                continue
            try:
                child.process.wait(max(0.0, began + grace[name] - time.monotonic()))
            except subprocess.TimeoutExpired:
                orderly = orderly and not grace[name]
                _end(child.process)
        return orderly

    def kill(self) -> None:
        """End all children at once."""
        with self._lock:
            self.stop(dict.fromkeys(self._children, 0.0))

    def close(self) -> None:
        """End all children, and with them the use of this supervisor."""
        self.kill()
        os.close(self._kept)
        os.close(self._pipe)

    def _start(self, child: _Child) -> None:
        if child.log.exists() and child.log.stat().st_size > KEPT_LOG_BYTES:
            child.log.replace(child.log.with_suffix(".log.1"))
        with os.fdopen(os.open(child.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
            child.process = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, str(self._pipe), *child.program.command],
                env=child.program.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(self._pipe,),
                start_new_session=True,  # the terminal's Ctrl-C must not reach it
            )
        log.info("child started", extra={"child": child.program.name, "pid": child.process.pid})

    def _note_end(self, child: _Child, code: int, moment: float) -> None:
        child.process = None
        child.ends.append(moment)
        recent = [end for end in child.ends if end > moment - CRASH_WINDOW_SECONDS]
        child.given_up = len(recent) >= CRASHES
        pause = min(LONGEST_PAUSE_SECONDS, 2.0 ** (len(recent) - 1))
        child.due = moment + pause
        log.warning(
            "child given up" if child.given_up else "child ended",
            extra={"child": child.program.name, "code": code, "pause": pause, "log": str(child.log)},
        )


def _signal(child: _Child, number: signal.Signals) -> None:
    if child.process is not None:
        with contextlib.suppress(ProcessLookupError):
            child.process.send_signal(number)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a guard with all below it; asked again, since one that is only starting may yet ignore the signal.

    A shell starts its background jobs with SIGQUIT ignored, and that is inherited until the guard sets its own handler.
    """
    while True:
        process.send_signal(signal.SIGQUIT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.5)
            return


def _lost(child: _Child) -> str:
    return (
        f"{child.program.name} ended {CRASHES} times within {CRASH_WINDOW_SECONDS:.0f} s; its log {child.log} "
        f"ends with: {_last_line(child.log)}"
    )


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
